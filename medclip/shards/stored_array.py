"""An array in a shard: NumPy's format 1.0, in C order, little-endian, never a pickle.

WebDataset and anything else that knows NumPy read it; what its axes measure and its values mean stands in the JSON of
the sample.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXTENSION = "npy"
"""Of the member."""
_MAGIC = b"\x93NUMPY\x01\x00"
_KEYS = {"descr", "fortran_order", "shape"}


def encode_array(values: NDArray[Any]) -> bytes:
    """Write an array."""
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes, dtypes: Container[str]) -> NDArray[Any]:
    """Read what `encode_array` wrote, without NumPy's reader, which copies; it cannot be written to.

    Args:
        data: The member.
        dtypes: Names of the types that are expected.

    Raises:
        ValueError, TypeError, SyntaxError, IndexError: The bytes are something else.
    """
    if not data.startswith(_MAGIC):
        raise ValueError("no NumPy array of format 1.0")
    start = len(_MAGIC) + 2 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")
    header = ast.literal_eval(data[len(_MAGIC) + 2 : start].decode("latin-1"))
    if set(header) != _KEYS or header["fortran_order"]:
        raise ValueError("not in C order")
    dtype = np.dtype(header["descr"])
    if dtype.hasobject or dtype.name not in dtypes or not dtype.isnative:
        raise ValueError(f"values of the type {dtype.name}")
    return np.frombuffer(data, dtype, offset=start).reshape([int(length) for length in header["shape"]])
