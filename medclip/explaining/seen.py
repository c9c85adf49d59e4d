"""What a reading process makes of one unit that is to be explained: what the model is shown, and what a person is.

Never imports torch. The pixels come through `runs.units.read_unit`'s own way: adapter, views, `Preprocess`; so that
what is explained is what was scored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.model_images import as_shown, images_of
from medclip.adapters.pathology import PathologyAdapter
from medclip.adapters.registry import get_adapter, read_unit
from medclip.errors import MedclipError, Reason
from medclip.imaging import geometry
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.intensity import has_colours, to_uint8
from medclip.sample import Kind

if TYPE_CHECKING:
    from medclip.adapters.base import Source
    from medclip.imaging.ecg.sheet.layouts import SheetMap
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.sample import Modality, Sample
    from medclip.settings import Settings


SHOWN_PX = 1024
"""Longest side of the image that stands below a map."""
OVERVIEW_PX = 1200
SHEET_DPI = 80
"""Of the sheet of an ECG: 880 x 1120 pixels."""
_NUMBERS = re.compile(r"(\d+(?:, \d+)*)$")


@dataclass(frozen=True, eq=False)
class Seen:
    """One unit; crosses a pipe."""

    images: Images
    """As the model takes them."""
    sizes: tuple[tuple[int, int], ...]
    """Rows and columns of each image as the adapter gives it: the coordinates of its map."""
    shown: tuple[NDArray[np.uint8], ...]
    """[H, W, 1 or 3] of at most `SHOWN_PX`, as a person looks at it."""
    labels: tuple[str, ...]
    """What each image is: "slice 12", "frame 3", "tile 5", "leads I, II, III"; "" for the only one."""
    kind: Kind
    modality: Modality | None
    burned_in: bool
    steps: tuple[tuple[str, str], ...]
    sha256: str
    adapter: str
    preprocessing: str
    coloured: bool = False
    overview: NDArray[np.uint8] | None = None
    """Of a slide: [H, W, 3]."""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Of each tile: top, left, bottom and right, as shares of the overview."""
    sheet: SheetMap | None = None
    """Of an ECG that the model takes as a signal: where its leads lie in what is shown."""


def read_seen(source: Source, modality: Modality | None, preprocess: Preprocess, settings: Settings) -> Seen:
    """Read one unit through the adapter of its modality.

    Raises:
        MedclipError: What the adapter refuses; OTHER_INPUT for a model of volumes, and what a model of ECGs refuses.
    """
    if preprocess.volume is not None:
        raise MedclipError(
            Reason.OTHER_INPUT,
            f"heat maps are of images, and this model takes a whole {preprocess.volume.kind} at once.",
        )
    settings = preprocess.reading(settings)
    sample = read_unit(source, modality, settings)
    if preprocess.signal is not None:
        return _record(sample, preprocess)
    views = images_of(sample)
    if not views:
        raise MedclipError(Reason.OTHER_INPUT, f"the {sample.kind} has no image, and this model takes images only.")
    overview, boxes = _overview(source, sample, settings) if sample.kind is Kind.SLIDE else (None, ())
    pixels = [to_uint8(view) for view in views]
    return Seen(
        images=preprocess.together([preprocess.to_array(view) for view in views]),
        sizes=tuple((view.pixels.shape[0], view.pixels.shape[1]) for view in views),
        shown=tuple(geometry.fit(as_shown(sample, image), SHOWN_PX) for image in pixels),
        labels=_labels(sample, len(views)),
        kind=sample.kind,
        modality=sample.modality,
        burned_in=any(view.burned_in for view in views),
        steps=tuple((step.name, step.detail) for step in sample.provenance.steps),
        sha256=sample.provenance.sha256,
        adapter=sample.provenance.adapter,
        preprocessing=sample.provenance.preprocessing,
        coloured=views[0].in_colour or (modality is None and has_colours(pixels[0])),
        overview=overview,
        boxes=boxes,
    )


def _record(sample: Sample, preprocess: Preprocess) -> Seen:
    """Return what a model of ECGs is shown, and the sheet that a person is: all leads over the whole time."""
    from medclip.imaging.ecg.sheet.draw_sheet import SheetOptions, render
    from medclip.models.inputs.read_pixels import pixels_of

    images = pixels_of(sample, preprocess)
    assert sample.signal is not None
    sheet, places = render(sample.signal, SheetOptions(layout="12x1", dpi=SHEET_DPI))
    return Seen(
        images=images,
        sizes=((images[0].shape[0], images[0].shape[1]),),
        shown=(sheet,),
        labels=("the record as it is read",),
        kind=sample.kind,
        modality=sample.modality,
        burned_in=False,
        steps=tuple((step.name, step.detail) for step in sample.provenance.steps),
        sha256=sample.provenance.sha256,
        adapter=sample.provenance.adapter,
        preprocessing=sample.provenance.preprocessing,
        sheet=places,
    )


def _labels(sample: Sample, count: int) -> tuple[str, ...]:
    if sample.signal is not None:
        columns = [TWELVE[n : n + 3] for n in range(0, 12, 3)]
        return (*(f"leads {', '.join(leads)}" for leads in columns), "rhythm strip, lead II")
    if sample.kind is Kind.SLIDE:
        return tuple(f"tile {n}" for n in range(1, count + 1))
    word = {Kind.VOLUME: "slice", Kind.CINE: "frame"}.get(sample.kind)
    if word is None:
        return ("",) if count == 1 else tuple(f"image {n}" for n in range(1, count + 1))
    numbers = _numbers(sample, "slices" if word == "slice" else "views", count)
    return tuple(f"{word} {n}" for n in numbers)


def _numbers(sample: Sample, step: str, count: int) -> Sequence[str]:
    """Return the numbers in the file that an adapter wrote down behind its choice, from 0."""
    details = [s.detail for s in sample.provenance.steps if s.name == step]
    matched = _NUMBERS.search(details[-1]) if details else None
    numbers = matched[1].split(", ") if matched else []
    return numbers if len(numbers) == count else [str(n) for n in range(count)]


def _overview(
    source: Source, sample: Sample, settings: Settings
) -> tuple[NDArray[np.uint8] | None, tuple[tuple[float, float, float, float], ...]]:
    """Return a small image of a whole slide and the places of its tiles, chosen as the adapter chooses them."""
    adapter = get_adapter(sample.modality)
    if not isinstance(adapter, PathologyAdapter):  # a plug-in's; where its tiles lie nobody says
        return None, ()
    with adapter.tiles(source, settings) as (reader, _, grid, chosen):
        height, width = reader.size_um
        scale = max(*grid.effective_mpp_um, height / OVERVIEW_PX, width / OVERVIEW_PX)
        overview = geometry.fit(reader.thumbnail(scale), OVERVIEW_PX)
        down, across = (grid.size_px * um for um in grid.effective_mpp_um)
        boxes = tuple(
            (p.top_um / height, p.left_um / width, (p.top_um + down) / height, (p.left_um + across) / width)
            for p in chosen
        )
    return overview, boxes
