"""What a run over files makes of its images where a task asks for a map: a row, the map, and its outline."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medclip.imaging.geometry import fit
from medclip.imaging.masks import Shown
from medclip.runs.rows import MapImage, MapRow, map_name
from medclip.runs.units.chunk import ChunkWork, Item
from medclip.runs.units.read_unit import THUMBNAIL_PX
from medclip.scoring.tasks import AskedTask, Scorer

OUTLINE_RGB = (230, 159, 0)
"""Orange, told from grey, red and green by colour-blind readers (Okabe and Ito)."""
_TOUCHING = np.ones((3, 3), np.bool_)


@dataclass(frozen=True)
class ImageMaps:
    """The questions of a run that are answered with maps."""

    model: Any
    scorer: Scorer
    questions: tuple[AskedTask, ...]

    def of_chunk(self, work: ChunkWork) -> Iterator[tuple[MapRow, MapImage]]:
        """Yield the maps of a finished chunk's images."""
        keys = work.study_keys()
        for item in work.items if self.questions else ():
            if item.problem is not None or item.reading is None or item.rows_VX is None or item.modality is None:
                continue
            assert item.study is not None
            study, patient = keys[item.study, item.modality], work.chunk.plan.studies[item.study].patient
            for question in self.questions:
                if question.fits(item.modality, item.body_part, item.kind) and len(item.reading.shown) == 1:
                    yield from self._maps(question, item, study, patient)

    def _maps(
        self, question: AskedTask, item: Item, study: str, patient: str | None
    ) -> Iterator[tuple[MapRow, MapImage]]:
        assert item.reading is not None
        assert item.rows_VX is not None
        (shown,) = item.reading.shown
        down_mm, across_mm = item.reading.spacing_mm or (None, None)
        grids_Chw = self.scorer.map_grids(item.rows_VX[0], question)
        for name, grid_hw in zip(question.names, grids_Chw, strict=True):
            values_HW = shown.to_image(grid_hw)
            mask_HW = np.nan_to_num(values_HW, nan=-1.0) > 0
            area_px, row = int(mask_HW.sum()), item.files[0].id
            decoded_px = area_px * shown.height * shown.width / mask_HW.size  # spacings are of pixels that are square
            yield (
                MapRow(
                    row=row,
                    file="",
                    study=study,
                    patient=patient,
                    modality=str(item.modality),
                    task=question.task.name,
                    class_=name,
                    map=map_name(row, question.task.name, name),
                    area_px=area_px,
                    share=round(area_px / mask_HW.size, 6),
                    area_mm2=None
                    if down_mm is None or across_mm is None
                    else round(decoded_px * down_mm * across_mm, 3),
                    num_pieces=num_pieces(mask_HW),
                    unseen=round(float(np.isnan(values_HW).mean()), 6),
                    model=self.model.name,
                    model_version=str(self.model.card.version),
                ),
                MapImage(row, question.task.name, name, mask_png(mask_HW), outline_png(grid_hw, shown)),
            )


def num_pieces(mask_HW: NDArray[np.bool_]) -> int:
    """Count the pieces of a mask that do not touch, by sides or corners."""
    labelled: Any = ndimage.label(mask_HW, _TOUCHING)
    return int(labelled[1])


def mask_png(mask_HW: NDArray[np.bool_]) -> bytes:
    """Write a mask as a PNG of one bit a pixel: white where it is."""
    buffer = io.BytesIO()
    Image.fromarray(mask_HW).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def outline_png(grid_hw: NDArray[np.float32], shown: Shown) -> bytes:
    """Draw the outline of a map over what the model was shown of its image, on transparent ground.

    Args:
        grid_hw: Map on the model's grid, above 0 where the structure is.
        shown: Place of the image in what the model was shown.

    Returns:
        PNG, its longest side that of the report's small image; empty where nothing is marked.
    """
    marked = (shown.of_view(grid_hw) > 0).astype(np.uint8)[..., None] * np.uint8(255)
    small_HW = fit(marked, THUMBNAIL_PX)[..., 0] > 127
    if not small_HW.any():
        return b""
    inner_HW: NDArray[np.bool_] = np.asarray(ndimage.binary_erosion(small_HW), np.bool_)
    edge_HW = small_HW & ~inner_HW
    drawn = np.zeros((*edge_HW.shape, 4), np.uint8)
    drawn[edge_HW] = (*OUTLINE_RGB, 255)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def map_questions(tasks: Sequence[AskedTask]) -> tuple[AskedTask, ...]:
    """Return the tasks that are answered with maps."""
    return tuple(question for question in tasks if question.task.rules.placed)
