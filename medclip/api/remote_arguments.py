"""Arguments about files that lie elsewhere: a PACS and its query, an object store, the spool, what goes with none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.server import DicomwebServer, address_of, is_dicomweb, parse_query
from medclip.files.dicomweb.spool import DicomwebFiles
from medclip.files.store_files import StoreFiles, is_store
from medclip.files.stores import RemotePath, place_of
from medclip.progress import Progress, Silent


def is_elsewhere(path: Any) -> bool:
    """Whether what a call is over lies in a PACS or an object store."""
    return is_dicomweb(path) or is_store(path)


def remote_files(
    path: Any,
    query: str | Sequence[str] | Mapping[str, str],
    spool_bytes: int,
    folder: Path,
    progress: Progress | None,
) -> DicomwebFiles | StoreFiles | None:
    """Return the files of a call that lie elsewhere, in a PACS or an object store; None for those of a disk.

    Args:
        path: Folder, file or address that the call is over.
        query: Which studies of a PACS.
        spool_bytes: Bytes that may lie on this machine at once.
        folder: The output folder.
        progress: Object that is told what should be known.

    Raises:
        MedclipError: WRONG_USE.
    """
    if is_dicomweb(path):
        return pacs_files(path, query, spool_bytes, folder, progress)
    if not is_store(path):
        return None
    place = place_of(path)
    assert isinstance(place, RemotePath)
    return StoreFiles(place, folder, spool_bytes)


def pacs_files(
    address: str | Path,
    query: str | Sequence[str] | Mapping[str, str],
    spool_bytes: int,
    folder: Path,
    progress: Progress | None,
) -> DicomwebFiles:
    """Return the files of a PACS that a call is over.

    Args:
        address: dicomweb://HOST/PATH.
        query: Which studies.
        spool_bytes: Bytes that may lie on this machine at once.
        folder: The output folder.
        progress: Object that is told what should be known.

    Raises:
        MedclipError: WRONG_USE.
    """
    if not query:
        raise MedclipError(
            Reason.WRONG_USE,
            "which studies of this server are wanted is not said.",
            where=address_of(address),
            hint="Name them, such as with --query ModalitiesInStudy=CR,StudyDate=20240101-20240131.",
        )
    note = (progress or Silent()).note
    return DicomwebFiles(DicomwebServer(address_of(address)), parse_query(query), folder, spool_bytes, note)


def place_to_publish(out: Any, work: Any, path: Any, shard: object) -> RemotePath | None:
    """Return the folder of a store that results are published in; None where they are written to a disk.

    Args:
        out: Folder or address that was named as output.
        work: The work folder that was named beside it.
        path: Folder, file or address that the call is over.
        shard: Which shard.

    Raises:
        MedclipError: WRONG_USE.
    """
    if not is_store(out):
        return None
    place = place_of(out)
    assert isinstance(place, RemotePath)
    if place.url.partition("://")[0].lower() in ("http", "https"):
        raise MedclipError(
            Reason.WRONG_USE, "a web server takes no results.", where=place, hint="Name a store such as s3://."
        )
    if work is None or is_store(work):
        raise MedclipError(
            Reason.WRONG_USE,
            "results for a store need a folder of a disk for the ledger, by which a run goes on.",
            where=place,
            hint="Name it with --work DIR: new, or that of the same run.",
        )
    if shard is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "a shard has no tables to publish.",
            where=place,
            hint="Name a folder of a disk; copy it to the store once it has ended, where medclip runs merge reads it.",
        )
    source = place_of(path) if is_store(path) else None
    if isinstance(source, RemotePath) and f"{place.url}/".startswith(f"{source.url}/"):
        raise MedclipError(
            Reason.WRONG_USE,
            "results would lie among the files that are read, and be files of the run.",
            where=place,
            hint="Name a place outside it.",
        )
    return place
