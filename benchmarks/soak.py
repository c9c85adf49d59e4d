"""Claim: a night of any length costs the same for each file, keeps no list of files in memory, and outlives a kill.

Usage: python benchmarks/soak.py [1000 5000 20000 50000] [--folder SCRATCH] [--model PACK] [--workers 2]

Makes folders of that many files by code: radiographs of one study each, studies whose films lie in three folders, CT
series, PNGs; 1 % are broken in 12 ways. For each size `medclip score` runs as a process of its own, and its cost is
read from the system: CPU time of all its processes, memory of the first one and of all together (a sample every 0.1 s),
seconds until the ledger has the first file and the first row, and until the first rows can be read as a table. Then

- the rows are counted by reason and compared with what was made; every file that is not broken must be scored;
- the same call again must read no file: access times are set back before it, and whatever was read has a new one;
- a second run is killed (SIGKILL) half way and goes on: it must end in the same bytes, and must not have read the files
  that were done.

Claims: CPU per file grows by at most a quarter to the largest size (start-up left out); the memory of the first process
by less than 1.5 kB a file, and by less than 5 %, between the first and the last third of the largest run: what torch
and its threads take while a run warms up is not counted. Sizes that differ by at least 4,000 files are needed. In every
run of 1,000 files or more the first rows can be read within 30 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

ROWS, COLUMNS = 96, 80
SAMPLE_S = 0.1
SLICES, FILMS = 20, 3
UID_ROOT = "1.2.826.0.1.3680043.8.498.77"
CPU_GROWTH, BYTES_PER_FILE, MEMORY_GROWTH, LEAST_DISTANCE = 1.25, 1500, 1.05, 4000
READABLE_S, READABLE_FILES = 30.0, 1000
OUTPUTS = ("files.parquet", "scores.parquet", "run.json", "report.html")
Truth = Counter[tuple[str, str | None]]
"""Number of files by status and reason."""


# What is scored.


def texture(seed: int) -> np.ndarray:
    """Make a 12-bit image of some bright blobs, uint16 [96, 80]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    image = 600 + 900 * x / COLUMNS
    for _ in range(4):
        cy, cx, r = rng.uniform(0, ROWS), rng.uniform(0, COLUMNS), rng.uniform(6, 20)
        image += 1800 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r))
    return np.clip(image, 0, 4000).astype(np.uint16)


def dicom(modality: str, *, pixels: bool = True) -> bytes:
    """Encode one object, whose numbers are filled in by `numbered`."""
    sop = {"DX": "1.2.840.10008.5.1.4.1.1.1.1", "CT": "1.2.840.10008.5.1.4.1.1.2"}[modality]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop)
    meta.MediaStorageSOPInstanceUID = UID(f"{UID_ROOT}.3{0:012d}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PatientID = modality, f"P{0:012d}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{UID_ROOT}.1{0:012d}", f"{UID_ROOT}.2{0:012d}"
    ds.BodyPartExamined = "CHEST"
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    if modality == "CT":
        ds.RescaleIntercept, ds.RescaleSlope, ds.SliceThickness = -1024, 1, 2
        ds.PixelSpacing, ds.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = ["0", "0", "000000.0"]
    if pixels:
        ds.PixelData = texture(1).tobytes()
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@dataclass
class Maker:
    """Writes files below a folder and keeps count of how each must end."""

    root: Path
    truth: Truth = field(default_factory=Counter)
    num_files: int = 0
    films: bytes = field(default_factory=lambda: dicom("DX"))
    slices: bytes = field(default_factory=lambda: dicom("CT"))
    no_pixels: bytes = field(default_factory=lambda: dicom("DX", pixels=False))
    textures: list[bytes] = field(default_factory=lambda: [texture(n).tobytes() for n in range(32)])

    def put(self, name: str, content: bytes, status: str = "scored", reason: str | None = None) -> Path:
        """Write a file and note how it must end."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.count(status, reason)
        return path

    def count(self, status: str, reason: str | None) -> None:
        self.truth[status, reason] += 1
        self.num_files += 1

    def numbered(self, template: bytes, study: int, instance: int, z: int | None = None) -> bytes:
        """Fill in the numbers of an object; no two have the same bytes."""
        body = template
        if z is None:
            body = body[: -ROWS * COLUMNS * 2] + self.textures[instance % len(self.textures)]
        body = body[:-4] + (instance % 4000).to_bytes(2, "little") + (instance // 4000).to_bytes(2, "little")
        for kind, number in ((1, study), (2, study), (3, instance)):
            body = body.replace(f".{kind}{0:012d}".encode(), f".{kind}{number:012d}".encode())
        body = body.replace(f"P{0:012d}".encode(), f"P{study:012d}".encode())
        return body if z is None else body.replace(b"000000.0", f"{z:06d}.0".encode())

    def film(self, name: str, study: int) -> None:
        self.put(name, self.numbered(self.films, study, self.num_files))

    def png(self, seed: int) -> bytes:
        """Encode a grey PNG."""
        pixels = (texture(seed % 64) >> 4).astype(np.uint8)
        pixels[0, :4] = list(seed.to_bytes(4, "little"))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return buffer.getvalue()

    def broken(self, number: int) -> None:
        """Write one file that is broken in one of 12 ways."""
        name, way = f"broken/{number // 100:04d}/{number:06d}", number % 12
        film = self.numbered(self.films, 10**9 + number, self.num_files)
        match way:
            case 0:
                self.put(f"{name}.dcm", b"", "failed", "empty_file")
            case 1:
                self.put(f"{name}.dcm", film[: -ROWS * COLUMNS], "failed", "truncated")
            case 2:
                self.put(f"{name}.dcm", film[:400], "failed", "truncated")
            case 3:
                self.put(f"{name}.png", self.png(number)[:1500], "failed", "truncated")
            case 4:
                self.put(f"{name}.dcm", np.random.default_rng(number).bytes(5000), "failed", "corrupt")
            case 5:
                self.put(
                    f"{name}.dcm", b"<!DOCTYPE html><html><body>404 %d</body></html>" % number, "failed", "corrupt"
                )
            case 6:
                self.put(f"{name}.png", b"to be scanned again, %d\n" % number, "failed", "corrupt")
            case 7:
                body = self.no_pixels.replace(f".1{0:012d}".encode(), f".1{10**9 + number:012d}".encode())
                self.put(f"{name}.dcm", body, "skipped", "no_pixels")
            case 8:
                syntax = b"1.2.840.10008.1.2.1\0"
                self.put(
                    f"{name}.dcm",
                    film.replace(syntax, b"1.2.840.10008.1.2.77"),
                    "skipped",
                    "not_supported_yet",
                )
            case 9:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / f"{name}.dcm").symlink_to("archived-elsewhere.dcm")
                self.count("failed", "missing_file")
            case 10:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                os.mkfifo(self.root / f"{name}.dcm")
                self.count("skipped", "not_a_file")
            case _:
                body = bytearray(self.png(number))
                at = body.index(b"IDAT") + 40
                body[at : at + 200] = bytes(200)
                self.put(f"{name}.png", bytes(body), "failed", "corrupt")


def build(root: Path, size: int) -> Truth:
    """Make `size` files: 1 % broken, 4 % in CT series, 9 % in scattered studies, 15 % PNGs, the rest films."""
    maker = Maker(root)
    for number in range(size // 100):
        maker.broken(number)
    for series in range(size * 4 // 100 // SLICES):
        for z in range(SLICES):
            study, name = 2 * 10**8 + series, f"ct/{series // 50:03d}/{series:05d}/{z:03d}.dcm"
            maker.put(name, maker.numbered(maker.slices, study, maker.num_files, z), "skipped", "other_input")
    for study in range(size * 9 // 100 // FILMS):
        for film in range(FILMS):
            maker.film(f"day{film}/{study // 40:04d}/{study:06d}.dcm", 3 * 10**8 + study)
    for number in range(size * 15 // 100):
        maker.put(f"export/{number // 200:04d}/{number:06d}.png", maker.png(number))
    for number in range(size - maker.num_files):
        maker.film(f"films/{number // 150:04d}/{number:06d}", 4 * 10**8 + number)
    return maker.truth


# What a run costs.


@dataclass
class Cost:
    """What one call cost."""

    code: int
    cpu_s: float
    wall_s: float
    first_listed_s: float
    first_row_s: float
    readable_s: float
    """Until there was a table of early rows; 0 where the run ended before."""
    own_bytes: int
    """Largest resident memory of the process that was started."""
    all_bytes: int
    """Largest sum over all of its processes."""
    over_time: list[int]
    """Resident memory of the first process at each tenth of the run, MB."""


def call(root: Path, out: Path, options: list[str], *, kill_at: int | None = None) -> Cost:
    """Run `medclip score` and watch it; with `kill_at`, kill it when the ledger has so many rows."""
    command = [sys.executable, "-m", "medclip.cli.main", "score", str(root), "--out", str(out), *options]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        listed, row, readable, own, total = 0.0, 0.0, 0.0, 0, 0
        samples: list[int] = []
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            sizes = [rss(pid) for pid in family(process.pid)]
            samples.append(sizes[0])
            own, total = max(own, sizes[0]), max(total, sum(sizes))
            now = time.perf_counter() - start
            readable = readable or (now if any(out.glob("parts/files-*.parquet")) else 0.0)
            if not row or kill_at is not None:
                num_listed, num_rows = counts(out)
                listed = listed or (now if num_listed else 0.0)
                row = row or (now if num_rows else 0.0)
                if kill_at is not None and num_rows >= kill_at:
                    process.send_signal(signal.SIGKILL)
                    kill_at = None
            time.sleep(SAMPLE_S)
        usage, code = ended[2], os.waitstatus_to_exitcode(ended[1])
        process.returncode = code
        if code not in (0, 3, -signal.SIGKILL):
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {code}\n{log.read().decode()[-4000:]}")
    wall = time.perf_counter() - start
    tenths = [samples[len(samples) * n // 10] // 10**6 for n in range(10)]
    return Cost(code, usage.ru_utime + usage.ru_stime, wall, listed, row, readable, own, total, tenths)


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    pids = [pid]
    for one in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    return pids


def rss(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def counts(out: Path) -> tuple[int, int]:
    """Return how many files and rows a ledger has; as any reader may, while it is written."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{out}/ledger.sqlite?mode=ro", uri=True, timeout=1)) as db:
            return tuple(db.execute("SELECT (SELECT MAX(id) FROM inputs), (SELECT COUNT(*) FROM files)").fetchone())
    except sqlite3.Error:
        return 0, 0


def regular(root: Path) -> Iterator[Path]:
    """Yield the files that can be read."""
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink():
                yield path


def set_back(root: Path) -> None:
    """Set access times before the times of change: whoever reads a file then renews it, also on a relatime disk."""
    for path in regular(root):
        os.utime(path, ns=(0, path.stat().st_mtime_ns))


def num_read(root: Path) -> int:
    """Count the files that were read since `set_back`."""
    return sum(path.stat().st_atime_ns != 0 for path in regular(root))


def digests(out: Path) -> dict[str, str]:
    """Hash what a run wrote."""
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in OUTPUTS}


# Measure.


def soak(size: int, work: Path, options: list[str]) -> Cost:
    """Make one size, run it in every way, check everything, and print what it cost."""
    root = work / f"in{size}"
    truth = build(root, size)
    cost = call(root, work / f"whole{size}", options)
    table = pq.read_table(work / f"whole{size}" / "files.parquet", columns=["status", "reason"]).to_pylist()
    rows: Truth = Counter((row["status"], row["reason"]) for row in table)
    differing = {key: (rows[key], truth[key]) for key in rows.keys() | truth.keys() if rows[key] != truth[key]}
    if differing:
        raise SystemExit(f"{size} files: rows are not what was made (found, made): {differing}")
    print(
        f"\n{size} files: {1000 * cost.cpu_s / size:.1f} ms of CPU a file, {cost.wall_s:.0f} s; first file listed "
        f"after {cost.first_listed_s:.1f} s, first row after {cost.first_row_s:.1f} s, first rows readable after "
        f"{cost.readable_s:.1f} s\n"
        f"  memory: {cost.own_bytes / 1e6:.0f} MB, all processes {cost.all_bytes / 1e6:.0f} MB; "
        f"over time {cost.over_time}\n"
        f"  rows: {', '.join(f'{n} {reason or status}' for (status, reason), n in sorted(rows.items(), key=str))}",
        flush=True,
    )
    if size >= READABLE_FILES and not 0 < cost.readable_s <= READABLE_S:
        raise SystemExit(f"the first rows could be read after {cost.readable_s:.0f} s")
    set_back(root)
    again = call(root, work / f"whole{size}", options)
    reads = num_read(root)
    print(f"  the same call again: {again.wall_s:.1f} s, {again.cpu_s:.1f} s of CPU, {reads} files read", flush=True)
    if reads:
        raise SystemExit(f"a finished run read {reads} files again")
    killed = call(root, work / f"killed{size}", options, kill_at=size // 2)
    assert killed.code == -signal.SIGKILL
    done = counts(work / f"killed{size}")[1]
    set_back(root)
    rest = call(root, work / f"killed{size}", options)
    reads = num_read(root)
    print(
        f"  killed with {done} rows, then: {rest.wall_s:.0f} s, {rest.cpu_s:.0f} s of CPU "
        f"({1000 * rest.cpu_s / (size - done):.1f} ms for each file that was left), {reads} files read",
        flush=True,
    )
    if digests(work / f"killed{size}") != digests(work / f"whole{size}"):
        raise SystemExit("the run that was killed ended in other bytes")
    late = truth.total() * 9 // 100 + 3 * 64
    if reads > size - done + late:
        raise SystemExit(f"{reads} files were read after a kill with {done} of {size} done")
    return cost


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--folder", type=Path, default=None, help="where files are made; about 20 kB each")
    parser.add_argument("--model", default="medclip-mini")
    parser.add_argument("--workers", default="2")
    args = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load}")
    options = ["--model", args.model, "--workers", args.workers, "--modality", "xray"]
    costs: dict[int, Cost] = {}
    for size in sorted(args.sizes):
        with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
            costs[size] = soak(size, Path(scratch), options)
    small, large = min(costs), max(costs)
    if large - small < LEAST_DISTANCE:
        return
    tenths = costs[large].over_time
    growth = float(np.mean(tenths[-3:]) / np.mean(tenths[2:5]))
    slope = (np.mean(tenths[-3:]) - np.mean(tenths[2:5])) * 1e6 / (large / 2)  # their middles lie half a run apart
    middle = sorted(costs)[len(costs) // 2]
    near = (costs[middle].cpu_s - costs[small].cpu_s) / (middle - small) if middle != large else 0.0
    far = (costs[large].cpu_s - costs[small].cpu_s) / (large - small)
    print(
        f"\nCPU without start-up: {1000 * far:.1f} ms a file up to {large} files, {1000 * near:.1f} ms up to {middle}"
    )
    print(f"memory of the first process: {slope / 1000:.2f} kB a file, {100 * (growth - 1):.1f} % after warm-up")
    if near and far > CPU_GROWTH * near:
        raise SystemExit("the cost of a file grows with their number")
    if growth > MEMORY_GROWTH or slope > BYTES_PER_FILE:
        raise SystemExit("memory grows with the number of files")


if __name__ == "__main__":
    main()
