"""Results that lie in an object store, as files of this machine for the time of a call.

What `medclip.runs.outputs.publication` writes there, shards of a run, and anybody's tables are copied under their own
names into a temporary folder and read as if they had always lain there: the readers of tables, runs and embeddings know
nothing of stores. Of a folder the tables alone are copied, no report and no image. An error that names a copy names the
URL instead, which like a path goes into errors, and never into a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medclip.embeddings.write_embeddings import NOTE
from medclip.embeddings.write_embeddings import TABLES as EMBEDDING_TABLES
from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER
from medclip.files.output import disk_errors, make_folder, new_file
from medclip.files.store_files import is_store
from medclip.files.stores import RemotePath, download, entries_in, place_of, read_whole, size_of
from medclip.files.temporary_folder import TemporaryFolder
from medclip.runs.outputs.results import EXAM_SCORES, FILES, RUN, SCORES

_OF_RUN = (FILES, SCORES, EXAM_SCORES, *EMBEDDING_TABLES, NOTE)
_WAL = f"{LEDGER}-wal"
"""What SQLite keeps beside a ledger that is open."""


class FetchedResults:
    """Copies of results of a store; see `fetched_results`, which makes and removes them."""

    def __init__(self) -> None:
        self._folder: TemporaryFolder | None = None
        self._copies: dict[str, Path] = {}

    def results(self, source: Any) -> Any:
        """Return a finished run, embeddings or a table of a store as a path of this machine.

        Args:
            source: A URL of a folder or of one object; whatever else it is, it is returned as it is.

        Raises:
            MedclipError: MISSING_FILE where nothing lies there, or a folder that holds no finished run; CHANGED for a
                run that was published anew meanwhile.
        """
        return self._local(source, self._fetch_results)

    def shard(self, source: Any) -> Any:
        """Return a shard of a run of a store as a folder of this machine, which holds its ledger alone.

        Args:
            source: A URL of a folder; whatever else it is, it is returned as it is.

        Raises:
            MedclipError: MISSING_FILE for a folder without a ledger; BUSY for one that was copied while its run went
                on.
        """
        return self._local(source, self._fetch_shard)

    def url_of(self, path: str | Path | None) -> str | None:
        """Return the URL that a copy is of; None for any other path."""
        for url, copy in self._copies.items():
            if path is not None and Path(path).is_relative_to(copy):
                rest = Path(path).relative_to(copy).as_posix()
                return url if rest == "." else f"{url}/{rest}"
        return None

    def close(self) -> None:
        """Remove the copies."""
        if self._folder is not None:
            self._folder.close()

    def _local(self, source: Any, fetch: Any) -> Any:
        if not is_store(source):
            return source
        place = place_of(source)
        assert isinstance(place, RemotePath)
        if place.name in (".", ".."):
            raise MedclipError(Reason.WRONG_USE, "the URL ends in dots.", where=place, hint="Name the folder itself.")
        if place.url not in self._copies:
            self._folder = self._folder or TemporaryFolder("results")
            # Names mean something: a run is called after its folder, a table of a run after that of its own folder.
            folder = self._folder.path / str(len(self._copies)) / ((place / "..").name or "store")
            with disk_errors(folder):
                make_folder(folder)
            self._copies[place.url] = folder / place.name
            try:
                fetch(place, folder / place.name)
            except BaseException:
                del self._copies[place.url]
                raise
        return self._copies[place.url]

    def _fetch_results(self, place: RemotePath, copy: Path) -> None:
        sizes = _sizes(place)
        if sizes is None:
            _fetch(place, copy)
            beside = place / ".." / FILES
            if place.name in (SCORES, EXAM_SCORES) and entries_in(beside, alone=True):
                _fetch(beside, copy.parent / FILES)
            return
        names = [name for name in _OF_RUN if name in sizes]
        if RUN not in sizes or not names:
            lacking = FILES if RUN in sizes else RUN
            raise MedclipError(
                Reason.MISSING_FILE,
                f"there is no finished run here: {lacking} is missing.",
                where=place,
                hint="Name the place that was given as --out, or a table; the command of a run that was stopped "
                "publishes the rest.",
            )
        run = read_whole(place / RUN)
        make_folder(copy)
        for name in names:
            _fetch(place / name, copy / name)
        if read_whole(place / RUN) != run:
            raise MedclipError(
                Reason.CHANGED, "this run was published anew while it was read.", where=place, hint="Read it again."
            )
        with new_file(copy / RUN) as draft:
            draft.write_bytes(run)

    def _fetch_shard(self, place: RemotePath, copy: Path) -> None:
        sizes = _sizes(place) or {}
        if LEDGER not in sizes:
            raise MedclipError(
                Reason.MISSING_FILE,
                f"there is no shard of a run here: {LEDGER} is missing.",
                where=place,
                hint="Name the folder that the output folder of a shard was copied to.",
            )
        if sizes.get(_WAL):
            raise MedclipError(
                Reason.BUSY,
                "this shard was copied while its run went on.",
                where=place,
                hint="Copy its folder again once the run has ended, and remove what is there before.",
            )
        make_folder(copy)
        _fetch(place / LEDGER, copy / LEDGER)


@contextmanager
def fetched_results() -> Iterator[FetchedResults]:
    """Yield what copies results of a store; the copies go at the end, and errors name what they are of."""
    fetched = FetchedResults()
    try:
        yield fetched
    except MedclipError as error:
        url = fetched.url_of(error.where)
        if url is None:
            raise
        raise error.at(url) from error
    finally:
        fetched.close()


def _sizes(place: RemotePath) -> dict[str, int] | None:
    """Return the sizes of the objects in a folder, by name; None where the place is an object itself.

    Raises:
        MedclipError: MISSING_FILE where nothing is there.
    """
    if place.url.partition("://")[0].lower() in ("http", "https"):  # a web server has no list of its files
        return None
    entries = entries_in(place)
    if not entries:
        raise MedclipError(Reason.MISSING_FILE, "there is no such file or folder.", where=place, hint="Check the URL.")
    if [name for name, _, _ in entries] == [None]:
        return None
    return {name: size for name, is_folder, size in entries if name is not None and not is_folder}


def _fetch(place: RemotePath, path: Path) -> None:
    num_bytes = size_of(place)
    with new_file(path) as draft, draft.open("wb") as file:
        download(place, file, num_bytes)
