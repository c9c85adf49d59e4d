"""Shards as open files: compared with the index when first opened, a limited number open at once, safe in threads.

Those of a store are read from the cache of this node (`medclip.shards.reading.shard_cache`), where they come whole and
compared with their hash, or by ranges where they are not in it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.files.stores import Place, RemotePath, read_range
from medclip.shards.reading.read_ahead import ReadAhead
from medclip.shards.reading.shard_cache import Fetched, ShardCache, ShardFile

Verify = Literal["full", "size", "none"]
MAX_OPEN = 128
"""Files kept open, far below the 1,024 that most systems allow a process."""
_CHUNK = 1 << 22
_WORTH_FETCHING = 3
"""Samples of a shard that nobody has planned for, from which on it is fetched as a whole."""
_NO_ROOM_S = 5.0
"""How long a shard that found no room in the cache is not tried again."""


class ShardFiles:
    """Bytes of shards by number.

    Args:
        shards: The shards, in the order of their numbers.
        verify: Comparison with the index: "full" compares size and sha256 when a shard is first opened, in the thread
            that wants it (others that want the same shard wait, those that read from other shards do not); "size" only
            the size; "none" nothing. What comes out of a store is always hashed as it comes.
        cache: Cache that shards of a store are kept in; the default one where None.
    """

    def __init__(self, shards: Sequence[ShardFile], verify: Verify = "size", cache: ShardCache | None = None) -> None:
        self.shards, self.verify = tuple(shards), verify
        self.cache = cache or ShardCache.at()
        self._start()

    @cached_property
    def is_remote(self) -> bool:
        """Whether any of them lies in a store."""
        return any(isinstance(s.path, RemotePath) for s in self.shards)

    def want(
        self, now: Sequence[int], soon: Sequence[int] = (), *, keep: bool = False, in_processes: bool = False
    ) -> None:
        """Have shards of a store brought here in the order in which they are needed; nothing for those on a disk.

        Args:
            now: Numbers of the shards that are read next; this waits for as many of them as the cache holds.
            soon: Numbers of the shards that come after them; they are fetched meanwhile.
            keep: Whether what is wanted stays in the cache, as for `ReadAhead`.
            in_processes: Whether shards are fetched in processes of their own, as for `ReadAhead`.

        Raises:
            MedclipError: A shard of now cannot be fetched.
        """
        wanted = ([self.shards[i] for i in numbers] for numbers in (now, soon))
        parts = [[s for s in shards if isinstance(s.path, RemotePath)] for shards in wanted]
        if self._ahead is None and not any(parts):
            return
        self._ahead = self._ahead or ReadAhead(self.cache, keep=keep, in_processes=in_processes)
        self._ahead.want(*parts)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read from a shard.

        Raises:
            MedclipError: naming the shard: MISSING_FILE, PERMISSION_DENIED, READ_ERROR, or CORRUPT where it is not what
                the index says.
        """
        path = self.shards[number].path
        if isinstance(path, RemotePath):
            return self._read_remote(number, path, offset, size)
        try:
            descriptor = self._borrow(number)
            try:
                data = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except FileNotFoundError as e:
            raise MedclipError(
                Reason.MISSING_FILE, "the shard is gone.", where=path, hint="Bring it back, or build or index again."
            ) from e
        except PermissionError as e:
            raise MedclipError(Reason.PERMISSION_DENIED, "the shard may not be read.", where=path) from e
        except OSError as e:
            raise MedclipError(Reason.READ_ERROR, f"the shard cannot be read ({e.strerror}).", where=path) from e
        if len(data) < size:
            raise _changed(path, "it ends before a sample that the index places in it")
        return data

    def _read_remote(self, number: int, place: RemotePath, offset: int, size: int) -> bytes:
        shard = self.shards[number]
        descriptor = self.cache.open(shard.sha256, shard.num_bytes)
        if descriptor is None and self._is_worth_fetching(number):
            if self.cache.fetch(place, shard.sha256, shard.num_bytes) is Fetched.NO_ROOM:
                self._not_before[number] = time.monotonic() + _NO_ROOM_S
            descriptor = self.cache.open(shard.sha256, shard.num_bytes)
        if descriptor is None:
            return read_range(place, offset, size)
        try:
            data = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
        if len(data) < size:
            raise _changed(place, "it ends before a sample that the index places in it")
        return data

    def _is_worth_fetching(self, number: int) -> bool:
        self._misses[number] += 1
        return self._misses[number] >= _WORTH_FETCHING and self._not_before.get(number, 0.0) <= time.monotonic()

    def close(self) -> None:
        """Close all files. They are opened again when wanted."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def __del__(self) -> None:
        if getattr(self, "_open", None) or getattr(self, "_ahead", None):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "verify": self.verify, "cache": self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[int, int] = OrderedDict()
        self._opening: dict[int, threading.Lock] = {}
        self._verified: set[int] = set()
        self._ahead: ReadAhead | None = None
        self._misses: Counter[int] = Counter()
        self._not_before: dict[int, float] = {}

    def _borrow(self, number: int) -> int:
        """Return a descriptor of one's own, so that another thread may close the kept one at any time."""
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return os.dup(self._open[number])
            opening = self._opening.setdefault(number, threading.Lock())
        with opening:
            with self._lock:
                if number in self._open:
                    return os.dup(self._open[number])
            descriptor = os.open(str(self.shards[number].path), os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                self._compare(number, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            with self._lock:
                self._open[number] = descriptor
                while len(self._open) > MAX_OPEN:
                    os.close(self._open.popitem(last=False)[1])
                return os.dup(descriptor)

    def _compare(self, number: int, descriptor: int) -> None:
        shard = self.shards[number]
        if self.verify == "none":
            return
        size = os.fstat(descriptor).st_size
        if shard.num_bytes is not None and size != shard.num_bytes:
            raise _changed(shard.path, f"it has {size:,} bytes, the index says {shard.num_bytes:,}")
        if self.verify == "full" and number not in self._verified:
            digest, at = hashlib.sha256(), 0
            while chunk := os.pread(descriptor, _CHUNK, at):
                digest.update(chunk)
                at += len(chunk)
            if digest.hexdigest() != shard.sha256:
                raise _changed(shard.path, "its sha256 is not that of the index")
            self._verified.add(number)


def _changed(path: Place, how: str) -> MedclipError:
    return MedclipError(
        Reason.CORRUPT,
        f"the shard was changed or damaged since it was indexed: {how}.",
        where=path,
        hint="Copy it again, or build or index the folder again; medclip shards check says what else differs.",
    )
