"""Which kinds of file this installation reads: each package is loaded once, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

DISTRIBUTION = "medclip-imaging"


class FileKind(NamedTuple):
    """Files of one kind and the packages that read them."""

    name: str
    modules: tuple[str, ...]
    fix: str
    """The line that brings them."""


def _extra(name: str) -> str:
    return f"pip install '{DISTRIBUTION}[{name}]'"


KINDS: tuple[FileKind, ...] = (
    FileKind("volumes: NIfTI, Analyze", ("nibabel",), f"pip install --force-reinstall {DISTRIBUTION}"),
    FileKind("volumes: MINC", ("nibabel", "h5py"), _extra("minc")),
    FileKind("slides: SVS, NDPI, MRXS, SCN, BIF and more", ("openslide",), _extra("wsi")),
    FileKind("slides: tiled TIFF, OME-TIFF", ("tifffile", "imagecodecs"), _extra("wsi")),
    FileKind("slides: DICOM", ("wsidicom",), _extra("wsi")),
    FileKind("ECG: WFDB", ("wfdb",), _extra("ecg")),
    FileKind("ECG: WFDB packed as FLAC", ("wfdb", "soundfile"), f"{_extra('ecg')} soundfile"),
    FileKind("ECG: EDF, SCP, XML (aECG, MUSE, Philips)", ("ecgdatakit",), _extra("ecg")),
    FileKind("video: MP4, AVI", ("av",), _extra("video")),
)
COVERED = frozenset({"dicom", "ecg", "minc", "video", "wsi"})
"""Extras that the kinds of file and the transfer syntaxes speak for."""

# A module that is about to be loaded is named first, so that one which takes the process down is known.
_PROBE = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    print(json.dumps([name, "takes the process down when it loads"]), flush=True)
    try:
        module = importlib.import_module(name)
        print(json.dumps([name, ""]), flush=True)
    except ModuleNotFoundError as error:
        lacks = "is not installed" if error.name == name else f"does not load: {error.name} is not installed"
        print(json.dumps([name, lacks]), flush=True)
    except Exception as error:
        print(json.dumps([name, f"does not load ({type(error).__name__})"]), flush=True)
"""


def broken_modules(
    modules: Sequence[str], run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> Mapping[str, str]:
    """Load modules and say what is wrong with those that do not load.

    Args:
        modules: Names of modules.
        run: Function that starts a process, called as `subprocess.run`.

    Returns:
        Module -> what is wrong; nothing for those that load.
    """
    broken: dict[str, str] = {}
    waiting = list(dict.fromkeys(modules))
    while waiting:
        try:
            command = [sys.executable, "-c", _PROBE, *waiting]
            done = run(command, capture_output=True, text=True, timeout=120, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        except subprocess.TimeoutExpired:
            return {**broken, **dict.fromkeys(waiting, "takes more than 120 s to load")}
        seen = dict(lines) or {waiting[0]: "could not be tried: Python does not start"}
        broken |= {name: what for name, what in seen.items() if what}
        waiting = [name for name in waiting if name not in seen]  # those behind one that took the process down
    return broken


def readable_kinds(
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> list[tuple[FileKind, str]]:
    """Return for each kind of file what is missing to read it; "" where nothing is."""
    broken = broken_modules([module for kind in KINDS for module in kind.modules], run)
    return [
        (kind, "; ".join(f"{module} {broken[module]}" for module in kind.modules if module in broken)) for kind in KINDS
    ]
