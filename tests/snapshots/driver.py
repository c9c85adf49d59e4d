"""One process imports everything that the commands need, and forks a child for each command: as in `tests.kits.kills`.

Run as a module it is that process: it reads a job of JSON from each line of its input, and answers with an exit code.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]
FAULT = 99
"""Exit code of a step that raised."""
HOME = ".home"
"""Folder beside the outputs of a case: its identity key, and what libraries keep for a user."""
ENVIRONMENT: Mapping[str, str] = {
    "COLUMNS": "120",
    "HF_HUB_OFFLINE": "1",
    "LC_ALL": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TERM": "dumb",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_OFFLINE": "1",
    "TZ": "UTC",
}
_LIBRARIES = (
    "torch",
    "torch.distributed.checkpoint",
    "torch.utils.data",
    "open_clip",
    "timm",
    "transformers",
    "pandas",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.cluster",
    "sklearn.metrics",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
    "pydicom",
    "pyarrow.parquet",
    "h5py",
    "jinja2",
    "yaml",
    "rich.console",
    "tifffile",
    "openslide",
    "wfdb",
)


class Driver:
    """The process that forks. Use as a context manager.

    Args:
        folder: Gets a folder for each case, and what the driver itself says.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        dropped = {name for name in os.environ if name.startswith(("MEDCLIP", "XDG_"))}
        environment = {name: value for name, value in os.environ.items() if name not in dropped}
        environment |= ENVIRONMENT | {"PYTHONPATH": str(REPOSITORY), "HOME": str(folder)}
        self._log = (folder / "driver.log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.snapshots.driver"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._log.close()

    def run(self, where: Path, step: Sequence[str]) -> tuple[int, str, str]:
        """Run one step in a folder; return its exit code, and what it wrote on standard output and standard error.

        Args:
            where: The folder of the case.
            step: The words of a command, or a function behind `@`, as `@tests.snapshots.inputs:name`, and its words.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(where), list(step)]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError((self._folder / "driver.log").read_text(encoding="utf-8")[-3000:])
        out, error = (where / HOME / name for name in ("stdout", "stderr"))
        return int(answer), *(path.read_text(encoding="utf-8", errors="replace") for path in (out, error))


def _preload() -> None:
    """Import the libraries and all of medclip; what an extra is missing for is imported by whoever needs it."""
    import medclip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LIBRARIES:
            with contextlib.suppress(ImportError):
                import_module(name)
        for module in walk_packages(medclip.__path__, "medclip."):
            if "ray" not in module.name.rpartition(".")[2]:
                with contextlib.suppress(Exception):
                    import_module(module.name)
    import_module("tests.snapshots.inputs")


def _run_step(where: Path, step: list[str]) -> int:
    """Run a command, or a function of a test, in this process."""
    if step and step[0].startswith("@"):
        module, _, name = step[0][1:].partition(":")
        result: Any = getattr(import_module(module), name)(*step[1:])
        if result is not None:
            print(json.dumps(result))
        return 0
    from medclip.cli.main import main

    return main(step)


def _child(where: Path, step: list[str]) -> int:
    """Be the child: give it its own place and its own streams."""
    os.chdir(where)
    os.environ["MEDCLIP_HOME"] = os.environ["HOME"] = str(where / HOME)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(where / HOME / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
    try:
        code = _run_step(where, step)
    except BaseException:
        traceback.print_exc()
        code = FAULT
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return code


def serve() -> None:
    """Read jobs until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    _preload()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        where, step = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_child(Path(where), step))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    serve()
