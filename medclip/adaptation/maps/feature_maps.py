"""Feature maps of images with masks: each image encoded once, on disk, beside what is learned of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.maps.masked_images import Masked, MaskedImage, read_masked
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.imaging.geometry import resize
from medclip.imaging.masks import OUTSIDE
from medclip.settings import Settings

if TYPE_CHECKING:
    from medclip.models.model import Model

LABEL_PX = 96
"""Longest side of the masks that a head learns from. Maps have 36 to 256 places, which finer masks add nothing to."""


def check_grid(model: Model) -> None:
    """Refuse a pack whose images have no maps that masks could be laid on.

    Raises:
        MedclipError: NOT_SUPPORTED_YET naming why.
    """
    pixels = model.preprocess
    if pixels.signal is not None or pixels.volume is not None:
        raise _no_grid(model, f"it takes {pixels.takes}")
    if pixels.budget is not None:
        raise _no_grid(model, "its images have grids of different sizes, as it takes them at their own aspect ratio")
    try:
        grid = model.encode_tokens(np.zeros((1, *pixels.image_shape), np.uint8)).grid
    except MedclipError as error:
        raise _no_grid(model, error.message.rstrip(".")) from error
    if grid is None or len(grid) != 2 or min(grid) < 2:
        raise _no_grid(model, "its image tower leaves no grid of places")


def _no_grid(model: Model, why: str) -> MedclipError:
    return MedclipError(
        Reason.NOT_SUPPORTED_YET,
        f"masks cannot be learned on {model.name}: {why}.",
        hint="A dense probe takes vision transformers with patches on one grid, and convolutional towers.",
    )


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The images of a set as some towers of one preprocessing see them; on disk, as is what is learned from them."""

    maps: Mapping[str, NDArray[np.float32]]
    """Feature maps [N, D, h, w] by tower, memory-mapped; images that could not be read have zeros."""
    labels: NDArray[np.uint8]
    """Masks on the model's side, [N, L, L] memory-mapped: 1, 0, and `OUTSIDE` where no image is shown."""
    images: tuple[MaskedImage, ...]
    """What was read of each, without pixels."""
    pixels: NDArray[np.uint8] | None = None
    """Images as the towers take them, [N, S, S, 3] memory-mapped; None where they were not kept."""


def encode_maps(
    models: Mapping[str, Model],
    rows: Sequence[Masked],
    modality: str,
    folder: Path,
    settings: Settings,
    step: Callable[[int], None],
    *,
    levels: bool = False,
    keep_pixels: bool = False,
) -> FeatureMaps:
    """Read images with their masks, and encode each once by some towers of one preprocessing.

    A batch of images is in memory at a time, and what reading processes have ready.

    Args:
        models: The towers by name.
        rows: Images and masks.
        modality: Modality whose adapter reads them, or "generic".
        folder: Folder for the arrays.
        settings: Limits and reading processes.
        step: Function called with the number of images that were read since the last call.
        levels: Whether maps are of several depths of the towers, in the place of the last.
        keep_pixels: Whether images are kept beside their maps.
    """
    first = next(iter(models.values()))
    size = min(LABEL_PX, first.preprocess.size_px)
    labels = _array(folder / "labels.npy", (len(rows), size, size), np.uint8)
    shape = (len(rows), *first.preprocess.image_shape)
    pixels = _array(folder / "pixels.npy", shape, np.uint8) if keep_pixels else None
    maps: dict[str, NDArray[Any]] = {}
    images: list[MaskedImage] = []
    waiting: list[tuple[int, NDArray[np.uint8]]] = []

    def encode() -> None:
        numbers = [number for number, _ in waiting]
        batch = np.stack([image for _, image in waiting])
        if pixels is not None:
            pixels[numbers] = batch
        for name, model in models.items():
            seen = model.encode_tokens(batch, levels=levels)
            assert seen.grid is not None
            maps_BDhw = np.moveaxis(seen.tokens_BLD.reshape(len(batch), *seen.grid, -1), 3, 1)
            if name not in maps:
                maps[name] = _array(folder / f"{name}.npy", (len(rows), *maps_BDhw.shape[1:]), np.float32)
            maps[name][numbers] = maps_BDhw
        waiting.clear()

    with ReadingPool.of(settings) as pool:
        jobs = ((row, modality, first.preprocess, settings) for row in rows)
        for number, future in enumerate(pool.map(read_masked, jobs, ahead=64)):
            try:
                read = future.result()
            except MedclipError as error:  # the process died or took too long
                read = MaskedImage("", problem=error.problem())
            if read.image is not None and read.labels is not None:
                waiting.append((number, read.image))
                labels[number] = _small(read.labels, size)
            images.append(MaskedImage(read.sha256, None, None, read.shown, read.truth, read.problem))
            if len(waiting) == first.batch_size:
                encode()
            step(1)
    if waiting:
        encode()
    for name, of_tower in maps.items():
        images = [_checked(image, of_tower[number], name) for number, image in enumerate(images)]
    return FeatureMaps(maps, labels, tuple(images), pixels)


def _array(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _checked(image: MaskedImage, map_Dhw: NDArray[np.float32], name: str) -> MaskedImage:
    if image.problem is not None or np.isfinite(map_Dhw).all():
        return image
    message = f"the feature map of the tower {name} is not finite."
    return MaskedImage(image.sha256, problem=Problem(Reason.NON_FINITE, message))


def _small(labels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Shrink a mask on the model's side by the majority of its pixels."""
    if labels.shape == (size, size):
        return labels
    marked, outside = (
        resize((labels == value)[..., None] * np.uint8(255), size, size, "box")[..., 0] for value in (1, OUTSIDE)
    )
    return np.where(outside > 127, OUTSIDE, marked > 127).astype(np.uint8)
