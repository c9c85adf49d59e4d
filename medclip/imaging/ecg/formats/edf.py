"""Read EDF, EDF+ and BDF records: fixed headers, then data records of 16 or 24-bit samples.

ecgdatakit 2.0.3 reads the field file `ecg/scp/0000050.ECG.edf` to the same values, but not the records that
`tests/kits/ecg.write_edf` makes for test_edf.py and test_read.py: it refuses BDF, joins the parts of a discontinuous
EDF+D record as if no time lay between them, reads a file that is cut short to its end with a warning, refuses a record
with one channel without samples, and rounds the rate. It also holds all channels of a 24-hour record as float64, where
this maps the file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import OTHER, lead_name
from medclip.imaging.ecg.recording import (
    Recording,
    check_rate,
    check_size,
    choose,
    decoded,
    left_out,
    millivolts_per,
    stretch,
    truncated,
)
from medclip.settings import Settings

_FIXED = 256
_MAX_SIGNALS = 4096
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Bytes of each field of a signal's header; every field is stored for all signals before the next one."""
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)")


@dataclass(frozen=True)
class _Channel:
    label: str
    unit: str
    low: float
    """Physical value of `bottom`."""
    high: float
    bottom: float
    top: float
    per_record: int

    @property
    def factor(self) -> float | None:
        """Millivolts per physical unit; None without a usable range or for other units."""
        if not (self.top > self.bottom and self.high != self.low and math.isfinite(self.high - self.low)):
            return None
        return millivolts_per(self.unit)

    @property
    def annotations(self) -> bool:
        return self.label.upper() in ("EDF ANNOTATIONS", "BDF ANNOTATIONS")


def read_edf(path: Path, settings: Settings) -> Recording:
    """Read the ECG channels of an EDF or BDF record.

    Returns:
        The ECG channels in mV; gaps between the records of a discontinuous file (EDF+D) are NaN.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, TOO_LARGE, NO_SCALE or NOT_AN_IMAGE.
    """
    with path.open("rb") as file:
        head = file.read(_FIXED)
        if len(head) < _FIXED:
            raise truncated("bytes of header", _FIXED, len(head))
        count, records, seconds = int(_number(head[252:256])), int(_number(head[236:244])), _number(head[244:252])
        if not 0 < count <= _MAX_SIGNALS:
            raise MedclipError(Reason.CORRUPT, "the EDF header states no usable number of signals.")
        channels = _channels(file.read(_FIXED * count), count)
    width = 3 if head[:1] == b"\xff" else 2
    per_record = sum(channel.per_record for channel in channels)
    held = (path.stat().st_size - _FIXED * (count + 1)) // max(per_record * width, 1)
    # -1: a recorder that was not stopped properly left the count open.
    records = held if records == -1 else records
    if records < 1 or held < records:
        raise truncated("data records", max(records, 1), max(held, 0))
    signals = [channel for channel in channels if not channel.annotations]
    rows, notes = choose([channel.label for channel in signals], [channel.factor for channel in signals])
    picked, top, more = _leads([signals[row] for row in rows])
    notes = (*notes, *more)
    if not all(channel.per_record for channel in picked):
        raise MedclipError(Reason.CORRUPT, "the EDF header states no samples of an ECG channel.")
    if seconds <= 0:
        raise MedclipError(Reason.CORRUPT, "the EDF header states data records of no duration.")
    hz = check_rate(top / seconds)
    check_size(len(signals), records * top, settings)
    data = np.memmap(path, np.uint8, "r", _FIXED * (count + 1), (records, per_record, width))
    onsets = _onsets(data, channels) if head[192:197] in (b"EDF+D", b"BDF+D") else None
    lines = (_millivolts(data, channels, channel) for channel in picked)
    # The parts of a discontinuous record are no neighbours, so that nothing is interpolated from one to the next.
    parts = 1 if onsets is None else records
    values = np.stack([_stretched(line, records * top, parts) for line in lines])
    if onsets is not None:
        values = _spread(values, onsets, top, hz, settings)
        notes = (*notes, "discontinuous record: the time between its parts is a gap")
    return Recording(
        values,
        tuple(channel.label for channel in picked),
        hz,
        tuple(channel.label for channel in signals),
        records * top,
        hz,
        tuple(channel.unit for channel in picked),
        notes,
        "medclip (EDF)",
    )


def _leads(picked: list[_Channel]) -> tuple[list[_Channel], int, tuple[str, ...]]:
    """Return the channels that are read, samples of the fastest in a data record, and notes on the rates."""
    meanings = [lead_name(channel.label) for channel in picked]
    leads = [channel for channel, meaning in zip(picked, meanings, strict=True) if meaning.name != OTHER]
    # A channel of unknown name may be anything, and its rate decides nothing where there are leads.
    top = max(channel.per_record for channel in leads or picked)
    notes: tuple[str, ...] = ()
    if leads:
        others = [c for c in picked if c not in leads and c.per_record != top]
        notes = left_out([OTHER] * len(others), "of another sampling rate")
        picked = [channel for channel in picked if channel not in others]
    if any(channel.per_record != top for channel in picked):
        notes = (*notes, "leads of a lower sampling rate interpolated to that of the fastest")
    return picked, top, notes


def _stretched(line: NDArray[np.float32], samples: int, parts: int) -> NDArray[np.float32]:
    """Interpolate a channel to more samples, each part by itself."""
    if line.size == samples:
        return line
    pieces = [stretch(piece, samples // parts) for piece in line.reshape(parts, -1)]
    return np.concatenate(pieces).astype(np.float32)


def _number(field: bytes) -> float:
    try:
        value = float(field.decode("ascii").strip("\0 ").replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MedclipError(Reason.CORRUPT, "a number in the EDF header cannot be understood.")
    return value


def _channels(head: bytes, count: int) -> list[_Channel]:
    if len(head) < _FIXED * count:
        raise truncated("bytes of signal headers", _FIXED * count, len(head))
    columns: list[list[bytes]] = []
    at = 0
    for width in _WIDTHS:
        columns.append([head[at + i * width : at + (i + 1) * width] for i in range(count)])
        at += width * count
    labels, _, units, low, high, bottom, top, _, per_record, _ = columns
    channels = [
        _Channel(
            decoded(labels[i]).strip("\0 "),
            decoded(units[i]).strip("\0 "),
            _number(low[i]),
            _number(high[i]),
            _number(bottom[i]),
            _number(top[i]),
            int(_number(per_record[i])),
        )
        for i in range(count)
    ]
    if any(channel.per_record < 0 for channel in channels) or not any(channel.per_record for channel in channels):
        raise MedclipError(Reason.CORRUPT, "the EDF header states no samples in a data record.")
    return channels


def _block(data: NDArray[np.uint8], channels: list[_Channel], channel: _Channel) -> NDArray[np.uint8]:
    """Return a channel's bytes, [record, sample, byte]."""
    index = next(i for i, other in enumerate(channels) if other is channel)
    start = sum(other.per_record for other in channels[:index])
    return data[:, start : start + channel.per_record]


def _millivolts(data: NDArray[np.uint8], channels: list[_Channel], channel: _Channel) -> NDArray[np.float32]:
    block = np.ascontiguousarray(_block(data, channels, channel))
    if block.shape[-1] == 2:
        digital = block.view("<i2").ravel().astype(np.float64)
    else:
        wide = np.zeros((*block.shape[:-1], 4), np.uint8)
        wide[..., 1:] = block  # the value sits in the upper three bytes, so that the sign is right
        digital = (wide.view("<i4").ravel() >> 8).astype(np.float64)
    gain = (channel.high - channel.low) / (channel.top - channel.bottom)
    physical = (digital - channel.bottom) * gain + channel.low
    return (physical * (channel.factor or np.nan)).astype(np.float32)


def _onsets(data: NDArray[np.uint8], channels: list[_Channel]) -> NDArray[np.float64]:
    """Return the start of every data record in seconds, from the first time stamp of each."""
    channel = next((channel for channel in channels if channel.annotations), None)
    starts = []
    for record in () if channel is None else _block(data, channels, channel):
        match = _ONSET.match(record.tobytes())
        starts.append(float(match[1]) if match else math.nan)
    onsets = np.array(starts)
    if not onsets.size or not np.isfinite(onsets).all() or (np.diff(onsets) <= 0).any():
        raise MedclipError(Reason.CORRUPT, "the discontinuous EDF record does not say when its parts start.")
    return onsets - onsets[0]


def _spread(
    values: NDArray[np.float32], onsets: NDArray[np.float64], per_record: int, hz: float, settings: Settings
) -> NDArray[np.float32]:
    """Place data records where they belong in time."""
    starts = np.round(onsets * hz).astype(np.int64)
    if (np.diff(starts) < per_record).any():
        raise MedclipError(Reason.CORRUPT, "the parts of the discontinuous EDF record overlap.")
    total = int(starts[-1]) + per_record
    check_size(len(values), total, settings)
    placed = np.full((len(values), total), np.nan, np.float32)
    for number, start in enumerate(starts):
        placed[:, start : start + per_record] = values[:, number * per_record : (number + 1) * per_record]
    return placed
