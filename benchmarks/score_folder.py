"""Claim: medclip scores a folder at least 1.5 times as fast as the script one would write today, with equal scores.

Usage: python benchmarks/score_folder.py [--images FOLDER_OF_CHEST_XRAYS] [--files 300] [--rounds 5] [--model PACK]
       [--backend NAME]

Builds two folders of chest X-rays (half JPEG, half DICOM: plain, JPEG-LS compressed, and 12-bit MONOCHROME1), one three
times as large as the other, and scores both with both sides in turn, as whole processes. Two ratios come out:

- steady: files a second, from the difference between the large and the small folder, so that imports and loading the
  model drop out;
- whole: the large folder from the start of the process to its end.

medclip also hashes every file, keeps its ledger and writes tables and a report in that time; the script does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

HERE = Path(__file__).parent
TASK = "chest_xray_findings"
TOLERANCE = 1e-4
CLAIM = 1.5


def build(images: list[Path], folder: Path, count: int) -> None:
    """Write `count` chest X-rays, half of them DICOM; each differs from the next by its bytes."""
    folder.mkdir(parents=True)
    for i in range(count):
        source = images[i % len(images)]
        if i % 2 == 0:
            (folder / f"{i:05d}.jpg").write_bytes(source.read_bytes() + bytes(str(i), "ascii"))
            continue
        grey = np.asarray(Image.open(source).convert("L"))
        dicom(grey, folder / f"{i:05d}.dcm", deep=i % 4 == 3, compressed=i % 8 == 1)


def dicom(grey: np.ndarray, path: Path, *, deep: bool, compressed: bool) -> None:
    """Write one CR file: 8-bit MONOCHROME2, or 12-bit MONOCHROME1 with a window."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study", path.name])
    ds.Modality, ds.ViewPosition = "CR", "PA"
    ds.Rows, ds.Columns = grey.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    bits = 12 if deep else 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16 if deep else 8, bits, bits - 1
    ds.PhotometricInterpretation = "MONOCHROME1" if deep else "MONOCHROME2"
    if deep:
        ds.WindowCenter, ds.WindowWidth = 2047.5, 4095
        ds.VOILUTFunction = "LINEAR_EXACT"
        grey = 4095 - np.rint(grey.astype(np.float32) / 255 * 4095).astype(np.uint16)
    ds.PixelData = grey.tobytes()
    if compressed:
        ds.compress(JPEGLSLossless, generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)


def run_naive(folder: Path, pack: Path, work: Path) -> tuple[float, dict[str, dict[str, float]]]:
    """Time the script on one folder; gives seconds of the whole process and its scores."""
    out = work / "naive.json"
    seconds = timed([sys.executable, str(HERE / "naive_script.py"), str(folder), str(pack), str(out)])
    return seconds, json.loads(out.read_text())


def run_medclip(
    folder: Path, pack: Path, work: Path, backend: str | None = None
) -> tuple[float, dict[str, dict[str, float]]]:
    """Time `medclip score` on one folder; gives seconds of the whole process and its scores."""
    out = Path(tempfile.mkdtemp(dir=work))
    options = ["--model", str(pack), "--modality", "xray", "--task", TASK, "--group-by", "file"]
    options += [] if backend is None else ["--backend", backend]
    seconds = timed([sys.executable, "-m", "medclip.cli.main", "score", str(folder), "--out", str(out), *options])
    study_of = {r["study"]: r["path"] for r in pq.read_table(out / "files.parquet").to_pylist()}
    scores: dict[str, dict[str, float]] = {}
    for r in pq.read_table(out / "scores.parquet").to_pylist():
        scores.setdefault(study_of[r["study"]], {})[r["class"]] = r["probability"]
    return seconds, scores


def timed(command: list[str]) -> float:
    """Seconds of one process; its output is shown only when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return seconds


def largest_difference(ours: dict, theirs: dict) -> float:
    """Largest difference of a probability; both sides must have scored the same files and classes."""
    assert ours.keys() == theirs.keys()
    assert all(ours[f].keys() == theirs[f].keys() for f in ours)
    return max(abs(ours[f][c] - theirs[f][c]) for f in ours for c in ours[f])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = HERE.parent.parent / "shared/data/nih_cxr/images"
    examples = HERE.parent / "examples/studies"
    parser.add_argument("--images", type=Path, default=shared if shared.is_dir() else examples)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=HERE.parent / "medclip/models/builtin/medclip-mini")
    parser.add_argument("--backend", help="what medclip computes images with: a name, or a calibration's folder")
    args = parser.parse_args()
    images = sorted(args.images.glob("*.jpg"))
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, pydicom {pydicom.__version__}; "
        f"{args.files} and {3 * args.files} files, {args.rounds} rounds"
    )
    steady, whole, worst = [], [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        small, large = work / "small", work / "large"
        build(images, small, args.files)
        build(images, large, 3 * args.files)
        for i in range(args.rounds):
            seconds = {}
            sides = [("medclip", partial(run_medclip, backend=args.backend)), ("naive", run_naive)]
            for name, run in sides if i % 2 else reversed(sides):
                seconds[name, "small"], _ = run(small, args.model.resolve(), work)
                seconds[name, "large"], scores = run(large, args.model.resolve(), work)
                seconds[name, "scores"] = scores
            worst = max(worst, largest_difference(seconds["medclip", "scores"], seconds["naive", "scores"]))
            rate = {n: 2 * args.files / (seconds[n, "large"] - seconds[n, "small"]) for n, _ in sides}
            steady.append(rate["medclip"] / rate["naive"])
            whole.append(seconds["naive", "large"] / seconds["medclip", "large"])
            print(f"round {i + 1}: medclip {rate['medclip']:.0f} files/s, script {rate['naive']:.0f} files/s, "
                  f"ratio {steady[-1]:.2f}; whole job {whole[-1]:.2f}", flush=True)  # fmt: skip
    print(f"steady ratio: median {statistics.median(steady):.2f}, {min(steady):.2f} to {max(steady):.2f}")
    print(f"whole-job ratio: median {statistics.median(whole):.2f}, {min(whole):.2f} to {max(whole):.2f}")
    print(f"largest difference of a probability: {worst:.1e} (allowed {TOLERANCE:.0e})")
    if worst > TOLERANCE:
        raise SystemExit("the scores differ")
    if statistics.median(steady) < CLAIM:
        raise SystemExit(f"the steady ratio is below {CLAIM}: is the machine busy with something else?")


if __name__ == "__main__":
    main()
