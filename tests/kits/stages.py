"""The scripts of pipelines/ as modules: they are run by path and are no package, so tests load them by path, too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_stage(folder: Path, name: str) -> ModuleType:
    """Load a script anew, under a name that says which pipeline it is of."""
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
