"""The files of a run in windows: some hundred files that are looked at together, while those before are scored.

A window is made of whole folders, so that what lies together is seen together; only a folder with very many files is
cut. Windows depend on the names and sizes of files alone, and are written to the ledger before anything in them is
looked at: a run that goes on has the same ones.

A run over files that lie elsewhere is the run over a folder: the same windows, ledger and rows. Only the walk is
another one, files are fetched below the output folder before they are looked at, and go once their chunk is committed.
A run that goes on lists again, compares with its ledger, and fetches what is not done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from medclip.errors import Problem, Reason
from medclip.files.discover import name_of_spelled, walk
from medclip.files.output import in_use
from medclip.files.store_files import Inventory
from medclip.files.tables.manifest import WFDB_HEADER, Manifest, file_named
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.identity import RunShard
from medclip.runs.rows import DONE, KnownFile
from medclip.sample import NO_STAMP, FileRef
from medclip.wording import count


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
    def witness(self) -> Path:
        """A file of the spool under a name that no other has: who sees it sees this spool."""
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
        """Count what there is, and fetch nothing; it is called in the place of all else, and not after it."""
        ...

    def refs(self, names_below: Callable[[str], Sequence[str]]) -> Iterator[FileRef]:
        """Yield the files, folder by folder, in an order that depends on their names only.

        Args:
            names_below: Function from a prefix of names to the names that the ledger knows below it; called by the
                caller's thread.

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


WINDOW_FILES = 64
"""A window ends with the folder that fills it up to this."""
CUT_FILES = 2048
CUT_BYTES = 4 * 1024**3
"""A folder that holds more is cut: this much is looked at before its first files are scored."""
_NAMESAKES = 16
"""A cut is put off by so many files that are named alike: a header and its signals stay together."""
_AT_ONCE = 500
"""Files that are compared with the ledger in one query."""
_END = ["\U0010ffff"]
"""A place behind all others."""


def windows(refs: Iterable[FileRef]) -> Iterator[tuple[list[FileRef], bool]]:
    """Cut files, folder by folder as `walk` finds them, into windows.

    Yields:
        The files, and whether their folder goes on in another window.
    """
    window: list[FileRef] = []
    folder: list[FileRef] = []
    here, size, is_cut, num_over = None, 0, False, 0
    for ref in refs:
        is_full = len(folder) >= CUT_FILES or size >= CUT_BYTES
        num_over += is_full
        if (parent := ref.name.rpartition("/")[0]) != here:
            if is_cut:
                yield folder, True
            else:
                window += folder
            if len(window) >= WINDOW_FILES:
                yield window, False
                window = []
            here, folder, size, is_cut, num_over = parent, [], 0, False, 0
        elif is_full and (num_over > _NAMESAKES or _stem(ref) != _stem(folder[-1])):
            if window:
                yield window, False
            yield folder, True
            window, folder, size, is_cut, num_over = [], [], 0, True, 0
        folder.append(ref)
        size += ref.size_bytes
    if is_cut:
        yield folder, True
    elif window := window + folder:
        yield window, False


def _stem(ref: FileRef) -> str:
    stem, dot, _ = ref.name.rpartition(".")
    return stem.casefold() if dot else ref.name


class Listing:
    """The walk over a folder, beside what the ledger knows of it.

    Args:
        root: The file or folder that is scored.
        ledger: Ledger of the run.
        exclude: Paths to leave out.
        hashed: Function that turns a name into the hash that a finished ledger has in its place.
        given: The files, by `FileRef.place`, where a caller named them one by one: nothing is walked over.
        remote: The files, where they lie elsewhere; `root` is then where they are brought.
        shard: Shard of the run whose windows are listed; None for all.
        follow_links: Whether links out of the root are followed, as in `walk`.
    """

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        exclude: Sequence[Path],
        hashed: Callable[[str], str],
        given: Sequence[FileRef] | None = None,
        remote: RemoteFiles | None = None,
        shard: RunShard | None = None,
        follow_links: bool = False,
    ) -> None:
        self.root, self._ledger, self._hashed = root, ledger, hashed
        self._given = None if given is None else {ref.name: ref.path for ref in given}
        self._remote = remote
        if remote is not None:
            self._refs: Iterator[FileRef] = remote.refs(ledger.names_below)
        else:
            self._refs = walk(root, exclude=exclude, follow_links=follow_links) if given is None else iter(given)
        self.num_listed = ledger.num_listed()
        """Files that this call and those before have listed, also those that only the table names."""
        self._shard = shard
        self._goes_on = False
        self._ends: dict[str, bool] = {}  # of a shard's windows, by the last name: whether their folder goes on
        if shard is not None:
            self._refs = self._windows_of(shard, self._refs)

    @property
    def is_part(self) -> bool:
        """Whether files of the run are left to other shards."""
        return self._shard is not None

    def _windows_of(self, shard: RunShard, refs: Iterator[FileRef]) -> Iterator[FileRef]:
        for window, cut in shard.select(windows(refs)):
            self._ends[window[-1].name] = cut
            yield from window

    def _windows(self) -> Iterator[tuple[list[FileRef], bool]]:
        """Cut what is not listed yet; a shard's windows are those of the whole run."""
        if self._shard is None:
            yield from windows(self._refs)
            return
        window: list[FileRef] = []
        for ref in self._refs:
            window.append(ref)
            if ref.name in self._ends:
                yield window, self._ends.pop(ref.name)
                window = []

    def ref(self, file: KnownFile) -> FileRef:
        """Return the path of a file that the ledger knows."""
        if self._given is not None:
            path = self._given.get(file.name, Path(file.name))
        else:
            path = self.root / name_of_spelled(file.name) if self.root.is_dir() else self.root
        return FileRef(path, file.name, file.stamp.size_bytes, file.problem, file.stamp)

    def fetch(self, files: Sequence[KnownFile]) -> Mapping[str, Problem]:
        """Have files where they can be read; return the problems of those that lie elsewhere and do not come."""
        if self._remote is None:
            return {}
        return self._remote.fetch([file.name for file in files if file.problem is None])

    def release(self, names: Iterable[str]) -> None:
        """Let files go that are not read now; those that lie elsewhere are brought again."""
        if self._remote is not None:
            self._remote.release(names)

    def compare(
        self, folder: Path, *, add: bool, again: bool, retried: Container[int]
    ) -> tuple[list[tuple[KnownFile, FileRef]], dict[int, FileRef]]:
        """Compare the part of the walk that an earlier call listed with the ledger.

        Files that are gone keep their rows. Files that came since are registered with `add`, and refused without.

        Args:
            folder: The output folder, to be named in the refusal.
            add: Whether the run may grow.
            again: Whether files may be read again, so that a ledger without names needs them back.
            retried: Files to be read again in any case.

        Returns:
            Files that are done, and whose size, time or inode is another one now, each as it was and as it is; and of
            `retried`, those that are still listed, as they are.

        Raises:
            MedclipError: OUTPUT_IN_USE.
        """
        frontier, root = self._ledger.get("frontier"), self._hashed(os.path.realpath(self.root))
        self._goes_on = frontier is not None
        if frontier is None:
            self._ledger.remember({"root": root})
            return [], {}
        is_moved = self._ledger.get("root") != root
        self._again: list[tuple[str, str]] = []
        changed: list[tuple[KnownFile, FileRef]] = []
        still: dict[int, FileRef] = {}
        gained: list[FileRef] = []
        num_known, num_gained = 0, 0
        for some in _batches(self._refs):
            listed = self._known(some, again)
            passed = sum(_as_json(ref.place) <= frontier for ref in some)
            for ref in some[:passed]:
                file = listed.get(ref.name)
                if file is None:
                    num_gained += 1
                    gained += [ref] if add else []
                else:
                    num_known += file.stamp != NO_STAMP
                    if file.id in retried:
                        still[file.id] = ref
                    # What cannot be opened any more is as good as gone: it keeps its row. What lies elsewhere has no
                    # stamp; under one name it is always the same.
                    elif (
                        self._remote is None and file.state >= DONE and ref.problem is None and file.stamp != ref.stamp
                    ):
                        changed.append((file, ref))
            if len(gained) >= CUT_FILES and not is_moved:  # a folder that may be another one is not taken in by parts
                self._register(gained)
                gained = []
            if passed < len(some):
                self._refs = chain(some[passed:], self._refs)
                break
        self._refuse(folder, num_known, 0 if add else num_gained, is_moved=is_moved)
        self._ledger.remember({"root": root})
        if self._again:
            self._ledger.name_again(self._again)
        self._register(gained)
        return changed, still

    def gone(self) -> list[KnownFile]:
        """Return the files without an answer that stays which an earlier call listed and which left the disk since.

        None of files that lie elsewhere, were named one by one, or are shared with other shards.
        """
        if not self._goes_on or self._remote is not None or self._given is not None or self.is_part:
            return []
        return [file for file in self._ledger.unsettled() if not os.path.lexists(self.ref(file).path)]

    def _refuse(self, folder: Path, num_known: int, num_gained: int, *, is_moved: bool) -> None:
        # Files may have gone from their folder, and the folder may have moved; both at once is another folder.
        if (num_gained and not num_known) or (is_moved and num_known < self._ledger.num_files()):
            raise in_use(folder, "this folder holds a run over other files", "Name another folder.")
        if num_gained:
            raise in_use(
                folder,
                f"the files differ: {count(num_gained, 'file')} came since this run listed them",
                "Take the new ones in with --add, or name another folder.",
            )

    def _known(self, refs: Sequence[FileRef], again: bool) -> dict[str, KnownFile]:
        if not self._ledger.get("hashed"):
            return self._ledger.known([ref.name for ref in refs])
        name_of = {self._hashed(ref.name): ref.name for ref in refs}
        listed = {name_of[file.name]: file for file in self._ledger.known(list(name_of)).values()}
        if again:
            self._again += [(name, self._hashed(name)) for name in listed]
        return listed

    def _register(self, refs: Sequence[FileRef]) -> None:
        for files, cut in windows(refs):
            self._ledger.register(files, cut=cut, added=True)
            self.num_listed += len(files)

    def new(self) -> Iterator[list[KnownFile]]:
        """Yield the windows of files that were never listed, each written to the ledger."""
        for refs, cut in self._windows():
            self.num_listed += len(refs)
            yield self._ledger.register(refs, cut=cut, frontier=_as_json(refs[-1].place))
        self._ledger.remember({"frontier": _END})

    def missing(self, manifest: Manifest) -> Iterator[list[KnownFile]]:
        """Yield a window of the files that a table names below the root and that do not exist: each input has its row.

        A path in a table is relative to the scored folder or to the table's; the one that more rows exist in counts for
        rows that exist in neither. How many rows name nothing here is remembered: a table may cover several folders.
        Where files were named one by one, there is none.
        """
        if self._given is not None or self._remote is not None:
            return
        scored = self.root if self.root.is_dir() else self.root.parent
        places = [scored] if manifest.folder is None else [scored, manifest.folder]
        exists = [[os.path.lexists(file_named(place / row.file)) for row in manifest.rows] for place in places]
        base = max(range(len(places)), key=lambda index: (sum(exists[index]), -index))
        problem = Problem(Reason.MISSING_FILE, "the table names this file, but it does not exist.")
        missing: dict[str, FileRef] = {}
        elsewhere = 0
        for some in _batches(enumerate(manifest.rows)):
            names = {index: self._names(row.file, places) for index, row in some}
            listed = self._ledger.known([name for several in names.values() for name in several])
            for index, row in some:
                if any(name in listed for name in names[index]):
                    continue
                is_elsewhere = any(exists_here[index] for exists_here in exists)
                name = None if is_elsewhere else _below(self.root, places[base] / row.file)
                if name is None:
                    elsewhere += 1
                elif name not in listed:
                    missing[name] = FileRef(self.root / name, name, 0, problem)
        self._ledger.remember({"elsewhere": elsewhere})
        self.num_listed += len(missing)
        for refs, cut in windows(sorted(missing.values(), key=lambda ref: ref.name)):
            yield self._ledger.register(refs, cut=cut)

    def _names(self, file: str, places: Sequence[Path]) -> list[str]:
        """Return the names that a path of a table may have in this run."""
        spelled = (file, f"{file}{WFDB_HEADER}")
        if not self.root.is_dir():
            paths = {os.path.abspath(place / name) for place in places for name in spelled}
            return [self.root.name] if os.path.abspath(self.root) in paths or self.root.name in spelled else []
        below = (_below(self.root, place / name) for name in spelled for place in places)
        here = (os.path.normpath(name).replace(os.sep, "/") for name in spelled)
        return [*here, *(name for name in below if name is not None)]


def _below(root: Path, path: Path) -> str | None:
    """Return a path relative to a folder; None where it does not lie in it, or where the root is a file."""
    if not root.is_dir():
        return None
    for absolute in (os.path.abspath, os.path.realpath):
        name = os.path.relpath(absolute(path), absolute(root))
        if name.split(os.sep)[0] != os.pardir and name != os.curdir:
            return Path(name).as_posix()
    return None


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(values)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _as_json(place: tuple[Any, ...]) -> list[Any]:
    return [list(part) if isinstance(part, tuple) else part for part in place]


class Counter:
    """Counts the files below a path in a thread of its own, so that progress has an end to show. It never fails.

    Args:
        root: The path.
        listing: Listing of the run, which may have files that are not below the path, such as those that a table names.
        total: Number of the files, where it is known.
        num_shards: Number of shards of the run that the files are shared among, about.
    """

    def __init__(self, root: Path, listing: Listing, total: int | None = None, num_shards: int = 1) -> None:
        self._num, self._num_shards, self._listing = total or 0, num_shards, listing
        self._stop = threading.Event()
        below = () if total is not None else (os.fspath(root),)
        self._thread = threading.Thread(target=self._count, args=below, name="medclip-counter", daemon=True)
        self._thread.start()

    @property
    def total(self) -> int:
        """Their number so far; never fewer than are listed."""
        return max(self._num // self._num_shards, self._listing.num_listed)

    def wait(self, seconds: float) -> int:
        """Wait some time for the end of counting; return the number so far."""
        self._thread.join(seconds)
        return self.total

    def counted(self) -> int | None:
        """Return the number of all files; None while they are counted."""
        return None if self._thread.is_alive() else self.total

    def stop(self) -> None:
        """Count no further."""
        self._stop.set()

    def _count(self, *roots: str) -> None:
        waiting = list(roots)
        while waiting and not self._stop.is_set():
            try:
                with os.scandir(waiting.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        else:
                            self._num += 1
            except OSError:
                self._num += 1
