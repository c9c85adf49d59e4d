"""What reading a volume gives, and the rules that hold for all of them: size, exact types, no holes."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, opening
from medclip.sample import Step, Volume
from medclip.settings import Settings

HU = "HU"
RELATIVE = "relative"
AIR_HU = -1024
"""The lowest value that CT scanners reconstruct; what lies below is a mark for "outside the field", not density."""


class VolumeRead(NamedTuple):
    """A volume and what was done to make it."""

    volume: Volume
    steps: tuple[Step, ...]
    decoder: str
    headers: Mapping[str, Any]
    """Allow-listed, non-identifying header values, and of the file as stored: stored_shape, stored_spacing,
    stored_orientation, oblique_deg, value_range."""


def check_bytes(shape: Sequence[int], itemsize: int, settings: Settings) -> None:
    """Refuse a volume by the size its header states, before anything is allocated.

    Raises:
        MedclipError: CORRUPT for a size of zero or less; TOO_LARGE beyond `settings.max_volume_bytes`.
    """
    if not shape or min(shape) < 1:
        raise MedclipError(Reason.CORRUPT, "the header states a volume without voxels.")
    size = math.prod(int(length) for length in shape) * itemsize
    if size > settings.max_volume_bytes:
        raise MedclipError(
            Reason.TOO_LARGE,
            f"the volume has {' x '.join(map(str, shape))} voxels and takes {size:,} bytes, more than the limit of "
            f"{settings.max_volume_bytes:,}.",
            hint="A larger max_volume_bytes below [limits] in medclip.toml, or of medclip.Settings, raises the limit.",
        )


@contextmanager
def damage_named() -> Iterator[None]:
    """Turn what the reading of a volume's file raises into refusals.

    Raises:
        MedclipError: PERMISSION_DENIED, MISSING_FILE, TRUNCATED, TOO_LARGE; CORRUPT for all else.
    """
    try:
        with opening():
            yield
    except MedclipError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise MedclipError(Reason.TRUNCATED, "the compressed volume ends too early or is damaged.") from None
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the volume does not fit into memory.") from None
    except Exception:
        raise MedclipError(Reason.CORRUPT, "the volume's header makes no sense.") from None


def exactly(values: NDArray[Any], dtype: Any) -> NDArray[Any] | None:
    """Return float values as an integer type if it holds every one of them exactly; else None. NaN is never exact."""
    limits = np.iinfo(dtype)
    low, high = values.min(initial=0), values.max(initial=0)  # NaN makes both comparisons false
    if not (low >= limits.min and high <= limits.max):
        return None
    converted = values.astype(dtype)
    return converted if np.array_equal(converted, values) else None


def extent(voxels: NDArray[Any]) -> tuple[float, float]:
    """Return the smallest and largest finite value.

    Raises:
        MedclipError: NON_FINITE if there is none.
    """
    if voxels.dtype.kind != "f":
        return float(voxels.min()), float(voxels.max())
    low, high = float(voxels.min()), float(voxels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = voxels[np.isfinite(voxels)]
        if finite.size == 0:
            raise MedclipError(Reason.NON_FINITE, "the volume holds no finite value.")
        low, high = float(finite.min()), float(finite.max())
    return low, high


def fill(voxels: NDArray[Any], unit: str, low: float) -> tuple[NDArray[Any], tuple[Step, ...]]:
    """Fill what has no value: air in CT, else the lowest value that occurs, which is shown black.

    CT values under `AIR_HU` are set to it: scanners mark what lies outside their round field with -2000 or -3024, and
    resampling overshoots; neither is a density.

    Args:
        voxels: Voxels of any shape. Changed in place where it can be.
        unit: Unit of the values.
        low: The smallest finite value.

    Returns:
        The voxels, all finite; and what was done.
    """
    steps: list[Step] = []
    value = AIR_HU if unit == HU else low
    if voxels.dtype.kind == "f":
        holes = ~np.isfinite(voxels)
        count = int(np.count_nonzero(holes))
        if count:
            voxels = voxels if voxels.flags.writeable else voxels.copy()
            voxels[holes] = value
            steps.append(Step("fill", f"{count} voxels without a value (padding, NaN) set to {value:g}"))
    if unit == HU and low < AIR_HU:
        share = np.count_nonzero(voxels < AIR_HU) / voxels.size
        voxels = np.maximum(voxels, np.asarray(AIR_HU, voxels.dtype))
        steps.append(Step("air", f"values below {AIR_HU} HU (down to {low:g}, {share:.1%} of the voxels) set to it"))
    return voxels, tuple(steps)
