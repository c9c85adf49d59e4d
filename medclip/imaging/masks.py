"""Masks of images: read as they are stored, brought to where a model sees their image, and answers brought back.

A model is shown a part of an image (what the adapter of its modality cut out, perhaps mirrored), resized, and cut or
padded to its own size. A mask goes the same way, so that each of its pixels stays on the tissue that it was drawn on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.imaging.geometry import Box, Placement, place
from medclip.imaging.raster import read_raster

if TYPE_CHECKING:
    from medclip.sample import View
    from medclip.settings import Settings

_HALF = 128
OUTSIDE = 255
"""Value of a mask on the model's side where it shows no image."""


def read_mask(path: Path, form: Format, settings: Settings) -> NDArray[np.bool_]:
    """Read a mask.

    Args:
        path: The file, of any raster format.
        form: Format of the file, as sniffed.
        settings: Limits.

    Returns:
        bool [H, W]: what is not black; of a JPEG, which blurs edges, what is lighter than half.

    Raises:
        MedclipError: What `read_raster` raises.
    """
    pixels = read_raster(path, form, settings).pixels.max(axis=2)
    return pixels >= _HALF if form is Format.JPEG else pixels > 0


@dataclass(frozen=True)
class Shown:
    """Where an image lies in what a model is shown of it, from the pixels of its file on."""

    height: int
    """Of the image as decoded, in pixels."""
    width: int
    part: Box
    """What the adapter kept of it; it may reach beyond the image, where it padded."""
    flipped: tuple[int, ...]
    """Axes along which that part was mirrored."""
    placement: Placement
    """Where the part lies in the model's input."""
    stored: tuple[int, int] | None = None
    """Rows and columns of the file, where the image as decoded has others because its pixels were made square."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the file, and of masks of it."""
        return self.stored or (self.height, self.width)

    def to_model(self, mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Bring a mask of the image into the model's input.

        Returns:
            uint8 [shown_height, shown_width]: 1 where most of a pixel is in the mask, 0 where not, `OUTSIDE` where the
            model is shown no image.
        """
        inside = self._placed(np.ones((self.height, self.width), np.bool_))
        decoded_HW = sample_nearest(mask_HW, (self.height, self.width))
        return np.where(inside, self._placed(decoded_HW), OUTSIDE).astype(np.uint8)

    def to_image(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring a map on the model's grid to the file's own pixels.

        Args:
            values: [rows, columns], evenly spread over the whole of the model's input.

        Returns:
            float32 of `size`; NaN where the model was shown nothing of the image.
        """
        of_part = np.flip(self.of_view(values), self.flipped)
        out = np.full((self.height, self.width), np.nan, np.float32)
        inside, of = self._overlap()
        out[inside] = of_part[of]
        return sample_nearest(out, self.size)

    def of_view(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring a map on the model's grid to the pixels of the view, as the model was shown it: perhaps mirrored."""
        return self.placement.map_to_image(values)

    def to_mask(self, values: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Bring a map on the model's grid to a mask of the image: where it is above 0.

        Args:
            values: Map as `to_image` takes it; what the model was not shown is outside of the mask.
        """
        return np.nan_to_num(self.to_image(values), nan=-1.0) > 0

    def _placed(self, mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
        cut = np.zeros((self.part.height, self.part.width, 1), np.uint8)
        inside, of = self._overlap()
        cut[of] = mask_HW[inside][..., None] * np.uint8(255)
        return place(np.flip(cut, self.flipped), self.placement, "box")[..., 0] >= _HALF

    def _overlap(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where the part lies in the image, and the same pixels in the part."""
        top, left, bottom, right = self.part
        rows = slice(max(top, 0), min(bottom, self.height))
        columns = slice(max(left, 0), min(right, self.width))
        return (rows, columns), (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )


def sample_nearest(values_HW: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Take the value of the nearest pixel at each pixel of an image of another size.

    Example:
        >>> sample_nearest(np.array([[1, 2]]), (2, 4)).tolist()
        [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    if values_HW.shape == size:
        return values_HW
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(size, values_HW.shape, strict=True)
    )
    return values_HW[np.ix_(rows, columns)]


def shown_of(view: View, size: tuple[int, int], placement: Placement) -> Shown:
    """Return where an image lies in what a model is shown of it.

    Args:
        view: View that the adapter made of the image.
        size: Rows and columns of its mask: those of the file.
        placement: Place of the view in the model's input.

    Raises:
        MedclipError: TABLE_INVALID for a mask of another size than its image.
    """
    require_same_size(view, size)
    height, width = view.part_of or view.pixels.shape[:2]
    return Shown(height, width, shown_part(view), view.flipped, placement, view.stored_size)


def stored_size(view: View) -> tuple[int, int]:
    """Return rows and columns of the file of a view."""
    return view.stored_size or view.part_of or (view.pixels.shape[0], view.pixels.shape[1])


def require_same_size(view: View, size: tuple[int, ...]) -> None:
    """Refuse a mask of another size than its image's file. Raises TABLE_INVALID."""
    stored = stored_size(view)
    if stored != size:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the mask has {size[0]} x {size[1]} pixels, and its image {stored[0]} x {stored[1]}.",
            hint="Store masks with the image's own pixels.",
        )


def shown_part(view: View) -> Box:
    """Return which part of an image as decoded a view shows.

    Raises:
        MedclipError: NOT_SUPPORTED_YET where its adapter does not say so.
    """
    height, width = view.part_of or view.pixels.shape[:2]
    part = Box(0, 0, height, width) if view.part is None else Box(*view.part)
    if view.pixels.shape[:2] != (part.height, part.width):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            "the adapter of this modality does not say which part of the image it shows, so that no mask can follow.",
        )
    return part
