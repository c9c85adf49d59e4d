"""Claims: patches of tiled JPEG slides come 4 times as fast as from a bare OpenSlide loop, and never slower.

Usage: python benchmarks/read_slide.py [--rounds 5] [--patches 400] [--svs CMU-1-Small-Region.svs] [--folder FOLDER]

Writes a 20,000 x 20,000 px slide (tiled JPEG TIFF with a pyramid, always the same) and reads 256 px patches of it:

- on the grid: patches fall on stored tiles; at least 4 x OpenSlide, CPU time, one core
- off the grid: shifted by 100 px; at least 1.8 x
- other: a slide that only OpenSlide can decode (deflate tiles); at least 0.95 x
- two worker processes: at least 1.8 x the patches a second of one, wall time, opening included
- tissue mask: under 1 second, opening included

Both sides take turns in one process; medians of ratios. Both give RGB numpy arrays; equality of all pixels is checked.
The SVS, where named, is read too and told, without a claim: it is small.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import openslide
import tifffile
from scipy import ndimage

from medclip.imaging.slides import open_slide
from medclip.imaging.slides.grid import make_grid
from medclip.imaging.slides.patches import iter_patches
from medclip.imaging.slides.tissue import find_tissue

SIDE, TILE, MPP = 20_480, 256, 0.5
CLAIMS = {"on the grid": 4.0, "off the grid": 1.8, "other formats": 0.95, "two workers": 1.8}
Places = list[tuple[int, int]]


def texture(side: int) -> np.ndarray:
    """Tissue-like noise: coloured blobs and fine grain, as hard to compress as a stained section."""
    rng = np.random.default_rng(0)
    coarse = ndimage.zoom(rng.normal(0, 1, (side // 16, side // 16, 3)), (16, 16, 1), order=1)
    fine = ndimage.gaussian_filter(rng.normal(0, 1, (side, side, 1)), (1, 1, 0))
    return np.clip(np.array([190, 120, 170]) + 25 * coarse + 60 * fine, 0, 255).astype(np.uint8)


def build(path: Path, compression: str, side: int = SIDE) -> None:
    """Write a pyramid: a round section on white, of a repeated texture."""
    block = texture(2048)
    y, x = np.ogrid[:side, :side]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for step in (1, 4, 16):
            size = side // step
            part = block[::step, ::step]
            image = np.tile(part, (-(-size // len(part)), -(-size // len(part)), 1))[:size, :size]
            outside = (y[::step] - side / 2) ** 2 + (x[:, ::step] - side / 2) ** 2 > (side * 0.45) ** 2
            image[outside[:size, :size]] = 245
            tiff.write(
                image, tile=(TILE, TILE), photometric="rgb", compression=compression, subfiletype=int(step > 1),
                compressionargs={"level": 80} if compression == "jpeg" else None,
                resolution=(10_000 / (MPP * step),) * 2, resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip


def bare(path: Path, places: Places) -> Iterator[np.ndarray]:
    """What one writes with OpenSlide."""
    with openslide.OpenSlide(path) as slide:
        for y, x in places:
            yield np.asarray(slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB"))


def ours(path: Path, places: Places) -> Iterator[np.ndarray]:
    """The same through medclip's reader, in µm."""
    with open_slide(path) as reader:
        rows, columns = reader.mpp_um
        for y, x in places:
            yield reader.read(y * rows, x * columns, TILE, TILE, rows)


def cpu(patches: Iterator[np.ndarray]) -> float:
    """CPU seconds of this process to take every patch once, as a model's loader does."""
    start = time.process_time()
    for _ in patches:
        pass
    return time.process_time() - start


def places_of(count: int, shift: int, side: int) -> Places:
    """Neighbouring patches, whole rows from the middle of the slide."""
    across = side // TILE - 6
    first = side // TILE // 2 - count // across // 2
    return [((first + i // across) * TILE + shift, (3 + i % across) * TILE + shift) for i in range(count)]


def compare(name: str, path: Path, places: Places, rounds: int) -> float:
    """Take turns; give the median of the ratios of CPU time."""
    equal = all(np.array_equal(a, b) for a, b in zip(bare(path, places), ours(path, places), strict=True))
    ratios, theirs_s, ours_s = [], [], []
    for i in range(rounds):
        order = (bare, ours) if i % 2 else (ours, bare)
        spent = {side.__name__: cpu(side(path, places)) for side in order}
        theirs_s.append(spent["bare"])
        ours_s.append(spent["ours"])
        ratios.append(spent["bare"] / spent["ours"])
    ratio, n = statistics.median(ratios), len(places)
    rates = [n / statistics.median(spent) for spent in (theirs_s, ours_s)]
    print(
        f"{name:14s} OpenSlide {rates[0]:6.0f} /s   medclip {rates[1]:6.0f} /s"
        f"   ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})   equal: {equal}",
        flush=True,
    )
    if not equal:
        raise SystemExit("the pixels differ")
    return ratio


def work(job: tuple[Path, int, int, float]) -> int:
    """Read a share of the grid's patches; wait for the common start, so that starting Python is not measured."""
    path, part, parts, start = job
    with open_slide(path) as reader:
        grid = make_grid(reader, None, min_coverage=1, mpp_um=MPP)
        patches = list(grid)[:: max(1, len(grid) // 3200)][:3200]
        mine = patches[part * len(patches) // parts : (part + 1) * len(patches) // parts]
        time.sleep(max(0, start - time.time()))
        return sum(1 for _ in iter_patches(reader, grid, mine))


def workers(path: Path, rounds: int) -> float:
    """Compare one worker process with two; both sides take turns."""
    ratios = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as one, context.Pool(2) as two:
        for pool, count in ((one, 1), (two, 2)):
            pool.map(work, [(path, i, count, 0.0) for i in range(count)], chunksize=1)
        for _ in range(rounds):
            spent = {}
            for pool, count in ((one, 1), (two, 2)):
                start = time.time() + 0.3
                pool.map(work, [(path, i, count, start) for i in range(count)], chunksize=1)
                spent[count] = time.time() - start
            ratios.append(spent[1] / spent[2])
    ratio = statistics.median(ratios)
    print(f"{'two workers':14s} ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    return ratio


def main() -> int:
    """Measure, print, and exit with 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patches", type=int, default=400)
    parser.add_argument("--svs", type=Path)
    parser.add_argument("--folder", type=Path, help="keep the slides here between runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        slide, other = folder / "jpeg.tiff", folder / "deflate.tiff"
        for path, compression, side in ((slide, "jpeg", SIDE), (other, "adobe_deflate", SIDE // 4)):
            if not path.exists():
                build(path, compression, side)
        found = {
            "on the grid": compare("on the grid", slide, places_of(options.patches, 0, SIDE), options.rounds),
            "off the grid": compare("off the grid", slide, places_of(options.patches, 100, SIDE), options.rounds),
            "other formats": compare("other formats", other, places_of(100, 0, SIDE // 4), options.rounds),
        }
        if options.svs:
            places = [(y, x) for y in range(0, 2967 - TILE, TILE) for x in range(0, 2220 - TILE, TILE)]
            compare("svs (240 px)", options.svs, places, options.rounds)
        found["two workers"] = workers(slide, options.rounds)
        seconds, fraction = [], 0.0
        for _ in range(options.rounds):
            start = time.perf_counter()
            with open_slide(slide) as reader:
                fraction = find_tissue(reader).fraction
            seconds.append(time.perf_counter() - start)
        mask_s = statistics.median(seconds)
        print(f"tissue mask    {mask_s:.3f} s, {fraction:.0%} of the slide")
    missed = [name for name, ratio in found.items() if ratio < CLAIMS[name]] + ["tissue mask"] * (mask_s >= 1)
    print("below target: " + ", ".join(missed) if missed else "all targets met")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
