"""Write tar shards whose bytes depend on nothing but their content, and say where each sample lies in them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

SHARD_NAME = "{split}-{number:06d}.tar"


class _Hashing(io.RawIOBase):
    """A file that hashes what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size


class TarShard:
    """One shard being written. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_samples = 0
        self._file = path.open("wb")
        self._hashing = _Hashing(self._file)
        self._tar = tarfile.open(fileobj=self._hashing, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, members: Sequence[tuple[str, bytes]]) -> tuple[int, int]:
        """Add one sample.

        Args:
            key: Name shared by its members.
            members: Extension and bytes of each.

        Returns:
            Offset of the sample's first tar header and the bytes up to the end of its last member.
        """
        start = self._tar.offset
        for extension, data in members:
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size, info.mtime, info.mode = len(data), 0, 0o644
            self._tar.addfile(info, io.BytesIO(data))
        self.num_samples += 1
        return start, self._tar.offset - start

    def close(self) -> tuple[str, int]:
        """Finish the file. Returns its sha256 and its size in bytes."""
        self._tar.close()
        self._file.flush()
        self._file.close()
        return self._hashing.digest.hexdigest(), self._hashing.size

    def __enter__(self) -> TarShard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def members(data: bytes) -> dict[str, bytes]:
    """Take the bytes of one sample apart: extension to content."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        found = {}
        for info in tar:
            content = tar.extractfile(info)
            assert content is not None
            found[info.name.partition(".")[2]] = content.read()
        return found


def member_names(data: bytes) -> list[str]:
    """List the names inside the bytes of one sample."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return tar.getnames()
