"""Claim: the plan and the ledger of a million files hold no list of them: memory stays flat, and a file costs the same.

Usage: python benchmarks/million_files.py [--files 1000000] [--folder SCRATCH]

No image is read and no model computes: a walk that makes names up is listed in windows, looked at, tied to studies and
committed in chunks of 32 with the rows, scores and thumbnails (3 kB) of a real run, through the calls that a run makes.
Then the files are numbered, the tables are written, and `medclip.runs.status` is asked. Printed are the rate of the
first and the last tenth (of CPU time), memory after the first tenth and at the end, and the seconds of each step.
Claims: the last tenth goes at least half as fast as the first; memory grows by less than 5 % after the first tenth,
also while tables are written (pyarrow and a row group of 20,000 rows apart: 250 MB).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from medclip.files.readers.job_queue import Effort
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.run_status import read_status
from medclip.runs.outputs.results import write_results
from medclip.runs.planning.listing import windows
from medclip.runs.planning.plan import CHUNK_FILES
from medclip.runs.rows import ChunkResult, FileRow, KnownFile, Look, ScoreRow, Thumbnail
from medclip.sample import FileRef, Stamp

FILES_IN_FOLDER, CLASSES = 150, ("pneumonia", "effusion", "cardiomegaly")
SLOWEST, MEMORY_GROWTH, GROUP_BYTES = 0.5, 1.05, 250 * 1024**2
HEADERS = '{"manufacturer": "Siemens", "model": "Ysio", "sex": "F", "age_years": 61, "body_part": "CHEST"}'
STEPS = '[["values", "MONOCHROME1 inverted"], ["window", "header"], ["letterbox", "224 px"], ["crop", "dark borders"]]'


def walk(num_files: int) -> Iterator[FileRef]:
    """Yield files of folders, as `medclip.files.discover.walk` does, that are nowhere."""
    for number in range(num_files):
        name = f"2024/{number // FILES_IN_FOLDER:06d}/{number:08d}.dcm"
        yield FileRef(Path(name), name, 20_000_000, None, Stamp(20_000_000, 10**18 + number, number + 1))


def look(file: KnownFile) -> Look:
    """Return what a reading process would have found."""
    digest = hashlib.sha256(file.name.encode()).hexdigest()
    return Look(file.id, file.stamp, digest, "dicom", effort=Effort(0, 0.01, "reader 1"))


def result(files: list[KnownFile]) -> ChunkResult:
    """Return the rows of a chunk of films, each a study."""
    rows, scores, thumbnails, efforts = [], [], [], []
    for file in files:
        digest = hashlib.sha256(file.name.encode()).hexdigest()
        study = digest[:32]
        rows.append(
            FileRow(
                file.id,
                file.name,
                digest,
                20_000_000,
                "dicom",
                "scored",
                None,
                None,
                study,
                "xray",
                "header",
                None,
                "xray 3",
                digest[:16],
                "pydicom",
                None,
                "pa",
                "uid",
                STEPS,
                "image",
                file.id,
                HEADERS,
            )
        )
        scores += [
            ScoreRow(
                study,
                digest[:16],
                "xray",
                "chest_xray_findings",
                name,
                "multilabel",
                0.25,
                -1.1,
                1,
                "mini",
                "1",
                digest[:16],
            )
            for name in CLASSES
        ]
        thumbnails.append(Thumbnail(file.id, digest.encode() * 47, False))
        efforts.append((file.id, Effort(0, 0.05, "reader 2")))
    return ChunkResult(tuple(rows), tuple(scores), tuple(thumbnails), efforts=tuple(efforts))


def resident() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(ledger: Ledger, num_files: int) -> tuple[list[float], list[int]]:
    """List and commit all files; return the seconds of CPU of each tenth, and the memory at its end."""
    seconds, memory = [], []
    num_done, began = 0, time.process_time()
    for refs, cut in windows(walk(num_files)):
        window = ledger.register(refs, cut=cut, frontier=list(refs[-1].name.split("/")))
        ledger.looked_at(map(look, window))
        number = window[0].window
        ledger.tie((file.id, hashlib.sha256(file.name.encode()).hexdigest(), False) for file in window)
        for file in window[::FILES_IN_FOLDER]:
            assert not ledger.tied_before(hashlib.sha256(file.name.encode()).hexdigest(), number)
        for start in range(0, len(window), CHUNK_FILES):
            ledger.commit(result(window[start : start + CHUNK_FILES]))
        num_done += len(window)
        if num_done >= num_files * (len(seconds) + 1) // 10:
            seconds.append(time.process_time() - began)
            memory.append(resident())
            began = time.process_time()
    return seconds, memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the ledger is made; about 7 kB a file")
    args = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load}")
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        folder = Path(scratch)
        with Ledger(folder) as ledger:
            ledger.expects = lambda: args.files
            seconds, memory = fill(ledger, args.files)
            size = (folder / "ledger.sqlite").stat().st_size
            print(
                f"{args.files} files listed and committed in {sum(seconds):.0f} s of CPU: "
                f"{args.files / 10 / seconds[0]:.0f} files a second in the first tenth, "
                f"{args.files / 10 / seconds[-1]:.0f} in the last\n"
                f"memory {memory[0] / 1e6:.0f} and {memory[-1] / 1e6:.0f} MB; {size / args.files / 1000:.1f} kB a file",
                flush=True,
            )
            began = time.perf_counter()
            status = read_status(folder)
            asked_s = time.perf_counter() - began
            began = time.perf_counter()
            assert not ledger.open_windows()
            assert not ledger.late_ties()
            resumed_s = time.perf_counter() - began
            began = time.perf_counter()
            ledger.number()
            numbered_s = time.perf_counter() - began
            began = time.perf_counter()
            write_results(ledger, folder, {"options": {}})
            written_s, at_end = time.perf_counter() - began, resident()
        print(
            f"status {asked_s:.1f} s ({status.pace}); what is left after a kill {resumed_s:.1f} s; numbers "
            f"{numbered_s:.1f} s; tables {written_s:.1f} s, then {at_end / 1e6:.0f} MB"
        )
    if seconds[-1] * SLOWEST > seconds[0]:
        raise SystemExit("a file costs more the more there are")
    if memory[-1] > MEMORY_GROWTH * memory[0]:
        raise SystemExit("memory grows with the number of files")
    if at_end > MEMORY_GROWTH * memory[0] + GROUP_BYTES:
        raise SystemExit("tables are held in memory")


if __name__ == "__main__":
    main()
