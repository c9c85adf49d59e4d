"""Files of an object store as files of a run: listed folder by folder, fetched into a bounded spool, removed once done.

It is what `medclip.runs.planning.listing` asks for, over the client of `medclip.files.stores`. Order and
names are those of the same files in a folder, so that tables are the same too. What is on this disk at once are the
windows of files that are looked at, scored and read ahead, three at most: each is a folder, or 2,048 files or 4 GB of
one.

A key that is no path (`..`, an empty part, a name that no disk takes, the name of a folder) has its row and is never
fetched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.discover import LEDGER, name_of_spelled, spelled_name
from medclip.files.output import disk_errors, is_draft, make_folder, new_file
from medclip.files.stores import RemotePath, download, is_url, place_of
from medclip.files.stores import entries_in as store_entries
from medclip.sample import FileRef
from medclip.settings import Settings

# What a PACS or a store says that it has, before anything of it is fetched.


@dataclass(frozen=True)
class Inventory:
    """Counts of a listing. Nothing in it names a study."""

    num_files: int
    """As the source counts them: a PACS counts reports and other objects without an image, too."""
    num_studies: int | None = None
    """None where only the files will tell."""
    num_bytes: int | None = None
    """None where the source does not say."""
    modalities: Mapping[str, int] = field(default_factory=dict)
    """Studies by the DICOM modalities in them, the most frequent first; a study with two counts under each."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


# Files of an object store as files of a run: listed folder by folder, fetched into a bounded spool, removed once
# done.
#
# It is what `medclip.runs.planning.listing` asks for, over the client of `medclip.files.stores`. Order and
# names are those of the same files in a folder, so that tables are the same too. What is on this disk at once are the
# windows of files that are looked at, scored and read ahead, three at most: each is a folder, or 2,048 files or 4 GB
# of one.
#
# A key that is no path (`..`, an empty part, a name that no disk takes, the name of a folder) has its row and is
# never fetched.

SPOOL = "spool"
"""Folder in the output folder."""
CONNECTIONS = 8
_LONGEST_NAME = 240
_NO_PATH = Problem(Reason.NOT_A_FILE, "the key of this object is no path that a file can have.")
_ALSO_FOLDER = Problem(Reason.NOT_A_FILE, "the key of this object is also that of a folder with other objects.")


def is_store(path: object) -> bool:
    """Whether a path names a place in an object store, as fsspec has clients for: not a server of DICOM, nor a disk.

    Example:
        >>> is_store("s3://bucket/films"), is_store("films"), is_store("dicomweb://host/path")
        (True, False, False)
    """
    if not isinstance(path, (str, Path)):
        return False
    text = str(path)
    if text.startswith("dicomweb") or (isinstance(path, str) and not is_url(path)):
        return False
    return isinstance(place_of(path), RemotePath)


class StoreFiles:
    """Files below a URL.

    Args:
        place: A folder of the store, or one object.
        folder: The output folder of the run.
        limit_bytes: Bytes that the spool may hold before nothing is read ahead.
    """

    def __init__(self, place: RemotePath, folder: Path, limit_bytes: int = Settings.spool_bytes) -> None:
        if place.url.partition("://")[0].lower() in ("http", "https"):
            raise MedclipError(
                Reason.WRONG_USE,
                "a web server has no list of its files.",
                where=place,
                hint="Use a store such as s3://, or copy the files to a folder.",
            )
        self.place, self.folder, self._limit = place, folder / SPOOL, limit_bytes
        self.witness = self.folder / f".{secrets.token_hex(8)}"
        self._is_object = False
        self._lock = threading.Lock()
        self._num_bytes, self.peak_bytes = 0, 0
        self._held: dict[str, int] = {}  # bytes of what lies in the spool, by name
        self._connections = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="medclip-store")

    @property
    def identity(self) -> str:
        """The URL."""
        return self.place.url

    @property
    def num_files(self) -> int:
        """Nobody counts them before."""
        return 0

    @property
    def is_full(self) -> bool:
        """Whether the spool holds as much as it may."""
        return self._num_bytes >= self._limit

    def list_all(self, key: bytes) -> None:
        """See whether there is anything.

        Args:
            key: Key of the identity hashes, of no use here: names are those of the store.

        Raises:
            MedclipError: MISSING_FILE, NOTHING_TO_DO, UNREACHABLE and as `medclip.files.stores.entries_in`.
        """
        entries = store_entries(self.place)
        if not entries:
            raise MedclipError(
                Reason.NOTHING_TO_DO, "there is no file below this URL.", where=self.place, hint="Check the URL."
            )
        self._is_object = [entry[0] for entry in entries] == [None]

    def inventory(self) -> Inventory:
        """Count the objects below the URL; nothing is fetched. Then it is done with."""
        self.list_all(b"")
        num_files, num_bytes = 0, 0
        for ref in self.refs(lambda _: ()):
            num_files += 1
            num_bytes += ref.size_bytes
        self._connections.shutdown(wait=False)
        return Inventory(num_files, num_bytes=num_bytes)

    def __enter__(self) -> Self:
        """Begin with an empty spool; a killed run may have left one, whose files are fetched again."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        with disk_errors(self.folder):
            make_folder(self.folder)
            self.witness.touch()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop fetching and remove the spool."""
        self._connections.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def refs(self, names_below: Callable[[str], Sequence[str]]) -> Iterator[FileRef]:
        """Yield the files folder by folder, as `medclip.files.discover.walk` does.

        Args:
            names_below: Function that returns names that a ledger knows, of no use here: the store is asked again.

        Raises:
            MedclipError: UNREACHABLE and as `medclip.files.stores.entries_in`.
        """
        if self._is_object:
            yield self._ref(self.place.name, ("", (0, self.place.name)), store_entries(self.place)[0][2])
            return
        waiting: list[tuple[RemotePath, str, tuple[Any, ...]]] = [(self.place, "", ("",))]
        while waiting:
            place, name, at = waiting.pop()
            below: list[tuple[RemotePath, str, tuple[Any, ...]]] = []
            entries = sorted((entry for entry in store_entries(place) if entry[0] is not None), key=lambda e: str(e[0]))
            if name and any(child == LEDGER and not is_folder for child, is_folder, _ in entries):
                continue  # an output folder of medclip
            folders = {child for child, is_folder, _ in entries if is_folder}
            for child, is_folder, size in entries:
                assert child is not None
                full = f"{name}/{child}" if name else child
                if not is_folder and child in folders:  # no disk has both; without bytes it marks the folder
                    if size:
                        yield FileRef(self.folder, spelled_name(full), 0, _ALSO_FOLDER, place=(*at, (0, child)))
                elif not _is_a_name(child):
                    yield FileRef(self.folder, spelled_name(full), 0, _NO_PATH, place=(*at, (0, child)))
                elif is_folder:
                    below.append((RemotePath(f"{place.url}/{child}"), full, (*at, (1, child))))
                elif not is_draft(child):
                    yield self._ref(full, (*at, (0, child)), size)
            waiting += reversed(below)

    def _ref(self, name: str, place: tuple[Any, ...], size_bytes: int) -> FileRef:
        return FileRef(self.folder / name, spelled_name(name), size_bytes, place=place)

    def fetch(self, names: Sequence[str]) -> Mapping[str, Problem]:
        """Bring files into the spool.

        Returns:
            Problems of those that do not come.

        Raises:
            MedclipError: UNREACHABLE where the store itself is away; DISK_FULL.
        """
        jobs = {name: self._connections.submit(self._bring, name) for name in names}
        problems = {name: job.result() for name, job in jobs.items()}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def _bring(self, spelled: str) -> Problem | None:
        name = name_of_spelled(spelled)
        path = self.folder / name
        if path.exists():
            return None
        place = self.place if self._is_object else RemotePath(f"{self.place.url}/{name}")
        try:
            entry = store_entries(place, alone=True)
            if not entry:
                return Problem(Reason.MISSING_FILE, "the store does not have this object any more.")
            with new_file(path) as draft, draft.open("wb") as file:
                download(place, file, entry[0][2])
        except MedclipError as error:
            if error.reason in (Reason.MISSING_FILE, Reason.PERMISSION_DENIED, Reason.CORRUPT):
                return Problem(error.reason, error.message)
            if error.reason is Reason.READ_ERROR:
                store_entries(self.place)  # the store is there, and this object does not come
                return Problem(error.reason, error.message)
            raise
        with self._lock:
            self._held[spelled] = entry[0][2]
            self._num_bytes += entry[0][2]
            self.peak_bytes = max(self.peak_bytes, self._num_bytes)
        return None

    def release(self, names: Iterable[str]) -> None:
        """Remove files that are done with, and folders that are empty then; leave what was never fetched."""
        folders = set()
        for name in names:
            with self._lock:
                size = self._held.pop(name, None)
                self._num_bytes -= size or 0
            if size is not None:
                path = self.folder / name_of_spelled(name)
                path.unlink(missing_ok=True)
                folders.add(path.parent)
        for folder in folders:
            with suppress(OSError):  # other files of the folder are still needed
                folder.rmdir()


def _is_a_name(part: str) -> bool:
    return part not in ("", ".", "..") and "\0" not in part and len(os.fsencode(part)) <= _LONGEST_NAME
