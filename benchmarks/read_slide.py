"""Claims: patches of tiled JPEG slides come 3.5 times as fast as from a bare OpenSlide loop, and never slower.

Usage: python benchmarks/read_slide.py [--rounds 5] [--patches 1600] [--field FOLDER] [--folder FOLDER]

Writes a 20,000 x 20,000 px slide (tiled JPEG TIFF with a pyramid, always the same) and reads 256 px patches of it:

- on the grid: patches fall on stored tiles; at least 3.5 x OpenSlide
- limit: the same tiles' bytes, found beforehand and decoded by libjpeg-turbo, nothing else; at least 0.85 x
- off the grid: shifted by 100 px; at least 2.5 x
- half scale: 224 px at 0.5 µm/px of a slide with 0.25, against OpenSlide reading 448 px and PIL's BOX; at least 1.8 x
- other: slides that only OpenSlide can decode (deflate tiles, JPEG 2000 as Aperio writes it, the NDPI of --field), and
  a DICOM slide against wsidicom's own read_region; at least 0.95 x each
- two workers: at least 1.8 x the patches a second of one
- tissue mask: under 1 second, opening included

Both sides take turns in one process; medians of ratios of CPU time, one core. Both give RGB numpy arrays; all pixels
are compared (at half scale within 1: PIL's resize rounds rows, then columns; medclip rounds once).

Two workers: started, warm and the slide opened before the clock runs; patches are used where they are read, as a
training loader does. `benchmarks/two_cores.py` says how a busy machine is told from a slow reader.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import openslide
import tifffile
from PIL import Image
from scipy import ndimage

from medclip.imaging.slides import open_slide
from medclip.imaging.slides.patch_grid import iter_patches, make_grid
from medclip.imaging.slides.tissue.find import find_tissue

SIDE, TILE, MPP = 20_480, 256, 0.5
CLAIMS = {
    "on the grid": 3.5,
    "limit": 0.85,
    "off the grid": 2.5,
    "half scale": 1.8,
    "two workers": 1.8,
    "tissue mask": 1.0,
}
OTHERS = 0.95
"""The claim of every other row."""
Places = list[tuple[int, int]]
Read = Callable[[], Iterator[np.ndarray]]


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
                image,
                tile=(TILE, TILE),
                photometric="rgb",
                compression=compression,
                subfiletype=int(step > 1),
                compressionargs={"level": 80} if compression == "jpeg" else None,
                resolution=(10_000 / (MPP * step),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def build_jpeg2000(path: Path) -> None:
    """Write a slide in JPEG 2000 as Aperio's scanners do."""
    image = np.tile(texture(1024), (2, 2, 1))
    text = "Aperio Image Library v11.0.0\n2048x2048 (256x256) J2K/KDU Q=70|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            image,
            tile=(TILE, TILE),
            photometric="rgb",
            compression=33005,
            compressionargs={"level": 40},
            description=text,
            metadata=None,
        )


def build_dicom(path: Path) -> None:
    """Write one level of a DICOM slide with JPEG tiles."""
    import imagecodecs

    from tests.kits.slides import tiles_of, write_dicom_slide

    image = np.tile(texture(2048), (2, 2, 1))
    frames = [imagecodecs.jpeg8_encode(tile, level=80) for tile in tiles_of(image, TILE)]
    write_dicom_slide(path, image, photometric="YBR_FULL_422", frames=frames, tile=TILE)


def bare(path: Path, places: Places, size: int = TILE, to: int = TILE) -> Read:
    """What one writes with OpenSlide."""

    def read() -> Iterator[np.ndarray]:
        with openslide.OpenSlide(path) as slide:
            for y, x in places:
                image = slide.read_region((x, y), 0, (size, size)).convert("RGB")
                yield np.asarray(image if to == size else image.resize((to, to), Image.Resampling.BOX))

    return read


def only_decoded(path: Path, places: Places) -> Read:
    """Stored tiles through libjpeg-turbo: what no reader can be faster than."""
    import imagecodecs

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        offsets, counts, tables, across = page.dataoffsets, page.databytecounts, page.jpegtables, SIDE // TILE

    def read() -> Iterator[np.ndarray]:
        with path.open("rb") as file:
            for y, x in places:
                index = y // TILE * across + x // TILE
                stored = os.pread(file.fileno(), counts[index], offsets[index])
                out = np.empty((TILE, TILE, 3), np.uint8)
                yield imagecodecs.jpeg8_decode(stored, tables=tables, colorspace="YCBCR", outcolorspace="RGB", out=out)

    return read


def bare_dicom(path: Path, places: Places) -> Read:
    """What one writes with wsidicom."""
    from wsidicom import WsiDicom

    def read() -> Iterator[np.ndarray]:
        with WsiDicom.open(path) as slide:
            for y, x in places:
                yield np.asarray(slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB"))

    return read


def ours(path: Path, places: Places, size: int = TILE, to: int = TILE) -> Read:
    """The same through medclip's reader, in µm."""

    def read() -> Iterator[np.ndarray]:
        with open_slide(path) as reader:
            rows, columns = reader.mpp_um
            for y, x in places:
                yield reader.read(y * rows, x * columns, to, to, rows * size / to)

    return read


def cpu(read: Read) -> float:
    """CPU seconds of this process to take every patch once, as a model's loader does."""
    start = time.process_time()
    for _ in read():
        pass
    return time.process_time() - start


def places_of(count: int, shift: int, side: int, step: int = TILE) -> Places:
    """Neighbouring patches, whole rows from the middle of the slide."""
    across = side // step - 6
    first = side // step // 2 - count // across // 2
    return [((first + i // across) * step + shift, (3 + i % across) * step + shift) for i in range(count)]


def compare(name: str, theirs: Read, mine: Read, rounds: int, within: int = 0) -> float:
    """Take turns; give the median of the ratios of CPU time."""
    count = 0
    for a, b in zip(theirs(), mine(), strict=True):
        count += 1
        if int(np.abs(a.astype(np.int16) - b).max()) > within:
            raise SystemExit(f"{name}: the pixels differ")
    spent: dict[bool, list[float]] = {True: [], False: []}
    for i in range(rounds):
        for is_mine in (False, True) if i % 2 else (True, False):
            spent[is_mine].append(cpu(mine if is_mine else theirs))
    ratios = [a / b for a, b in zip(spent[False], spent[True], strict=True)]
    rates = [count / statistics.median(spent[side]) for side in (False, True)]
    equal = f"within {within}" if within else "equal"
    print(
        f"{name:14s} bare {rates[0]:6.0f} /s   medclip {rates[1]:6.0f} /s   "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})   pixels {equal}",
        flush=True,
    )
    return statistics.median(ratios)


def work(path: str, part: int, parts: int, at: float) -> tuple[float, float]:
    """Read a share of the grid's patches from a common start on."""
    from benchmarks.two_cores import begin

    with open_slide(Path(path)) as reader:
        grid = make_grid(reader, None, min_coverage=1, mpp_um=MPP)
        patches = list(grid)[:: max(1, len(grid) // 1600)][:1600]
        mine = patches[part * len(patches) // parts : (part + 1) * len(patches) // parts]
        start = begin(at)
        read = sum(pixels.shape == (TILE, TILE, 3) for _, pixels in iter_patches(reader, grid, mine))
        assert read == len(mine)
        return start, time.time()


def workers(path: Path, rounds: int) -> float:
    from benchmarks.read_slide import work as job  # importable by the workers
    from benchmarks.two_cores import gain

    return gain(job, (str(path), 0, 1), [(str(path), part, 2) for part in range(2)], rounds)


def tissue_seconds(path: Path, rounds: int) -> float:
    """Wall time to open a slide and find its tissue."""
    seconds, fraction = [], 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        with open_slide(path) as reader:
            fraction = find_tissue(reader).fraction
        seconds.append(time.perf_counter() - start)
    print(f"tissue mask    {statistics.median(seconds):.3f} s, {fraction:.0%} of the slide")
    return statistics.median(seconds)


def main() -> int:
    """Measure, print, and exit with 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patches", type=int, default=1600)
    parser.add_argument("--field", type=Path, help="the folder of real files, for its NDPI and SVS")
    parser.add_argument("--folder", type=Path, help="keep the slides here between runs")
    options = parser.parse_args()
    rounds, count = options.rounds, options.patches
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        slide, deflate, jpeg2000, dicom = (folder / name for name in ("jpeg.tiff", "deflate.tiff", "j2k.svs", "a.dcm"))
        makers: list[tuple[Path, Callable[[], None]]] = [
            (slide, lambda: build(slide, "jpeg")),
            (deflate, lambda: build(deflate, "adobe_deflate", SIDE // 4)),
            (jpeg2000, lambda: build_jpeg2000(jpeg2000)),
            (dicom, lambda: build_dicom(dicom)),
        ]
        for path, make in makers:
            if not path.exists():
                make()
        found: dict[str, float] = {}

        def both(name: str, theirs: Read, mine: Read, within: int = 0) -> None:
            found[name] = compare(name, theirs, mine, rounds, within)

        for name, shift in (("on the grid", 0), ("off the grid", 100)):
            places = places_of(count, shift, SIDE)
            both(name, bare(slide, places), ours(slide, places))
            if shift == 0:
                both("limit", only_decoded(slide, places), ours(slide, places))
        places = places_of(count // 4, 0, SIDE, 448)
        both("half scale", bare(slide, places, 448, 224), ours(slide, places, 448, 224), within=1)
        places = places_of(100, 0, SIDE // 4)
        both("deflate", bare(deflate, places), ours(deflate, places))
        places = [(y, x) for y in range(0, 2048, TILE) for x in range(0, 2048, TILE)]
        both("jpeg 2000", bare(jpeg2000, places), ours(jpeg2000, places))
        for name, shift in (("dicom", 0), ("dicom, off", 100)):
            places = places_of(80, shift, 4096)
            both(name, bare_dicom(dicom, places), ours(dicom, places))
        if options.field:
            (ndpi,) = (options.field / "wsi" / "ndpi").glob("*.ndpi")
            places = [(y, x) for y in range(64, 2500, TILE) for x in range(64, 3500, TILE)]
            both("ndpi", bare(ndpi, places), ours(ndpi, places))
            svs = options.field / "wsi" / "svs" / "CMU-1-Small-Region.svs"
            places = [(y, x) for y in range(0, 2967 - TILE, TILE) for x in range(0, 2220 - TILE, TILE)]
            both("svs", bare(svs, places), ours(svs, places))
        found["two workers"] = workers(slide, 3 * rounds)
        print(f"two workers    ratio {found['two workers']:.2f}")
        found["tissue mask"] = 1 / tissue_seconds(slide, rounds)
    missed = [name for name, ratio in found.items() if ratio < CLAIMS.get(name, OTHERS)]
    print("below target: " + ", ".join(missed) if missed else "all targets met")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
