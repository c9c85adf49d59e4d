"""One image in several forms: as it is scored, clean, and corrupted. Reading processes run this, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.corruptions.catalogue import REFERENCE_PX, Corruption, corrupt, draws
from medclip.imaging.geometry import fit, resize
from medclip.imaging.intensity import to_uint8

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.sample import View


@dataclass(frozen=True)
class Variants:
    """What `models.inputs.read_pixels` renders instead of the image alone: 2 + K forms of each view.

    The first is the image as it is scored. The others are brought to 224 px, the size that strengths are for, and from
    there to the model's size (the longer side; of a model that is shown the centre of an image, the shorter one): the
    clean one, which changes are measured from, and one for each corruption. So what is
    compared differs in nothing but the corruption. For a model of 224 px the first two are equal. Corruptions are
    applied to what the adapter made of the file, before the black around it.
    """

    corruptions: tuple[Corruption, ...]

    @property
    def num(self) -> int:
        """Forms of each view."""
        return 2 + len(self.corruptions)

    def __call__(self, views: Sequence[View], sha256: str, preprocess: Preprocess) -> Images:
        """Render.

        Args:
            views: Views of one unit.
            sha256: SHA-256 of the unit's bytes: with it and the names of view and operation all chance is drawn.
            preprocess: Preprocessing to the model's size.

        Returns:
            V × (2 + K) images at the model's size, the forms of one view together.
        """
        forms: list[NDArray[np.uint8]] = []
        for number, view in enumerate(views):
            forms.append(preprocess.to_array(view))
            small = _at_reference(to_uint8(view), shortest=preprocess.resize == "shortest")
            forms.append(preprocess.fit(small))
            for corruption in self.corruptions:
                rng = draws(sha256, f"{corruption.name} {number}")
                forms.append(preprocess.fit(corrupt(small, corruption, rng)))
        return preprocess.together(forms)


def _at_reference(pixels: NDArray[np.uint8], *, shortest: bool) -> NDArray[np.uint8]:
    """Bring the longer or the shorter side to the reference, with the sizes that a model's square takes for it."""
    height, width = pixels.shape[:2]
    if not shortest and max(height, width) >= REFERENCE_PX:
        return fit(pixels, REFERENCE_PX)
    scale = REFERENCE_PX / (min if shortest else max)(height, width)
    return resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
