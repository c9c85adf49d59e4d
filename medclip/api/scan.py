"""The verb `scan`: what a folder holds and what would be scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.reading import FileTable, Limits, NamedModality, Studies
from medclip.api.groups.running import HashedPaths, Recipe, Told, settings_of
from medclip.options import argument, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.files.scan import Scan


@options
class ScanOptions(Told, Limits, Recipe, FileTable, Studies, NamedModality, HashedPaths):
    """What `scan` is asked."""

    path: str | Path = argument("File or folder to look at.", place=True, present="file or folder")


@verb(ScanOptions)
def scan(options: ScanOptions) -> Scan:
    """List what a folder holds, how it would be read and the problems, without decoding pixels.

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
    from medclip.errors import MedclipError, Reason
    from medclip.files.scan import scan_files

    listed = scan_files(
        options.path,
        table=options.table,
        modality=options.modality,
        group_by=options.group_by,
        settings=settings_of(options),
        progress=options.progress,
        hash_paths=options.hash_paths,
    )
    if not listed.files:
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=options.path, hint="Name another folder."
        )
    return listed
