"""One picture that shows what a model would see of a file, beside what is stored, with everything that was done."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.raw import raw_picture
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Reason
from medclip.files.pool import ReadingPool
from medclip.imaging.cine import spread
from medclip.imaging.geometry import letterbox
from medclip.imaging.intensity import to_uint8
from medclip.models.packs import DEFAULT, image_size
from medclip.sample import Kind, Modality, Sample
from medclip.scoring.open_study import OpenedUnit, opened_units
from medclip.scoring.options import parse_modality
from medclip.scoring.study_html import facts_of
from medclip.settings import Settings

_DPI = 100
_MOST = 16
_WRAP = 140


@dataclass(frozen=True)
class Viewed:
    """What was drawn."""

    out: Path
    modality: str | None
    kind: str
    num_files: int
    num_views: int
    adapter: str
    preprocessing: str
    decoder: str
    steps: tuple[tuple[str, str], ...]
    headers: Mapping[str, Any]
    """Allow-listed values only."""


def view(
    path: str | Path,
    out: str | Path,
    modality: Modality | str | None = None,
    *,
    model: str | Path = DEFAULT,
    number: int = 1,
    settings: Settings | None = None,
) -> Viewed:
    """Draw what the model would see of a file or series, beside the raw picture, with the provenance below.

    The picture names no file and quotes no identifier from a header; text that is burned into the pixels is shown as
    it is.

    Args:
        path: A file, or the folder of one study.
        out: The PNG to write; an existing file is replaced.
        modality: What it shows, where headers do not say.
        model: The pack whose input size is drawn.
        number: Which of the things found there, from 1.
        settings: Limits and policy.

    Returns:
        What was drawn.

    Raises:
        MedclipError: Why it cannot be read; WRONG_USE for a number beyond those found or an output that is not .png.
    """
    root, target, settings = Path(path), Path(out), settings or Settings()
    if target.suffix.lower() != ".png":
        raise MedclipError(Reason.WRONG_USE, "the picture is a PNG; its name ends in .png.", where=target)
    unit = _chosen(root, number, parse_modality(modality), settings)
    size = image_size(model)
    with ReadingPool(1, settings.decode_timeout_s, settings.reader_memory_bytes) as pool:
        try:
            sample: Sample = pool.submit(read_unit, unit.source, unit.modality, settings).result()
            raw: NDArray[np.uint8] = pool.submit(raw_picture, unit.source, settings).result()
        except MedclipError as error:
            raise MedclipError(error.reason, error.message, where=error.where or root, hint=error.hint) from None
    _draw(unit, sample, raw, size, target)
    made = sample.provenance
    return Viewed(
        out=target,
        modality=None if sample.modality is None else str(sample.modality),
        kind=str(sample.kind),
        num_files=len(unit.source.paths),
        num_views=len(sample.views),
        adapter=made.adapter,
        preprocessing=made.preprocessing,
        decoder=made.decoder,
        steps=tuple((step.name, step.detail) for step in made.steps),
        headers=sample.headers,
    )


def _chosen(root: Path, number: int, modality: Modality | None, settings: Settings) -> OpenedUnit:
    units, problems = opened_units(root, modality, settings)
    if not units and problems:
        raise MedclipError(problems[0].reason, problems[0].message, where=root)
    if not units:
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no image here.", where=root, hint="Name another file.")
    if not 1 <= number <= len(units):
        raise MedclipError(
            Reason.WRONG_USE, f"there are {len(units)} things to view here, so number {number} is not one.", where=root
        )
    return units[number - 1]


def _draw(unit: OpenedUnit, sample: Sample, raw: NDArray[np.uint8], size: int, target: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seen = _seen(sample, size)
    lines = _lines(unit, sample)
    text_height = 0.19 * len(lines) + 0.3
    picture_height = 5.6
    figure = Figure(figsize=(13, picture_height + text_height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    share = picture_height / (picture_height + text_height)
    wide = sample.signal is not None
    boxes = ([0.02, 1 - share + 0.02, 0.47, share - 0.07], [0.51, 1 - share + 0.02, 0.47, share - 0.07])
    if wide:
        titles = ("As stored", "As the adapter gives it")
    elif len(sample.views) > 1:
        stored = "As stored: an overview" if sample.kind is Kind.SLIDE else "As stored: the middle one"
        titles = (stored, f"As a model sees it: {len(sample.views)} views of {size} x {size} px")
    else:
        titles = ("As stored, smallest to largest value", f"As a model sees it: {size} x {size} px")
    for box, title, picture in zip(boxes, titles, (raw, seen), strict=True):
        axes = figure.add_axes((box[0], box[1], box[2], box[3]))
        axes.imshow(picture[:, :, 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    figure.text(0.02, 1 - share, "\n".join(lines), va="top", ha="left", fontsize=9, family="monospace")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="png", metadata={"Software": "medclip"})


def _seen(sample: Sample, size: int) -> NDArray[np.uint8]:
    """Put the views into a grid, as the model takes them; an ECG becomes a sheet of paper."""
    if sample.signal is not None:
        from medclip.imaging.ecg_plot import render

        return render(sample.signal)
    tiles = [letterbox(to_uint8(sample.views[index]), size) for index in spread(len(sample.views), _MOST)]
    columns = int(np.ceil(len(tiles) ** 0.5))
    rows = -(-len(tiles) // columns)
    gap = 0 if len(tiles) == 1 else 4
    sheet = np.full((rows * (size + gap) - gap, columns * (size + gap) - gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (size + gap), (index % columns) * (size + gap)
        sheet[top : top + size, left : left + size] = tile
    return sheet


def _lines(unit: OpenedUnit, sample: Sample) -> list[str]:
    lines = list(facts_of(unit.source, sample))
    lines.append(f"decoder {sample.provenance.decoder or 'none'}")
    for number, step in enumerate(sample.provenance.steps, start=1):
        said = f"{number:>2}. {step.name}{': ' if step.detail else ''}{step.detail}"
        lines += textwrap.wrap(said, _WRAP, subsequent_indent="    ") or [said]
    return [line.encode("ascii", "replace").decode() if not line.isprintable() else line for line in lines]
