"""How fast a DICOM file becomes a model-ready float array, beside bare pydicom and MONAI.

    python benchmarks/read_dicom.py [--rounds 31] [--folder ../shared/data/field_dev/dicom-ct/cornerstone-ts]

Targets: at least 1.0 x `pydicom.dcmread(f).pixel_array` with a float32 rescale (ours adds the window, the polarity and
the padding), at least 2 x MONAI's LoadImage with its pydicom reader, and 1.8 x with two reading processes. Ratios are
of CPU time, medians over interleaved rounds; for two processes see
`benchmarks/two_cores.py`. Exits 1 below a target.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medclip.dicom.pixels.render import read_dicom
from medclip.settings import Settings

SETTINGS = Settings()
"""Made once, as everywhere: it asks the system for its processors."""


def write(path: Path, side: int) -> Path:
    """Write a CT-like slice of 12 bits in 16, with rescale and window."""
    pixels = np.random.default_rng(0).normal(2000, 400, (side, side)).clip(0, 4095).astype(np.uint16)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CT", "MONOCHROME2", 1
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = side, side, 16, 12, 11
    data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 0, 1, -1024, "HU"
    data.WindowCenter, data.WindowWidth, data.PixelSpacing = 900, 2000, [0.7, 0.7]
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OW"
    data.save_as(path, enforce_file_format=True)
    return path


def bare(path: Path) -> np.ndarray:
    data = dcmread(path)
    return data.pixel_array.astype(np.float32) * np.float32(data.RescaleSlope) + np.float32(data.RescaleIntercept)


def ours(path: Path) -> np.ndarray:
    return read_dicom(path, SETTINGS).pixels


def read_many(path: str, times: int, at: float) -> tuple[float, float]:
    """Read a file several times from a common start on; what a worker of the pool runs."""
    from benchmarks.two_cores import begin

    start = begin(at)
    for _ in range(times):
        read_dicom(Path(path), SETTINGS)
    return start, time.time()


def interleaved(functions: dict[str, Callable[[], object]], rounds: int, inner: int) -> dict[str, float]:
    """Median CPU milliseconds of each."""
    for function in functions.values():
        function()
    seen: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            for _ in range(inner):
                function()
            seen[name].append((time.process_time() - start) / inner * 1e3)
    return {name: statistics.median(values) for name, values in seen.items()}


def scaling(path: Path, rounds: int, times: int) -> float:
    from benchmarks.read_dicom import read_many as job  # importable by the workers
    from benchmarks.two_cores import gain

    return gain(job, (str(path), 2 * times), [(str(path), times)] * 2, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--folder", type=Path, default=Path("../shared/data/field_dev/dicom-ct/cornerstone-ts"))
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    warnings.simplefilter("ignore")
    from monai.transforms import LoadImage

    loader = LoadImage(reader="PydicomReader", image_only=True)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for side in (512, 2048):
            path = write(Path(folder) / f"{side}.dcm", side)
            functions = {
                "bare": lambda path=path: bare(path),
                "ours": lambda path=path: ours(path),
                "MONAI": lambda path=path: loader(str(path)),
            }
            ms = interleaved(functions, options.rounds, 10 if side == 512 else 2)
            to_bare, to_monai = ms["bare"] / ms["ours"], ms["MONAI"] / ms["ours"]
            two = scaling(path, options.rounds, 400 if side == 512 else 30)
            print(
                f"{side} x {side}: bare {ms['bare']:.2f} ms, ours {ms['ours']:.2f} ms, MONAI {ms['MONAI']:.2f} ms; "
                f"{to_bare:.2f} x bare, {to_monai:.2f} x MONAI, {two:.2f} x with two processes"
            )
            good &= to_bare >= 1.0 and to_monai >= 2.0 and two >= 1.8
    for path in sorted(options.folder.glob("*.dcm")):
        ms = (
            interleaved({"bare": lambda path=path: bare(path), "ours": lambda path=path: ours(path)}, 9, 3)
            if "2_4" not in path.name
            else interleaved({"ours": lambda path=path: ours(path)}, 9, 3)
        )
        decoder = read_dicom(path, SETTINGS).decoder
        print(f"{decoder}: ours {ms['ours']:.2f} ms" + (f", bare {ms['bare']:.2f} ms" if "bare" in ms else ""))
    print("targets met" if good else "below a target")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
