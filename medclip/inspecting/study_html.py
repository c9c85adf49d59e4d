"""How an opened study shows itself in a notebook: one table, images inside, nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from markupsafe import escape
from numpy.typing import NDArray

from medclip.adapters.base import Source
from medclip.adapters.display_channels import as_shown, channel_names
from medclip.errors import Problem
from medclip.files.grouping.mammography_exam import MammographyExam
from medclip.imaging.frame_choice import spread
from medclip.imaging.geometry import fit, letterbox
from medclip.imaging.intensity import to_uint8
from medclip.sample import Kind, Sample, spoken
from medclip.wording import count

_TILE_PX = 128
_MAX_TILES = 6


def study_html(
    read: Sequence[tuple[Source, Sample]], problems: Sequence[Problem], exam: MammographyExam | None = None
) -> str:
    """Return one HTML table: a row for each sample with its images, facts and steps, and a line for each problem.

    File names are left out: they may hold a name. Everything from a header is escaped.

    Args:
        read: Samples that were read, each with its source.
        problems: Problems of the files that could not be read.
        exam: Mammograms in their places; what is missing is said in words.
    """
    rows = "".join(_row_or_words(source, sample) for source, sample in read)
    counts = Counter(problem.message for problem in problems)
    items = "".join(f"<li>{escape(text)}{f' ({n} times)' if n > 1 else ''}</li>" for text, n in counts.items())
    failed = f"<p>Not readable:</p><ul>{items}</ul>" if items else ""
    head = '<tr><th scope="col">Images</th><th scope="col">What it is</th><th scope="col">What was done</th></tr>'
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""
    about = "" if exam is None else "".join(f"<p>{escape(line)}</p>" for line in exam_lines(exam))
    return f"{table}{about}{failed}" or "<p>Nothing could be read.</p>"


def exam_lines(exam: MammographyExam) -> list[str]:
    """Return in words which views a mammography examination has and which are missing."""
    have = [slot for slot, _ in exam.views]
    views = ", ".join(_said(slot) for slot in have) or "none of the four standard views"
    lines = [f"Mammography views: {views}."]
    if exam.missing:
        lines.append(f"Missing: {', '.join(_said(slot) for slot in exam.missing)}.")
    else:
        lines.append("The mammography examination is complete.")
    if exam.set_aside:
        lines.append(f"{count(len(exam.set_aside), 'more mammogram')}.")
    return [*lines, *(f"Note: {note}." for note in exam.notes)]


def _said(slot: str) -> str:
    side, _, view = slot.partition("-")
    return f"{'left' if side == 'L' else 'right'} {view.replace('_', '-')}"


def _row_or_words(source: Source, sample: Sample) -> str:
    """Return the row of a sample; where its image cannot be drawn, words alone."""
    try:
        return _row(source, sample)
    except Exception:  # one image that cannot be drawn must not hide the others
        return f"<tr><td></td><td>{escape(sample.kind)}: cannot be shown</td><td></td></tr>"


def _row(source: Source, sample: Sample) -> str:
    lines = facts_of(source, sample)
    names = channel_names(sample)
    if names:
        lines.append(f"the images show the {names[1]} channel")
    facts = "<br>".join(str(escape(line)) for line in lines)
    steps = "".join(
        f"<li>{escape(step.name)}{': ' if step.detail else ''}{escape(step.detail)}</li>"
        for step in sample.provenance.steps
    )
    return (
        f"<tr><td>{_images(sample)}</td><td style='text-align:left'>{facts}</td>"
        f"<td style='text-align:left'><ol style='margin:0;padding-left:1.5em'>{steps}</ol></td></tr>"
    )


def facts_of(source: Source, sample: Sample) -> list[str]:
    """Return what a sample is, in a few lines: modality, kind, shape, unit, spacing."""
    what = spoken(sample.modality) if sample.modality else "modality unknown"
    lines = [f"{what}, {sample.kind}, {count(len(source.paths), 'file')}"]
    if sample.volume is not None:
        shape = " x ".join(str(n) for n in sample.volume.voxels.shape)
        spacing = " x ".join(f"{mm:.3g}" for mm in sample.volume.spacing_mm)
        lines += [f"{shape} voxels ({sample.volume.plane}), {spacing} mm", f"unit {sample.volume.unit}"]
    elif sample.signal is not None:
        signal = sample.signal
        lines.append(f"{int(signal.mask.sum())} of 12 leads, {signal.duration_s:g} s at {signal.sampling_hz:g} Hz, mV")
        rate = "" if signal.heart_rate_bpm is None else f"{signal.heart_rate_bpm:.0f} beats a minute"
        lines += [rate, f"flags: {' '.join(signal.flags) or 'none'}"]
    elif sample.frames is not None:
        lines.append(" x ".join(str(n) for n in sample.frames.shape) + " (frames, rows, columns, channels)")
    elif sample.views:
        height, width = sample.views[0].pixels.shape[:2]
        each = "each " if len(sample.views) > 1 else ""
        lines.append(f"{count(len(sample.views), 'view')}, {each}{width} x {height} pixels")
    if sample.kind is Kind.SLIDE:
        width, height = sample.headers["size_px"]
        row_um, column_um = sample.headers["mpp_um"]
        lines.append(f"{width:,} x {height:,} pixels at {row_um:.3g} x {column_um:.3g} µm/px")
    if sample.kind is Kind.IMAGE and sample.views:
        view = sample.views[0]
        lines.append(", ".join(word for word in (view.position, view.laterality) if word))
        if view.spacing_mm:
            lines.append(f"{view.spacing_mm[0]:.3g} x {view.spacing_mm[1]:.3g} mm per pixel")
    names = channel_names(sample)
    if names:
        lines.append(f"channels: {', '.join(names)}")
    lines.append(burned_in_line(source, sample))
    lines.append(f"adapter {sample.provenance.adapter}, preprocessing {sample.provenance.preprocessing}")
    return [line for line in lines if line]


def burned_in_line(source: Source, sample: Sample) -> str:
    """Return what the headers state of text in the pixels, whatever the kind of sample; "" for no warning."""
    headers = [facts.header for facts in source.facts if facts.header is not None]
    if any(header.burned_in for header in headers) or any(view.burned_in for view in sample.views):
        return "the header says that text is burned into the pixels: look before you share"
    if sample.headers.get("burned_in_risk"):
        return (
            f"text burned into the pixels is {sample.headers['burned_in_risk']}, and the header says nothing of it: "
            "look before you share"
        )
    return ""


def images_of(sample: Sample, tile_px: int = _TILE_PX, most: int = _MAX_TILES) -> list[NDArray[np.uint8]]:
    """Return small images of a sample: some of its views evenly spread, or its ECG as a sheet without a margin."""
    if sample.signal is not None:
        from medclip.imaging.ecg.sheet.render import render

        return [fit(render(sample.signal)[0], 3 * tile_px)]
    views = (to_uint8(sample.views[index]) for index in spread(len(sample.views), most))
    return [letterbox(as_shown(sample, view), tile_px) for view in views]


def _images(sample: Sample) -> str:
    tags = []
    for number, pixels in enumerate(images_of(sample), start=1):
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        body = base64.b64encode(buffer.getvalue()).decode()
        alt = f"{sample.kind} {number}"
        tags.append(f'<img src="data:image/png;base64,{body}" width="{pixels.shape[1]}" alt="{escape(alt)}">')
    return "".join(tags)
