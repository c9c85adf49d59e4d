"""Read Philips Sierra XML: plain or XLI-compressed samples of all leads in one element.

XLI: every lead is a block of a size, a start value and LZW codes of 10 bits. They give the high bytes of all values,
then the low bytes; the values are second differences. The augmented and third limb leads are stored as what remains
when they are computed from I and II.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording, check_rate, check_size, choose, truncated
from medclip.settings import Settings

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_TYPES = ("SierraECG", "PhilipsECG")
_VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")
_MAX_LEADS = 32
_PULSE_S = 0.1
_BITS = 10
_LAST_CODE = 2**_BITS - 2


def read_sierra(root: Element, settings: Settings) -> Recording:
    """Read the rhythm of a Sierra document.

    Args:
        root: The `restingecgdata` element, without namespaces.
        settings: Limits.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for other document types, CORRUPT, TRUNCATED, TOO_LARGE or NO_SCALE.
    """
    kind, version = _text(root, "documentinfo/documenttype"), _text(root, "documentinfo/documentversion")
    if kind not in _TYPES or version not in _VERSIONS:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            "The document is of a type or version that is not read; SierraECG and PhilipsECG 1.03 and 1.04 are.",
        )
    wave = next(root.iter("parsedwaveforms"), None)
    signal = root.find("dataacquisition/signalcharacteristics")
    if wave is None or not (wave.text or "").strip():
        raise MedclipError(Reason.CORRUPT, "The Sierra document has no waveforms.")

    def stated(attribute: str, *elements: str) -> str:
        texts = (_text(signal, element) for element in elements)
        return next((text for text in (wave.get(attribute, "").strip(), *texts) if text), "")

    hz = check_rate(_number(stated("samplespersecond", "samplingrate")))
    samples = round(_number(stated("durationperchannel")) * hz / 1000)
    names = _names(stated("leadlabels"), stated("numberofleads", "numberchannelsallocated", "numberchannelsvalid"))
    check_size(len(names), samples, settings)
    digital = _digital(wave, names, samples, signed=stated("signalsigned", "signalsigned").lower() != "false")
    resolution = stated("resolution", "resolution", "signalresolution")
    # The format's resolution is in microvolts per count.
    factor = _number(resolution) * 1e-3 if resolution else 0.0
    rows, notes = choose(names, [factor or None] * len(names))
    zero = _number(stated("signaloffset", "signaloffset") or "0")
    values = ((digital[list(rows)] - zero) * factor).astype(np.float32)
    leads = tuple(names[row] for row in rows)
    recorded = _recorded(digital, hz)
    if recorded < samples:
        notes = (*notes, f"calibration pulse of {(samples - recorded) / hz:g} s at the end left out")
        values = values[:, :recorded]
    return Recording(values, leads, hz, names, samples, hz, ("uV",) * len(rows), notes, "medclip (Sierra)")


def _text(element: Element | None, path: str) -> str:
    child = None if element is None else element.find(path)
    return "" if child is None else (child.text or "").strip()


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or abs(value) > 1e9:
        raise MedclipError(Reason.CORRUPT, "A number that describes the waveforms is missing or not understood.")
    return value


def _names(labels: str, count: str) -> tuple[str, ...]:
    """Name the leads: as labelled, else the twelve in order, as the standard set of leads has them."""
    names = tuple(labels.split())
    number = int(_number(count)) if count else len(names)
    if not names and number == len(TWELVE):
        return TWELVE
    if not 0 < number <= _MAX_LEADS or len(names) < number:
        raise MedclipError(Reason.CORRUPT, "The Sierra document does not name its leads.")
    return names[:number]


def _digital(wave: Element, names: tuple[str, ...], samples: int, *, signed: bool) -> NDArray[np.int64]:
    """Decode all leads to counts, [C, T]."""
    method = wave.get("compression", "") or wave.get("compressmethod", "")
    compressed = wave.get("compressflag", "true").lower() != "false" and method.lower() not in (
        "",
        "uncompressed",
        "none",
    )
    text = wave.text or ""
    wanted = len(names) * samples
    if wave.get("dataencoding") == "Plain" and not compressed:
        try:
            values = np.array(text.split(), np.int64)
        except ValueError:
            raise MedclipError(Reason.CORRUPT, "The plain samples are not all whole numbers.") from None
    else:
        if wave.get("dataencoding") != "Base64" or (compressed and method.upper() != "XLI"):
            raise MedclipError(Reason.NOT_SUPPORTED_YET, "The waveforms are encoded in a way that is not read.")
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except ValueError:  # of Base64 itself, or letters beyond ASCII
            raise MedclipError(Reason.CORRUPT, "The waveforms are no valid Base64 text.") from None
        if compressed:
            return _expand(data, names, samples)
        values = np.frombuffer(data[: len(data) // 2 * 2], "<i2" if signed else "<u2").astype(np.int64)
    if values.size < wanted:
        raise truncated("samples", wanted, values.size)
    return values[:wanted].reshape(len(names), samples)


def _recorded(digital: NDArray[np.int64], hz: float) -> int:
    """Return the number of samples before the calibration pulse, which carts add at the end, the same in all leads."""
    differ = np.flatnonzero((digital != digital[:1]).any(0))
    end = int(differ[-1]) + 1 if differ.size else digital.shape[1]
    pulse = digital[0, end:]
    return end if pulse.size >= _PULSE_S * hz and np.ptp(pulse) else digital.shape[1]


def _expand(data: bytes, names: tuple[str, ...], samples: int) -> NDArray[np.int64]:
    """Decompress XLI, and compute the limb leads that are stored as remainders."""
    leads = np.empty((len(names), samples), np.int64)
    at = 0
    for lead in leads:
        size = int.from_bytes(data[at : at + 4], "little")
        start = int.from_bytes(data[at + 6 : at + 8], "little", signed=True)
        block = data[at + 8 : at + 8 + size]
        at += 8 + size
        # A few bytes more than the stated samples need are usual, a thousandfold is not.
        packed = np.frombuffer(_lzw(block, 4 * samples + 64), np.uint8)
        half = (packed.size + 1) // 2
        if len(block) < size or half < max(samples, 2):
            raise truncated("samples of a lead", samples, half)
        low = np.zeros(half, np.uint8)
        low[: packed.size - half] = packed[half:]
        codes = ((packed[:half].astype(np.uint16) << 8) | low).view(np.int16).astype(np.int64)
        lead[:] = _integrate(codes, start)[:samples]
    if names[:6] == TWELVE[:6]:
        one, two = leads[0], leads[1]
        leads[2] = two - one - leads[2]
        leads[3] = -leads[3] - (one + two) // 2
        leads[4] = (one - leads[2]) // 2 - leads[4]
        leads[5] = (two + leads[2]) // 2 - leads[5]
    return leads


def _integrate(codes: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    """Undo the second differences.

    The first two codes are values. From there on each value is `2 b - a - c`, of the two values before it and a
    correction that lags by one code: `start` first, then each code less 64.
    """
    corrections = np.empty(codes.size - 2, np.int64)
    if corrections.size:
        corrections[0] = start
        corrections[1:] = codes[2:-1] - 64
    slope = codes[1] - codes[0] - np.cumsum(corrections)
    return np.concatenate((codes[:2], codes[1] + np.cumsum(slope)))


def _lzw(block: bytes, limit: int) -> bytes:
    """Decompress LZW codes of 10 bits, most significant bit first.

    Raises:
        MedclipError: CORRUPT for a code that is not known yet, TOO_LARGE above `limit` bytes.
    """
    table = [bytes((value,)) for value in range(256)]
    out = bytearray()
    before = b""
    held = bits = 0
    for byte in block:
        held, bits = (held << 8) | byte, bits + 8
        if bits < _BITS:
            continue
        bits -= _BITS
        code, held = held >> bits, held & ((1 << bits) - 1)
        if code > _LAST_CODE:
            break
        if code < len(table):
            text = table[code]
        elif code == len(table) and before:
            text = before + before[:1]
        else:
            raise MedclipError(Reason.CORRUPT, "The compressed waveforms hold a code that means nothing.")
        if before and len(table) <= _LAST_CODE:
            table.append(before + text[:1])
        out += text
        if len(out) > limit:
            raise MedclipError(Reason.TOO_LARGE, "The compressed waveforms hold far more samples than stated.")
        before = text
    return bytes(out)
