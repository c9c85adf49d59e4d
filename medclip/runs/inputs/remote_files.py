"""Inputs that lie elsewhere: they are brought below the output folder some at a time, read there, and removed.

A run over them is the run over a folder: the same windows, ledger and rows. Only the walk is another one, files are
fetched before they are looked at, and go once their chunk is committed. A run that goes on lists again, compares with
its ledger, and fetches what is not done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from medclip.errors import Problem
from medclip.files.store_files import Inventory
from medclip.sample import FileRef


class RemoteFiles(Protocol):
    """Files on a server or in a store.

    Used as a context manager, once the output folder is this run's: it begins with an empty spool and removes it at the
    end.
    """

    @property
    def identity(self) -> str:
        """What tells these inputs from others, such as URL and query; a run keeps only a keyed hash of it."""
        ...

    @property
    def folder(self) -> Path:
        """Where files lie, under their names, while they are worked on: the spool, below the output folder."""
        ...

    @property
    def num_files(self) -> int:
        """How many there are about; 0 where that is not known."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the spool holds as much as it may: nothing is read ahead then."""
        ...

    def list_all(self, key: bytes) -> None:
        """Ask what there is, before anything is written.

        Args:
            key: Key of the identity hashes: names that would be identifiers are hashed.

        Raises:
            MedclipError: UNREACHABLE; NOTHING_TO_DO where nothing at all can only be a mistake.
        """
        ...

    def inventory(self) -> Inventory:
        """Count what there is, and fetch nothing; it is called in the place of all else, and not after it.

        Raises:
            MedclipError: As `list_all`.
        """
        ...

    def refs(self, known: Callable[[str], Sequence[str]]) -> Iterator[FileRef]:
        """Yield the files, folder by folder, in an order that depends on their names only.

        Args:
            known: Function from a prefix of names to the names that the ledger knows below it; called by the caller's
                thread.

        Yields:
            With a `place` of texts that grows from file to file, and without a stamp.
        """
        ...

    def fetch(self, names: Sequence[str]) -> Mapping[str, Problem]:
        """Bring files into the spool; those that cannot be brought have their problem.

        Raises:
            MedclipError: UNREACHABLE, DISK_FULL.
        """
        ...

    def release(self, names: Iterable[str]) -> None:
        """Remove files from the spool; `fetch` brings them again."""
        ...

    def __enter__(self) -> RemoteFiles: ...

    def __exit__(self, *_: object) -> None: ...
