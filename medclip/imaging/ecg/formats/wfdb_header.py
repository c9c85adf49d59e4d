"""Read a WFDB header as text: what it states, and what it leaves unsaid (the library fills that with defaults)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.recording import check_rate, decoded, millivolts_per

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
