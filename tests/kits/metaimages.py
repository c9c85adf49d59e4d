"""MetaImages made by code, as SimpleITK writes them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TYPES = {"i1": "CHAR", "u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "u4": "UINT", "i8": "LONG_LONG"}
_TYPES |= {"u8": "ULONG_LONG", "f4": "FLOAT", "f8": "DOUBLE"}


def metaimage(
    stored: NDArray[np.generic],
    *,
    directions: NDArray[np.float64] | None = None,
    spacing: Sequence[float] | None = None,
    origin: Sequence[float] | None = None,
    channels: int = 1,
    compressed: bool = False,
    data: str = "LOCAL",
    changed: Mapping[str, str] | None = None,
) -> tuple[bytes, bytes]:
    """Return the header's text and the voxels of an array with the fastest axis last, as SimpleITK has them.

    Args:
        stored: [..., z, y, x], or [..., z, y, x, channel].
        directions: Columns are the directions of x, y, z in LPS.
        channels: Values a voxel.
        data: Value of ElementDataFile.
        changed: Fields with other values; "" leaves one out.
    """
    shape = stored.shape[:-1] if channels > 1 else stored.shape
    axes = len(shape)
    turned = np.eye(axes)
    if directions is not None:
        turned[: len(directions), : len(directions)] = directions.T
    voxels = stored.tobytes()
    fields = {
        "ObjectType": "Image",
        "NDims": str(axes),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(stored.dtype.byteorder == ">"),
        "CompressedData": str(compressed),
        "TransformMatrix": " ".join(map(repr, turned.ravel().tolist())),
        "Offset": " ".join(map(str, origin or [0] * axes)),
        "ElementSpacing": " ".join(map(str, spacing or [1] * axes)),
        "0010|0010": "ROENTGEN^WILHELM",
        "DimSize": " ".join(map(str, reversed(shape))),
        **({"ElementNumberOfChannels": str(channels)} if channels > 1 else {}),
        "ElementType": f"MET_{_TYPES[stored.dtype.str[1:]]}",
        "ElementDataFile": data,
    }
    fields |= dict(changed or {})
    text = "".join(f"{name} = {value}\n" for name, value in fields.items() if value)
    return text.encode(), zlib.compress(voxels) if compressed else voxels


def write_mha(path: Path, stored: NDArray[np.generic], **options: object) -> Path:
    """Write header and voxels into one file."""
    path.write_bytes(b"".join(metaimage(stored, **options)))  # type: ignore[arg-type]
    return path


def write_mhd(path: Path, stored: NDArray[np.generic], **options: object) -> Path:
    """Write a header, and its voxels beside it under the name that it states."""
    name = path.with_suffix(".zraw" if options.get("compressed") else ".raw").name
    header, voxels = metaimage(stored, **{"data": name, **options})  # type: ignore[arg-type]
    path.write_bytes(header)
    path.with_name(name).write_bytes(voxels)
    return path
