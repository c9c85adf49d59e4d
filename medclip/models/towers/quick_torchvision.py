"""Import torchvision without torch's compiler, which takes a second of processor time and which scoring never asks."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

_COMPILER = "torch._dynamo"


def import_torchvision() -> None:
    """Import torchvision, which timm and open_clip import in turn, and leave `torch._dynamo` for whoever asks.

    torchvision 0.28 takes one function of the compiler when its RoI align is imported, and calls it when boxes are
    aligned: 0.9 s of the 2.7 s that torch and the towers' libraries took on one core. While torchvision is imported a
    stand-in has that function, which imports the compiler once it is called. Where torchvision asks for more, it is
    imported as ever.
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
