"""Read volumes with medclip, MONAI, pydicom and nibabel, in turn, and print ratios.

Usage: python read_volume.py [--rounds 7] [--slices 60] [--series FOLDER]

Without `--series` an uncompressed CT series is made in a temporary folder. Both sides give HU (checked to be equal).
CPU time of this process is measured, the median over interleaved rounds printed. Exits 1 below the targets: a series in
less than 1 / 2 of MONAI's `LoadImage` time and no slower than pydicom with numpy; NIfTI no slower than nibabel's
`get_fdata`; resampling no slower than `scipy.ndimage.zoom`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nibabel
import numpy as np
import pydicom
from scipy.ndimage import zoom

from medclip.files.recognise.inspect import inspect_file
from medclip.imaging.volume.read import read_nifti, read_series, resample
from medclip.settings import Settings

warnings.simplefilter("ignore")
SETTINGS = Settings()
TARGETS = {
    "series, MONAI LoadImage / medclip": 2.0,
    "series, pydicom and numpy / medclip": 1.0,
    "NIfTI, get_fdata / medclip": 1.0,
    "NIfTI gz, get_fdata / medclip": 1.0,
    "zoom / resample": 1.0,
}


def make_series(folder: Path, count: int) -> None:
    """Write a CT series of 512 x 512 slices."""
    from tests.kits.volumes import positions_of, write_series

    noise = np.random.default_rng(0).integers(0, 3000, (count, 512, 512)).astype(np.int16)
    write_series(folder, noise, positions_of(count), spacing=(0.7, 0.7), RescaleSlope=1, RescaleIntercept=-1024)


def by_hand(paths: list[Path]) -> np.ndarray:
    """Read as a careful script would: sorted by position, rescaled."""
    datasets = sorted((pydicom.dcmread(path) for path in paths), key=lambda d: float(d.ImagePositionPatient[2]))
    slices = [d.pixel_array.astype(np.float32) * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets]
    return np.stack(slices)


def timed(jobs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Give the median CPU seconds of each job over interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            seconds[name].append(time.process_time() - start)
    return {name: median(values[1:]) for name, values in seconds.items()}


def main() -> int:
    """Run all comparisons."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--series", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    from monai.transforms import LoadImage  # type: ignore[attr-defined]

    print(f"importing MONAI takes {time.perf_counter() - start:.1f} s and is left out below")
    with tempfile.TemporaryDirectory() as name:
        folder = options.series or Path(name) / "series"
        if options.series is None:
            make_series(folder, options.slices)
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        load = LoadImage(image_only=True, reader="PydicomReader", dtype=np.float32)

        def ours() -> np.ndarray:
            return read_series(paths, [inspect_file(path, SETTINGS) for path in paths], SETTINGS).volume.voxels

        facts = [inspect_file(path, SETTINGS) for path in paths]
        expected = by_hand(paths)
        assert np.array_equal(ours(), np.maximum(expected, -1024)), "medclip and pydicom differ"
        theirs = np.asarray(load(folder))
        assert np.array_equal(np.sort(theirs.ravel()), np.sort(expected.ravel())), "MONAI and pydicom differ"
        spent = timed(
            {
                "medclip, hashes and headers": ours,
                "medclip, headers known": lambda: read_series(paths, facts, SETTINGS),
                "pydicom": lambda: by_hand(paths),
                "MONAI": lambda: load(folder),
            },
            options.rounds,
        )
        voxels = np.random.default_rng(1).integers(0, 3000, (256, 256, 120)).astype(np.int16)
        image = nibabel.Nifti1Image(voxels, np.diag([0.7, 0.7, 2.0, 1.0]))
        for end in ("nii", "nii.gz"):
            path = Path(name) / f"a.{end}"
            nibabel.save(image, path)
            spent |= timed(
                {
                    f"medclip {end}": lambda path=path: read_nifti(path, SETTINGS),
                    f"nibabel {end}": lambda path=path: nibabel.load(path).get_fdata(),  # type: ignore[attr-defined]
                },
                options.rounds,
            )
        volume = read_nifti(Path(name) / "a.nii", SETTINGS).volume
        spent |= timed(
            {
                "resample": lambda: resample(volume, (1.5, 1.5, 1.5)),
                "zoom": lambda: zoom(volume.voxels.astype(np.float32), (4 / 3, 0.7 / 1.5, 0.7 / 1.5), order=1),
                "MONAI Spacing": monai_spacing(volume),
            },
            options.rounds,
        )
    for job, seconds in spent.items():
        print(f"{job:30} {seconds * 1000:9.1f} ms CPU")
    ratios = {
        "series, MONAI LoadImage / medclip": spent["MONAI"] / spent["medclip, hashes and headers"],
        "series, pydicom and numpy / medclip": spent["pydicom"] / spent["medclip, headers known"],
        "NIfTI, get_fdata / medclip": spent["nibabel nii"] / spent["medclip nii"],
        "NIfTI gz, get_fdata / medclip": spent["nibabel nii.gz"] / spent["medclip nii.gz"],
        "zoom / resample": spent["zoom"] / spent["resample"],
    }
    for ratio, value in ratios.items():
        print(f"{ratio:40} {value:5.2f}  (target {TARGETS[ratio]:g})")
    return int(any(value < TARGETS[ratio] for ratio, value in ratios.items()))


def monai_spacing(volume: Any) -> Callable[[], Any]:
    """Give MONAI's way to change the spacing."""
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms import Spacing  # type: ignore[attr-defined]

    change = Spacing(pixdim=(1.5, 1.5, 1.5), mode="bilinear")
    return lambda: change(MetaTensor(np.ascontiguousarray(volume.voxels[None], np.float32), affine=volume.affine))


if __name__ == "__main__":
    sys.exit(main())
