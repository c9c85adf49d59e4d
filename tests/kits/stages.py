"""The scripts of pipelines/ as modules: they are run by path and are no package, so tests load them by path, too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_stage(folder: Path, name: str) -> ModuleType:
    """Load a script anew, under a name that says which pipeline it is of.

    Names that several pipelines give their scripts, such as measured_plan, are loaded anew, too.
    """
    for known, module in list(sys.modules.items()):
        place = Path(getattr(module, "__file__", None) or "/")
        if known == place.stem and len(list(folder.parent.glob(f"*/{place.name}"))) > 1:
            del sys.modules[known]
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    path = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module
