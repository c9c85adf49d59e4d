"""The verb `open_study`: one file or folder, through the adapters, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.grouping.studies import GroupBy
from medclip.inspecting.opened_study import MAX_UNITS, OpenedStudy, find_units
from medclip.runs.planning.options import parse_modality
from medclip.sample import Modality
from medclip.settings import Settings


def open_study(
    path: str | Path,
    modality: Modality | str | None = None,
    *,
    table: Any = None,
    group_by: GroupBy | str = "auto",
    settings: Settings | None = None,
) -> OpenedStudy:
    """Open a file or a folder through the adapters: images, series, loops, slides and ECGs.

    Slices of a series become one volume, a WFDB header and its signals one record. Headers are read now, pixels on
    first use of `samples()` or `views`.

    Args:
        path: A file, or a folder of at most 64 images, series or records. Files that are no image (a report, a
            table) are left out.
        modality: Modality of what it shows, where headers do not say; without either, a plain 8-bit rendering is given.
        table: Table that says what the files are, as in `medclip.scan`: side and view of mammograms without a header.
        group_by: Way in which files become examinations: "auto", "folder" or "file", as in `medclip.scan`. By "folder"
            the views of a mammography belong together whatever patients and studies their headers state.
        settings: Limits, and the policy for pixels (`settings.policy`).

    Returns:
        The study.

    Raises:
        MedclipError: What is wrong with the only file; NOTHING_TO_DO when a folder has no image, WRONG_USE when it
            has too much, and for another `group_by`.

    Example:
        >>> from medclip import open_study
        >>> study = open_study("examples/studies/mammogram")
        >>> study
        OpenedStudy(mammography, 4 images)
        >>> study.samples()[0].views[0].position
        'CC'
    """
    root, named, settings = Path(path), parse_modality(modality), settings or Settings()
    units, problems, exam = find_units(root, named, settings, group_by, table)
    if not units:
        if problems:
            _, problem = problems[0]
            raise problem.error(root)
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no image here.", where=root, hint="Name another folder.")
    if len(units) > MAX_UNITS:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this folder holds {len(units)} images, series or records, more than the {MAX_UNITS} that are opened "
            "at once.",
            where=root,
            hint="Name one study's folder, or score it all with medclip.score.",
        )
    return OpenedStudy(units, problems, settings, exam)
