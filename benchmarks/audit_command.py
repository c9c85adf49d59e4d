"""Claim: `medclip audit` of 200,000 rows x 14 labels x 12 groups ends within 300 CPU-seconds and 1 GB.

    python benchmarks/audit_command.py
    python benchmarks/audit_command.py --images 20000 --labels 4

The whole command is run, from two CSV files to the page and all tables: reading, thresholds, every measure with its
interval (2,000 resamples of patients), differences, gaps with their tests, calibration, decision curves, writing.
Patients have 1 to 8 images; two attributes are the patient's, one is the age at each image, one its view. One label has
a gap by age. Printed are CPU time and the high-water mark of memory of the command, and what it says it is at, with
the time of each line. With --profile the functions that took longest are listed.
Ends with 1 above 300 CPU-seconds or 1 GB.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

GROUPS = {
    "sex": ("F", "M"),
    "age": ("20-40", "40-60", "60-80", "80+"),
    "race": ("A", "B", "C"),
    "view": ("AP", "PA", "L"),
}
LIMITS = {"seconds": 300.0, "gigabytes": 1.0}


def write_tables(folder: Path, num_images: int, num_labels: int) -> tuple[Path, Path]:
    """Write scores and labels as a user would have them."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, num_images)
    patients = np.repeat(np.arange(num_images), sizes)[:num_images]
    num_patients = int(patients[-1]) + 1
    codes = {name: rng.integers(0, len(groups), num_patients)[patients] for name, groups in GROUPS.items()}
    older = rng.random(num_images) < 0.1  # an image at a later age
    codes["age"] = np.minimum(codes["age"] + older, len(GROUPS["age"]) - 1)
    codes["view"] = rng.integers(0, len(GROUPS["view"]), num_images)
    columns: dict[str, np.ndarray] = {}
    scores: dict[str, np.ndarray] = {}
    for i, prevalence in enumerate(np.linspace(0.02, 0.4, num_labels)):
        own = rng.normal(0, 0.7, num_patients)[patients]
        signal = own + rng.normal(0, 0.7, num_images)
        truth = signal > np.quantile(signal, 1 - prevalence)
        worse = 0.4 * (codes["age"] == 3) if i == num_labels // 2 else 0.0
        logit = -1.5 + (1.3 - worse) * truth + own + rng.normal(0, 1, num_images)
        columns[f"finding {i}"] = truth.astype(int)
        scores[f"finding {i}"] = 1 / (1 + np.exp(-logit))
    labels_csv, scores_csv = folder / "labels.csv", folder / "scores.csv"
    with labels_csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", *GROUPS, *columns])
        texts = [np.array(groups)[codes[name]].tolist() for name, groups in GROUPS.items()]
        names, of_patients = [f"i{n}" for n in range(num_images)], [f"p{p}" for p in patients]
        writer.writerows(zip(names, of_patients, *texts, *(c.tolist() for c in columns.values()), strict=True))
    with scores_csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *scores])
        rounded = (np.round(s, 6).tolist() for s in scores.values())
        writer.writerows(zip([f"i{n}" for n in range(num_images)], *rounded, strict=True))
    return scores_csv, labels_csv


def main() -> int:
    """Run the command and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--profile", action="store_true", help="list the functions that took longest")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scores, labels = write_tables(folder, args.images, args.labels)
        profiler = ["-m", "cProfile", "-o", str(folder / "profile")] if args.profile else []
        command = [sys.executable, *profiler, "-m", "medclip.cli.main", "audit", str(scores), "--labels", str(labels)]
        command += [*(x for g in GROUPS for x in ("--by", g)), "--out", str(folder / "out")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        start, silent, last = time.perf_counter(), 0.0, time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
            assert running.stderr is not None
            for line in running.stderr:
                now = time.perf_counter()
                silent, last = max(silent, now - last), now
                print(f"{now - start:7.1f} s  {line.rstrip()}")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        written = sum(file.stat().st_size for file in (folder / "out").iterdir())
        if args.profile:
            import pstats

            pstats.Stats(str(folder / "profile")).sort_stats("tottime").print_stats(40)
    print(
        f"{args.images} rows, {args.labels} labels, {sum(map(len, GROUPS.values()))} groups; exit {running.returncode}"
    )
    load = os.getloadavg()[0]
    print(
        f"{cpu:.0f} s CPU (at most {LIMITS['seconds']:.0f}), {time.perf_counter() - start:.0f} s wall, load {load:.1f}"
    )
    print(f"{peak / 1e9:.2f} GB (at most {LIMITS['gigabytes']:.0f}), {written / 1e6:.1f} MB written")
    print(f"longest time without a word: {silent:.0f} s")
    return int(running.returncode != 0 or cpu > LIMITS["seconds"] or peak > LIMITS["gigabytes"] * 1e9)


if __name__ == "__main__":
    raise SystemExit(main())
