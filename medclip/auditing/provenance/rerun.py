"""An audit once more from its `audit.json`: the same files by their hashes, the same options, the same date."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from medclip.auditing.provenance.inputs import change_paths, describe_inputs
from medclip.auditing.provenance.origin import HIDDEN
from medclip.auditing.result import read_result
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.output import read_note
from medclip.files.stores import is_url
from medclip.runs.outputs.fetched_results import fetched_results

NOTE, PLACES = "run.json", "places"
"""The note of an audit's folder, and where in it the relative paths of the inputs stand."""
_EARLIER = {"permutations": "num_permutations", "stress_images": "num_stress_images"}
"""What options were called by earlier versions."""


def is_audit(scores: Any) -> bool:
    """Return whether what was named as scores is the `audit.json` of an audit."""
    path = Path(scores) if isinstance(scores, str | Path) else None
    if path is None or path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as f:
        return f.read(200).lstrip().startswith(b"{")


def read_rerun(path: Path, changes: Collection[str] = (), *, changed_inputs: bool = False) -> dict[str, Any]:
    """Read what an audit was asked, and find its inputs again.

    They are looked for where the folder's note says, in a store where that names a URL, else by their names in the
    folder, in the one above it and in the current one.

    Args:
        path: An `audit.json`.
        changes: Options that override those of the audit: with any it is another audit, of today.
        changed_inputs: Whether inputs may have changed.

    Returns:
        Options by name.

    Raises:
        MedclipError: What `read_result` raises; WRONG_USE for an audit that no recipe describes; MISSING_FILE for an
            input that is not found; CHANGED, with both hashes, for one that has changed.
    """
    provenance = read_result(path).provenance
    asked = provenance.get("recipe")
    if not isinstance(asked, dict) or HIDDEN in json.dumps(asked):
        raise MedclipError(
            Reason.WRONG_USE,
            "this audit was not made of files and written options alone, so that it cannot be run again from here.",
            where=path,
            hint="Run again what made it.",
        )
    written: dict[str, Any] = {_EARLIER.get(str(name), str(name)): value for name, value in asked.items()}
    note = read_note(path.parent / NOTE) or {}
    inputs: dict[str, list[Mapping[str, Any]]] = {}
    for row in provenance.get("inputs", ()):
        inputs.setdefault(str(row["for"]), []).append(row)
    changed: list[str] = []

    def place(key: str, name: str) -> str:
        if key not in inputs or key.partition(":")[0] in changes:
            return name
        path_now, differs = _find(key, name, inputs[key], path.parent, note.get(PLACES, {}).get(key))
        if differs and not changed_inputs:
            raise MedclipError(
                Reason.CHANGED,
                f"this input has changed since the audit: SHA-256 then {differs[0]}, now {differs[1]}.",
                where=path_now,
                hint="Audit it anew, or say that it may differ: --changed-inputs.",
            )
        changed.extend([name] * bool(differs))
        return str(path_now)

    values = change_paths(written, place)
    if values.get("images") is not None and is_embeddings(values["images"]):  # as earlier versions named them
        values["embeddings"] = values.pop("images")
    of_then = {"audited_on": provenance.get("date"), "declared": provenance.get("declared")}
    same = not changed and not changes
    return values | {name: value for name, value in of_then.items() if value and (same or name == "declared")}


def _find(
    key: str, name: str, rows: list[Mapping[str, Any]], folder: Path, place: str | None
) -> tuple[Path | str, tuple[str, str] | None]:
    """Return where an input is, a path or a URL, and its two hashes where none of the places holds what was audited."""
    if is_url(place):
        with fetched_results() as fetched:
            return str(place), _difference(key, fetched.results(place), rows)
    candidates = [p for p in _places(name, folder, place) if p.exists()]
    if not candidates:
        raise MedclipError(
            Reason.MISSING_FILE,
            f"the input {name!r} of this audit is not beside it any more.",
            where=folder,
            hint="Run the command in the folder that holds it.",
        )
    differs: tuple[str, str] | None = None
    for path in candidates:
        now = _difference(key, path, rows)
        if now is None:
            return path, None
        differs = differs or now
    return candidates[0], differs


def _difference(key: str, path: Path, rows: list[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return the hashes, then and now, of the first file behind a key that has changed; None where none has."""
    now = [row["sha256"] for row in describe_inputs({key: path})]
    then = [row["sha256"] for row in rows]
    if now == then:
        return None
    pairs = [pair for pair in zip(then, now, strict=False) if pair[0] != pair[1]] or [(then[0], "none")]
    return str(pairs[0][0]), str(pairs[0][1])


def _places(name: str, folder: Path, place: str | None) -> Iterator[Path]:
    if place is not None:
        yield folder / place
    for where in (folder, folder.absolute().parent, Path()):
        yield where / name
