"""Run one case, and say where what it left differs from what is frozen."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.snapshots import inputs
from tests.snapshots.cases import ALL, SHARED, TRAINED
from tests.snapshots.driver import HOME, REPOSITORY, Driver
from tests.snapshots.fingerprint import Clean, fingerprint, is_same, mask_hashes, mask_options, of_json, of_text

FROZEN = Path(__file__).with_name("frozen.json")
_NAMED_INPUT = re.compile(r"\bin/(\w+)")
_HASHED_PATHS: Mapping[str, tuple[str, ...]] = {"run.json": ("labels", "scores", "compared models.rival")}
"""Keys of files that are hashes of places."""
_REFUSALS = (1, 2, 4, 5)
"""Exit codes of which the sentence is kept."""


def words_of(line: str) -> list[str]:
    """Return the words of a line of a case."""
    words = shlex.split(line.format(**SHARED))
    if words and words[0].startswith("@"):
        words[0] = f"@tests.snapshots.inputs:{words[0][1:]}"
    return words


def run_case(name: str, driver: Driver, root: Path) -> dict[str, Any]:
    """Run the lines of a case; return what each ended with and said, and fingerprints of the files that are left."""
    where = root / re.sub(r"\W+", "-", name)
    key = where / HOME / "medclip" / "identity.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(inputs.KEY)
    key.chmod(0o600)
    (where / "examples").symlink_to(REPOSITORY / "examples")
    (root / "in").mkdir(exist_ok=True)
    (where / "in").symlink_to(root / "in")
    lines = ALL[name]
    for made in dict.fromkeys(_NAMED_INPUT.findall(" ".join(lines).format(**SHARED))):
        _make(made, driver, where)
    said = {}
    for number, line in enumerate(lines, 1):
        ended = driver.run(where, words_of(line))
        said[str(number)] = _said(*ended, _cleaner(name, root), is_of_machine=name == "doctor")
        assert ended[0] == 0 or not line.startswith("@"), ended[2]
    return {"steps": said, "files": _files(where, _cleaner(name, root))}


def _files(where: Path, clean: Clean) -> dict[str, Any]:
    """Return the fingerprints of the files that a case left, but for folders that begin with a dot.

    One with the bytes of another is named after it, and a table that is there as Parquet, too, has one as a text.
    """
    files: dict[str, Any] = {}
    first: dict[bytes, str] = {}
    for path in sorted(where.rglob("*")):
        relative = path.relative_to(where)
        if path.is_symlink() or not path.is_file() or relative.parts[0].startswith("."):
            continue
        name, body = clean(str(relative)), path.read_bytes()
        if body in first:
            files[name] = f"as {first[body]}"
        elif path.suffix == ".csv" and path.with_suffix(".parquet").exists():
            files[name] = of_text(body.decode("utf-8"), clean)
        else:
            files[name] = fingerprint(path, clean)
            for key in _HASHED_PATHS.get(path.name, ()) if isinstance(files[name], dict) else ():
                files[name] |= {key: "varies"} if key in files[name] else {}
        first.setdefault(body, name)
    return files


def _make(name: str, driver: Driver, where: Path) -> None:
    """Make an input, if no case before has."""
    done = where.parent / "in" / f".{name}"
    if not done.exists():
        code, _, error = driver.run(where, ["@tests.snapshots.inputs:make", name, f"in/{name}"])
        assert code == 0, error
        done.touch()


def _said(code: int, out: str, error: str, clean: Clean, *, is_of_machine: bool) -> dict[str, Any]:
    """Return what is kept of a step; of one whose values are the machine's, the keys and the names of its checks."""
    kept: dict[str, Any] = {"exit": code}
    if is_of_machine:
        values = json.loads(out)
        return {"keys": list(values), "checks": [check["name"] for check in values["checks"]]}
    if out.strip():
        try:
            kept["json"] = of_json(json.loads(out), clean)
        except ValueError:
            kept["out"] = of_text(out, clean)
    if code in _REFUSALS or (code and not out.strip()):
        lines = clean(_without_frame(error)).splitlines()
        sentences = [line for line in lines if line.startswith("medclip: ")]  # without what is said of progress
        kept["error"] = sentences or lines
    return kept


def _without_frame(text: str) -> str:
    """Return a usage error without the lines that typer draws around it."""
    lines = (re.sub(r"[─╭╮╰╯│]+", " ", line).strip() for line in text.splitlines())
    whole = ("\n" if "medclip: " in text else " ").join(line for line in lines if line)
    return re.sub(r" \(Possible options: [^)]*\)|(?<= ) +", "", whole)


def _cleaner(name: str, root: Path) -> Any:
    """Return what takes folders, times and versions out of a text of a case."""

    def clean(text: str) -> str:
        text = text.replace(str(root), "<TMP>").replace(str(REPOSITORY), "<REPOSITORY>")
        for pattern, mask in _VARY:
            text = pattern.sub(mask, text)
        return mask_hashes(text) if name in TRAINED else text

    return clean


_SPEEDS = r"(MB/s|images/s|(?:patches|images|files) a second)"
_VARY = tuple(
    (re.compile(pattern, re.DOTALL), mask)
    for pattern, mask in (
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?", "<TIME>"),
        (r"\b20\d\d-\d\d-\d\d\b", "<DATE>"),
        (
            r"(?i)\b(python|numpy|scipy|scikit-learn|pyarrow|pandas|torch|matplotlib)( |: |=)\d+\.[\w.+]+",
            r"\1 <VERSION>",
        ),
        (r"\burn:uuid:[0-9a-f-]{36}\b", "<UUID>"),
        (r"\d[\d,.]* patches a second; work: [^\n]*\n(The model waited[^\n]*\n)?", "<SPEED>\n"),
        (r"(?<![\w.])(< )?\d[\d,.]* " + _SPEEDS, "<SPEED>"),
        (r"(?<![\w.])(< )?\d[\d,.]* (s|ms|min)\b", "<SECONDS>"),
        (r"(<dt>(?:Images a second|Time waiting for data)</dt><dd>)[^<]*", r"\1<SPEED>"),
        (r"<li class=\"wait\"><strong>!</strong> [^<]* of the time was spent waiting for data[^<]*</li>\n?", ""),
        (r"<h2>Cost</h2>.*?</table>", "<COST>"),
    )
)
"""What differs between two runs: moments, names made anew, speeds, and what a comparison cost."""


def differences(frozen: Any, found: Any, where: str = "") -> list[str]:
    """Return where two snapshots of a case differ, each as one sentence."""
    if isinstance(frozen, Mapping) and isinstance(found, Mapping):
        gone = [f"{where}/{name} is gone" for name in frozen if name not in found]
        new = [f"{where}/{name} is new" for name in found if name not in frozen]
        both = (differences(frozen[name], found[name], f"{where}/{name}") for name in frozen if name in found)
        return gone + new + [line for lines in both for line in lines]
    if isinstance(frozen, str) and isinstance(found, str):
        return [] if is_same(frozen, found) else [f"{where} was {frozen!r}, is {found!r}"]
    if isinstance(frozen, list) and isinstance(found, list):
        frozen, found = ([mask_options(line) for line in lines] for lines in (frozen, found))
    return [] if frozen == found else [f"{where} was {frozen!r}, is {found!r}"]
