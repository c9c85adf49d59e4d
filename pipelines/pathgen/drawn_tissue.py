"""Stained tissue that is drawn by code, with what is known of it: for the smoke run, the tests and the notebook.

Usage: python pipelines/pathgen/drawn_tissue.py OUT [--patients 12] [--pairs 240]

OUT/slides and slides.csv     one slide a patient with its organ and findings, as `medclip pathgen` takes them
OUT/pairs and pairs.csv       patches with captions of other patients: the pairs of stage 1
OUT/sets                      LC25000_colon and PCAM in their published form, for `medclip evaluate --suite pathgen`
OUT/wsi/CAMELYON16            slides and labels.csv: a tumour in half of the patients

Four kinds of tissue differ in how many nuclei there are, how large and how round they are, and how they lie. Nobody's
stain is quite the same. Nothing in it is a patient's, and what a model learns of it is of no use on real tissue.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medclip.imaging.slides.stain import MACENKO_SC, light

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import write_rows  # pyright: ignore[reportMissingImports]

GLASS, GLANDS, TUMOUR, STROMA, LYMPHOCYTES = range(5)
MPP_UM = 0.5
PATCH_PX = 128
_CRYPT_PX = 110
"""From the middle of a gland to that of the next."""


@dataclass(frozen=True)
class Nuclei:
    """How the nuclei of a kind of tissue look."""

    per_mm2: float
    radius_px: tuple[float, float]
    """Smallest and largest."""
    longest: float
    """Largest ratio of length to width."""
    dark: float
    """Haematoxylin, in absorbance."""
    eosin: float
    """Of what lies between them."""


LOOKS: Mapping[int, Nuclei] = {
    GLANDS: Nuclei(4200, (5.0, 6.0), 1.3, 0.55, 0.22),
    TUMOUR: Nuclei(4600, (6.5, 11.0), 1.9, 0.85, 0.20),
    STROMA: Nuclei(700, (3.5, 4.5), 3.5, 0.50, 0.42),
    LYMPHOCYTES: Nuclei(9000, (4.0, 5.0), 1.1, 0.75, 0.12),
}
CAPTIONS: Mapping[int, Sequence[str]] = {
    GLANDS: (
        "normal mucosa of the large bowel with round glands",
        "benign colon, glands in rows with small regular nuclei",
        "haematoxylin and eosin stain of regular crypts",
    ),
    TUMOUR: (
        "adenocarcinoma of the large bowel, large irregular nuclei",
        "a metastasis of cancer, crowded dark nuclei of different size",
        "tumour cells, a sheet of pleomorphic nuclei without glands",
    ),
    STROMA: (
        "stroma with few spindle-shaped nuclei",
        "collagen fibres between the glands, strongly eosinophilic",
        "bundles of pink fibres, hardly any cells",
    ),
    LYMPHOCYTES: (
        "lymphocytes and no tumour",
        "a lymph node, densely packed small round nuclei",
        "dense lymphocytes in a section of a lymph node",
    ),
}
"""Our own words; several share those of the suite's classes, so that a smoke run can show more than chance."""


def draw(kinds_HW: NDArray[np.integer], seed: int) -> NDArray[np.uint8]:
    """Draw tissue at 0.5 µm/px: RGB uint8 [H, W, 3].

    Args:
        kinds_HW: The kind of tissue of each pixel.
        seed: Of nuclei, grain and the stain of this patient.
    """
    rng = np.random.default_rng(seed)
    height, width = kinds_HW.shape
    haematoxylin, eosin = np.zeros((2, height, width), np.float32)
    for kind, look in LOOKS.items():
        inside = kinds_HW == kind
        if not inside.any():
            continue
        haematoxylin[inside], eosin[inside] = 0.06, look.eosin
        if kind == GLANDS:
            eosin[inside & (_from_crypt(height, width) < 24)] = 0.06  # the lumen is pale
        for row, column in _places(rng, kind, inside, look):
            _stamp(rng, haematoxylin, eosin, (row, column), look)
    haematoxylin[kinds_HW == GLASS] = eosin[kinds_HW == GLASS] = 0  # where a nucleus reached over the edge
    grain = rng.normal(1, 0.06, (height, width)).astype(np.float32)
    amounts = np.stack([haematoxylin * rng.uniform(0.85, 1.15), eosin * rng.uniform(0.85, 1.15)], -1) * grain[..., None]
    return light(np.maximum(amounts, 0) @ MACENKO_SC.astype(np.float32))


def lay_out(height: int, width: int, base: int, tumour_share: float, seed: int) -> NDArray[np.int8]:
    """Lay a section on glass, int8 [H, W]: stroma under a layer of `base`, and a round tumour of a share of it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    edge = 1 + 0.06 * np.sin(np.arctan2(rows - height / 2, columns - width / 2) * 5 + rng.uniform(0, 6))
    section = ((rows / height - 0.5) / 0.44) ** 2 + ((columns / width - 0.5) / 0.44) ** 2 < edge
    kinds = np.where(rows > 0.68 * height, STROMA, base)
    kinds = np.where(section, kinds, GLASS).astype(np.int8)
    if tumour_share > 0:
        radius = np.sqrt(tumour_share * section.sum() / np.pi)
        middle = height * rng.uniform(0.38, 0.55), width * rng.uniform(0.35, 0.65)
        lesion = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
        kinds[section & lesion] = TUMOUR
    return kinds


def write_slide(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an image as a tiled pyramid that states its scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "tile": (256, 256),
        "compression": "jpeg",
        "compressionargs": {"level": 90},
        "photometric": "rgb",
        "metadata": None,
        "resolutionunit": "CENTIMETER",
        "software": False,
    }
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 4):
            rows, columns = (side // step * step for side in image.shape[:2])
            level = image[:rows, :columns].reshape(rows // step, step, columns // step, step, 3).mean((1, 3))
            per_cm = 1e4 / (MPP_UM * step)
            writer.write(level.astype(np.uint8), subfiletype=int(step > 1), resolution=(per_cm, per_cm), **options)
    return path


def write_slides(out: Path, num: int, *, height: int = 1280, width: int = 1664, seed: int = 0) -> list[dict[str, Any]]:
    """Write slides of as many patients, every second one with a tumour; a row of what is true of each."""
    rows = []
    for n in range(num):
        organ, base = (("colon", GLANDS), ("lymph node", LYMPHOCYTES))[n // 2 % 2]
        share = (0.0, 0.12)[n % 2]
        path = out / f"slide_{n:02d}.tiff"
        write_slide(path, draw(lay_out(height, width, base, share, seed + n), seed + n))
        findings = "crowded large nuclei" if share else ""
        rows.append(
            {
                "file": path.name,
                "slide": path.name,
                "patient": f"P{seed + n}",
                "organ": organ,
                "findings": findings,
                "label": "tumour" if share else "normal",
                "source": "drawn by code",
                "license": "CC0",
            }
        )
    return rows


def write_patches(out: Path, kinds: Sequence[int], num: int, seed: int) -> list[tuple[str, int, str]]:
    """Write patches of one kind each, four of a patient; name, kind and patient of each."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(num):
        kind = kinds[n % len(kinds)]
        image = draw(np.full((PATCH_PX, PATCH_PX), kind, np.int8), seed + n)
        Image.fromarray(image).save(out / f"patch_{n:04d}.png")
        rows.append((f"patch_{n:04d}.png", kind, f"Q{seed + n // 4}"))
    return rows


def simulate(out: Path, num_patients: int = 12, num_pairs: int = 240) -> None:
    """Write everything that a smoke run needs.

    Args:
        out: Folder.
        num_patients: Slides for `pathgen`, and as many for the task of slides.
        num_pairs: Patches with captions.
    """
    write_rows(out / "slides.csv", write_slides(out / "slides", num_patients))
    rng = np.random.default_rng(1)
    patches = write_patches(out / "pairs", (GLANDS, TUMOUR, STROMA, LYMPHOCYTES), num_pairs, 10_000)
    common = {"modality": "pathology", "source": "drawn by code", "license": "CC0"}
    pairs = [
        {"file": f"pairs/{name}", "patient": patient, "caption": str(rng.choice(CAPTIONS[kind])), **common}
        for name, kind, patient in patches
    ]
    write_rows(out / "pairs.csv", pairs)
    sets = out / "sets"
    for folder, kind, seed in (("colon_n", GLANDS, 20_000), ("colon_aca", TUMOUR, 21_000)):
        write_patches(sets / "LC25000_colon" / folder, (kind,), num_pairs // 8, seed)
    node = write_patches(sets / "PCAM", (LYMPHOCYTES, TUMOUR), num_pairs // 4, 22_000)
    labelled = [
        {"file": name, "label": int(kind == TUMOUR), "patient": patient, "split": "test"}
        for name, kind, patient in node
    ]
    write_rows(sets / "PCAM" / "labels.csv", labelled)
    task = out / "wsi" / "CAMELYON16"
    write_rows(task / "labels.csv", write_slides(task / "slides", num_patients, seed=500))


def _places(rng: np.random.Generator, kind: int, inside: NDArray[np.bool_], look: Nuclei) -> NDArray[np.int64]:
    """Draw where nuclei lie, int [N, 2]: anywhere, or on the rings of glands."""
    area_mm2 = inside.sum() * (MPP_UM / 1000) ** 2
    weights = inside.astype(np.float64)
    if kind == GLANDS:
        distance = _from_crypt(*inside.shape)
        weights = weights * np.where(np.abs(distance - 34) < 7, 1.0, 0.06) * (distance > 24)
    share = weights.ravel() / weights.sum()
    number = min(int(rng.poisson(look.per_mm2 * area_mm2)), int((share > 0).sum()))
    cells = rng.choice(len(share), number, p=share)
    return np.stack(np.unravel_index(cells, inside.shape), axis=1)


def _from_crypt(height: int, width: int) -> NDArray[np.float64]:
    """Compute the distance from the middle of the nearest gland, float [H, W]."""
    rows, columns = np.mgrid[:height, :width]
    offset = (rows // _CRYPT_PX % 2) * (_CRYPT_PX // 2)
    return np.hypot(rows % _CRYPT_PX - _CRYPT_PX / 2, (columns + offset) % _CRYPT_PX - _CRYPT_PX / 2)


def _stamp(
    rng: np.random.Generator,
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    place: tuple[int, int],
    look: Nuclei,
) -> None:
    """Draw one nucleus: an ellipse of any direction."""
    radius = rng.uniform(*look.radius_px)
    ratio = rng.uniform(1, look.longest)
    long, short = radius * ratio**0.5, radius / ratio**0.5
    angle, reach = rng.uniform(0, np.pi), int(long) + 1
    top, left = max(place[0] - reach, 0), max(place[1] - reach, 0)
    bottom, right = min(place[0] + reach + 1, len(eosin)), min(place[1] + reach + 1, eosin.shape[1])
    window = np.s_[top:bottom, left:right]
    y, x = np.ogrid[top - place[0] : bottom - place[0], left - place[1] : right - place[1]]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    nucleus = (along / long) ** 2 + (across / short) ** 2 < 1
    dark = look.dark * rng.uniform(0.85, 1.15)
    haematoxylin[window][nucleus] = dark
    eosin[window][nucleus] = 0.1


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=240)
    args = parser.parse_args()
    simulate(args.out, args.patients, args.pairs)
    print(args.out)


if __name__ == "__main__":
    main()
