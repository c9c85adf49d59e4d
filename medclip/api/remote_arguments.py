"""Arguments about files that lie elsewhere: a PACS and its query, an object store, the spool, what goes with none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.address import address_of, is_dicomweb, parse_query
from medclip.files.dicomweb.server import DicomwebServer
from medclip.files.dicomweb.spool import DEFAULT_BYTES as DEFAULT_SPOOL_BYTES
from medclip.files.dicomweb.spool import DicomwebFiles
from medclip.files.stores.remote import RemotePath, place_of
from medclip.files.stores.store_files import StoreFiles, is_store
from medclip.progress import Progress, Silent
from medclip.runs.engines.choose_engine import LOCAL
from medclip.settings import parse_memory


def is_elsewhere(path: Any) -> bool:
    """Whether what a call is over lies in a PACS or an object store."""
    return is_dicomweb(path) or is_store(path)


def remote_files(
    path: Any,
    query: str | Mapping[str, str],
    spool: int | str | None,
    folder: Path,
    progress: Progress | None,
) -> DicomwebFiles | StoreFiles | None:
    """Return the files of a call that lie elsewhere, in a PACS or an object store; None for those of a disk.

    Args:
        path: What the call is over.
        query: Which studies of a PACS.
        spool: What may lie on this machine at once, such as "20GB".
        folder: The output folder.
        progress: Told what should be known.

    Raises:
        MedclipError: WRONG_USE.
    """
    if is_dicomweb(path):
        return pacs_files(path, query, spool, folder, progress)
    if not is_store(path):
        return None
    place = place_of(path)
    assert isinstance(place, RemotePath)
    return StoreFiles(place, folder, _spool_bytes(spool))


def _spool_bytes(spool: int | str | None) -> int:
    try:
        return DEFAULT_SPOOL_BYTES if spool is None else parse_memory(spool)
    except MedclipError:
        raise MedclipError(
            Reason.WRONG_USE, f"the spool is a size of at least 100 MB, such as 20GB, not {spool!r}."
        ) from None


def pacs_files(
    address: str | Path,
    query: str | Mapping[str, str],
    spool: int | str | None,
    folder: Path,
    progress: Progress | None,
) -> DicomwebFiles:
    """Return the files of a PACS that a call is over.

    Args:
        address: dicomweb://HOST/PATH.
        query: Which studies.
        spool: What may lie on this machine at once, such as "20GB".
        folder: The output folder.
        progress: Told what should be known.

    Raises:
        MedclipError: WRONG_USE.
    """
    if not query:
        raise MedclipError(
            Reason.WRONG_USE, "which studies of this server are wanted is not said.", where=address_of(address),
            hint="Name them, such as with --query ModalitiesInStudy=CR,StudyDate=20240101-20240131.",
        )  # fmt: skip
    note = (progress or Silent()).note
    return DicomwebFiles(DicomwebServer(address_of(address)), parse_query(query), folder, _spool_bytes(spool), note)


def place_to_publish(out: Any, work: Any, path: Any, shard: object) -> RemotePath | None:
    """Return the folder of a store that results are published in; None where they are written to a disk.

    Args:
        out: What was named as output.
        work: The work folder that was named beside it.
        path: What the call is over.
        shard: Which shard.

    Raises:
        MedclipError: WRONG_USE.
    """
    if not is_store(out):
        if work is not None:
            raise MedclipError(
                Reason.WRONG_USE, "a work folder is named, and the output goes to a folder of a disk.",
                hint="Leave --work out, or name a store with --out, such as s3://BUCKET/FOLDER.",
            )  # fmt: skip
        return None
    place = place_of(out)
    assert isinstance(place, RemotePath)
    if place.url.partition("://")[0].lower() in ("http", "https"):
        raise MedclipError(
            Reason.WRONG_USE, "a web server takes no results.", where=place, hint="Name a store such as s3://."
        )
    if work is None or is_store(work):
        raise MedclipError(
            Reason.WRONG_USE, "results for a store need a folder of a disk for the ledger, by which a run goes on.",
            where=place, hint="Name it with --work DIR: new, or that of the same run.",
        )  # fmt: skip
    if shard is not None:
        raise MedclipError(
            Reason.WRONG_USE, "a shard has no tables to publish.", where=place,
            hint="Name a folder of a disk; copy it to the store once it has ended, where medclip runs merge reads it.",
        )  # fmt: skip
    source = place_of(path) if is_store(path) else None
    if isinstance(source, RemotePath) and f"{place.url}/".startswith(f"{source.url}/"):
        raise MedclipError(
            Reason.WRONG_USE, "results would lie among the files that are read, and be files of the run.", where=place,
            hint="Name a place outside it.",
        )  # fmt: skip
    return place


def refuse_for_remote(
    path: Any,
    query: str | Mapping[str, str],
    *,
    table: Any,
    hash_paths: bool,
    engine: str,
    shard: object,
    maps: bool = False,
    explain: bool = False,
    results: bool = False,
) -> None:
    """Refuse, for files that lie elsewhere, what needs files with names, files that stay, or files others see.

    Args:
        path: What the call is over; nothing but a query is refused for a path of a disk.
        query: Which studies of a PACS.
        table: The caller's table.
        hash_paths: Whether paths are hashed.
        engine: Who computes.
        shard: Which shard.
        maps: Whether heat maps are drawn, in the report or as results.
        explain: Whether they are drawn in the report.
        results: Whether results for other systems are written.

    Raises:
        MedclipError: WRONG_USE.
    """
    if is_dicomweb(path):
        where = None
        options = (
            ("--table", table is not None, "files of a PACS have no names that a table could have"),
            ("--hash-paths", hash_paths, "names of a PACS's files are keyed hashes already"),
            ("heat maps", maps, "heat maps read the files of a folder once more"),
            ("--engine", engine != LOCAL, "the files of a PACS are fetched to this machine"),
            (
                "--shard",
                shard is not None,
                "each shard would fetch what all of them need; give each job a query of its own",
            ),
        )
    elif is_store(path):
        where = place_of(path)
        options = (
            ("--query", bool(query), "a query selects studies of a PACS"),
            ("--explain", explain, "heat maps read the files of a folder once more"),
            ("--results-to", results, "results for other systems read headers of files once more"),
            (
                "--engine",
                engine != LOCAL,
                "files of a store are fetched to this machine; --shard cuts them for several",
            ),
        )
    else:
        if query:
            raise MedclipError(
                Reason.WRONG_USE, "a query selects studies of a PACS, and no PACS is named.",
                hint="Name it as dicomweb://HOST:PORT/PATH.",
            )  # fmt: skip
        return
    for option, is_asked, why in options:
        if is_asked:
            raise MedclipError(Reason.WRONG_USE, f"{why}.", where=where, hint=f"Leave {option} out.")
