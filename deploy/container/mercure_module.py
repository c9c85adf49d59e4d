"""A processing module of mercure (https://mercure-imaging.org): a study comes in as a folder, its SR goes out.

mercure sets MERCURE_IN_DIR and MERCURE_OUT_DIR and starts the container once for each series or study that its rules
choose. Settings of the rule are in task.json, at process > settings: arguments of `medclip.score` by their names, and
`"fail": "never"` to end with 0 although some files could not be read (they are then in result.json alone). Images are
handed on where the rule says `retain_input_images`; that is mercure's business.

Exit code: that of `medclip score`; mercure takes all but 0 for a failure. Standard output names no patient and no file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom

import medclip
from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode, exit_code
from medclip.settings import Settings

ALLOWED = {
    *("model", "task", "prompt", "against", "templates", "modality", "min_confidence", "group_by", "exam"),
    *("workers", "memory", "batch_size", "backend", "key_file"),
}
"""Arguments of `medclip.score` that a rule may set."""
NUMBERS: dict[str, Any] = {"min_confidence": (int, float), "workers": int, "batch_size": int}
OWN = {"fail"}
FOLDERS = ("MERCURE_IN_DIR", "MERCURE_OUT_DIR")
NO_IMAGES = ("*.json", "*.tags")
"""What mercure puts beside the images."""


def main() -> int:
    """Score what mercure hands over; return the exit code."""
    kept = os.environ.get("MODULE_PERSISTENCE_DIR")  # where the module is configured to have such a folder
    for name in FOLDERS:
        if not os.environ.get(name):
            print(f"medclip: {name} is not set; mercure sets it.", file=sys.stderr)
            return ExitCode.REFUSED
    incoming, outgoing = (Path(os.environ[name]) for name in FOLDERS)
    try:
        return process(incoming, outgoing, Path(kept) if kept else None)
    except MedclipError as error:
        print(f"medclip: {error.message} {error.hint}".rstrip(), file=sys.stderr)
        return exit_code(error.reason)
    except Exception as error:  # mercure keeps what is printed, and the texts of errors may quote header values
        if os.environ.get("MEDCLIP_DEBUG"):
            raise
        print(f"medclip: a fault of its own ({type(error).__name__}); MEDCLIP_DEBUG=1 shows where.", file=sys.stderr)
        return ExitCode.FAULT


def process(incoming: Path, outgoing: Path, home: Path | None = None) -> int:
    """Score a folder; write SRs, and what became of the files, into another one.

    Args:
        incoming: Images as SERIES#FILE.dcm, with their .tags, and task.json.
        outgoing: Takes SERIES#FILE.dcm and result.json.
        home: Has the identity key, which is made on first use. None makes one that goes with the container, so that the
            report of a study that comes again has another UID.

    Returns:
        The exit code.

    Raises:
        MedclipError: As `medclip.score`; WRONG_USE for settings that there are not.
    """
    settings = read_settings(incoming / "task.json")
    others = [path for pattern in NO_IMAGES for path in incoming.rglob(pattern)]
    with tempfile.TemporaryDirectory(prefix="medclip-mercure-") as work:
        arguments = {name: value for name, value in settings.items() if name in ALLOWED}
        run = medclip.score(
            incoming,
            Path(work) / "run",
            export=f"sr={Path(work) / 'results'}",
            exclude=others,
            settings=Settings(home=home or Path(work) / "home"),
            **arguments,
        )
        reports = sorted((Path(work) / "results").rglob("*.dcm"))
        for report in reports:
            header = pydicom.dcmread(report, stop_before_pixels=True)
            put(report, outgoing / f"{header.SeriesInstanceUID}#{header.SOPInstanceUID}.dcm")
        files = run.files.to_pylist()
        result = {
            "model": str(settings.get("model", "medclip-mini")),
            "counts": run.counts,
            "reasons": dict(Counter(row["reason"] for row in files if row["reason"])),
            "reports": len(reports),
        }
        draft = outgoing / ".result.json.part"
        draft.write_text(json.dumps(result, indent=1) + "\n")
        draft.replace(outgoing / "result.json")
    print(json.dumps(result))
    return ExitCode.COMPLETE if settings.get("fail") == "never" else run.exit_code


def read_settings(task: Path) -> dict[str, Any]:
    """Read the settings of a rule; none where there is no task.

    Raises:
        MedclipError: WRONG_USE.
    """
    if not task.is_file():
        return {}
    try:
        values = json.loads(task.read_text(encoding="utf-8"))
        steps = values.get("process") or {}
        settings = (steps[0] if isinstance(steps, list) else steps).get("settings") or {}
        if not isinstance(settings, Mapping):
            raise TypeError
    except (ValueError, AttributeError, IndexError, TypeError):
        raise MedclipError(
            Reason.WRONG_USE, "task.json is not what mercure writes.", hint="It has the settings at process > settings."
        ) from None
    unknown = sorted(set(settings) - ALLOWED - OWN)
    if unknown:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the rule has settings that there are not: {', '.join(map(repr, unknown))}.",
            hint=f"There are {', '.join(sorted(ALLOWED | OWN))}.",
        )
    for name, kind in NUMBERS.items():
        value = settings.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise MedclipError(Reason.WRONG_USE, f"{name} is a number, not {value!r}.", hint="Write it without quotes.")
    return dict(settings)


def put(source: Path, target: Path) -> None:
    """Copy a file so that it is there whole or not at all."""
    draft = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, draft)
    draft.replace(target)


if __name__ == "__main__":
    raise SystemExit(main())
