"""The images that were most wrong in each group, for whoever wants to see what went wrong: on the page, nowhere else.

Only of groups that are shown, one image of a patient, without a name; those whose header says that text is burned in
are withheld.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.evidence import Evidence
from medclip.auditing.checks.leakage.file_hashes import flag_of
from medclip.auditing.checks.table import CheckRows, Row
from medclip.auditing.input.groups import CROSS
from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.statistics.cohort import Label, cell_rows
from medclip.wording import count

MISSED, FALSE_ALARM = "missed", "false alarm"
_SIDE_PX = 160
_OF_A_KIND = 3
"""Images of a group that were missed, and that were false alarms."""
_MOST_IMAGES = 400
"""Images of a page, at most."""
_READ_AHEAD = 16


def check_worst_errors(evidence: Evidence) -> CheckRows:
    """Return the errors farthest from the threshold with their images, the worst of a group first.

    Returns:
        Rows of label, attribute, group, kind, score and image: JPEG or PNG, b"" where it is withheld. An image that
        cannot be read is left out.

    Raises:
        MedclipError: WRONG_USE where the label table names no files.
    """
    cohort, folder = evidence.cohort, evidence.options.image_checks.images
    if folder is None or not cohort.files:
        raise MedclipError(
            Reason.WRONG_USE,
            "the label table names no files, so that no images can be shown.",
            hint="Give it a column `file`, or leave out --show-images.",
        )
    chosen = list(_chosen(evidence))
    shown = chosen[:_MOST_IMAGES]
    files = list(dict.fromkeys(folder / cohort.files[n] for _, n in shown if cohort.files[n]))
    evidence.progress.stage("Reading images of errors", len(files))
    images: dict[Path, bytes] = {}
    problems = 0
    with ReadingPool.of(evidence.settings) as pool:
        jobs = ((path, evidence.modality, evidence.settings) for path in files)
        for path, future in zip(files, pool.map(small_image_of, jobs, ahead=_READ_AHEAD), strict=True):
            try:
                images[path] = future.result()
            except MedclipError:
                problems += 1
            evidence.progress.step(1)
    rows = [
        {**row, "image": images[folder / cohort.files[n]]} for row, n in shown if folder / cohort.files[n] in images
    ]
    notes = [f"{count(problems, 'image')} of errors could not be read and are not shown."] if problems else []
    if len(chosen) > len(shown):
        notes.append(
            f"Images of {count(len(shown), 'error')} are shown, of {len(chosen)}: a page has room for no more."
        )
    return CheckRows({}, notes=notes, images=rows)


def _chosen(evidence: Evidence) -> Iterator[tuple[Row, int]]:
    """Yield what is known of each error that is shown, and its row."""
    measured, cohort = evidence.measured, evidence.cohort
    for label in cohort.labels:
        threshold = measured.values.get(label.name)
        if threshold is None or label.time_N is not None:
            continue
        for state in measured.states[label.name]:
            if not state.shown or state.cell.position[0] < 0 or CROSS in state.cell.attribute:
                continue
            in_cell_N = cell_rows(cohort, state.cell) & label.valid_N
            place = {"label": label.name, "attribute": state.cell.attribute, "group": state.cell.group}
            for kind, wrong_N in errors_of(label, threshold).items():
                for n in worst(np.flatnonzero(in_cell_N & wrong_N), label.score_N - threshold, cohort.patients_N):
                    yield {**place, "kind": kind, "score": float(label.score_N[n])}, n


def errors_of(label: Label, threshold: float) -> dict[str, NDArray[np.bool_]]:
    """Return which rows are missed and which are false alarms, [N]; a label that means healthy has them swapped."""
    called_N = label.score_N >= threshold
    below_N, above_N = (label.truth_N == 1) & ~called_N, (label.truth_N == 0) & called_N
    return {MISSED: above_N, FALSE_ALARM: below_N} if label.no_finding else {MISSED: below_N, FALSE_ALARM: above_N}


def worst(rows: NDArray[np.intp], apart_N: NDArray[np.float64], patients_N: NDArray[np.int32]) -> list[int]:
    """Return the rows that are farthest from the threshold, the farthest first, one of each patient."""
    ordered = rows[np.argsort(-np.abs(apart_N[rows]), kind="stable")]
    first = {int(patients_N[n]): int(n) for n in ordered[::-1]}
    return [int(n) for n in ordered if first[int(patients_N[n])] == n][:_OF_A_KIND]


def small_image_of(path: Path, modality: Modality | None, settings: Settings) -> bytes:
    """Read the small image of one file, b"" where text is burned in; runs in a reading process.

    Raises:
        MedclipError: What the adapter refuses; NO_PIXELS.
    """
    from PIL import Image

    from medclip.adapters.base import source_of
    from medclip.adapters.model_images import as_shown, images_of
    from medclip.adapters.registry import read_unit
    from medclip.imaging.intensity import to_uint8

    source = source_of(path, settings)
    if flag_of(source):
        return b""
    sample = read_unit(source, modality, settings)
    if sample.signal is not None:
        from medclip.imaging.ecg.sheet.draw_sheet import small_sheet_png

        return small_sheet_png(sample.signal)
    views = images_of(sample)
    if not views:
        raise MedclipError(Reason.NO_PIXELS, "the adapter found no image in the file.")
    if any(view.burned_in for view in views):
        return b""
    pixels_HWC = as_shown(sample, to_uint8(views[len(views) // 2]))
    grey = pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels_HWC[:, :, 0] if grey else pixels_HWC))
    image.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
