"""The verb `scan`: what a folder holds and what would be scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.grouping.studies import GroupBy
from medclip.files.scan import Scan, scan_files
from medclip.progress import Progress
from medclip.sample import Modality
from medclip.settings import Settings


def scan(
    path: str | Path,
    *,
    table: Any = None,
    modality: Modality | str | None = None,
    group_by: GroupBy | str = "auto",
    hash_paths: bool = False,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Scan:
    """List what a folder holds, how it would be read and the problems, without decoding pixels.

    Args:
        path: A file or a folder.
        table: CSV, TSV or Parquet file, or a data frame, that names study, patient and modality of files.
        modality: What the files show that neither the table nor their header names.
        group_by: How files become studies: by UID, table and folder ("auto"), by "folder", or one "file" each.
        hash_paths: Put keyed hashes in the place of paths.
        settings: Limits and number of reading processes.
        progress: Told of each file.

    Returns:
        One entry for each file, and the studies.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID, WRONG_USE (unknown modality); NOTHING_TO_DO for a folder without a
            file.

    Example:
        >>> import medclip
        >>> medclip.scan("examples/studies/mammogram").counts("modality")
        {'mammography': 4}
    """
    listed = scan_files(
        path,
        table=table,
        modality=modality,
        group_by=group_by,
        settings=settings,
        progress=progress,
        hash_paths=hash_paths,
    )
    if not listed.files:
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=path, hint="Name another folder."
        )
    return listed
