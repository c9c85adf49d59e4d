"""True masks beside those that a model marked: which belong together, and one image measured after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.input.joined_tables import Source
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.tables.table import listed, plain_name
from medclip.imaging.geometry import resize
from medclip.imaging.mask_files import MaskOf, read_mask_of
from medclip.imaging.masks import sample_nearest, shown_part, stored_size
from medclip.sample import View
from medclip.settings import Settings
from medclip.statistics.cohort import Masks
from medclip.statistics.metrics.masks import dice_and_iou, mask_figures

GRID = 64
"""Rows and columns of the grid over an image on which masks of different sizes are averaged."""


def read_masks(wanted: Sequence[str] | None, source: Source) -> tuple[Masks, ...]:
    """Find the column of true masks of every structure that was marked; nothing where the scores are no maps.

    Args:
        wanted: Columns of mask files, called as the structure is, or "STRUCTURE=COLUMN"; None for all that both have.
        source: The joined tables.

    Raises:
        MedclipError: TABLE_INVALID for a structure that was not marked, or a column that is not there.
    """
    maps, units = source.scores.maps, source.score_unit_N.tolist()
    structures: dict[str, str] = {}
    for name in maps:
        task, _, structure = name.partition(":")
        structures |= {plain_name(one): name for one in (task, structure, name)}
    named = [name.partition(":")[2] for name in maps]
    wanted = wanted or [name for name in named if source.labels.find(name)] or named
    masks = []
    for one in wanted if maps else ():
        first, equals, second = (part.strip() for part in one.partition("="))
        name = structures.get(plain_name(first))
        if name is None:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"{first!r} is not marked in the maps. {listed(named, 'Structures')}",
                where=source.scores.where,
                hint="Say which belong together, such as --label STRUCTURE=COLUMN.",
            )
        column = source.labels.need(second if equals else first, "of mask files")
        paths, kinds = [str(maps[name].get(unit, "")) for unit in units], source.score_cells("modality").texts_N()
        shares_N = source.scores.score_U(name)[source.score_unit_N]
        masks.append(Masks(column, source.text(column)[0].texts_N(), np.array(paths, object), kinds, shares_N))
    return tuple(masks)


@dataclass(frozen=True, eq=False)
class ComparedMasks:
    """One image; crosses a pipe."""

    figures: Mapping[str, float] = field(default_factory=dict)
    """As `mask_figures` returns them."""
    shares_G: NDArray[np.uint8] | None = None
    """How much of each cell of a grid over the image the true mask covers, up to 255; None where it is empty."""
    otsu: tuple[float, float] = (np.nan, np.nan)
    """Dice of what Otsu's threshold calls dark, and of what it calls light; NaN where there is no image."""
    problem: Problem | None = None
    """Why it could not be compared."""
    where: Path | None = None
    """File of the problem."""


def compare_masks(
    truth: Path, predicted: Path, image: Path, modality: str, structure: str, settings: Settings
) -> ComparedMasks:
    """Compare the masks of one image; runs in a reading process.

    Args:
        truth: File of the true mask.
        predicted: File of the model's.
        image: The image, which Otsu's threshold and the spacing are of; neither is known where it cannot be read.
        modality: Modality whose adapter reads it.
        structure: Structure, as the column of masks is called.
        settings: Limits.
    """
    path, size = predicted, (0, 0)
    try:
        said_HW = read_mask_of(predicted, MaskOf(image, size, structure), settings)
        path, size = truth, (said_HW.shape[0], said_HW.shape[1])
        true_HW = read_mask_of(truth, MaskOf(image, size, structure), settings)
    except MedclipError as error:
        return ComparedMasks(problem=error.problem(), where=path)
    if true_HW.shape != said_HW.shape:
        sizes = [f"{mask.shape[0]} x {mask.shape[1]}" for mask in (true_HW, said_HW)]
        message = f"the mask has {sizes[0]} pixels, and its image {sizes[1]}; store masks with the image's own pixels."
        return ComparedMasks(problem=Problem(Reason.TABLE_INVALID, message), where=truth)
    spacing_mm, otsu, shares_G = None, (np.nan, np.nan), None
    view = _view(image, modality, settings)
    if view is not None and size == stored_size(view):
        height, width = view.part_of or view.pixels.shape[:2]
        if view.spacing_mm is not None:
            spacing_mm = view.spacing_mm[0] * height / size[0], view.spacing_mm[1] * width / size[1]
        light_HW = _light(view, size)
        if true_HW.any() and light_HW is not None:
            otsu = dice_and_iou(~light_HW, true_HW)[0], dice_and_iou(light_HW, true_HW)[0]
    if true_HW.any():
        shares_G = resize(true_HW[..., None] * np.uint8(255), GRID, GRID, "box").ravel()
    return ComparedMasks(mask_figures(said_HW, true_HW, spacing_mm), shares_G, otsu)


def _view(path: Path, modality: str, settings: Settings) -> View | None:
    """Read an image, uncropped; None where it cannot be read, for masks are compared without it."""
    from medclip.adapters.base import source_of
    from medclip.adapters.registry import read_unit
    from medclip.sample import Kind, Modality

    if not path.is_file():
        return None
    settings = replace(settings, policy=replace(settings.policy, crop="none"))
    try:
        asked = modality if modality == "generic" else Modality(modality)
        sample = read_unit(source_of(path, settings), asked, settings)
    except (MedclipError, ValueError):
        return None
    return sample.views[0] if sample.kind is Kind.IMAGE and len(sample.views) == 1 else None


def _light(view: View, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return what Otsu's threshold calls light, in the file's own pixels; None where a part of the image is shown."""
    from medclip.imaging.intensity import to_uint8
    from medclip.imaging.slides.tissue.find import otsu_threshold

    part = shown_part(view)
    height, width = view.part_of or view.pixels.shape[:2]
    if tuple(part) != (0, 0, height, width):
        return None
    grey_HW = np.flip(to_uint8(view).mean(axis=2), view.flipped)
    return sample_nearest(grey_HW > otsu_threshold(grey_HW), size)
