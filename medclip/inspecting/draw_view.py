"""One image that shows what a model would see of a file, beside what is stored, with everything that was done."""

from __future__ import annotations

import contextlib
import io
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.model_images import as_shown, channel_names
from medclip.adapters.raw import raw_image
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Reason
from medclip.files.discover import discover
from medclip.files.output import claim_file, write_file
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.sniff import Format
from medclip.imaging.intensity import to_uint8
from medclip.imaging.video import spread
from medclip.inspecting.opened_study import OpenedUnit, burned_in_line, facts_of, opened_units
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.inputs.read_pixels import pixels_of
from medclip.models.packs.pack import read_preprocess
from medclip.result import Result
from medclip.sample import Kind, Modality, Sample
from medclip.settings import PixelPolicy, Settings
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.models.model import Model


def check_target(target: Path, root: Path, *, overwrite: bool) -> None:
    """Refuse an image that cannot be written, or must not be; called before anything is decoded.

    Args:
        target: Path of the PNG.
        root: File or folder that is looked at; none of its files is replaced.
        overwrite: Whether another file may be replaced.

    Raises:
        MedclipError: WRONG_USE; as `medclip.files.output.claim_file`.
    """
    if target.suffix.lower() != ".png" and not os.path.isdir(target):
        raise MedclipError(Reason.WRONG_USE, "the image is a PNG; its name ends in .png.", where=target)
    if os.path.isfile(target):
        refuse_input(target, (ref.path for ref in discover(root)))
    claim_file(target, overwrite=overwrite)


def refuse_input(target: Path, paths: Iterable[Path]) -> None:
    """Refuse to replace one of the files that are looked at, by whatever name or link it is reached.

    Raises:
        MedclipError: WRONG_USE.
    """
    try:
        status = os.stat(target)
    except OSError:
        return
    for path in paths:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), status):
                raise MedclipError(
                    Reason.WRONG_USE,
                    "this is one of the files to look at, and it would be lost.",
                    where=target,
                    hint="Name another file for the image.",
                )


_DPI = 100
_MOST = 16
_MOST_ROWS = 4
"""Slices of a CT that are drawn, each in its three windows."""
_WRAP = 140


@dataclass(frozen=True, repr=False)
class Viewed(Result):
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
    number: int
    """Which of the things found it is, from 1."""
    num_found: int
    """Images, series and records that were found."""
    warning: str
    """What the header says of text in the pixels; "" where there is nothing to warn of."""

    def _facts(self) -> dict[str, object]:
        return {
            "shows": f"{self.modality or 'modality unknown'} {self.kind}, {self.number} of {self.num_found}",
            "views": f"{self.num_views} of {self.num_files} files",
            "adapter": self.adapter,
            "preprocessing": self.preprocessing,
            "warning": self.warning or "none",
            "image": self.out,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        columns = ("modality", "kind", "num_files", "num_views", "adapter", "preprocessing", "decoder", "warning")
        steps = "; ".join(f"{name} {detail}".strip() for name, detail in self.steps)
        return [{name: getattr(self, name) for name in columns} | {"steps": steps, "out": str(self.out)}]


def draw_view(
    root: Path,
    target: Path,
    modality: Modality | None,
    model: str | Path | Model,
    number: int,
    settings: Settings,
    *,
    overwrite: bool,
) -> Viewed:
    """Draw what a model would see into a PNG, as `medclip.view` says."""
    check_target(target, root, overwrite=overwrite)
    unit, num_found = _chosen(root, number, modality, settings)
    refuse_input(target, unit.source.paths)
    _check_window(unit, settings)
    preprocess = read_preprocess(model)
    settings = preprocess.reading(settings)
    with ReadingPool.of(settings, 1) as pool:
        try:
            sample: Sample = pool.submit(read_unit, unit.source, unit.modality, settings).result()
            raw: NDArray[np.uint8] = pool.submit(raw_image, unit.source, settings).result()
        except MedclipError as error:
            raise error.at(error.where or root) from None
    try:
        drawn = _drawn(unit, sample, raw, preprocess)
    except MedclipError as error:  # the model takes other input
        raise error.at(error.where or root) from None
    write_file(target, drawn)
    provenance = sample.provenance
    return Viewed(
        out=target,
        modality=None if sample.modality is None else str(sample.modality),
        kind=str(sample.kind),
        num_files=len(unit.source.paths),
        num_views=len(sample.views),
        adapter=provenance.adapter,
        preprocessing=provenance.preprocessing,
        decoder=provenance.decoder,
        steps=tuple((step.name, step.detail) for step in provenance.steps),
        headers=sample.headers,
        number=number,
        num_found=num_found,
        warning=burned_in_line(unit.source, sample),
    )


def _check_window(unit: OpenedUnit, settings: Settings) -> None:
    """Refuse a window for what has none: it would be ignored."""
    if settings.policy.pixels.window == PixelPolicy().window:
        return
    source, header = unit.source, unit.source.first.header
    grey = header is None or (header.samples_per_pixel == 1 and header.photometric != "PALETTE COLOR")
    windowed = source.kind is Kind.VOLUME or source.first.format is Format.DICOM
    if not (windowed and grey) or source.kind in (Kind.SIGNAL, Kind.SLIDE):
        raise MedclipError(
            Reason.WRONG_USE,
            "a window was asked for, and this file has none: grey DICOM images and volumes have.",
            where=source.path,
            hint="Leave --window out.",
        )


def _chosen(root: Path, number: int, modality: Modality | None, settings: Settings) -> tuple[OpenedUnit, int]:
    units, problems = opened_units(root, modality, settings)
    if not units and problems:
        raise problems[0].error(root)
    if not units:
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no image here.", where=root, hint="Name another file.")
    if not 1 <= number <= len(units):
        raise MedclipError(
            Reason.WRONG_USE, f"there is no number {number} here; numbers go from 1 to {len(units)}.", where=root
        )
    return units[number - 1], len(units)


def _drawn(unit: OpenedUnit, sample: Sample, raw: NDArray[np.uint8], preprocess: Preprocess) -> bytes:
    """Draw both images and the lines below; the PNG's bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tiles, columns = _seen(sample, preprocess)
    seen = _grid(tiles, columns)
    lines = _lines(unit, sample)
    text_height = 0.19 * len(lines) + 0.3
    image_height = 5.6
    figure = Figure(figsize=(13, image_height + text_height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    share = image_height / (image_height + text_height)
    boxes = ([0.02, 1 - share + 0.02, 0.47, share - 0.07], [0.51, 1 - share + 0.02, 0.47, share - 0.07])
    titles = _titles(sample, _size_in_words(tiles, preprocess))
    if preprocess.volume is not None:
        word = "slices" if preprocess.volume.kind == "volume" else "frames"
        counted = f"{len(tiles)} of {preprocess.volume.num_frames} {word}"
        titles = titles[0], f"As a model sees it: {counted} of the middle clip, {_size_in_words(tiles, preprocess)}"
    for box, title, image in zip(boxes, titles, (raw, seen), strict=True):
        axes = figure.add_axes((box[0], box[1], box[2], box[3]))
        axes.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    figure.text(0.02, 1 - share, "\n".join(lines), va="top", ha="left", fontsize=9, family="monospace")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "medclip"})
    return buffer.getvalue()


def _titles(sample: Sample, seen: str) -> tuple[str, str]:
    if sample.signal is not None:
        return "As stored", "As the adapter gives it"
    total, names = len(sample.views), channel_names(sample)
    if total == 1 and not names:
        return "As stored, smallest to largest value", f"As a model sees it: {seen}"
    stored = "As stored: an overview" if sample.kind is Kind.SLIDE else "As stored: the middle one"
    drawn = min(total, _MOST_ROWS if names else _MOST)
    counted = f"{drawn} of {total} views" if drawn < total else count(total, "view")
    channels = f"; channels: {', '.join(names)}" if names else ""
    return stored, f"As a model sees it: {counted} of {seen}{channels}"


def _size_in_words(tiles: Sequence[NDArray[np.uint8]], preprocess: Preprocess) -> str:
    """Name the size of what a model takes: one, or how many patches where images keep their shape."""
    sizes = {tile.shape[:2] for tile in tiles}
    budget = "" if preprocess.budget is None else f", at most {preprocess.budget}"
    return (" x ".join(map(str, sizes.pop())) + " px" if len(sizes) == 1 else "different sizes") + budget


def _seen(sample: Sample, preprocess: Preprocess) -> tuple[list[NDArray[np.uint8]], int]:
    """Return the views as the model takes them, and how many stand side by side; an ECG becomes a sheet of paper, a
    volume for a model of volumes slices of its middle clip.

    The windows of a CT slice stand side by side in grey: as red, green and blue they would look like a photograph.
    """
    if preprocess.volume is not None:
        clips = pixels_of(sample, preprocess)
        middle = clips[len(clips) // 2]
        tiles = [middle[n] for n in spread(len(middle), _MOST)]
        return tiles, int(np.ceil(len(tiles) ** 0.5))
    if sample.signal is not None:
        from medclip.imaging.ecg.sheet.draw_sheet import render

        return [render(sample.signal)[0]], 1
    names = channel_names(sample)
    views = [to_uint8(sample.views[n]) for n in spread(len(sample.views), _MOST_ROWS if names else _MOST)]
    if names:
        return [preprocess.fit(view[:, :, n : n + 1]) for view in views for n in range(len(names))], len(names)
    tiles = [preprocess.fit(as_shown(sample, view)) for view in views]
    return tiles, int(np.ceil(len(tiles) ** 0.5))


def _grid(tiles: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    rows = -(-len(tiles) // columns)
    gap = 0 if len(tiles) == 1 else 4
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _lines(unit: OpenedUnit, sample: Sample) -> list[str]:
    lines = list(facts_of(unit.source, sample))
    lines.append(f"decoder {sample.provenance.decoder or 'none'}")
    for number, step in enumerate(sample.provenance.steps, start=1):
        step_text = f"{number:>2}. {step.name}{': ' if step.detail else ''}{step.detail}"
        lines += textwrap.wrap(step_text, _WRAP, subsequent_indent="    ") or [step_text]
    return [line.encode("ascii", "replace").decode() if not line.isprintable() else line for line in lines]
