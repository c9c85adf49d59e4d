"""Read WFDB records: header and signal files, of one segment or many."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE, lead_name
from medclip.imaging.ecg.recording import (
    Recording,
    check_rate,
    check_size,
    choose,
    decoded,
    millivolts_per,
    stretch,
    truncated,
)
from medclip.settings import Settings

# Read a WFDB header as text: what it states, and what it leaves unsaid (the library fills that with defaults).

_MAX_BYTES = 4 * 1024**2
_DEFAULT_HZ = 250.0
# A file beside the header: no folder, no URL, no drive, nothing hidden, and "-" (standard input) is none.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_RECORD = re.compile(
    r"(?P<name>[^\s/]+)(?:/(?P<segments>\d+))?\s+(?P<signals>\d+)"
    r"(?:\s+(?P<hz>[\d.]+(?:[eE][+-]?\d+)?)(?:/\S*)?(?:\s+(?P<samples>\d+))?)?(?:\s.*)?"
)
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?"
    r"(?:\s+(?P<gain>-?[\d.]+(?:[eE][+-]?\d+)?)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<unit>\S+))?"
    r"(?:\s+-?\d+(?:\s+(?P<adc_zero>-?\d+)(?:\s+-?\d+(?:\s+-?\d+(?:\s+-?\d+(?:\s+(?P<name>.+))?)?)?)?)?)?)?\s*"
)


@dataclass(frozen=True)
class WfdbSignal:
    """One signal line."""

    file: str
    format: int
    per_frame: int
    skew: int
    offset: int
    name: str
    unit: str
    scaled: bool
    """Whether a gain is stated; absent and 0 mean "uncalibrated" in WFDB."""
    gain: float
    """Counts per unit; a negative one means that larger counts are lower voltages."""
    baseline: int
    """Count of 0 units; where the header does not say, the middle of the recorder's range."""

    @property
    def factor(self) -> float | None:
        """Millivolts per unit; None without gain or for other units."""
        return millivolts_per(self.unit) if self.scaled else None


@dataclass(frozen=True)
class WfdbHeader:
    """What a header states."""

    path: Path
    hz: float
    """Frames per second."""
    samples: int | None
    """Frames; None where the header does not say."""
    signals: tuple[WfdbSignal, ...] = ()
    segments: tuple[tuple[str, int], ...] | None = None
    """Record name and frames of each segment; "~" is a gap. None for a record of one segment."""


def read_wfdb_header(path: Path) -> WfdbHeader:
    """Read a header.

    Raises:
        MedclipError: CORRUPT if a line cannot be understood or a file outside the header's folder is named, TOO_LARGE
            if it is no header by its size.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise MedclipError(Reason.TOO_LARGE, "the WFDB header is larger than any header is.")
    text = decoded(path.read_bytes())
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    match = _RECORD.fullmatch(lines[0]) if lines else None
    if match is None:
        raise _broken("record line")
    hz = check_rate(float(match["hz"])) if match["hz"] else _DEFAULT_HZ
    # A length of 0 means the same as none.
    samples = int(match["samples"] or 0) or None
    if match["segments"]:
        segments = tuple(_segment(line) for line in lines[1 : 1 + int(match["segments"])])
        if len(segments) != int(match["segments"]):
            raise _broken("list of segments")
        return WfdbHeader(path, hz, samples, (), segments)
    signals = tuple(_signal(line, number) for number, line in enumerate(lines[1 : 1 + int(match["signals"])]))
    if len(signals) != int(match["signals"]) or not signals:
        raise _broken("list of signals")
    return WfdbHeader(path, hz, samples, signals)


def _signal(line: str, number: int) -> WfdbSignal:
    match = _SIGNAL.fullmatch(line)
    if match is None:
        raise _broken(f"line of signal {number + 1}")
    try:
        gain = float(match["gain"] or 0)
    except ValueError:
        raise _broken(f"gain of signal {number + 1}") from None
    return WfdbSignal(
        beside(match["file"]),
        int(match["format"]),
        max(1, int(match["per_frame"] or 1)),
        int(match["skew"] or 0),
        int(match["offset"] or 0),
        (match["name"] or "").strip(),
        # Where the unit is left out, WFDB says millivolts.
        match["unit"] or "mV",
        gain != 0,
        gain,
        int(match["baseline"] or match["adc_zero"] or 0),
    )


def _segment(line: str) -> tuple[str, int]:
    words = line.split()
    if len(words) < 2 or not words[1].isdecimal():
        raise _broken("list of segments")
    return (words[0] if words[0] == "~" else beside(words[0])), int(words[1])


def beside(name: str) -> str:
    """Return a file's name back, or refuse one that leads out of the header's folder or to a server."""
    if _NAME.fullmatch(name) is None:
        raise MedclipError(
            Reason.CORRUPT,
            "the WFDB header names a file that is not beside it, or by an unusual name; only files in the same folder "
            "are read.",
        )
    return name


def _broken(what: str) -> MedclipError:
    return MedclipError(Reason.CORRUPT, f"the {what} of the WFDB header cannot be understood.")


# The two files of a WFDB record as medclip writes it: whole microvolts, 16 bits a sample.

UNITS_PER_MV = 1000
_MISSING = -(2**15)
"""Of 16-bit samples of WFDB: nothing is known here."""


def wfdb_record(
    name: str,
    leads_mv: NDArray[np.floating],
    sampling_hz: float,
    names: Sequence[str] = TWELVE,
    comment: str = "",
) -> tuple[bytes, str]:
    """Return the bytes of the signals, for `name`.dat, and the text of the header, for `name`.hea.

    Args:
        name: Name of the record: letters, digits, _ and -.
        leads_mv: float [L, T] in mV; NaN where nothing is known. Beyond 32.767 mV they are cut off.
        sampling_hz: Samples per second.
        names: Names of the L leads.
        comment: A line below the header; none where empty.

    Reference: https://physionet.org/physiotools/wag/header-5.htm

    Example:
        >>> signals, header = wfdb_record("r1", np.array([[0.0, 1.0]]), 500, ["II"])
        >>> header.splitlines()
        ['r1 1 500 2', 'r1.dat 16 1000.0(0)/mV 16 0 0 1000 0 II']
    """
    is_finite = np.isfinite(leads_mv)
    stored = np.where(
        is_finite, np.clip(np.rint(np.where(is_finite, leads_mv, 0) * UNITS_PER_MV), -32767, 32767), _MISSING
    )
    stored = stored.astype("<i2")
    lines = [f"{name} {len(names)} {sampling_hz:g} {stored.shape[1]}"]
    for lead, line in zip(names, stored, strict=True):
        checksum = (int(line.astype(np.int64).sum()) + 0x8000) % 0x10000 - 0x8000
        lines.append(f"{name}.dat 16 {UNITS_PER_MV}.0(0)/mV 16 0 {line[0]} {checksum} 0 {lead}")
    if comment:
        lines.append(f"# {comment}")
    return stored.T.tobytes(), "\n".join(lines) + "\n"


_BYTES = {8: 1.0, 16: 2.0, 24: 3.0, 32: 4.0, 61: 2.0, 80: 1.0, 160: 2.0, 212: 1.5, 310: 4 / 3, 311: 4 / 3}
"""Of 16-bit samples: no sample was taken."""
_FLAC = frozenset({508, 516, 524})


def read_wfdb(path: Path, settings: Settings) -> Recording:
    """Read a WFDB record from its header; never from anywhere but the header's folder.

    Returns:
        The ECG channels in mV. Channels of several samples per frame are read at their full rate.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, TOO_LARGE, MISSING_FILE, NO_SCALE, NOT_AN_IMAGE or MISSING_CODEC.
    """
    header = read_wfdb_header(path)
    if header.segments is not None:
        return _join(header, settings)
    frames = _frames(header)
    per_frame = max(signal.per_frame for signal in header.signals)
    check_size(len(header.signals), frames * per_frame, settings)
    names = tuple(signal.name for signal in header.signals)
    rows, notes = choose(names, [signal.factor for signal in header.signals])
    picked = [header.signals[row] for row in rows]
    values = _values(header, rows, frames)
    top = max(signal.per_frame for signal in picked)
    if {signal.per_frame for signal in picked} != {top}:
        values = [stretch(row, frames * top) for row in values]
        notes = (*notes, "leads of a lower sampling rate interpolated to that of the fastest")
    if top > 1:
        notes = (*notes, f"{top} samples per frame")
    inverted = [lead_name(signal.name).name for signal in picked if signal.scaled and signal.gain < 0]
    if inverted:
        notes = (*notes, f"negative gain, so stored upside down: {', '.join(inverted)}")
    if any(signal.skew for signal in picked):
        notes = (*notes, "skew between the leads removed")
    return Recording(
        np.stack([row.astype(np.float32) for row in values]),
        tuple(signal.name for signal in picked),
        check_rate(header.hz * top),
        names,
        frames,
        header.hz,
        tuple(signal.unit for signal in picked),
        notes,
        "wfdb",
    )


def _join(header: WfdbHeader, settings: Settings) -> Recording:
    """Join the segments of a record; gaps and leads that a segment lacks are NaN."""
    segments = header.segments or ()
    frames = sum(length for _, length in segments)
    if header.samples is not None and frames < header.samples:
        raise truncated("samples", header.samples, frames)
    check_size(1, frames, settings)
    parts: list[tuple[int, int, Recording]] = []
    stored: dict[str, None] = {}
    at, silent = 0, None
    for name, length in segments:
        if name != "~" and length:
            segment = header.path.with_name(f"{name}.hea")
            try:
                part = _part(segment, length, settings)
                if part.stored_hz != header.hz:
                    raise MedclipError(Reason.CORRUPT, "the segments of the WFDB record differ in sampling rate.")
                stored.update(dict.fromkeys(part.stored_leads))
                parts.append((at, length, part))
            except MedclipError as error:
                if error.reason is not Reason.NOT_AN_IMAGE:
                    raise
                # Monitors go on with the pulse or breath alone where the electrodes are off: no ECG, hence a gap.
                silent = error
                stored.update(dict.fromkeys(signal.name for signal in read_wfdb_header(segment).signals))
        at += length
    if not parts:
        raise silent or MedclipError(Reason.CORRUPT, "the WFDB record has no segment with samples.")
    top = max(round(part.sampling_hz / header.hz) for _, _, part in parts)
    leads = {lead: unit for _, _, part in parts for lead, unit in zip(part.leads, part.units, strict=True)}
    check_size(len(leads), frames * top, settings)
    values = np.full((len(leads), frames * top), np.nan, np.float32)
    rows = {lead: row for row, lead in enumerate(leads)}
    for start, length, part in parts:
        for lead, line in zip(part.leads, part.values_mv, strict=True):
            values[rows[lead], start * top : (start + length) * top] = stretch(line, length * top)
    notes = dict.fromkeys(note for _, _, part in parts for note in part.notes)
    return Recording(
        values,
        tuple(leads),
        check_rate(header.hz * top),
        tuple(stored),
        frames,
        header.hz,
        tuple(leads.values()),
        (f"{len(segments)} segments joined", *(["segments without an ECG are gaps"] if silent else []), *notes),
        "wfdb",
    )


def _part(path: Path, length: int, settings: Settings) -> Recording:
    """Read one segment."""
    try:
        if read_wfdb_header(path).segments is not None:
            raise MedclipError(Reason.CORRUPT, "a segment of the WFDB record has segments itself.")
        part = read_wfdb(path, settings)
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "a segment's header of the WFDB record is not beside it.") from None
    if part.stored_samples < length:
        raise truncated("samples in a segment", length, part.stored_samples)
    top = round(part.sampling_hz / part.stored_hz)
    return Recording(
        part.values_mv[:, : length * top].copy(),
        part.leads,
        part.sampling_hz,
        part.stored_leads,
        length,
        part.stored_hz,
        part.units,
        part.notes,
        part.decoder,
    )


def _frames(header: WfdbHeader) -> int:
    """Return the number of frames, after a look at the size of every signal file."""
    groups: dict[str, list[WfdbSignal]] = {}
    for signal in header.signals:
        groups.setdefault(signal.file, []).append(signal)
    frames = header.samples
    for file, signals in groups.items():
        path = header.path.with_name(file)
        if not path.is_file():
            raise MedclipError(Reason.MISSING_FILE, "a signal file of the WFDB record is not beside its header.")
        held = _held(path.stat().st_size, signals)
        if held is None:
            continue
        if frames is not None and held < frames:
            raise truncated("samples", frames, held)
        frames = held if frames is None else frames
    if not frames:
        raise MedclipError(Reason.CORRUPT, "the WFDB header states no length, and the signal files do not tell it.")
    return frames


def _held(size: int, signals: Sequence[WfdbSignal]) -> int | None:
    """Return the frames that a signal file of a size holds; None for compressed ones."""
    if len({signal.format for signal in signals}) != 1 or signals[0].format not in {*_BYTES, *_FLAC}:
        raise MedclipError(Reason.CORRUPT, "the WFDB header states a signal format that does not exist.")
    if signals[0].format in _FLAC:
        return None
    samples = math.floor((size - signals[0].offset) / _BYTES[signals[0].format] + 1e-6)
    return max(0, samples) // sum(signal.per_frame for signal in signals)


def _plain(header: WfdbHeader, rows: Sequence[int], frames: int) -> list[NDArray[np.float64]] | None:
    """Decode a record of one file of 16-bit samples, as nearly all of 12 leads are; None for others.

    The library gives the same values to the bit, and takes ten times as long: it reads every header through regular
    expressions on a pandas table.
    """
    signals = header.signals
    first = signals[0]
    alike = {(signal.file, signal.format, signal.per_frame, signal.skew, signal.offset) for signal in signals}
    if alike != {(first.file, 16, 1, 0, first.offset)}:
        return None
    path = header.path.with_name(first.file)
    counts = np.fromfile(path, "<i2", frames * len(signals), offset=first.offset).reshape(frames, len(signals))
    lines = []
    for row in rows:
        signal, line = signals[row], counts[:, row].astype(np.float64)
        missing = line == _MISSING
        line -= signal.baseline
        line /= signal.gain
        line *= signal.factor or math.nan
        line[missing] = np.nan
        lines.append(line)
    return lines


def _values(header: WfdbHeader, rows: Sequence[int], frames: int) -> list[NDArray[np.float64]]:
    """Decode channels to mV."""
    plain = _plain(header, rows, frames)
    if plain is not None:
        return plain
    record = header.path.absolute()
    if record.suffix != ".hea" or "::" in str(record) or "://" in str(record):
        # The library adds ".hea" itself, and takes "::" and "://" in a path for other places than the disk.
        raise MedclipError(Reason.NOT_SUPPORTED_YET, "a WFDB header must end in .hea, in a folder without '::'.")
    try:
        with quiet("wfdb"):  # its import warns of what pandas will change
            import wfdb
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC, "WFDB records need the wfdb package.", hint="Run: pip install 'medclip-imaging[ecg]'"
        ) from None
    try:
        with quiet("wfdb"):
            signals = wfdb.rdrecord(
                str(record.with_suffix("")),
                # Without a length in the header the library finds it as `_frames` did, and takes no limit.
                sampto=None if header.samples is None else frames,
                channels=list(rows),
                physical=True,
                smooth_frames=False,
            )
        lines = [np.asarray(line, np.float64) for line in signals.e_p_signal]  # pyright: ignore
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the WFDB record does not fit into memory.") from None
    except Exception as error:  # the library raises whatever its arrays do
        raise MedclipError(
            Reason.CORRUPT, f"the signals of the WFDB record cannot be decoded ({type(error).__name__})."
        ) from None
    for line, row in zip(lines, rows, strict=True):
        if line.shape != (frames * header.signals[row].per_frame,):
            raise truncated("samples", frames * header.signals[row].per_frame, line.size)
        line *= header.signals[row].factor or math.nan
    return lines
