"""Shards as open files: compared with the index when first opened, a limited number open at once, safe in threads.

Those of a store are read from the cache of this node (`medclip.shards.reading.shard_cache`), where they come whole and
compared with their hash, or by ranges where they are not in it. They are brought into the cache before they are needed:
those of now first, then the coming ones.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.files.stores import Place, RemotePath, read_range
from medclip.shards.reading.shard_cache import Fetched, ShardCache, ShardFile, WantedList

if TYPE_CHECKING:
    from medclip.files.readers.pool import ReadingPool


AT_ONCE = 4
"""Shards that a process fetches side by side: one stream of S3 is far slower than a network card."""
_AGAIN_S = 0.2
"""After which a shard that another one fetches, or that found no room, is looked at again."""
_NO_ROOM_NOW_S = 5.0
"""How long a shard of now may find no room, because others want theirs, before it is read sample by sample."""
_CROWDED_S = 60.0
"""How long after that no other one waits for room."""
_LONGEST_FETCH_S = 6 * 3600.0


class ReadAhead:
    """Fetches shards in the order in which they will be read.

    Args:
        cache: Cache that shards are fetched into.
        keep: Whether what it wants stays until it is closed: of what runs through the cache, less fits beside it.
        in_processes: Whether shards are fetched in processes of their own: a gigabyte a second takes a whole core,
            which the process that trains has not to spare. Threads otherwise.
    """

    def __init__(self, cache: ShardCache, *, keep: bool = False, in_processes: bool = False) -> None:
        self._cache = cache
        self._list = WantedList(cache, keep=keep)
        self._changed = threading.Condition()
        self._now: list[ShardFile] = []
        self._soon: list[ShardFile] = []
        self._settled: dict[str, MedclipError | None] = {}
        """By hash: shards that are there, found no room, or failed."""
        self._in_hand: set[str] = set()
        self._no_room_since: dict[str, float] = {}
        self._crowded_until = 0.0
        self._not_before: dict[str, float] = {}
        self._closed = False
        self._pool: ReadingPool | None = None
        if in_processes:
            from medclip.files.readers.pool import ReadingPool

            self._pool = ReadingPool(AT_ONCE, _LONGEST_FETCH_S)
        self._threads = [
            threading.Thread(target=self._serve, name=f"medclip-shards-{i}", daemon=True) for i in range(AT_ONCE)
        ]
        for thread in self._threads:
            thread.start()

    def want(self, now: Sequence[ShardFile], soon: Sequence[ShardFile]) -> None:
        """Wait until the shards of now are there, as many as the cache holds, and have the coming ones fetched.

        What stood on the list before and does not now may be thrown out.

        Raises:
            MedclipError: What fetching one of the shards of now ended with.
        """
        now, soon = self._that_fit(now, soon)
        self._list.write({s.sha256: s.num_bytes or 0 for s in (*now, *soon)})
        with self._changed:
            self._now, self._soon = list(now), list(soon)
            self._settled = {s.sha256: None for s in (*now, *soon) if self._cache.has(s.sha256)}
            self._no_room_since.clear()
            self._changed.notify_all()
            while not self._closed:
                for shard in now:
                    error = self._settled.get(shard.sha256)
                    if error is not None:
                        raise error
                if all(s.sha256 in self._settled for s in now):
                    return
                self._changed.wait(1.0)

    def close(self) -> None:
        """Stop; what was being fetched in this process is brought to its end, and nothing waits for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._pool is not None:
            self._pool.close()
        self._list.close()

    def _that_fit(self, now: Sequence[ShardFile], soon: Sequence[ShardFile]) -> tuple[list[ShardFile], list[ShardFile]]:
        """Take from the front as many as the cache holds; the others are read sample by sample.

        Shards of now push aside what others want for later, but not what they keep; the coming ones push nothing aside.
        """
        others, kept = self._list.others()
        parts: tuple[list[ShardFile], list[ShardFile]] = ([], [])
        taken: dict[str, int] = {}
        for shards, part, besides in zip((now, soon), parts, (kept, others), strict=True):
            remaining = self._cache.max_bytes - sum((besides | taken).values())
            for shard in shards:
                size = 0 if shard.sha256 in besides else shard.num_bytes or 0
                if size <= remaining and shard.sha256 not in taken:
                    part.append(shard)
                    taken[shard.sha256] = shard.num_bytes or 0
                    remaining -= size
        return parts

    def _serve(self) -> None:
        while (shard := self._next()) is not None:
            error: MedclipError | None = None
            state = Fetched.BUSY
            try:
                state = self._fetch(shard)
            except MedclipError as e:
                error = e if e.where is not None else e.at(shard.path)
            except Exception as e:  # whoever waits must hear of it
                if self._closed:
                    return
                sentence = f"the shard could not be fetched ({type(e).__name__})."
                error = MedclipError(Reason.READ_ERROR, sentence, where=shard.path)
            with self._changed:
                key = shard.sha256
                self._in_hand.discard(key)
                self._not_before[key] = time.monotonic() + _AGAIN_S
                gives_up = False
                if state is Fetched.NO_ROOM:
                    since = self._no_room_since.setdefault(key, time.monotonic())
                    now = time.monotonic()
                    gives_up = shard in self._now and (now - since > _NO_ROOM_NOW_S or now < self._crowded_until)
                    self._crowded_until = now + _CROWDED_S if gives_up else self._crowded_until
                if state is Fetched.HERE or error is not None or gives_up:
                    self._settled[key] = error
                self._changed.notify_all()

    def _fetch(self, shard: ShardFile) -> Fetched:
        assert isinstance(shard.path, RemotePath)
        arguments: tuple[Any, ...] = (self._cache, shard.path, shard.sha256, shard.num_bytes)
        return self._pool.submit(fetch, *arguments).result() if self._pool is not None else fetch(*arguments)

    def _next(self) -> ShardFile | None:
        """Return the first shard that is wanted, not there and in nobody's hand; None at the end."""
        with self._changed:
            while not self._closed:
                open_ones = [s for s in (*self._now, *self._soon) if s.sha256 not in self._settled]
                for shard in open_ones:
                    key = shard.sha256
                    if key not in self._in_hand and self._not_before.get(key, 0.0) <= time.monotonic():
                        self._in_hand.add(key)
                        return shard
                self._changed.wait(_AGAIN_S if open_ones else None)
        return None


def fetch(cache: ShardCache, place: RemotePath, sha256: str, num_bytes: int | None) -> Fetched:
    """Fetch one shard, here or in a process of its own; one that another rank fetches is left to it."""
    return cache.fetch(place, sha256, num_bytes, wait=False)


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
