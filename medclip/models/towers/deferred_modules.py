"""Modules of libraries whose code runs once somebody asks for what it defines, and not when their package is imported.

timm imports a hundred files of towers, and open_clip the text models of transformers, whatever tower is built: 2 s of
processor time of the 3.6 s that a model took to load, before the first image of every run.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()


def defer_module(name: str, known: Mapping[str, Any]) -> Callable[[], ModuleType]:
    """Stand a module in its place without running its code.

    Its submodules can be imported. The first attribute that is not known runs its code, in the same module object;
    so does whoever imports all its names (`import *`).

    Args:
        name: Of a module that was not imported yet; the package that it is in need not be, either.
        known: Attributes that it has before.

    Returns:
        What runs the code, where that was not done yet, and returns the module.

    Raises:
        ImportError: There is no such module, or it was imported before.
    """
    package, _, child = name.rpartition(".")
    places = None
    if package:
        spec_of_package = find_spec(package) if package not in sys.modules else sys.modules[package].__spec__
        places = None if spec_of_package is None else spec_of_package.submodule_search_locations
    spec = PathFinder.find_spec(name, places)
    if spec is None or spec.loader is None or name in sys.modules:
        raise ImportError(f"{name} cannot be deferred")
    loader, module = spec.loader, module_from_spec(spec)
    is_run = False

    def run() -> ModuleType:
        nonlocal is_run
        with _LOCK:
            if not is_run:
                is_run = True
                vars(module).pop("__getattr__", None)
                loader.exec_module(module)
        return module

    def missing(attribute: str) -> Any:
        if attribute == "__all__":  # of `import *`, which takes what there is then
            run()
        elif attribute.startswith("__"):  # the import system asks for some
            raise AttributeError(attribute)
        return getattr(run(), attribute)

    vars(module).update(known, __getattr__=missing)
    sys.modules[name] = module
    if package in sys.modules:
        setattr(sys.modules[package], child, module)
    return run
