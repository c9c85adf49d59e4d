"""The stored volume or loop of a sample: a NumPy array beside the sample's JSON, never a pickle.

The `npy` member is NumPy's format 1.0, in C order, little-endian; what its axes measure and its values mean stands in
the JSON under `volume`. WebDataset and anything else that knows NumPy read both.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.voxels import DTYPES, Voxels
from medclip.sample import Kind

EXTENSION = "npy"
FACTS = "volume"
"""Key of the JSON member."""
MAX_BYTES = 512 << 20
"""Of one sample: training reads a sample as one piece. A CT of 512 x 512 pixels may have 1,024 slices."""
_MAGIC = b"\x93NUMPY\x01\x00"
_KEYS = {"descr", "fortran_order", "shape"}


def encode_voxels(voxels: Voxels) -> bytes:
    """Write the values as a NumPy array.

    Raises:
        MedclipError: TOO_LARGE beyond `MAX_BYTES`.
    """
    values = voxels.values
    if values.nbytes > MAX_BYTES:
        size = " x ".join(map(str, values.shape))
        raise MedclipError(
            Reason.TOO_LARGE,
            f"the {voxels.kind} of {size} takes {values.nbytes >> 20:,} MB; a sample may take {MAX_BYTES >> 20}.",
            hint="Cut it into parts, or store it at a coarser spacing.",
        )
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def facts_of(voxels: Voxels) -> dict[str, Any]:
    """Return what the JSON says of them."""
    return {
        "kind": str(voxels.kind),
        "spacing_mm": None if voxels.spacing_mm is None else list(voxels.spacing_mm),
        "plane": voxels.plane,
        "unit": voxels.unit,
        "frame_ms": voxels.frame_ms,
    }


def decode_voxels(data: bytes, facts: Mapping[str, Any]) -> Voxels:
    """Read what `encode_voxels` and `facts_of` wrote; the values share the memory of `data` and cannot be written to.

    Raises:
        MedclipError: CORRUPT for anything else.
    """
    try:
        dtype, shape, start = _header(data)
        kind = Kind(facts["kind"])
        spacing, frame_ms = facts["spacing_mm"], facts["frame_ms"]
        if len(shape) != (3 if kind is Kind.VOLUME else 4) or min(shape) < 1:
            raise ValueError("another number of axes")
        values = np.frombuffer(data, dtype, offset=start).reshape(shape)
        if (kind is Kind.VOLUME) != (spacing is not None) or kind not in (Kind.VOLUME, Kind.CINE):
            raise ValueError("no spacing")
        known = None if spacing is None else tuple(float(mm) for mm in spacing)
        if known is not None and (len(known) != 3 or not all(0 < mm < np.inf for mm in known)):
            raise ValueError("no spacing")
        return Voxels(
            values, kind, str(facts["unit"]), facts["plane"],
            None if known is None else (known[0], known[1], known[2]),
            None if frame_ms is None else float(frame_ms),
        )  # fmt: skip
    except (KeyError, ValueError, TypeError, SyntaxError, IndexError) as e:
        raise MedclipError(Reason.CORRUPT, f"the stored volume cannot be read ({type(e).__name__}: {e}).") from e


def _header(data: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return type, shape and first byte of an array's values, without NumPy's reader, which copies."""
    if not data.startswith(_MAGIC):
        raise ValueError("no NumPy array of format 1.0")
    start = len(_MAGIC) + 2 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")
    header = ast.literal_eval(data[len(_MAGIC) + 2 : start].decode("latin-1"))
    if set(header) != _KEYS or header["fortran_order"]:
        raise ValueError("not in C order")
    dtype = np.dtype(header["descr"])
    if dtype.hasobject or dtype.name not in DTYPES or not dtype.isnative:
        raise ValueError(f"values of the type {dtype.name}")
    return dtype, tuple(int(length) for length in header["shape"]), start
