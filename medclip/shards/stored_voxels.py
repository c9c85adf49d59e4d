"""The stored volume or loop of a sample: an array beside the sample's JSON, which says under `volume` what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.voxels import DTYPES, Voxels
from medclip.sample import Kind
from medclip.shards.stored_array import decode_array, encode_array

FACTS = "volume"
"""Key of the JSON member."""
MAX_BYTES = 512 << 20
"""Of one sample: training reads a sample as one piece. A CT of 512 x 512 pixels may have 1,024 slices."""


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
    return encode_array(values)


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
        values, kind = decode_array(data, DTYPES), Kind(facts["kind"])
        spacing, frame_ms = facts["spacing_mm"], facts["frame_ms"]
        if values.ndim != (3 if kind is Kind.VOLUME else 4) or not values.size:
            raise ValueError("another number of axes")
        if (kind is Kind.VOLUME) != (spacing is not None) or kind not in (Kind.VOLUME, Kind.CINE):
            raise ValueError("no spacing")
        known = None if spacing is None else tuple(float(mm) for mm in spacing)
        if known is not None and (len(known) != 3 or not all(0 < mm < np.inf for mm in known)):
            raise ValueError("no spacing")
        return Voxels(
            values,
            kind,
            str(facts["unit"]),
            facts["plane"],
            None if known is None else (known[0], known[1], known[2]),
            None if frame_ms is None else float(frame_ms),
        )
    except (KeyError, ValueError, TypeError, SyntaxError, IndexError) as e:
        raise MedclipError(Reason.CORRUPT, f"the stored volume cannot be read ({type(e).__name__}: {e}).") from e
