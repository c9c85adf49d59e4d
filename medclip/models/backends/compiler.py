"""The C++ compiler of this machine, which a compiled tower needs; nothing is compiled here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

_ASK_S = 10.0


def lacks_compiler() -> str:
    """Return what a compiled tower lacks here, "" where there is all: torch takes $CXX, else g++."""
    if shutil.which(_compiler()) is None:
        return "there is no C++ compiler: neither CXX nor g++ names one"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.is_file() else f"Python's headers are not installed ({header})"


@cache
def compiler_version() -> str:
    """Return the first line of what the compiler says of its version; "unknown" where it does not."""
    try:
        asked = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return next(iter(asked.stdout.splitlines()), "unknown")


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"
