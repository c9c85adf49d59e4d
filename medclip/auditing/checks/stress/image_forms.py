"""One image in several forms: clean and corrupted, or with one cell spoilt, forty-nine times.

Reading processes render them, without torch. Images that were called right when clean are shown with severe noise in
one cell of a 7 × 7 grid at a time. Missed: the share of cells that turn a true positive into a negative; false alarms:
those that turn a true negative. Where the image tower has attention, the same once more with softer attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.corruptions import (
    CELLS,
    REFERENCE_PX,
    Corruption,
    cell_masks,
    corrupt,
    draws,
    one_cell_each,
    shuffle_patches,
)
from medclip.imaging.geometry import fit, resize
from medclip.imaging.intensity import to_uint8

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.sample import View


MOST = 40
"""Images of a group: each is encoded 50 times."""
TEMPERATURES = (1.5, 2.0)
SPOILT = Corruption("gaussian_noise", 5, 0.38)
"""What a cell shows: the severe Gaussian noise of ImageNet-C, as in the paper on patches, in every modality."""


SHUFFLED = (2, 4, 8)
"""Patches a side that an image is cut into and shuffled: what is still told then is told by texture."""


@dataclass(frozen=True)
class Patches:
    """What `models.inputs.read_pixels` renders: the first view as it is scored, and with each cell spoilt."""

    corruption: Corruption

    @property
    def num(self) -> int:
        """Forms of an image."""
        return 1 + CELLS * CELLS

    def __call__(self, views: Sequence[View], sha256: str, preprocess: Preprocess) -> NDArray[np.uint8]:
        """Render uint8 [1 + P, S, S, 3]."""
        image = preprocess.to_array(views[0])
        spoilt = corrupt(image, self.corruption, draws(sha256, f"cells {self.corruption.name}"))
        return np.concatenate([image[None], one_cell_each(image, spoilt, cell_masks(*image.shape[:2]))])


@dataclass(frozen=True)
class Variants:
    """What `models.inputs.read_pixels` renders instead of the image alone: 2 + K + 3 forms of each view.

    The first is the image as it is scored. The others are brought to 224 px, the size that strengths are for, and from
    there to the model's size (the longer side; of a model that is shown the centre of an image, the shorter one): the
    clean one, which changes are measured from, one for each corruption, and three with its patches shuffled. So what is
    compared differs in nothing but that. For a model of 224 px the first two are equal. Corruptions are applied to what
    the adapter made of the file, before the black around it.
    """

    corruptions: tuple[Corruption, ...]

    @property
    def num(self) -> int:
        """Forms of each view."""
        return 2 + len(self.corruptions) + len(SHUFFLED)

    def __call__(self, views: Sequence[View], sha256: str, preprocess: Preprocess) -> Images:
        """Render.

        Returns:
            V × (2 + K + 3) images at the model's size, the forms of one view together.
        """
        forms: list[NDArray[np.uint8]] = []
        for number, view in enumerate(views):
            forms.append(preprocess.to_array(view))
            small = _at_reference(to_uint8(view), shortest=preprocess.resize == "shortest")
            forms.append(preprocess.fit(small))
            for corruption in self.corruptions:
                rng = draws(sha256, f"{corruption.name} {number}")
                forms.append(preprocess.fit(corrupt(small, corruption, rng)))
            for patches in SHUFFLED:
                forms.append(
                    preprocess.fit(shuffle_patches(small, patches, draws(sha256, f"shuffle {patches} {number}")))
                )
        return preprocess.together(forms)


def _at_reference(pixels: NDArray[np.uint8], *, shortest: bool) -> NDArray[np.uint8]:
    """Bring the longer or the shorter side to the reference, with the sizes that a model's square takes for it."""
    height, width = pixels.shape[:2]
    if not shortest and max(height, width) >= REFERENCE_PX:
        return fit(pixels, REFERENCE_PX)
    scale = REFERENCE_PX / (min if shortest else max)(height, width)
    return resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
