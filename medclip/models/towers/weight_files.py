"""From a pickled checkpoint to safetensors, once, in a process of its own. No pickle is ever loaded in this one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from medclip.errors import MedclipError, Reason, printable
from medclip.files.output import disk_error, new_file
from medclip.models.packs.manifest import is_pickle

# weights_only unpickles tensors and plain containers and nothing else; -P keeps files of the present folder from being
# imported. Exit codes: 3 more than tensors, 4 TorchScript, 5 no weights in it, 6 damaged.
_CONVERT = """
import pickle, sys, torch
from safetensors.torch import save_file
try:
    found = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
except pickle.UnpicklingError as e:
    print(e, file=sys.stderr)
    sys.exit(3)
except RuntimeError as e:
    print(e, file=sys.stderr)
    sys.exit(4 if "TorchScript" in str(e) else 6)
except (EOFError, LookupError, ValueError, OSError) as e:
    sys.exit(6)
for key in ("state_dict", "model_state_dict", "model"):
    if isinstance(found, dict) and isinstance(found.get(key), dict):
        found = found[key]
if not isinstance(found, dict) or not found or not all(isinstance(k, str) for k in found):
    sys.exit(5)
found = {k: v for k, v in found.items() if k not in ("input_resolution", "context_length", "vocab_size")}
if not all(isinstance(v, torch.Tensor) for v in found.values()):
    sys.exit(5)
save_file({k: v.detach().contiguous().clone() for k, v in found.items()}, sys.argv[2])
"""
_REFUSED = {
    3: "it holds more than tensors and plain containers{what}; loading that can run code.",
    4: "it is a TorchScript archive, which is code.",
    5: "there are no weights in it: neither a state dict nor one under state_dict, model_state_dict or model.",
    6: "it is damaged or cut off.",
}
_HINTS = {6: "Take it from its source again."}
_HINT = "Save its state_dict alone, in a place you trust."


def to_safetensors(source: Path, target: Path) -> Path:
    """Convert a pickled state dict, or a training checkpoint that holds one, to safetensors.

    Args:
        source: File that torch.save wrote: a state dict, or a dict with "state_dict", "model_state_dict" or "model".
        target: The file to write; it appears whole or not at all.

    Returns:
        `target`.

    Raises:
        MedclipError: MISSING_FILE; UNSAFE_WEIGHTS when it holds anything but tensors and plain containers; READ_ERROR
            or EMPTY_FILE when it cannot be read or holds no weights.
    """
    if not source.is_file():
        raise MedclipError(Reason.MISSING_FILE, "there is no such checkpoint.", where=source)
    if not is_pickle(source):
        empty = source.stat().st_size == 0
        raise MedclipError(
            Reason.EMPTY_FILE if empty else Reason.READ_ERROR,
            "the file is empty." if empty else "this is no checkpoint: nothing that torch.save writes begins like it.",
            where=source,
            hint="Take it from its source again." if empty else "Weights in safetensors form end in .safetensors.",
        )
    with new_file(target) as draft:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CONVERT, str(source.resolve()), str(draft)], capture_output=True, text=True
        )
        if done.returncode in _REFUSED:
            named = re.search(r"GLOBAL ([\w.]+)", done.stderr)
            message = _REFUSED[done.returncode].format(what=f" ({printable(named[1])})" if named else "")
            raise MedclipError(
                Reason.UNSAFE_WEIGHTS if done.returncode in (3, 4) else Reason.READ_ERROR,
                f"the checkpoint is not taken: {message}",
                where=source,
                hint=_HINTS.get(done.returncode, _HINT),
            )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["the process died"])[-1]
            raise disk_error(RuntimeError(last), target) or MedclipError(
                Reason.READ_ERROR, f"the weights could not be converted ({last[:200]}).", where=source
            )
    return target


_WRAPPERS = ("module.", "_orig_mod.", "model.", "clip.")
"""What data-parallel wrappers, torch.compile and modules around a model (Lightning's) put before every name."""


def wrapping(names: Iterable[str]) -> str:
    """Return what wrappers put before every name; "" where nothing stands before all of them."""
    names, prefix = list(names), ""
    while names and (more := next((w for w in _WRAPPERS if all(n.startswith(prefix + w) for n in names)), "")):
        prefix += more
    return prefix


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read names and sizes of the tensors in a safetensors file, wrappers' prefixes taken off.

    Raises:
        MedclipError: PACK_INVALID when its header cannot be read.
    """
    try:
        with path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("header")
            header = json.loads(f.read(length))
        sizes = {n: tuple(map(int, v["shape"])) for n, v in header.items() if n != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            "the weights cannot be read.",
            where=path,
            hint="Take the file from its source again.",
        ) from e
    prefix = wrapping(sizes)
    return {n.removeprefix(prefix): size for n, size in sizes.items()}
