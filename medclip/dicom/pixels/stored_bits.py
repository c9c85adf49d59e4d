"""Where in its word a stored value stands: unused bits, values in the high bits, lost signs."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def aligned(pixels: NDArray[Any], bits_stored: int, high_bit: int) -> tuple[NDArray[Any], int]:
    """Move values down that stand in the high bits of their words.

    The standard has allowed only HighBit = BitsStored - 1 for long. Many headers with another HighBit are wrong, so it
    is believed only where the pixels agree: some are too large for the stored bits.

    Args:
        pixels: Integers of any shape.
        bits_stored: How many bits are the value.
        high_bit: The place of the highest of them, from 0.

    Returns:
        The pixels, and by how many bits they were moved.
    """
    shift = high_bit + 1 - bits_stored
    if not 0 < shift <= 8 * pixels.dtype.itemsize - bits_stored or not pixels.size:
        return pixels, 0
    words = pixels.view(f"{pixels.dtype.byteorder}u{pixels.dtype.itemsize}")
    fits = int(words.max()) < 1 << bits_stored
    if pixels.dtype.kind == "i":  # negative values have all high bits set
        fits |= -(1 << bits_stored - 1) <= int(pixels.min()) and int(pixels.max()) < 1 << bits_stored - 1
    return (pixels, 0) if fits else (pixels >> shift, shift)


def without_unused_bits(pixels: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    """Take away what stands in the bits above the stored ones (overlays of old objects, or nothing in particular).

    Args:
        pixels: Integers of any shape.
        bits_stored: How many of the low bits are the value; the highest of them is the sign of signed pixels.
    """
    signed = pixels.dtype.kind == "i"
    low, high = int(pixels.min()) if signed else 0, int(pixels.max())
    first, last = (-(1 << bits_stored - 1), (1 << bits_stored - 1) - 1) if signed else (0, (1 << bits_stored) - 1)
    if first <= low and high <= last:
        return pixels
    shift = 8 * pixels.dtype.itemsize - bits_stored
    return (pixels << shift) >> shift


def with_sign(pixels: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    """Return signed pixels their sign back where a codec that knows none (JPEG, JPEG-LS) decoded their bits.

    Args:
        pixels: Integers of any shape.
        bits_stored: How many of the low bits are the value.
    """
    if pixels.dtype.kind != "i" or not 0 < bits_stored < 8 * pixels.dtype.itemsize:
        return pixels
    lost = pixels.min() >= 0 and 1 << bits_stored - 1 <= int(pixels.max()) < 1 << bits_stored
    return without_unused_bits(pixels, bits_stored) if lost else pixels
