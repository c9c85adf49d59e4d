"""Read HL7 aECG, GE MUSE, Philips Sierra and SCP-ECG through ecgdatakit.

The library gives counts with their resolution and unit as the file states them, or no unit where it states none; the
sizes that a file claims are checked here before it is called, and none of its texts leave this module.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.recording import Recording, check_rate, check_size, choose, millivolts_per, truncated
from medclip.settings import Settings

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_BYTES = 128 * 1024**2
"""Refuse larger documents: text takes ten times its size in memory when it is parsed. A 12-lead ECG has under 1 MB."""
_MOST_SIERRA_LEADS = 32
_MOST_LETTERS_PER_SAMPLE = 16
"""Of a Sierra document: Base64 of 16 bits takes 3, of codes that do not compress 4, a plain number with its blank 8."""
_PULSE_S = 0.1


def read_xml(path: Path, settings: Settings) -> Recording:
    """Read an HL7 aECG, GE MUSE (RestingECG) or Philips Sierra document.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, TOO_LARGE, NO_SCALE, NOT_AN_IMAGE, NOT_SUPPORTED_YET or MISSING_CODEC.
    """
    _check_bytes(path)
    try:
        from ecgdatakit.parsing.helpers.xml import parse_xml_root
        from ecgdatakit.parsing.parsers.ge_muse_xml import GEMuseXMLParser
        from ecgdatakit.parsing.parsers.hl7_aecg import HL7aECGParser
    except ImportError:
        raise _no_kit() from None
    try:
        root: Element = parse_xml_root(path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # broken text, odd encodings, entities
        raise MedclipError(Reason.CORRUPT, f"the XML is not well-formed ({type(error).__name__}).") from None
    if root.tag == "restingecgdata":
        return _sierra(root, path, settings)
    if root.tag == "AnnotatedECG":
        if root.find("component/series") is None:
            raise MedclipError(Reason.CORRUPT, "the aECG document holds no series, hence no waveform.")
        return _recording(HL7aECGParser(), path, settings, "HL7 aECG")
    if root.tag == "RestingECG":
        return _recording(GEMuseXMLParser(), path, settings, "GE MUSE")
    raise MedclipError(
        Reason.NOT_SUPPORTED_YET, "the XML is an ECG of a kind that is not read; HL7 aECG, GE MUSE and Philips are."
    )


def _sierra(root: Element, path: Path, settings: Settings) -> Recording:
    """Read the rhythm of a Philips Sierra document, without the calibration pulse that carts add at its end.

    What the document states is compared with the limits before anything is decompressed: 10-bit LZW codes can expand a
    thousandfold, the library sets no bound, and it would cut a fractional rate to a whole one.
    """
    from ecgdatakit.parsing.parsers.sierra_xml import SierraXMLParser

    wave = next(root.iter("parsedwaveforms"), None)
    if wave is None or not (text := wave.text or "").strip():
        raise MedclipError(Reason.CORRUPT, "the Sierra document has no waveforms.")
    stated = wave.get("samplespersecond") or root.findtext("dataacquisition/signalcharacteristics/samplingrate")
    try:
        hz, seconds = float(stated or "nan"), float(wave.get("durationperchannel", "nan")) / 1000
        samples = round(seconds * hz)
    except (ValueError, OverflowError):
        raise MedclipError(Reason.CORRUPT, "the Sierra document does not state its rate and duration.") from None
    if check_rate(hz) != round(hz):
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the Sierra record has a rate of {hz:g} Hz, no whole number.")
    leads = len(wave.get("leadlabels", "").split()) or _MOST_SIERRA_LEADS
    check_size(leads, samples, settings)
    if len(text) > _MOST_LETTERS_PER_SAMPLE * leads * (samples + 64):
        raise MedclipError(Reason.TOO_LARGE, "the waveforms take far more room than the stated samples need.")
    recording = _recording(SierraXMLParser(), path, settings, "Philips Sierra")
    values = recording.values_mv
    # The pulse is the same in all leads.
    differ = np.flatnonzero((values != values[:1]).any(0))
    end = int(differ[-1]) + 1 if differ.size else values.shape[1]
    pulse = values[0, end:]
    if pulse.size < _PULSE_S * hz or not np.ptp(pulse):
        return recording
    note = f"calibration pulse of {pulse.size / hz:g} s at the end left out"
    return replace(recording, values_mv=values[:, :end], notes=(*recording.notes, note))


def read_scp(path: Path, settings: Settings) -> Recording:
    """Read an SCP-ECG record.

    Raises:
        MedclipError: CORRUPT, TRUNCATED, TOO_LARGE, NO_SCALE, NOT_AN_IMAGE, NOT_SUPPORTED_YET or MISSING_CODEC.
    """
    _check_bytes(path)
    try:
        _check_scp(path.read_bytes(), settings)
    except (struct.error, IndexError):
        raise MedclipError(Reason.CORRUPT, "the SCP record is cut off or contradicts itself.") from None
    try:
        from ecgdatakit.parsing.parsers.scp_ecg import SCPECGParser
    except ImportError:
        raise _no_kit() from None
    return _recording(SCPECGParser(), path, settings, "SCP-ECG")


def _no_kit() -> MedclipError:
    return MedclipError(
        Reason.MISSING_CODEC,
        "ECGs in XML and SCP need the ecgdatakit package.",
        hint="Run: pip install 'medclip-imaging[ecg]'",
    )


def _check_bytes(path: Path) -> None:
    if path.stat().st_size > _MAX_BYTES:
        raise MedclipError(Reason.TOO_LARGE, f"the document is larger than the limit of {_MAX_BYTES:,} bytes.")


def _check_scp(data: bytes, settings: Settings) -> None:
    """Compare what the lead definitions (section 3) claim with the limits and, uncompressed, with section 6."""
    (length,) = struct.unpack_from("<I", data, 10)
    sections: dict[int, tuple[int, int]] = {}
    for at in range(22, min(6 + length, len(data)) - 9, 10):
        number, size, index = struct.unpack_from("<HII", data, at)
        if size:
            sections[number] = (index - 1 + 16, size - 16)
    if 3 not in sections:
        raise MedclipError(Reason.CORRUPT, "the SCP record defines no leads.")
    start = sections[3][0]
    leads = data[start]
    counts = []
    for lead in range(leads):
        first, last = struct.unpack_from("<II", data, start + 2 + 9 * lead)
        # Bounds of all leads together decide what is allocated.
        counts.append(last - first + 1)
        check_size(leads, max(last, 1), settings)
    if 2 in sections or 6 not in sections:
        return
    for lead, count in enumerate(counts):
        (held,) = struct.unpack_from("<H", data, sections[6][0] + 6 + 2 * lead)
        if held // 2 < count:
            # The size field has 16 bits; some carts cut every lead there and still state the full length.
            raise truncated("samples in a lead", count, held // 2)


def _recording(parser: Any, path: Path, settings: Settings, name: str) -> Recording:
    """Read a file with one of the library's parsers, and turn what it gives into a recording."""
    from ecgdatakit.exceptions import UnsupportedFormatError

    try:
        with quiet("ecgdatakit"):
            record = parser.parse(path)
        leads = list(record.leads)
        starts = [int(lead.annotations.get("start_sample", 1)) - 1 for lead in leads]
    except OSError:
        raise
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, f"the {name} record does not fit into memory.") from None
    except UnsupportedFormatError:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the {name} record is of a variant that is not read.") from None
    except Exception as error:  # the library raises its own errors and whatever its arrays do
        raise MedclipError(Reason.CORRUPT, f"the {name} record cannot be read ({type(error).__name__}).") from None
    rates = {_rate(record, lead) for lead in leads}
    if len(rates) != 1:
        raise MedclipError(Reason.NOT_SUPPORTED_YET, f"the {name} record has no leads, or leads of different rates.")
    hz = check_rate(rates.pop())
    lengths = [start + len(lead.samples) for start, lead in zip(starts, leads, strict=True)]
    check_size(len(leads), max(lengths), settings)
    names = tuple(str(lead.label) for lead in leads)
    rows, notes = choose(names, [_factor(lead) for lead in leads])
    values = np.full((len(rows), max(lengths)), np.nan, np.float32)
    for line, row in zip(values, rows, strict=True):
        lead = leads[row]
        physical = lead.samples * lead.resolution + lead.offset
        line[starts[row] : lengths[row]] = physical * (_factor(lead) or np.nan)
    units = tuple(str(leads[row].resolution_unit) for row in rows)
    notes = (*notes, *_remarks(record, lengths, starts))
    return Recording(
        values, tuple(names[row] for row in rows), hz, names, max(lengths), hz, units, notes, f"ecgdatakit ({name})"
    )


def _rate(record: Any, lead: Any) -> float:
    """Return a lead's rate; aECG keeps the exact one apart."""
    timing = record.raw_metadata.get("rhythm_time") or {}
    return float(timing.get("sampling_rate_exact") or lead.sampling_rate)


def _factor(lead: Any) -> float | None:
    """Return millivolts per unit; None where the file states no resolution or no unit."""
    return millivolts_per(lead.resolution_unit) if lead.resolution_unit and lead.resolution > 0 else None


def _remarks(record: Any, lengths: list[int], starts: list[int]) -> Iterable[str]:
    if len(set(lengths)) > 1 or any(starts):
        yield "the leads differ in length or start; the rest is a gap"
    if record.raw_metadata.get("checksum_valid") is False:
        yield "a checksum in the file does not fit its contents"
    if record.raw_metadata.get("FirstSampleBaseline") or record.raw_metadata.get("LeadOffsetFirstSample"):
        yield "the file states offsets of first samples, which have no documented meaning; not applied"
