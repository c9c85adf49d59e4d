"""Claim: medclip scores a folder at least 1.5 times as fast as the script one would write today, with equal scores.

Usage: python benchmarks/score_folder.py [--images FOLDER_OF_CHEST_XRAYS] [--files 300] [--rounds 5]
       [--model PACK | --vit FOLDER] [--backend NAME ...] [--calibrate NAME ...]

Builds two folders of chest X-rays (half JPEG, half DICOM: plain, JPEG-LS compressed, and 12-bit MONOCHROME1), one three
times as large as the other, and scores both with all sides in turn, as whole processes. Two ratios come out:

- steady: files a second, from the difference between the large and the small folder, so that imports and loading the
  model drop out;
- whole: the large folder from the start of the process to its end.

medclip also hashes every file, keeps its ledger and writes tables and a report in that time; the script does not.

`--vit FOLDER` scores with a pack of the size of ViT-B/16 and a fitted head (`vit_pack.py`; made there once).
`--backend` names what medclip computes with, one side each; `--calibrate` calibrates a back-end on the films of every
other patient first and scores the films of the others with it, and leaves it out where it breaks its bound.
Probabilities, decisions and pairs of films in another order are compared with the script's, and the steady rate with
that of the model alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
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
from encode_alone import rate_alone
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid
from vit_pack import head_task, write_vit_pack

from medclip.models.backends.backend_calibration import read_calibration
from medclip.models.backends.choice import share_that_may_break
from medclip.models.backends.known import BACKENDS, FLOAT_BOUND
from medclip.scoring.backend_changes import Answer, compare_answers

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
    folder: Path, pack: Path, work: Path, backend: str | None = None, task: str = TASK
) -> tuple[float, dict[str, dict[str, float]]]:
    """Time `medclip score` on one folder; gives seconds of the whole process and its scores."""
    out = Path(tempfile.mkdtemp(dir=work))
    options = ["--model", str(pack), "--modality", "xray", "--task", task, "--group-by", "file"]
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
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}\n{_first_failures(command)}")
    return seconds


def _first_failures(command: list[str]) -> str:
    """Read why files failed from the table that a run left."""
    table = Path(command[command.index("--out") + 1]) / "files.parquet" if "--out" in command else Path()
    if not table.is_file():
        return ""
    failed = [row for row in pq.read_table(table).to_pylist() if row["status"] == "failed"]
    return "\n".join(f"{row['path']}: {row['reason']}: {row['message']}" for row in failed[:5])


def calibrate(names: list[str], pack: Path, films: Path, task: str, work: Path) -> dict[str, str]:
    """Calibrate each back-end by itself; return the folders of those that keep their bound."""
    folders = {}
    for name in names:
        out = work / f"calibrated-{name}"
        options = ["--images", str(films), "--modality", "xray", "--task", task, "--candidate", name, "--out", str(out)]
        timed([sys.executable, "-m", "medclip.cli.main", "models", "calibrate", str(pack), *options])
        calibration = read_calibration(out)
        measured = next((c for c in calibration.candidates if c.name == name), None)
        if measured is None:
            print(f"{name}: left out, as {calibration.left_out[name]}")
            continue
        if measured.refused:
            print(f"{name}: refused, as {measured.refused} ({measured.times_as_fast:.2f} times as fast)")
            continue
        print(
            f"{name}: holds, largest change {measured.largest_change:.1e} on {calibration.num_images} films, "
            f"{measured.times_as_fast:.2f} times as fast",
            flush=True,
        )
        if calibration.choice == name:
            folders[name] = str(out)
        else:
            print(f"{name}: slower than torch in float32, and left out")
    return folders


def compare(ours: dict, theirs: dict, is_choice: bool) -> tuple[float, int, int]:
    """Compare scores of the same files: largest difference of a probability, changed decisions, changed ranks."""
    assert ours.keys() == theirs.keys()
    assert all(ours[f].keys() == theirs[f].keys() for f in ours)
    classes = tuple(sorted(next(iter(ours.values()))))
    answers = [
        Answer("task", classes, is_choice, np.array([[side[f][c] for c in classes] for f in sorted(side)]))
        for side in (theirs, ours)
    ]
    change = compare_answers(answers[:1], answers[1:])
    return change.largest, change.decisions, change.ranks


def mixed(folders: list[list[Path]]) -> list[Path]:
    """Return as many films of each of several folders, mixed by a seed; those of one folder in their order."""
    if len(folders) == 1:
        return folders[0]
    films = [film for films in zip(*folders, strict=False) for film in films]
    return random.Random(0).sample(films, len(films))


def count_beyond(ours: dict, theirs: dict, bound: float) -> int:
    """Count the files of which a probability differs by more than a bound."""
    return sum(max(abs(ours[file][c] - theirs[file][c]) for c in ours[file]) > bound for file in ours)


def films_of(images: list[Path], parity: int) -> list[Path]:
    """Return the films of every other patient, who is named before the first "_" of a file's name."""
    patients = sorted({path.name.partition("_")[0] for path in images})[parity::2]
    return [path for path in images if path.name.partition("_")[0] in set(patients)]


def _environment() -> dict[str, str]:
    """Both sides have all cores, whatever the shell says of threads."""
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**own, "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = HERE.parent.parent / "shared/data"
    examples = HERE.parent / "examples/studies"
    films = shared / "nih_cxr/images" if shared.is_dir() else examples
    parser.add_argument("--images", type=Path, nargs="+", help="folders of JPEG; with --vit one for each class")
    parser.add_argument(
        "--files", type=int, default=300, help="of the small folder; the large one has three times as many"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=HERE.parent / "medclip/models/builtin/medclip-mini")
    parser.add_argument("--vit", type=Path, help="folder of a ViT-B/16-sized pack, made there where it is not")
    parser.add_argument("--backend", nargs="+", default=[], help="what medclip computes with: names or calibrations")
    parser.add_argument("--calibrate", nargs="+", default=[], help="back-ends that are calibrated first")
    parser.add_argument("--claim", type=float, default=CLAIM, help="least steady ratio of every side")
    args = parser.parse_args()
    folders = args.images or ([films] if args.vit is None else [films, shared / "cdd_cesm/images"])
    pack = args.model.resolve() if args.vit is None else write_vit_pack(args.vit, folders).resolve()
    task = TASK if args.vit is None else head_task(pack)
    images = mixed([sorted(folder.glob("*.jpg")) for folder in folders])
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, pydicom {pydicom.__version__}; "
        f"{args.files} and {3 * args.files} files, {args.rounds} rounds, pack {pack.name}, task {task}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        backends: dict[str, str | None] = {Path(name).name: name for name in args.backend}
        if args.calibrate:
            (work / "films").mkdir()
            for path in films_of(images, 0):
                shutil.copyfile(path, work / "films" / path.name)
            images = films_of(images, 1)
            backends |= calibrate(args.calibrate, pack, work / "films", task, work)
        if not args.backend and not args.calibrate:
            backends = {"eager": None}
        small, large = work / "small", work / "large"
        build(images, small, args.files)
        build(images, large, 3 * args.files)
        sides = {name: partial(run_medclip, backend=backend, task=task) for name, backend in backends.items()}
        measured = measure_rounds(args.rounds, args.files, {"script": run_naive, **sides}, small, large, pack, work)
        failed = [
            problem
            for name, backend in backends.items()
            for problem in tell(name, backend, measured[name], pack, args.vit is not None, args.claim)
        ]
    if failed:
        raise SystemExit("\n".join(failed))


def measure_rounds(
    rounds: int, files: int, sides: dict, small: Path, large: Path, pack: Path, work: Path
) -> dict[str, list[dict]]:
    """Run all sides in turn, every other round from the last to the first; return what each round gave, by side."""
    measured: dict[str, list[dict]] = {name: [] for name in sides if name != "script"}
    for i in range(rounds):
        seconds, scores = {}, {}
        for name, run in list(sides.items())[:: 1 if i % 2 else -1]:
            seconds[name, "small"], _ = run(small, pack, work)
            seconds[name, "large"], scores[name] = run(large, pack, work)
        rate = {name: 2 * files / (seconds[name, "large"] - seconds[name, "small"]) for name in sides}
        for name, kept in measured.items():
            kept.append(
                {
                    "rate": rate[name],
                    "steady": rate[name] / rate["script"],
                    "whole": seconds["script", "large"] / seconds[name, "large"],
                    "scores": (scores[name], scores["script"]),
                }
            )
            print(
                f"round {i + 1}: {name} {rate[name]:.1f} files/s, script {rate['script']:.1f} files/s, "
                f"ratio {kept[-1]['steady']:.2f}; whole job {kept[-1]['whole']:.2f} "
                f"({seconds[name, 'large']:.1f} s)",
                flush=True,
            )
    return measured


def tell(name: str, backend: str | None, rounds: list[dict], pack: Path, is_choice: bool, claim: float) -> list[str]:
    """Print what a side gave over all rounds; return what breaks a claim."""
    steady, whole = ([kept[what] for kept in rounds] for what in ("steady", "whole"))
    print(f"{name}: steady ratio: median {statistics.median(steady):.2f}, {min(steady):.2f} to {max(steady):.2f}")
    print(f"{name}: whole-job ratio: median {statistics.median(whole):.2f}, {min(whole):.2f} to {max(whole):.2f}")
    changes = [compare(kept["scores"][0], kept["scores"][1], is_choice) for kept in rounds]
    largest, decisions, ranks = (max(values) for values in zip(*changes, strict=True))
    bound = _bound(backend)
    num_files = len(rounds[0]["scores"][0])
    beyond, room = (
        max(count_beyond(kept["scores"][0], kept["scores"][1], bound) for kept in rounds),
        _room(backend) * num_files,
    )
    print(
        f"{name}: largest difference of a probability: {largest:.1e}; of {num_files} files {beyond} differ by more "
        f"than {bound:.0e} (room for {room:.0f} by its calibration), {decisions} decisions and {ranks} pairs that "
        f"differ by more than {FLOAT_BOUND:g} changed"
    )
    alone = rate_alone(pack, backend)
    share = statistics.median(kept["rate"] for kept in rounds) / alone
    print(f"{name}: the model alone computes {alone:.1f} images/s, so its share of the steady time is {share:.0%}")
    failed = []
    if beyond > room:
        failed.append(f"{name}: the scores differ")
    if statistics.median(steady) < claim:
        failed.append(f"{name}: the steady ratio is below {claim}: is the machine busy with something else?")
    return failed


def _bound(backend: str | None) -> float:
    """Return how far a probability may be from the script's."""
    if backend is None or backend == "eager":
        return TOLERANCE
    if Path(backend).exists():
        calibration = read_calibration(backend)
        return TOLERANCE if calibration.choice in ("eager", "onnx", "openvino") else calibration.chosen.bound
    return TOLERANCE if backend in ("onnx", "openvino") else BACKENDS[backend].bound


def _room(backend: str | None) -> float:
    """Return the share of other images that may break the bound by what its calibration could see; 0 without one."""
    if backend is None or not Path(backend).exists():
        return 0.0
    calibration = read_calibration(backend)
    return 0.0 if _bound(backend) == TOLERANCE else share_that_may_break(calibration.num_held_out)


if __name__ == "__main__":
    main()
