"""Which corruption is how strong in which modality: MedMNIST-C's registry, grades 1 (mild) to 5 (severe).

    for corruption in corruptions_of(Modality.XRAY):                   # five of them in three grades
        corrupted = corrupt(pixels, corruption, draws(sha256, corruption.name))

Strengths were set for images of 224 px: corrupt at that size, then resize for the model. The grades of two modalities
are not comparable, and those of a table are not equally far apart. Of MedMNIST-C's two sets of chest X-rays the milder
one is taken: in the other severe noise leaves five photons of white, which no detector shows. It has no mammograms,
no MRI and no endoscopy: they take the strengths of chest X-rays, of CT slices and of dermoscopy.

Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536; registry of its published code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.imaging import corruption_operations
from medclip.sample import Modality, spoken

# Which corruption is how strong in which modality: MedMNIST-C's registry, grades 1 (mild) to 5 (severe).
#
# for corruption in corruptions_of(Modality.XRAY): # five of them in three grades corrupted = corrupt(pixels,
# corruption, draws(sha256, corruption.name))
#
# Strengths were set for images of 224 px: corrupt at that size, then resize for the model. The grades of two
# modalities are not comparable, and those of a table are not equally far apart. Of MedMNIST-C's two sets of chest
# X-rays the milder one is taken: in the other severe noise leaves five photons of white, which no detector shows. It
# has no mammograms, no MRI and no endoscopy: they take the strengths of chest X-rays, of CT slices and of dermoscopy.
#
# Reference: Di Salvo et al., MedMNIST-C, arXiv 2406.17536; registry of its published code.

REFERENCE_PX = 224
"""Longer side of the images that the strengths are for."""
GRADES = (1, 3, 5)
"""Grades that are measured: mild, moderate, severe."""
GRADE_WORDS = {1: "mild", 2: "mild to moderate", 3: "moderate", 4: "moderate to severe", 5: "severe"}

Strength = float | tuple[float, float]
Family = Literal["noise", "blur", "digital", "exposure", "field of view"]


@dataclass(frozen=True)
class Operation:
    """One thing that goes wrong."""

    title: str
    family: Family
    like: str
    """Where it comes from in a clinic, as the end of a sentence."""
    apply: Callable[[NDArray[np.uint8], Any, corruption_operations.Draws], NDArray[np.uint8]]


@dataclass(frozen=True)
class Corruption:
    """One operation of a modality in one grade."""

    name: str
    """Of `OPERATIONS`."""
    grade: int
    strength: Strength

    @property
    def title(self) -> str:
        """Return its printed name."""
        return OPERATIONS[self.name].title


def _plain(operation: Any) -> Any:
    """Leave out the draws of an operation that draws nothing."""
    return lambda pixels, strength, rng: operation(pixels, strength)


OPERATIONS: Mapping[str, Operation] = {
    "gaussian_noise": Operation("Gaussian noise", "noise", "electronic noise", corruption_operations.gaussian_noise),
    "shot_noise": Operation(
        "shot noise", "noise", "a lower dose, or too little light", corruption_operations.shot_noise
    ),
    "speckle_noise": Operation(
        "speckle noise", "noise", "grain of coherent waves", corruption_operations.speckle_noise
    ),
    "impulse_noise": Operation(
        "impulse noise", "noise", "dead and hot detector elements", corruption_operations.impulse_noise
    ),
    "gaussian_blur": Operation(
        "Gaussian blur", "blur", "a soft focal spot or kernel", _plain(corruption_operations.gaussian_blur)
    ),
    "defocus_blur": Operation("defocus", "blur", "a lens out of focus", _plain(corruption_operations.defocus_blur)),
    "motion_blur": Operation("motion blur", "blur", "patient or camera moved", corruption_operations.motion_blur),
    "zoom_blur": Operation(
        "zoom blur", "blur", "distance changed during the exposure", _plain(corruption_operations.zoom_blur)
    ),
    "pixelate": Operation(
        "coarse pixels", "digital", "a screenshot or thumbnail", _plain(corruption_operations.pixelate)
    ),
    "jpeg_compression": Operation(
        "JPEG compression", "digital", "a lossy export or messenger", _plain(corruption_operations.jpeg_compression)
    ),
    "brightness_up": Operation("brighter", "exposure", "more light or gain", _plain(corruption_operations.brightness)),
    "brightness_down": Operation("darker", "exposure", "less light or gain", _plain(corruption_operations.brightness)),
    "contrast_up": Operation("more contrast", "exposure", "a narrower window", _plain(corruption_operations.contrast)),
    "contrast_down": Operation(
        "less contrast", "exposure", "a wider window, scatter or haze", _plain(corruption_operations.contrast)
    ),
    "gamma_corr_up": Operation(
        "darker mid-greys", "exposure", "another display curve", _plain(corruption_operations.gamma)
    ),
    "gamma_corr_down": Operation(
        "lighter mid-greys", "exposure", "another display curve", _plain(corruption_operations.gamma)
    ),
    "saturate": Operation("stronger colour", "exposure", "a stronger stain", _plain(corruption_operations.saturate)),
    "black_corner": Operation(
        "dark corners", "field of view", "a vignette", _plain(corruption_operations.black_corner)
    ),
}
"""By the names of MedMNIST-C. Not built: stain deposits, bubbles and characters, which need images or fonts."""

_JPEG = (50.0, 30.0, 15.0, 10.0, 7.0)
_COARSE = (0.3, 0.25, 0.2, 0.15, 0.1)
_DARKER = (0.9, 0.8, 0.7, 0.6, 0.5)
_BRIGHTER = (1.1, 1.2, 1.3, 1.4, 1.5)
_UP, _DOWN = (1.1, 1.2, 1.3, 1.4, 1.6), (0.9, 0.8, 0.7, 0.6, 0.4)
_DEFOCUS = ((4.0, 0.1), (5.0, 0.2), (6.0, 0.3), (7.0, 0.4), (8.0, 0.5))
_NOISE = {
    "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
    "speckle_noise": (0.05, 0.15, 0.2, 0.35, 0.45),
    "impulse_noise": (0.01, 0.03, 0.06, 0.09, 0.17),
    "shot_noise": (60.0, 25.0, 18.0, 10.0, 5.0),
}
REGISTRY: Mapping[str, Mapping[str, Sequence[Strength]]] = {
    "pneumoniamnist": {
        "shot_noise": (300.0, 200.0, 150.0, 100.0, 80.0),
        "gaussian_blur": (3.0, 5.0, 7.0, 9.0, 11.0),
        "contrast_down": _DOWN,
        "gamma_corr_down": _DOWN,
        "jpeg_compression": _JPEG,
        "pixelate": (0.8, 0.7, 0.6, 0.5, 0.4),
        "gaussian_noise": (0.04, 0.05, 0.06, 0.07, 0.08),
        "speckle_noise": (0.05, 0.07, 0.1, 0.15, 0.2),
        "impulse_noise": (0.005, 0.01, 0.013, 0.017, 0.02),
        "brightness_up": _BRIGHTER,
        "brightness_down": _DARKER,
        "contrast_up": _UP,
        "gamma_corr_up": _UP,
    },
    "organamnist": {
        "shot_noise": (200.0, 100.0, 50.0, 25.0, 15.0),
        "gaussian_blur": (11.0, 13.0, 15.0, 17.0, 21.0),
        "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "brightness_up": (1.2, 1.3, 1.4, 1.5, 1.6),
        "pixelate": (0.7, 0.6, 0.5, 0.4, 0.35),
        "jpeg_compression": _JPEG,
        "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
        "speckle_noise": (0.05, 0.1, 0.2, 0.3, 0.4),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.08),
        "brightness_down": (0.8, 0.75, 0.7, 0.65, 0.6),
        "contrast_up": (1.3, 1.4, 1.6, 1.7, 1.8),
        "gamma_corr_up": (1.3, 1.4, 1.6, 1.8, 2.0),
        "gamma_corr_down": _DOWN,
    },
    "breastmnist": {
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "motion_blur": ((5.0, 5.0), (9.0, 7.0), (9.0, 10.0), (13.0, 10.0), (17.0, 12.0)),
        "brightness_up": (1.4, 1.5, 1.6, 1.8, 2.0),
        "contrast_down": _DOWN,
        "jpeg_compression": _JPEG,
        "pixelate": _COARSE,
        "brightness_down": (0.55, 0.5, 0.45, 0.4, 0.3),
    },
    "octmnist": {
        "speckle_noise": (0.15, 0.3, 0.4, 0.5, 0.6),
        "defocus_blur": ((0.5, 0.6), (1.0, 0.5), (1.5, 0.1), (2.0, 0.5), (2.5, 0.1)),
        "motion_blur": ((10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)),
        "contrast_down": (0.6, 0.4, 0.3, 0.2, 0.15),
        "jpeg_compression": (30.0, 15.0, 10.0, 7.0, 5.0),
        "pixelate": _COARSE,
    },
    "retinamnist": {
        "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
        "defocus_blur": _DEFOCUS,
        "brightness_down": _DARKER,
        "contrast_down": _DOWN,
        "jpeg_compression": (30.0, 25.0, 20.0, 10.0, 5.0),
        "pixelate": (0.8, 0.6, 0.5, 0.4, 0.35),
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "motion_blur": ((8.0, 5.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)),
    },
    "dermamnist": {
        "shot_noise": _NOISE["shot_noise"],
        "defocus_blur": _DEFOCUS,
        "brightness_down": _DARKER,
        "black_corner": (1.1, 1.05, 1.0, 0.9, 0.95),
        "jpeg_compression": (30.0, 20.0, 15.0, 10.0, 7.0),
        "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25),
        "gaussian_noise": _NOISE["gaussian_noise"],
        "speckle_noise": _NOISE["speckle_noise"],
        "impulse_noise": _NOISE["impulse_noise"],
        "motion_blur": ((10.0, 5.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)),
        "zoom_blur": ((1.12, 0.01), (1.16, 0.01), (1.22, 0.02), (1.26, 0.02), (1.33, 0.03)),
        "brightness_up": _BRIGHTER,
        "contrast_up": _UP,
        "contrast_down": (0.8, 0.7, 0.6, 0.5, 0.4),
    },
    "pathmnist": {
        "defocus_blur": ((3.0, 0.1), (4.0, 0.1), (5.0, 0.2), (6.0, 0.2), (7.0, 0.3)),
        "brightness_down": (0.85, 0.8, 0.75, 0.72, 0.7),
        "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "saturate": (0.05, 0.1, 0.15, 0.2, 0.25),
        "jpeg_compression": _JPEG,
        "pixelate": (0.8, 0.6, 0.4, 0.3, 0.25),
        "motion_blur": ((5.0, 5.0), (10.0, 5.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0)),
        "brightness_up": (1.1, 1.15, 1.2, 1.22, 1.25),
        "contrast_up": _UP,
    },
}
"""Strength of each grade, by data set of MedMNIST-C; the first five of each are measured unless others are asked for.
zoom_blur: end and step of the factors; defocus_blur: radius and smoothing; motion_blur: radius and spread."""
NUM_DEFAULT = 5


def corruptions_of(
    modality: Modality, names: Sequence[str] = (), grades: Sequence[int] = GRADES
) -> tuple[Corruption, ...]:
    """List the corruptions of a modality, by name and grade.

    Args:
        modality: Modality of the images.
        names: Names of corruptions; the first five of the modality where there are none.
        grades: Grades, 1 to 5.

    Raises:
        MedclipError: WRONG_USE for a modality, name or grade that there is none of.

    Example:
        >>> [c.name for c in corruptions_of(Modality.FUNDUS, grades=[3])][:2]
        ['gaussian_noise', 'defocus_blur']
    """
    dataset = modality.facts.corruptions
    if not dataset:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there are no corruptions of {spoken(modality)} files: they are of images.",
            hint="Leave the stress test out.",
        )
    registry = REGISTRY[dataset]
    for name in names:
        if name not in registry:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{spoken(modality)} images have no corruption {name!r}.",
                hint=did_you_mean(name, registry, "They have"),
            )
    for grade in grades:
        if grade not in GRADE_WORDS:
            raise MedclipError(Reason.WRONG_USE, f"corruptions have the grades 1 to 5, not {grade}.")
    chosen = tuple(dict.fromkeys(names)) or tuple(registry)[:NUM_DEFAULT]
    return tuple(Corruption(name, grade, registry[name][grade - 1]) for name in chosen for grade in grades)


def draws(sha256: str, name: str) -> np.random.Generator:
    """Return the randomness of one file under one operation: the same for each grade, so that only strength differs.

    Args:
        sha256: Hash of the file's bytes.
        name: Name of the operation, and of the view where there are several.
    """
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{sha256} {name}".encode()).digest()[:16], "big"))


def corrupt(pixels: NDArray[np.uint8], corruption: Corruption, rng: corruption_operations.Draws) -> NDArray[np.uint8]:
    """Apply one corruption.

    Args:
        pixels: uint8 [H, W, 1 or 3], the longer side about `REFERENCE_PX`. Grey images are corrupted as three equal
            channels and become grey again by ITU luma, as in MedMNIST-C: of their noise a third is averaged away.
        corruption: Corruption from `corruptions_of`.
        rng: Randomness from `draws`.

    Returns:
        uint8 of the same shape.
    """
    operation = OPERATIONS[corruption.name]
    if pixels.shape[2] == 3:
        return operation.apply(np.ascontiguousarray(pixels), corruption.strength, rng)
    coloured = operation.apply(np.repeat(pixels, 3, axis=2), corruption.strength, rng)
    return np.asarray(Image.fromarray(coloured).convert("L"))[:, :, None]


# One cell of an image corrupted and the rest as it was: a saturated block of a detector, a clip, a stamp.
#
# Reference: Gu, Tresp and Qin, Are vision transformers robust to patch perturbations? ECCV 2022 (natural corruption).

CELLS = 7
"""Cells of a side: 49 of 32 px at 224 px."""


def cell_masks(height_px: int, width_px: int, cells: int = CELLS) -> NDArray[np.bool_]:
    """Divide an image into cells of equal size, as far as it goes.

    Returns:
        [cells², height, width], column by column; every pixel is in one of them.
    """
    down, across = np.arange(height_px) * cells // height_px, np.arange(width_px) * cells // width_px
    number = across[None, :] * cells + down[:, None]
    return number[None] == np.arange(cells * cells)[:, None, None]


def one_cell_each(
    pixels: NDArray[np.uint8], corrupted: NDArray[np.uint8], masks: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Show what the corrupted image shows, in one cell at a time.

    Args:
        pixels: The image, uint8 [H, W, C].
        corrupted: Image corrupted as a whole, uint8 [H, W, C].
        masks: Masks of the cells from `cell_masks`, bool [P, H, W].

    Returns:
        uint8 [P, H, W, C].
    """
    return np.where(masks[..., None], corrupted[None], pixels[None])


def shuffle_patches(pixels: NDArray[np.uint8], patches: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cut an image into patches x patches pieces and shuffle them.

    Args:
        pixels: uint8 [H, W, ...].
        patches: Pieces a side; with 1 the image stays. Rows and columns that fill no piece stay where they are.
        rng: Source of the order.

    Returns:
        The image, of the same shape.
    """
    high, wide = pixels.shape[0] // patches, pixels.shape[1] // patches
    places = [
        (slice(i * high, (i + 1) * high), slice(j * wide, (j + 1) * wide))
        for i in range(patches)
        for j in range(patches)
    ]
    shuffled = pixels.copy()
    for place, source in zip(places, rng.permutation(len(places)).tolist(), strict=True):
        shuffled[place] = pixels[places[source]]
    return shuffled
