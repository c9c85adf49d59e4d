"""Shards as open files: compared with the index when first opened, a limited number open at once, safe in threads."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medclip.errors import MedclipError, Reason

Verify = Literal["full", "size", "none"]
MAX_OPEN = 128
"""Files kept open, far below the 1,024 that most systems allow a process."""
_CHUNK = 1 << 22


@dataclass(frozen=True)
class ShardFile:
    """One tar as the index knows it."""

    path: Path
    name: str
    split: str
    samples: int
    num_bytes: int | None
    """None where an old index does not say."""
    sha256: str


class ShardFiles:
    """Bytes of shards by number.

    Args:
        shards: The shards, in the order of their numbers.
        verify: "full" compares size and sha256 when a shard is first opened, in the thread that wants it (others that
            want the same shard wait, those that read from other shards do not); "size" only the size; "none" nothing.
    """

    def __init__(self, shards: Sequence[ShardFile], verify: Verify = "size") -> None:
        self.shards, self.verify = tuple(shards), verify
        self._start()

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read from a shard.

        Raises:
            MedclipError: naming the shard: MISSING_FILE, PERMISSION_DENIED, READ_ERROR, or CORRUPT where it is not what
                the index says.
        """
        path = self.shards[number].path
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

    def close(self) -> None:
        """Close all files. They are opened again when wanted."""
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "verify": self.verify}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[int, int] = OrderedDict()
        self._opening: dict[int, threading.Lock] = {}
        self._verified: set[int] = set()

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
            descriptor = os.open(self.shards[number].path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
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


def _changed(path: Path, how: str) -> MedclipError:
    return MedclipError(
        Reason.CORRUPT,
        f"the shard was changed or damaged since it was indexed: {how}.",
        where=path,
        hint="Copy it again, or build or index the folder again; medclip shards check says what else differs.",
    )
