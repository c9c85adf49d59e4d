"""Run the notebooks from top to bottom and keep what they show, for the site.

Usage: python -m pipelines.docs_site.execute [NOTEBOOK.py ...] [--out build/notebooks] [--again] [--record]

A notebook is in git as a script without outputs. What it shows when it is run goes to OUT as an .ipynb with a digest of
everything that it depends on; a copy whose digest is the same is not run again. A notebook fails if a cell raises, if
anything is written on its standard error (the red boxes: warnings, progress), or if nothing is shown.

With --record (`make executed`) it is written down that they ran: `pipelines/docs_site/record.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.docs_site.record import record

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "build" / "notebooks"
CELL_TIMEOUT_S = 900
KERNEL_ARGUMENTS = ["--log-level=ERROR"]
"""Each kernel warns that its messages are signed and not encrypted: they do not leave this machine."""


def notebooks() -> list[Path]:
    """Return the notebooks, in the order of their numbers."""
    return sorted(NOTEBOOKS.glob("*.py"))


def digest_of(notebook: Path) -> str:
    """Return the SHA-256 of a notebook with the library, the examples and the simulators that it may use."""
    return hashlib.sha256(notebook.read_bytes() + _digest_of_code()).hexdigest()


@lru_cache
def _digest_of_code() -> bytes:
    digest = hashlib.sha256()
    for folder in ("medclip", "examples", "pipelines"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and "docs_site" not in path.parts:
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.digest()


def read_executed(notebook: Path, folder: Path = EXECUTED) -> Any | None:
    """Return the executed copy of a notebook, or None where there is none of this very code."""
    import nbformat

    copy = folder / f"{notebook.stem}.ipynb"
    if not copy.exists():
        return None
    executed = nbformat.read(copy, as_version=4)
    return executed if executed.metadata.get("medclip", {}).get("digest") == digest_of(notebook) else None


def execute(notebook: Path, folder: Path) -> Any:
    """Run a notebook in a kernel of its own and write the executed copy.

    Raises:
        ValueError: Something was written on standard error, or nothing is shown.
    """
    import jupytext
    import nbclient
    import nbformat

    cells = jupytext.read(notebook)
    start, before_s = time.perf_counter(), _cpu_of_children_s()
    place = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(
        cells, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=place, extra_arguments=KERNEL_ARGUMENTS
    ).execute()
    cells.metadata["medclip"] = {
        "digest": digest_of(notebook),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(_cpu_of_children_s() - before_s, 1),
    }
    problems = list(problems_of(cells))
    if problems:
        raise ValueError(f"{notebook.name}: " + "\n".join(problems))
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{notebook.stem}.ipynb"
    nbformat.write(cells, draft)
    draft.replace(folder / f"{notebook.stem}.ipynb")
    return cells


def problems_of(executed: Any) -> Iterable[str]:
    """Yield what a reader should not see in an executed notebook."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            yield f"a red box: {output.text[:400]}"
    if not outputs:
        yield "the notebook shows nothing"


def _cpu_of_children_s() -> float:
    """Return the CPU time of processes that were started from here and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Execute what has changed since it was executed last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=notebooks())
    parser.add_argument("--out", type=Path, default=EXECUTED)
    parser.add_argument("--again", action="store_true", help="also those whose executed copy is of this very code")
    parser.add_argument("--record", action="store_true", help="write down that they ran: CI need not run them")
    options = parser.parse_args()
    # Nothing of the reader's own: keys and calibrations of the notebooks are made in a folder that goes.
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {
            "MEDCLIP_HOME": home,
            "JUPYTER_PLATFORM_DIRS": "1",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
        }
        for notebook in options.notebooks:
            if not options.again and read_executed(notebook.resolve(), options.out) is not None:
                print(f"{notebook.name}: as it was executed")
                continue
            about = execute(notebook.resolve(), options.out).metadata["medclip"]
            print(f"{notebook.name}: {about['seconds']:.0f} s, {about['cpu_seconds']:.0f} s of CPU", flush=True)
    if options.record:
        record(path.resolve() for path in options.notebooks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
