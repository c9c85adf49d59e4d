"""Read WFDB records: header and signal files, of one segment or many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.quiet import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.formats.wfdb_header import WfdbHeader, WfdbSignal, read_wfdb_header
from medclip.imaging.ecg.lead_names import lead_name
from medclip.imaging.ecg.recording import Recording, check_rate, check_size, choose, stretch, truncated
from medclip.settings import Settings

_BYTES = {8: 1.0, 16: 2.0, 24: 3.0, 32: 4.0, 61: 2.0, 80: 1.0, 160: 2.0, 212: 1.5, 310: 4 / 3, 311: 4 / 3}
_MISSING = -(2**15)
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
    """Put the segments of a record one after the other; gaps and leads that a segment lacks are NaN."""
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
