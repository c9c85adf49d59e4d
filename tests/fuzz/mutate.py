"""Small seed files of every format, and byte mutations of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from examples import make_phantoms as phantoms
from tests.kits.codestreams import SYNTAXES, WITH_END, cut_and_ended, stream, write_streams, zeroed_to_end

Seed = tuple[str, bytes, str, Mapping[str, bytes]]
"""File name, bytes, modality for the table ("" where the header says it), and whole files that lie beside it."""
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def seeds(folder: Path) -> list[Seed]:
    """Build one small file of every format below a folder and read them back."""
    made: list[Seed] = []
    for name, (make, modality) in _MAKERS.items():
        path = make(folder / name)
        beside = {f.name: f.read_bytes() for f in path.parent.iterdir() if f != path and f.stem == "record"}
        made.append((path.name, path.read_bytes(), modality, beside))
    return made


def cut_streams(folder: Path, rng: np.random.Generator) -> list[Path]:
    """Write files of every transfer syntax whose compressed frame is cut or ends in zeros, some with its end marker.

    The files themselves are whole.

    Returns:
        The files, none of which may be scored.
    """
    paths = []
    for uid in SYNTAXES:
        data = stream(uid).data
        for way in range(6 if uid in WITH_END else 4):
            kept = data[: int(rng.integers(1, len(data) - 2))]
            body = kept.ljust(len(data), b"\0") if way == 3 else kept
            if way > 3:  # small streams: what ends in few zeros may be whole
                body = (cut_and_ended, zeroed_to_end)[way - 4](data, int(rng.integers(5, 95)))
            path = folder / uid / str(way) / "film.dcm"
            path.parent.mkdir(parents=True)
            paths.append(write_streams(path, uid, [body], Modality="DX"))
    return paths


def mutate(body: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to four ways; the first kilobyte, where headers are, is hit half of the time."""
    data = bytearray(body)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        reach = len(data) if rng.random() < 0.5 else min(1024, len(data))
        at = int(rng.integers(reach))
        length = int(rng.integers(1, 64))
        way = int(rng.integers(8))
        if way == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif way == 1:
            data[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif way == 2:
            del data[at : at + length]
        elif way == 3:
            data[at:at] = rng.integers(0, 256, length, np.uint8).tobytes()
        elif way == 4:
            del data[int(rng.integers(len(data))) :]
        elif way == 5:
            size = int(rng.choice((1, 2, 4)))
            edge = int(rng.choice(_EDGES)) % (1 << (8 * size))
            data[at : at + size] = edge.to_bytes(size, "little" if rng.random() < 0.7 else "big")
        elif way == 6:
            data[at:at] = data[max(0, at - length) : at]
        else:
            data[at : at + length] = bytes(length)
    return bytes(data)


def _dicom(syntax: str = "", **options: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        from pydicom import dcmread

        grey = (phantoms.chest_slice(48, 0.5) + 1024).clip(0, 4095).astype(np.uint16)
        phantoms.dicom(
            path,
            phantoms.CT_IMAGE,
            options.get("modality", "DX"),
            1,
            grey,
            BitsStored=12,
            HighBit=11,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            WindowCenter=40,
            WindowWidth=400,
            ImagePositionPatient=[0, 0, 0],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
        if syntax:
            data = dcmread(path)
            data.compress(syntax)
            data.save_as(path)
        return path

    return make


def _ecg_dicom(path: Path) -> Path:
    from pydicom.dataset import Dataset

    beat = np.rint(phantoms.heartbeat(1000) * 200).astype(np.int16)
    group = Dataset()
    group.WaveformOriginality, group.NumberOfWaveformChannels = "ORIGINAL", 12
    group.NumberOfWaveformSamples, group.SamplingFrequency = 1000, 500
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.WaveformData = beat.T.tobytes()
    channels = []
    for lead in phantoms.LEADS:
        channel, source, unit = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = lead, "SCPECG", f"Lead {lead}"
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = 5, 1
        channel.ChannelBaseline, channel.WaveformBitsStored = 0, 16
        channels.append(channel)
    group.ChannelDefinitionSequence = channels
    return phantoms.dicom(path, phantoms.ECG_12_LEAD, "ECG", 1, None, WaveformSequence=[group])


def _image(fmt: str, **options: Any) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(phantoms.tissue(64, 80)).save(path, format=fmt, **options)
        return path

    return make


def _nifti(path: Path) -> Path:
    return phantoms.mr_volume(path, size=24)


def _matlab(path: Path) -> Path:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    savemat(buffer, {"ECG": {"sex": "Male", "age": 50, "data": phantoms.heartbeat(1000)}})
    path.write_bytes(buffer.getvalue())
    return path


def _aecg(path: Path) -> Path:
    digits = " ".join(str(int(v * 200)) for v in phantoms.heartbeat(500)[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><component><series><component><sequenceSet>'
        '<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20200101000000"/>'
        '<increment value="0.002" unit="s"/></value></sequence></component><component><sequence>'
        '<code code="MDC_ECG_LEAD_II"/><value xsi:type="SLIST_PQ"><origin value="0" unit="uV"/>'
        f'<scale value="5" unit="uV"/><digits>{digits}</digits></value></sequence></component>'
        "</sequenceSet></component></series></component></AnnotatedECG>"
    )
    return path


def _edf(path: Path) -> Path:
    beat = np.rint(phantoms.heartbeat(1000)[:2] * 1000).astype("<i2")
    fields = [
        ("0", 8),
        ("X", 80),
        ("X", 80),
        ("01.01.20", 8),
        ("00.00.00", 8),
        (str(256 * 3), 8),
        ("", 44),
        ("1", 8),
        ("2", 8),
        ("2", 4),
        ("I", 16),
        ("II", 16),
        ("", 80),
        ("", 80),
        ("mV", 8),
        ("mV", 8),
        ("-32.768", 8),
        ("-32.768", 8),
        ("32.767", 8),
        ("32.767", 8),
        ("-32768", 8),
        ("-32768", 8),
        ("32767", 8),
        ("32767", 8),
        ("", 80),
        ("", 80),
        ("1000", 8),
        ("1000", 8),
        ("", 32),
        ("", 32),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{text:<{width}}" for text, width in fields).encode() + beat.tobytes())
    return path


_MAKERS: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "plain.dcm": (_dicom(), ""),
    "rle.dcm": (_dicom("1.2.840.10008.1.2.5"), ""),
    "j2k.dcm": (_dicom("1.2.840.10008.1.2.4.90"), ""),
    "jls.dcm": (_dicom("1.2.840.10008.1.2.4.80"), ""),
    "slice.dcm": (_dicom(modality="CT"), ""),
    "loop.dcm": (lambda path: phantoms.ultrasound_cine(path, num_frames=2), ""),
    "oct.dcm": (lambda path: phantoms.oct_scan(path, num_frames=2), ""),
    "ecg.dcm": (_ecg_dicom, ""),
    "tile.png": (_image("PNG"), "pathology"),
    "tile.jpg": (_image("JPEG"), "pathology"),
    "tile.tif": (_image("TIFF", compression="tiff_lzw"), "pathology"),
    "slide.tiff": (lambda path: phantoms.slide(path, 512, 512), "pathology"),
    "brain.nii": (_nifti, "mri"),
    "brain.nii.gz": (_nifti, "mri"),
    "wfdb/record.hea": (lambda path: phantoms.ecg_record(path.parent, "record"), "ecg"),
    "rhythm.edf": (_edf, "ecg"),
    "rhythm.xml": (_aecg, "ecg"),
    "rhythm.mat": (_matlab, "ecg"),
    "colon.mp4": (lambda path: phantoms.endoscopy_video(path, num_frames=4), "endoscopy"),
}
