"""Whole shards of a store on a disk of this node, below a ceiling, shared by all ranks, workers and runs.

A file is named for the sha256 of what is in it. One that is being fetched has `.part` behind its name, is as large as
it will be, and is locked by whoever fetches it; only what came whole, with the right hash, gets the name. Locks are the
system's, so that a kill at any place leaves nothing but a part without a lock, which the next one clears away.

Whoever reads ahead keeps a list of what it wants now and soon, in a file that is locked, too: what stands on no living
list goes first, the longest unused before, and what stands on one is never thrown out.

Limits: the folder must lie on a file system with locks (flock), best on a disk of the node's own. A run never waits for
another one's shards to go: what does not fit is read sample by sample.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors, make_folder
from medclip.files.stores import Place, RemotePath, download, size_of
from medclip.settings import Settings

DEFAULT_GB = 50.0
_PART, _WANTED, _LOCK = ".part", "wanted-", "lock"
_TOUCH_AFTER_S = 60.0
_MODE = 0o600
_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardFile:
    """One tar as the index knows it."""

    path: Place
    name: str
    split: str
    samples: int
    num_bytes: int | None
    """None where an old index does not say."""
    sha256: str


class Fetched(Enum):
    """How an attempt to bring a file into the cache ended."""

    HERE = "here"
    BUSY = "busy"
    """Somebody else is fetching it."""
    NO_ROOM = "no room"


@dataclass(frozen=True)
class ShardCache:
    """A folder of whole files below a ceiling."""

    folder: Path
    max_bytes: int

    @staticmethod
    def at(folder: Path | str | None = None, gb: float = DEFAULT_GB) -> ShardCache:
        """Return the cache in a folder; `cache/shards` in the home of the settings (MEDCLIP_HOME) where None."""
        return ShardCache(Path(folder) if folder else Settings().home / "cache" / "shards", int(gb * 1e9))

    def open(self, sha256: str, num_bytes: int | None = None) -> int | None:
        """Open a file that is there; None where it is not whole. It stays readable when it is thrown out."""
        path = self._path(sha256)
        with disk_errors(self.folder):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
        status = os.fstat(descriptor)
        if num_bytes is not None and status.st_size != num_bytes:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        if time.time() - status.st_mtime > _TOUCH_AFTER_S:
            with suppress(OSError):
                os.utime(path)
        return descriptor

    def has(self, sha256: str) -> bool:
        """Whether a file is there."""
        return os.path.exists(self._path(sha256))

    def _path(self, sha256: str, ending: str = "") -> Path:
        """Return the place of a file; an index from elsewhere names it."""
        if not _NAME.fullmatch(sha256):
            raise MedclipError(Reason.TABLE_INVALID, "an index names a file by what is no sha256.", hint="Build again.")
        return self.folder / f"{sha256}{ending}"

    def fetch(self, place: RemotePath, sha256: str, num_bytes: int | None, *, wait: bool = True) -> Fetched:
        """Bring a file into the cache; of several that want it, one fetches it.

        Args:
            place: Place of the file in its store.
            sha256: Hash of what should be in the file.
            num_bytes: Size of the file in bytes; asked for where None.
            wait: Whether to wait for another one who is fetching it.

        Raises:
            MedclipError: CORRUPT where it is not what the hash says; as `medclip.files.stores.read_range` and
                `medclip.files.output.disk_errors`.
        """
        if self.has(sha256):
            return Fetched.HERE
        num_bytes = size_of(place) if num_bytes is None else num_bytes
        with disk_errors(self.folder):
            while True:
                with self._locked():
                    if self.has(sha256):
                        return Fetched.HERE
                    draft = os.open(self._path(sha256, _PART), os.O_CREAT | os.O_RDWR, _MODE)
                    mine = _try_lock(draft)
                    if mine and not self._make_room(sha256, num_bytes):
                        self._path(sha256, _PART).unlink()
                        os.close(draft)
                        return Fetched.NO_ROOM
                    if mine:
                        os.truncate(draft, num_bytes)  # what it will take is taken now
                if mine:
                    self._fill(draft, place, sha256, num_bytes)
                    return Fetched.HERE
                try:
                    if not wait:
                        return Fetched.BUSY
                    _lock(draft)  # until the other one is done, or dead
                finally:
                    os.close(draft)

    def open_now(self, place: RemotePath, sha256: str) -> BufferedIOBase:
        """Fetch a small file and open it; as a temporary one where the cache has no room."""
        while self.fetch(place, sha256, None) is Fetched.HERE:
            descriptor = self.open(sha256)
            if descriptor is not None:  # else it was thrown out between the two
                return os.fdopen(descriptor, "rb")
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        with disk_errors(Path(tempfile.gettempdir())):
            _download(place, file, sha256, size_of(place))
        file.seek(0)
        return cast("BufferedIOBase", file)

    def _fill(self, draft: int, place: RemotePath, sha256: str, num_bytes: int) -> None:
        path = self._path(sha256, _PART)
        is_complete = False
        with os.fdopen(draft, "r+b", buffering=0) as file:
            try:
                _download(place, file, sha256, num_bytes)
                os.fsync(file.fileno())
                is_complete = True
            finally:
                with self._locked():  # before the lock of the part is let go
                    if is_complete:
                        os.replace(path, self._path(sha256))
                    else:
                        path.unlink(missing_ok=True)

    def _make_room(self, sha256: str, num_bytes: int) -> bool:
        """Throw out what has to go for a file; whether there is room for it. Called under the lock of the folder."""
        sizes: dict[str, int] = {}
        complete: list[tuple[float, str]] = []
        wanted: dict[str, int] = {}
        for entry in os.scandir(self.folder):
            name = entry.name.removesuffix(_PART)
            if entry.name.startswith(_WANTED):
                wanted |= _living_list(Path(entry.path))[0]
            elif name == sha256 or entry.name == _LOCK:
                continue
            elif name != entry.name and _NAME.fullmatch(name) and _is_abandoned(entry.path):
                os.unlink(entry.path)
            elif _NAME.fullmatch(name):  # what else lies here is not ours
                sizes[name] = entry.stat().st_size
                if name == entry.name:
                    complete.append((entry.stat().st_mtime, name))
        # What stands on no list must not take the place of what is on one and still to come.
        coming = 0 if sha256 in wanted else sum(size for key, size in wanted.items() if key not in sizes)
        excess = sum(sizes.values()) + num_bytes + coming - self.max_bytes
        may_go = [name for _, name in sorted(complete) if name not in wanted]
        if excess > sum(sizes[name] for name in may_go):
            return False
        for name in may_go:
            if excess <= 0:
                break
            os.unlink(self.folder / name)
            excess -= sizes[name]
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self.folder)
        descriptor = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR, _MODE)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)


class WantedList:
    """What one process wants to stay in a cache; it holds as long as the process lives and does not close it.

    Args:
        cache: The cache.
        keep: Whether what is on it stays to the end; other lists show what comes and goes.
    """

    def __init__(self, cache: ShardCache, *, keep: bool = False) -> None:
        self._cache, self._keep = cache, keep
        self._path = cache.folder / f"{_WANTED}{os.getpid()}-{secrets.token_hex(4)}"
        with disk_errors(cache.folder), cache._locked():
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE)
            _lock(self._descriptor)

    def write(self, sizes: Mapping[str, int]) -> None:
        """Write the bytes of what is wanted, by sha256."""
        content = json.dumps({"keep": self._keep, "sizes": dict(sizes)}).encode()
        with disk_errors(self._cache.folder), self._cache._locked():
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content, 0)

    def others(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the bytes, by sha256, of what is on all other lists, and of what is on those that keep it."""
        wanted: dict[str, int] = {}
        kept: dict[str, int] = {}
        with disk_errors(self._cache.folder), self._cache._locked():
            for path in self._cache.folder.glob(f"{_WANTED}*"):
                if path != self._path:
                    sizes, keep = _living_list(path)
                    wanted |= sizes
                    kept |= sizes if keep else {}
        return wanted, kept

    def close(self) -> None:
        """Want nothing any more."""
        if self._descriptor >= 0:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def _download(place: RemotePath, file: IO[bytes], sha256: str, num_bytes: int) -> None:
    if download(place, file, num_bytes) != sha256:
        raise MedclipError(
            Reason.CORRUPT,
            "the file was changed or damaged since it was indexed: its sha256 is not that of the index.",
            where=place,
            hint="Copy it again, or build or index the folder again.",
        )


def _living_list(path: Path) -> tuple[dict[str, int], bool]:
    """Read a list, and whether it keeps what is on it; one whose process is gone is cleared away."""
    if _is_abandoned(path):
        path.unlink()
        return {}, False
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):  # new
        return {}, False
    return content["sizes"], content["keep"]


def _is_abandoned(path: Path | str) -> bool:
    """Whether nobody holds the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    return _lock(descriptor, wait=False)


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError) as e:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the cache of shards lies on a file system without locks ({type(e).__name__}).",
            hint="Name a folder on a disk of the node with data.shard_cache.",
        ) from e
    return True
