"""Where an audit comes from: what was asked, by whom and when, of which files; how it is checked and run again.

What stands in `audit.json` and on the page has file names only (with size and SHA-256), never a path: where files lie
stays in the folder's own note, and an audit that is run again finds them there.

What was signed is checked by three hashes: of the page, of the tables and of what was asked. The page shows all three.
Its own cannot stand in it and be a hash of it, so it is that of all other lines: `grep -v 'id="page-sha256"'
report.html | sha256sum`. That of the tables is the hash of the list of their hashes: `LC_ALL=C sha256sum *.csv |
sha256sum`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medclip.auditing.result import JSON, AuditResult, read_result
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.embeddings.write_embeddings import NOTE as EMBEDDINGS
from medclip.errors import MedclipError, Reason
from medclip.files.output import read_note
from medclip.files.stores import is_url
from medclip.files.tables.write import csv_bytes
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.manifest import file_sha256
from medclip.result import Result
from medclip.runs.outputs.fetched_results import fetched_results
from medclip.runs.outputs.results import FILES, SCORES
from medclip.shards.folder import INDEX
from medclip.version import __version__

_NAMED = ("compare", "choose_on")
"""Keys that take [NAME=]PATH."""
_PLAIN = ("scores", "labels", "files", "thresholds", "choose_labels", "masked", "images", "embeddings", "key_file")
_PLAIN += ("reference",)
_OR_NAME = ("model", "task")
"""Keys that take a path, or the name of what came with medclip."""
_SINGLE = (*_PLAIN, *_OR_NAME)
_NOT_HASHED = frozenset({"images", "key_file"})
"""A folder of millions of files, and a secret."""
_OF_FOLDERS = (SCORES, FILES, EMBEDDINGS, MANIFEST, INDEX)
"""Files that stand for a folder: of scores, of embeddings, of a pack, of shards."""


def change_paths(options: Mapping[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """Return what is asked with every path in it changed; what is no path, such as a data frame, stays.

    Args:
        options: Values of options by name.
        change: Function of the key of a path ("labels", "compare:1") and the path; gives the new path.
    """
    values = dict(options)
    for name in _SINGLE:
        if isinstance(values.get(name), str | Path):
            values[name] = change(name, str(values[name]))
    for name in (*_NAMED, "training"):
        if isinstance(values.get(name), list | tuple):
            values[name] = [
                _changed(one, f"{name}:{n}", name in _NAMED, change) if isinstance(one, str) else one
                for n, one in enumerate(values[name])
            ]
    return values


def _changed(text: str, key: str, is_named: bool, change: Callable[[str, str], str]) -> str:
    name, equals, path = text.partition("=")
    if is_named and equals and "://" not in name and not Path(text).exists():  # a path may hold "=" itself
        return f"{name}={change(key, path)}"
    return change(key, text)


def paths_of(options: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files and folders that are named, by key; a pack of medclip's own is none."""
    paths: dict[str, Path] = {}

    def note(key: str, path: str) -> str:
        paths[key] = Path(path)
        return path

    change_paths(options, note)
    return {key: path for key, path in paths.items() if key not in _OR_NAME or path.exists()}


def describe_inputs(paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return name, size and SHA-256 of every file behind some keys; of folders, of the files that stand for them."""
    return [row for key, path in paths.items() for row in _described(key, path)]


def _described(key: str, path: Path) -> Iterator[dict[str, Any]]:
    inside = [path / name for name in _OF_FOLDERS if (path / name).is_file()] if path.is_dir() else []
    if key in _NOT_HASHED or (path.is_dir() and not inside):
        yield {"for": key, "name": path.name, "size": None, "sha256": None}
        return
    for file in inside or _with_files(key, path):
        name = f"{path.name}/{file.name}" if inside else file.name
        yield {"for": key, "name": name, "size": file.stat().st_size, "sha256": file_sha256(file)}


def _with_files(key: str, path: Path) -> Sequence[Path]:
    """Add the table of files that is read with scores of `medclip score`."""
    beside = path.parent / FILES
    of_scores = path.name == SCORES and key.partition(":")[0] in ("scores", "masked", *_NAMED)
    return (path, beside) if of_scores and beside.is_file() else (path,)


def relative_place(path: Path, folder: Path) -> str | None:
    """Return where an input lies as seen from the audit's folder; None where that would tell of a home folder or of how
    a machine's disks are laid out.

    Example:
        >>> relative_place(Path("/data/study/labels.csv"), Path("/data/study/audit"))
        '../labels.csv'
        >>> relative_place(Path("/home/jane/labels.csv"), Path("/srv/audit")) is None
        True
    """
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    try:
        common = Path(os.path.commonpath([path, folder]))
    except ValueError:  # two drives
        return None
    homes = [Path.home(), Path("/home"), Path("/Users")]
    if common == Path(common.anchor) or any(home.is_relative_to(common) and home != common for home in homes[:1]):
        return None
    return None if common in homes[1:] else os.path.relpath(path, folder)


_SOFTWARE = ("numpy", "scipy", "scikit-learn", "pyarrow")
_NO_OPTIONS = ("scores", "audited_on")
_PATIENTS = ("patient", "patient_id", "subject_id", "subject", "person_id", "case_id", "mrn", "name", "file", "path")
"""Columns whose values name somebody: what is selected by them is not written."""
_SELECTIONS = ("where", "score_where", "choose_where")
HIDDEN = "(not written)"


@dataclass(frozen=True)
class Origin:
    """What an audit was asked."""

    options: Mapping[str, Any] | None
    """Options by name; None where it was called from Python with data frames or values that no recipe can hold."""
    recipe_file: Mapping[str, Any] | None = None
    """Of the recipe: name, SHA-256, options of which something else was asked."""
    declared: Mapping[str, str] | None = None
    """By whom and when that was written."""
    auditor: str | None = None
    question: str | None = None
    audited_on: str | None = None
    """None: today."""

    def __post_init__(self) -> None:
        """Refuse a day that is none: it stands on what is signed."""
        if self.audited_on is not None:
            try:
                date.fromisoformat(self.audited_on)
            except ValueError:
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"`audited_on` is {self.audited_on!r}, which is no date.",
                    hint="Write it as 2026-01-31.",
                ) from None

    def written(self) -> dict[str, Any]:
        """Return what is added to the provenance of a result."""
        day = self.audited_on or datetime.now(UTC).date().isoformat()
        about: dict[str, Any] = {"date": day, "auditor": self.auditor, "question": self.question}
        software = {"python": platform.python_version(), "medclip": __version__}
        about["software"] = software | {name: _version(name) for name in _SOFTWARE}
        if self.options is None:
            return about | {"command": "medclip.audit(...), from Python", "inputs": [], "recipe": None}
        recipe = written_recipe(self.options)
        about |= {"command": command_of(recipe), "inputs": describe_inputs(paths_of(self.options)), "recipe": recipe}
        return about | {"recipe_file": self.recipe_file, "declared": self.declared}


def written_recipe(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked with files by their names, and no value that names a patient."""
    values = change_paths(options, lambda key, path: Path(path).name if "/" in path or "\\" in path else path)
    keys = [part for pair in options.get("key", ()) for part in pair.split("=")]
    naming = {name.lower() for name in (*_PATIENTS, *keys, (options.get("patient") or "").partition("~")[0])}
    for name in _SELECTIONS:
        if name in values:
            values[name] = [_without_patients(text, naming) for text in values[name]]
    return {name: value for name, value in values.items() if name != "audited_on"}


def _without_patients(text: str, naming: set[str]) -> str:
    column, equals, _ = text.partition("=")
    return f"{column}={HIDDEN}" if equals and column.strip().lower() in naming else text


def command_of(options: Mapping[str, Any]) -> str:
    """Write the command that asks this, with file names in the place of paths.

    Example:
        >>> command_of({"scores": "net.csv", "by": ["sex", "sex*age"], "all_pairs": True})
        "medclip audit net.csv --by sex --by 'sex*age' --all-pairs"
    """
    words = ["medclip", "audit", str(options["scores"])]
    for name, value in options.items():
        if name in _NO_OPTIONS:
            continue
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            words += [option] if one is True else [option, str(one)]
    return shlex.join(words)


def recipe_hash(recipe: Mapping[str, Any] | None) -> str:
    """Hash what was asked: SHA-256 of its JSON, with sorted keys and without blanks."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


PAGE = "report.html"
MARK = 'id="page-sha256"'
"""Stands in the one line of the page that its hash leaves out."""
_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def tables_hash(hashes: Mapping[str, str]) -> str:
    """Hash the hashes of the CSV tables, as `sha256sum *.csv | sha256sum` does."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(hashes.items()) if name.endswith(".csv")]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def page_hash(page: str) -> str:
    """Hash a page without the line that shows its hash."""
    lines = [line for line in page.split("\n") if MARK not in line]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def seal(hashes: Mapping[str, str], result: AuditResult) -> dict[str, str]:
    """Return the hashes of tables and recipe; that of the page is added when it is written."""
    parquet = {name: digest for name, digest in sorted(hashes.items()) if name.endswith(".parquet")}
    recipe = recipe_hash(result.provenance.get("recipe"))
    return {"tables": tables_hash(hashes), "recipe": recipe, **parquet}


@dataclass(frozen=True, repr=False)
class Checked(Result):
    """What became of a folder of an audit since it was written."""

    checks: Mapping[str, bool]
    """Whether each part is as it was."""

    @property
    def ok(self) -> bool:
        """Whether all of it is."""
        return all(self.checks.values())

    def _facts(self) -> Mapping[str, object]:
        return {name: "as it was" if same else "CHANGED" for name, same in self.checks.items()}

    def _rows(self, most: int | None = None) -> list[dict[str, object]]:
        return [{"what": name, "as it was": same} for name, same in self.checks.items()][:most]


def verify_audit(folder: str | Path) -> Checked:
    """Check that page, tables and recipe of an audit are what `audit.json` and the page say.

    Raises:
        MedclipError: MISSING_FILE, CORRUPT for what is no audit; WRONG_USE for one that was written without hashes.
    """
    folder = Path(folder)
    result = read_result(folder)
    sealed = result.sealed
    if not sealed:
        raise MedclipError(Reason.WRONG_USE, "this audit was written without hashes.", where=folder / JSON)
    files = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.suffix in (".csv", ".parquet")}
    tables = {name: hashlib.sha256(csv_bytes(table)).hexdigest() for name, table in result.tables().items()}
    page = (folder / PAGE).read_text(encoding="utf-8") if (folder / PAGE).is_file() else ""
    line = next((line for line in page.split("\n") if MARK in line), "")
    hashes = set(_HASH.findall(page[page.find('id="signature"') :]))
    return Checked(
        {
            "page": page_hash(page) == sealed.get("page"),
            "hash that the page shows of itself": _HASH.findall(line) == [sealed.get("page")],
            "tables (CSV)": tables_hash(files) == sealed.get("tables"),
            "tables (Parquet)": all(files.get(f"{name}.parquet") == sealed.get(f"{name}.parquet") for name in tables),
            "tables of audit.json": all(files.get(f"{name}.csv") == digest for name, digest in tables.items()),
            "recipe": recipe_hash(result.provenance.get("recipe")) == sealed.get("recipe"),
            "hashes that the page shows": {sealed.get("tables"), sealed.get("recipe")} <= hashes,
        }
    )


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
    recipe = provenance.get("recipe")
    if not isinstance(recipe, dict) or HIDDEN in json.dumps(recipe):
        raise MedclipError(
            Reason.WRONG_USE,
            "this audit was not made of files and written options alone, so that it cannot be run again from here.",
            where=path,
            hint="Run again what made it.",
        )
    written: dict[str, Any] = {_EARLIER.get(str(name), str(name)): value for name, value in recipe.items()}
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
