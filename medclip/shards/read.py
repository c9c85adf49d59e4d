"""Read shards back by number: any sample of a split, in any order, without unpacking a tar."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.shards.folder import read_index
from medclip.shards.records import from_json
from medclip.shards.tar import members
from medclip.text.captions import CaptionRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ShardSample:
    """One stored image with what is known of it."""

    image: NDArray[np.uint8]
    """H x W x 3; grey images have three equal channels."""
    record: CaptionRecord
    key: str
    meta: Mapping[str, Any]
    """sha256 of the source file, patient hash, adapter, preprocessing, source, license."""


class ShardReader:
    """Random access to one split of a shard folder. Safe in threads; travels to other processes.

    Args:
        folder: What `build_shards` made.
        split: One of its splits.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID or WRONG_USE when the folder or the split is not there.
    """

    def __init__(self, folder: Path | str, split: str) -> None:
        import pyarrow.parquet as pq

        self.folder = Path(folder)
        self.split = split
        self.index = read_index(self.folder)
        table = pq.read_table(self.folder / "samples.parquet")
        rows = [r for r in table.to_pylist() if r["split"] == split]
        if not rows:
            known = ", ".join(self.index["counts"]["by_split"])
            raise MedclipError(
                Reason.WRONG_USE, f"there is no split {split!r}.", where=self.folder, hint=f"There are: {known}."
            )
        self._rows = rows
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> ShardSample:
        """Read sample number i.

        Raises:
            IndexError: There is no such number.
            MedclipError: CORRUPT when the bytes are not what the index says.
        """
        from PIL import Image

        row, found = self._rows[i], self._members(i)
        try:
            record, meta = from_json(found["json"])
            with Image.open(io.BytesIO(found["png"])) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (KeyError, ValueError, OSError) as e:
            raise MedclipError(
                Reason.CORRUPT, f"sample {row['key']} is not readable.", where=self.folder / row["shard"]
            ) from e
        return ShardSample(pixels, record, row["key"], meta)

    def record(self, i: int) -> tuple[CaptionRecord, Mapping[str, Any]]:
        """Read what is known of sample i without decoding its image."""
        return from_json(self._members(i)["json"])

    def key(self, i: int) -> str:
        """Give the key of sample i without reading it."""
        return self._rows[i]["key"]

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """The split's rows of samples.parquet, in order."""
        return tuple(self._rows)

    def close(self) -> None:
        """Close the tars."""
        with self._lock:
            for descriptor in self._files.values():
                os.close(descriptor)
            self._files.clear()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_files", None):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split, "index": self.index, "_rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _files={}, _lock=threading.Lock())

    def _members(self, i: int) -> dict[str, bytes]:
        import tarfile

        row = self._rows[i]
        path = self.folder / row["shard"]
        try:
            with self._lock:
                if row["shard"] not in self._files:
                    self._files[row["shard"]] = os.open(path, os.O_RDONLY)
                descriptor = self._files[row["shard"]]
            return members(os.pread(descriptor, row["size"], row["offset"]))
        except FileNotFoundError as e:
            raise MedclipError(Reason.MISSING_FILE, "the shard is gone.", where=path) from e
        except tarfile.TarError as e:
            raise MedclipError(Reason.CORRUPT, f"sample {row['key']} is not readable.", where=path) from e
