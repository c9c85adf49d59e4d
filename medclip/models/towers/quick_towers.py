"""Import timm and open_clip with the towers that are built, and not with all towers and text models there are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from medclip.models.towers.deferred_modules import defer_module
from medclip.models.towers.quick_torchvision import import_torchvision

_REGISTRY = (
    "list_models", "list_pretrained", "list_modules", "model_entrypoint", "is_model_pretrained", "get_pretrained_cfg",
    "get_pretrained_cfg_value",
)  # fmt: skip
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
