"""Import timm and open_clip with the towers that are built, and not with all towers and text models there are.

timm imports a hundred files of towers, and open_clip the text models of transformers, whatever tower is built: 2 s of
processor time of the 3.6 s that a model took to load, before the first image of every run.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_LOCK = threading.RLock()
_REGISTRY = (
    "list_models",
    "list_pretrained",
    "list_modules",
    "model_entrypoint",
    "is_model_pretrained",
    "get_pretrained_cfg",
    "get_pretrained_cfg_value",
)
"""Functions of timm that know all towers; `create_model` and `is_model` need the one that is named."""


def import_towers() -> None:
    """Import what a dual encoder is built of.

    A library that was imported before, or whose files are laid out in another way, is imported as ever.
    """
    import_torchvision()
    if "timm" not in sys.modules:
        _as_ever_where_it_fails("timm", _defer_timm)
    if "open_clip" not in sys.modules:
        _as_ever_where_it_fails("open_clip", _defer_open_clip)


def _as_ever_where_it_fails(name: str, defer: Callable[[], None]) -> None:
    try:
        defer()
    except (ImportError, AttributeError):  # another version
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
        import_module(name)


def _defer_timm() -> None:
    """Import timm; a file of towers is imported once one of its towers is asked for."""

    def known(name: str) -> Callable[..., Any]:
        """Return a function of timm that is about one tower."""

        def call(model_name: str, *args: Any, **options: Any) -> Any:
            if not _import_family(model_name):
                run()
            return _function(name)(model_name, *args, **options)

        return call

    def about_all(name: str) -> Callable[..., Any]:
        """Return a function of timm that is about all towers."""

        def call(*args: Any, **options: Any) -> Any:
            run()
            return _function(name)(*args, **options)

        return call

    functions = {name: known(name) for name in ("create_model", "is_model")}
    functions |= {name: about_all(name) for name in _REGISTRY}
    run = defer_module("timm.models", functions)
    vars(import_module("timm"))["models"] = sys.modules["timm.models"]  # it was there before its package
    for name, function in functions.items():
        wraps(_function(name))(function)


def _function(name: str) -> Callable[..., Any]:
    file = "_factory" if name == "create_model" else "_registry"
    return getattr(import_module(f"timm.models.{file}"), name)


def _import_family(model_name: str) -> bool:
    """Import the file of timm that defines a tower; return whether there is one."""
    function = f"\ndef {str(model_name).partition('.')[0]}("
    for path in sorted(Path(import_module("timm").__file__ or "").parent.glob("models/*.py")):
        if not path.name.startswith("_") and function in path.read_text(encoding="utf-8"):
            import_module(f"timm.models.{path.stem}")
            return True
    return False


def _defer_open_clip() -> None:
    """Import the towers of open_clip; text towers of transformers are imported once one is built."""

    def hf_text_encoder(*args: Any, **options: Any) -> Any:
        return text_models().HFTextEncoder(*args, **options)

    def text_models() -> ModuleType:
        module = run()
        import_module("open_clip.model").HFTextEncoder = module.HFTextEncoder  # type: ignore[attr-defined]
        return module

    assert find_spec("open_clip") is not None
    defer_module("open_clip", {})
    run = defer_module("open_clip.hf_model", {"HFTextEncoder": hf_text_encoder})
    import_module("open_clip.model")


def import_torchvision() -> None:
    """Import torchvision, which timm and open_clip import in turn, and leave `torch._dynamo` for whoever asks.

    torchvision 0.28 takes one function of the compiler when its RoI align is imported, and calls it when boxes are
    aligned: 0.9 s of the 2.7 s that torch and the towers' libraries took on one core. While torchvision is imported a
    stand-in has that function, which imports the compiler once it is called. Where torchvision asks for more, it is
    imported as ever. Its own models, a third of what is left of its 0.35 s, are imported once one is asked for.
    """
    if "torchvision" in sys.modules or _COMPILER in sys.modules:
        return
    import torch  # noqa: F401  (before the stand-in: its own imports get what they ask for)

    if _COMPILER in sys.modules:
        return
    stand_in, utils = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")
    stand_in.__path__ = []
    stand_in.utils = utils  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    stand_ins = {_COMPILER: stand_in, f"{_COMPILER}.utils": utils}
    sys.modules.update(stand_ins)
    try:
        defer_module("torchvision.models", {})
        import torchvision  # noqa: F401
    except (ImportError, AttributeError):  # another version, which asks for more: it is imported as ever
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    return import_module(f"{_COMPILER}.utils").is_compile_supported(device_type)


def defer_module(name: str, attributes: Mapping[str, Any]) -> Callable[[], ModuleType]:
    """Stand a module in its place without running its code.

    Its submodules can be imported. The first attribute that is not known runs its code, in the same module object;
    so does whoever imports all its names (`import *`).

    Args:
        name: Name of a module that was not imported yet; the package that it is in need not be, either.
        attributes: Attributes that the module has before its code runs.

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

    vars(module).update(attributes, __getattr__=missing)
    sys.modules[name] = module
    if package in sys.modules:
        setattr(sys.modules[package], child, module)
    return run
