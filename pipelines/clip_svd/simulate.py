"""Two of the ten sets, drawn by code as one folder for each class: what `run.sh --smoke` compares methods on.

Usage: python pipelines/clip_svd/simulate.py DATA

An image is noise with a bright ring; its radius and place tell the classes apart.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SETS = {
    "BUSI": ("benign tumor", "malignant tumor", "normal scan"),
    "BTMRI": ("glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain"),
}
IMAGES_PER_CLASS = 20
SIZE_PX = 96


def image(number: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw an image of the class of this number: uint8 [96, 96]."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    middle = rng.uniform(30, 40, 2) + 12 * (number % 2)
    ring = np.exp(-((np.hypot(y - middle[0], x - middle[1]) - 8 * (1 + number // 2)) ** 2) / 8)
    return np.clip(60 + 150 * ring + rng.normal(0, 20, y.shape), 0, 255).astype(np.uint8)


def main(data: str) -> None:
    """Write DATA/<set>/<class>/<number>.png."""
    rng = np.random.default_rng(0)
    for name, classes in SETS.items():
        for number, of_class in enumerate(classes):
            folder = Path(data) / name / of_class.replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            for place in range(IMAGES_PER_CLASS):
                Image.fromarray(image(number, rng)).save(folder / f"{place}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
