"""Builders of ECG files and signals for tests."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format, sniff
from medclip.imaging.ecg.formats.readers import read_ecg
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording
from medclip.sample import Signal
from medclip.settings import Settings

PATIENT = "Doe-Planted-Jane"


def heart(samples: int = 1000, hz: float = 500.0, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Make twelve leads in mV that obey Einthoven and Goldberger: a spike a second on slow waves, and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / hz
    spikes = np.exp(-(((t % 1.0) - 0.5) ** 2) / (2 * 0.012**2))
    free = {
        lead: rng.uniform(0.4, 1.5) * spikes + 0.1 * np.sin(2 * np.pi * (1 + i / 5) * t) + rng.normal(0, 0.01, samples)
        for i, lead in enumerate(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))
    }
    one, two = free["I"], free["II"]
    limb = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return {lead: (free | limb)[lead] for lead in TWELVE}


_AREAS = {"I": 0.7, "II": 1.0, "V1": -0.6, "V2": -0.8, "V3": 0.5, "V4": 1.2, "V5": 1.3, "V6": 0.9}
"""Of the QRS in mV."""


def beats(samples: int = 5000, hz: float = 500.0) -> dict[str, NDArray[np.float64]]:
    """Make twelve leads of one beat a second, P, QRS and T, with the noise of an amplifier."""
    rng = np.random.default_rng(0)
    t = (np.arange(samples) / hz) % 1.0
    waves = ((0.3, 0.15, 0.025), (0.5, 1.0, 0.014), (0.75, 0.3, 0.05))
    beat = sum(height * np.exp(-((t - at) ** 2) / (2 * width**2)) for at, height, width in waves)
    free = {lead: area * beat + rng.normal(0, 0.005, samples) for lead, area in _AREAS.items()}
    one, two = free["I"], free["II"]
    limb = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return {lead: (free | limb)[lead] for lead in TWELVE}


def recording(leads: Mapping[str, NDArray[np.float64]], hz: float = 500.0, **fields: object) -> Recording:
    """Wrap leads as a reader would."""
    values = np.stack(list(leads.values())).astype(np.float32)
    names = tuple(leads)
    base = {"stored_leads": names, "stored_samples": values.shape[1], "stored_hz": hz, "units": ("mV",) * len(names)}
    return Recording(values, names, hz, **(base | fields))  # type: ignore[arg-type]


def signal(values: NDArray[np.floating], hz: float = 500.0) -> Signal:
    """Make a signal of twelve recorded leads."""
    return Signal(np.broadcast_to(values, (12, values.shape[-1])).astype(np.float32), np.ones(12, np.bool_), hz)


def read(path: Path, settings: Settings | None = None) -> Recording:
    """Read a file by its own bytes, as inspection would have it."""
    return read_ecg((path,), (FileFacts("0" * 64, sniff(path)),), settings or Settings())


def read_as(path: Path, fmt: Format, settings: Settings | None = None) -> Recording:
    """Read a file as a format."""
    return read_ecg((path,), (FileFacts("0" * 64, fmt),), settings or Settings())


def write_wfdb(
    folder: Path,
    leads: Mapping[str, NDArray[np.float64]],
    hz: float = 500.0,
    name: str = "rec",
    fmt: str = "16",
    units: Sequence[str] | None = None,
) -> Path:
    """Write a WFDB record with a patient's name in its comments."""
    with quiet("wfdb"):
        import wfdb

        wfdb.wrsamp(
            name,
            fs=hz,
            units=list(units or ["mV"] * len(leads)),
            sig_name=list(leads),
            p_signal=np.stack(list(leads.values()), axis=1),
            fmt=[fmt] * len(leads),
            comments=[f"Name: {PATIENT}"],
            write_dir=str(folder),
        )
    return folder / f"{name}.hea"


def write_dicom(path: Path, groups: Sequence[Mapping[str, object]], *, big: bool = False) -> Path:
    """Write a 12-lead ECG object.

    Args:
        path: The file.
        groups: Each with `leads` (name -> stored int16), and optionally hz, sensitivity, baseline, correction, unit,
            padding, label, originality, samples, offset_ms.
        big: Write big-endian.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage

    def code(value: str, meaning: str) -> list[Dataset]:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "X", meaning
        return [item]

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    dataset.SOPClassUID = TwelveLeadECGWaveformStorage
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.PatientName, dataset.PatientID, dataset.Modality = PATIENT, PATIENT, "ECG"
    dataset.WaveformSequence = []
    for stated in groups:
        leads: Mapping[str, NDArray[np.int16]] = stated["leads"]  # type: ignore[assignment]
        group = Dataset()
        group.WaveformOriginality = stated.get("originality", "ORIGINAL")
        group.MultiplexGroupLabel = stated.get("label", "RHYTHM")
        group.NumberOfWaveformChannels = len(leads)
        stacked = np.stack(list(leads.values()), axis=1).astype(">i2" if big else "<i2")
        group.NumberOfWaveformSamples = stated.get("samples", stacked.shape[0])
        group.SamplingFrequency = stated.get("hz", 500)
        if "offset_ms" in stated:
            group.MultiplexGroupTimeOffset = stated["offset_ms"]
        group.ChannelDefinitionSequence = []
        for lead in leads:
            channel = Dataset()
            channel.ChannelSourceSequence = code("0", lead)
            if stated.get("sensitivity", 5.0) is not None:
                channel.ChannelSensitivity = stated.get("sensitivity", 5.0)
                channel.ChannelSensitivityUnitsSequence = code(str(stated.get("unit", "uV")), "unit")
                channel.ChannelSensitivityCorrectionFactor = stated.get("correction", 1)
                channel.ChannelBaseline = stated.get("baseline", 0)
            channel.WaveformBitsStored = 16
            group.ChannelDefinitionSequence.append(channel)
        group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
        group.add_new("WaveformData", "OW", stacked.tobytes())
        if "padding" in stated:
            group.add_new("WaveformPaddingValue", "OW", np.array(stated["padding"], stacked.dtype).tobytes())
        dataset.WaveformSequence.append(group)
    dataset.save_as(path, enforce_file_format=True, little_endian=not big, implicit_vr=False)
    return path


def write_edf(
    path: Path,
    leads: Mapping[str, NDArray[np.int64]],
    *,
    hz: int = 500,
    unit: str = "uV",
    microvolts: float = 2.0,
    bdf: bool = False,
    onsets: Sequence[float] | None = None,
    records: int | None = None,
    rates_hz: Mapping[str, int] | None = None,
) -> Path:
    """Write EDF or BDF with data records of one second; `onsets` makes it discontinuous (EDF+D).

    `rates_hz` has the rates of channels that differ from `hz`.
    """
    half = 2**23 if bdf else 2**15
    rates = {label: (rates_hz or {}).get(label, hz) for label in leads}
    labels, blocks = list(leads), [np.asarray(line).reshape(-1, rates[lead]) for lead, line in leads.items()]
    count = blocks[0].shape[0]
    low, high = round(-half * microvolts), round((half - 1) * microvolts)
    channels = [(label, unit, low, high, -half, half - 1, rates[label]) for label in labels]
    if onsets is not None:
        channels.append(("EDF Annotations", "", -1, 1, -half, half - 1, 30))
    number = len(channels)
    head = (b"\xffBIOSEMI" if bdf else b"0       ") + PATIENT.encode().ljust(80) + b" " * 80 + b"01.01.2001.01.01"
    head += str(256 * (number + 1)).encode().ljust(8) + (b"EDF+D" if onsets is not None else b"").ljust(44)
    head += str(count if records is None else records).encode().ljust(8) + b"1".ljust(8) + str(number).encode().ljust(4)
    columns = [(0, 16), (None, 80), (1, 8), (2, 8), (3, 8), (4, 8), (5, 8), (None, 80), (6, 8), (None, 32)]
    for field, width in columns:
        for channel in channels:
            head += (b"" if field is None else str(channel[field]).encode()[:width]).ljust(width)
    body = b""
    for record in range(count):
        for block in blocks:
            wide = block[record].astype("<i4").view(np.uint8).reshape(-1, 4)
            body += wide[:, : 3 if bdf else 2].tobytes()
        if onsets is not None:
            body += f"+{onsets[record]:.1f}\x14\x14\0".encode().ljust(60, b"\0")
    path.write_bytes(head + body)
    return path


def aecg(leads: Mapping[str, Sequence[int]], *, scale: str = '<scale value="5" unit="uV"/>') -> str:
    """Write an HL7 aECG document at 500 Hz."""
    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value><origin value="0" unit="uV"/>{scale}'
        f"<digits>{' '.join(map(str, digits))}</digits></value></sequence></component>"
        for lead, digits in leads.items()
    )
    return (
        f'<AnnotatedECG xmlns="urn:hl7-org:v3"><title>{PATIENT}</title><component><series><code code="RHYTHM"/>'
        '<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/><value><head value="20021122091000"/>'
        f'<increment value="0.002" unit="s"/></value></sequence></component>{sequences}</sequenceSet></component>'
        "</series></component></AnnotatedECG>"
    )


def muse(leads: Mapping[str, NDArray[np.int16]], *, unit: str = "MICROVOLTS") -> str:
    """Write a GE MUSE document at 500 Hz, 4.88 units per bit."""
    data = "".join(
        f"<LeadData><LeadSampleCountTotal>{len(line)}</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>4.88"
        f"</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits><LeadID>{lead}</LeadID>"
        f"<LeadSampleSize>2</LeadSampleSize><WaveFormData>{base64.b64encode(line.astype('<i2').tobytes()).decode()}"
        "</WaveFormData></LeadData>"
        for lead, line in leads.items()
    )
    return (
        f"<RestingECG><PatientDemographics><PatientLastName>{PATIENT}</PatientLastName></PatientDemographics><Waveform>"
        f"<WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>{data}"
        "</Waveform></RestingECG>"
    )


def sierra(leads: Mapping[str, NDArray[np.int16]], *, resolution: str = "5", kind: str = "SierraECG") -> str:
    """Write a Philips Sierra document at 500 Hz, uncompressed."""
    data = base64.b64encode(np.stack(list(leads.values())).astype("<i2").tobytes()).decode()
    samples = len(next(iter(leads.values())))
    return (
        f"<restingecgdata><documentinfo><documenttype>{kind}</documenttype><documentversion>1.04</documentversion>"
        f"</documentinfo><patient><lastname>{PATIENT}</lastname></patient><dataacquisition><signalcharacteristics>"
        f"<samplingrate>500</samplingrate><resolution>{resolution}</resolution></signalcharacteristics>"
        f'</dataacquisition><waveforms><parsedwaveforms dataencoding="Base64" durationperchannel="{samples * 2}" '
        f'leadlabels="{" ".join(leads)}">{data}</parsedwaveforms></waveforms></restingecgdata>'
    )
