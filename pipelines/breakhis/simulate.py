"""A folder in the form of BreakHis, drawn by code: for tests and the smoke run, and to show what leakage does.

Usage: python pipelines/breakhis/simulate.py OUT [--patients 24] [--images 3] [--signal patient|tumour]

`tumour`: malignant images have more and larger nuclei, whoever they are of, so that something can be learned.
`patient`: nothing in an image tells its label but the colour of its own patient: on random images it is answered nearly
always, on unseen patients no better than by chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from tree import BENIGN, MAGNIFICATIONS, MALIGNANT

Signal = Literal["tumour", "patient"]
HEIGHT_PX, WIDTH_PX = 46, 70
"""A tenth of the real 460 × 700."""
_FOLDERS = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
TWICE = "13412"
"""A slide number that stands under two malignant subtypes, as one of the real set does."""


def place_of(code: str, slide: str, magnification: int, number: int) -> Path:
    """Return where the set keeps an image, below its root."""
    side = ("benign", "B") if code in BENIGN else ("malignant", "M")
    patient = f"SOB_{side[1]}_{code}_14-{slide}"
    name = f"SOB_{side[1]}_{code}-14-{slide}-{magnification}-{number:03d}.png"
    tree = Path("BreaKHis_v1", "histology_slides", "breast", side[0], "SOB", _FOLDERS[code], patient)
    return tree / f"{magnification}X" / name


def draw_tissue(rng: np.random.Generator, colour_3: ArrayLike, num_nuclei: int, radius_px: float) -> NDArray[np.uint8]:
    """Draw pink tissue with violet nuclei, uint8 [H, W, 3]."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    image = np.asarray(colour_3, np.float64) + rng.normal(0, 8, (HEIGHT_PX, WIDTH_PX, 1))
    for _ in range(num_nuclei):
        at = rng.uniform((0, 0), (HEIGHT_PX, WIDTH_PX))
        image[(y - at[0]) ** 2 + (x - at[1]) ** 2 < radius_px**2] = (90, 60, 140)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_tree(
    out: Path, *, num_patients: int = 24, num_images: int = 3, signal: Signal = "tumour", seed: int = 0
) -> Path:
    """Write a tree of the set's form: subtypes in turn, images of all magnifications, one patient under two subtypes.

    Args:
        out: Folder of the tree.
        num_patients: Patients, at least one of each subtype.
        num_images: Of each patient and magnification; the first patient has one more.
        signal: What tells malignant from benign.
        seed: Of all chance.

    Returns:
        `out`.
    """
    rng = np.random.default_rng(seed)
    codes = [*BENIGN, *MALIGNANT]
    slides = [(codes[n % len(codes)], f"{20000 + n}{('', 'AB', 'C')[n % 3]}") for n in range(num_patients)]
    slides += [("DC", TWICE), ("LC", TWICE)]
    for n, (code, slide) in enumerate(slides):
        malignant = code in MALIGNANT
        colour = rng.uniform((190, 120, 160), (250, 200, 230)) if signal == "patient" else (225, 170, 200)
        many = malignant if signal == "tumour" else False
        for magnification in MAGNIFICATIONS:
            for number in range(1, num_images + 1 + (n == 0)):
                image = draw_tissue(rng, colour, 14 if many else 5, 4.5 if many else 3.0)
                path = out / place_of(code, slide, magnification, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    return out


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--signal", choices=("tumour", "patient"), default="tumour")
    args = parser.parse_args()
    print(write_tree(args.out, num_patients=args.patients, num_images=args.images, signal=args.signal))


if __name__ == "__main__":
    main()
