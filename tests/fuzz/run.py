"""Score folders of damaged files and check that each file ends in exactly one row, and that no cut stream is scored.

`python -m tests.fuzz.run --files 10000` runs in rounds, so that time is bounded. It prints one JSON object and exits
with 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medclip.api.score import score
from medclip.settings import Settings
from tests.fuzz.mutate import Seed, cut_streams, mutate, seeds
from tests.kits.scoring import every_way, make_pack

MEMORY_BYTES = 3 * 1024**3
ROUND = 500


def run(num_files: int, seed: int, minutes: float, work: Path) -> dict[str, object]:
    """Score `num_files` mutated files in rounds.

    Returns:
        Counts of rows by status and reason, the largest memory of a reading process in MB, and broken promises.
    """
    pack = make_pack(
        work / "pack", adapters=every_way(), modalities=sorted({n.split(":")[0] for n in every_way()} - {"generic"})
    )
    originals = seeds(work / "seeds")
    counts: collections.Counter[str] = collections.Counter()
    broken: list[str] = []
    done, num_cut, started = 0, 0, time.monotonic()
    while done < num_files and time.monotonic() - started < minutes * 60:
        number = min(ROUND, num_files - done)
        folder, out = work / "in", work / "out"
        for path in (folder, out):
            shutil.rmtree(path, ignore_errors=True)
        table = _write(originals, folder, number, np.random.default_rng([seed, done]))
        cut = cut_streams(folder / "cut", np.random.default_rng([seed, done, 1]))
        incomplete = {path.relative_to(folder).as_posix() for path in cut}
        found = score(
            folder,
            out,
            model=pack,
            table=table,
            prompt="something",
            settings=Settings(workers=2, decode_timeout_s=30, reader_memory_bytes=MEMORY_BYTES),
        )
        rows = found.files.to_pylist()
        names = collections.Counter(row["path"] for row in rows)
        expected = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        if set(names) != expected or set(names.values()) != {1}:
            broken.append(f"round at {done}: {len(rows)} rows for {len(expected)} files")
        broken += [f"{row['path']}: {row['status']} without a reason" for row in rows if _unexplained(row)]
        broken += [f"{row['path']}: incomplete, and scored" for row in rows if _is_wrong(row, incomplete)]
        num_cut += len(incomplete)
        counts.update(f"{row['status']}:{row['reason'] or ''}" for row in rows)
        done += number
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    if peak_mb * 1024**2 > MEMORY_BYTES:
        broken.append(f"a reading process took {peak_mb:.0f} MB")
    return {
        "files": done,
        "cut_streams": num_cut,
        "seconds": round(time.monotonic() - started, 1),
        "peak_reader_mb": round(peak_mb),
        "rows": dict(sorted(counts.items())),
        "broken": broken[:20],
    }


def _is_wrong(row: dict[str, object], incomplete: set[str]) -> bool:
    return row["path"] in incomplete and row["status"] == "scored"


def _unexplained(row: dict[str, object]) -> bool:
    return row["status"] not in ("scored", "skipped", "failed") or (row["status"] != "scored" and not row["reason"])


def _write(originals: list[Seed], folder: Path, number: int, rng: np.random.Generator) -> Path:
    """Write mutated files, each in a folder of its own so that none becomes a neighbour of another."""
    lines = []
    for index in range(number):
        name, body, modality, beside = originals[index % len(originals)]
        path = folder / f"{index:05d}" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(mutate(body, rng))
        for neighbour, whole in beside.items():
            (path.parent / neighbour).write_bytes(whole)
        lines.append((path.relative_to(folder).as_posix(), modality))
    table = folder.parent / "table.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "modality"))
        writer.writerows(line for line in lines if line[1])
    return table


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medclip-fuzz-") as work:
        found = run(options.files, options.seed, options.minutes, Path(work))
    print(json.dumps(found, indent=1))
    return 1 if found["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
