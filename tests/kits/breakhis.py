"""The modules of pipelines/breakhis, which import each other by bare names that other pipelines use, too."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "pipelines" / "breakhis"
_OWN: dict[str, ModuleType] = {}


def module_of(name: str) -> ModuleType:
    """Import a module of the pipeline; afterwards its bare name means what it meant before."""
    names = [path.stem for path in FOLDER.glob("*.py")]
    before = {own: sys.modules.pop(own) for own in names if own in sys.modules}
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    sys.modules.update(_OWN)
    try:
        return importlib.import_module(name)
    finally:
        _OWN.update({own: sys.modules.pop(own) for own in names if own in sys.modules})
        sys.modules.update(before)
        sys.path[:] = path
