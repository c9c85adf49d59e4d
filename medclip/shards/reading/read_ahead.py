"""Shards of a store brought into the cache before they are needed: those of now first, then the coming ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.files.stores import RemotePath
from medclip.shards.reading.shard_cache import Fetched, ShardCache, ShardFile, WantedList

if TYPE_CHECKING:
    from medclip.files.readers.pool import ReadingPool

AT_ONCE = 4
"""Shards that a process fetches side by side: one stream of S3 is far slower than a network card."""
_AGAIN_S = 0.2
"""After which a shard that another one fetches, or that found no room, is looked at again."""
_NO_ROOM_S = 5.0
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
            left = self._cache.max_bytes - sum((besides | taken).values())
            for shard in shards:
                size = 0 if shard.sha256 in besides else shard.num_bytes or 0
                if size <= left and shard.sha256 not in taken:
                    part.append(shard)
                    taken[shard.sha256] = shard.num_bytes or 0
                    left -= size
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
                    gives_up = shard in self._now and (now - since > _NO_ROOM_S or now < self._crowded_until)
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
