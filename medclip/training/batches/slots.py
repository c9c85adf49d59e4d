"""Where workers put a batch: one block of memory for each, used again when nobody needs it any more.

Blocks for processes lie in a file without a name (memfd) that every process maps: images are written once, by the
worker that decoded them, and no pipe, pickle or copy in the main process follows. The system takes such a file back
with the last process that has it, however that ends, and it does not count towards the size of /dev/shm, which
containers limit to 64 MB. Where a system has no memfd, the file is one in a temporary folder.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_KEYS = 6
"""Columns of `Arrays.pair_keys`."""
NUM_FACTS = 3
"""Columns of `Arrays.view_types`: side, position, kind."""


@dataclass(frozen=True)
class Form:
    """Size of a block."""

    num_rows: int
    """Samples, b."""
    image_shape: tuple[int, ...]
    """Of one image: S x S x 3, as many packed patches as fit, a clip, or an ECG (`Preprocess.image_shape`)."""
    context_length: int
    """Tokens of a caption; 0 where none are cut."""
    num_views: int = 1
    """Images of a sample, V."""
    num_texts: int = 1
    """Captions of a sample, T."""
    image_dtype: str = "uint8"
    """NumPy's name of what an image is made of."""
    num_role_texts: int = 0
    """Texts of a sample beside its captions that the text tower reads, R: those of one role after the other."""

    @property
    def num_bytes(self) -> int:
        """Bytes of a block, in whole pages."""
        of_text = 8 * (NUM_KEYS + 1) + 4 * self.context_length
        of_view = 8 * NUM_FACTS + math.prod(self.image_shape) * np.dtype(self.image_dtype).itemsize
        row = self.num_texts * of_text + self.num_views * of_view + self.num_role_texts * 4 * self.context_length
        return -(-max(1, self.num_rows * row) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY


@dataclass(frozen=True, eq=False)
class Arrays:
    """One block, as arrays that share its memory."""

    images: NDArray[Any]
    """uint8 [V, b, S, S, 3], or [V, b, ...] of packed patches, clips or ECGs."""
    tokens: NDArray[np.int32]
    """int32 [T, b, L]."""
    pair_keys: NDArray[np.int64]
    """int64 [T, b, 6]."""
    text_parts: NDArray[np.int64]
    """int64 [T, b]: number of the side that a caption is about, -1 for all that is shown."""
    view_types: NDArray[np.int64]
    """int64 [b, V, 3]: numbers of side, position and kind of each view, -1 where there is none."""
    role_tokens: NDArray[np.int32]
    """int32 [R, b, L]."""

    @classmethod
    def of(cls, buffer: mmap.mmap, form: Form) -> Arrays:
        """Lay the arrays out in a block."""
        rows, views, texts = form.num_rows, form.num_views, form.num_texts
        shapes = ((texts, rows, NUM_KEYS), (texts, rows), (rows, views, NUM_FACTS))
        arrays, start = [], 0
        for shape, kind in (
            *((shape, np.int64) for shape in shapes),
            ((texts, rows, form.context_length), np.int32),
            ((form.num_role_texts, rows, form.context_length), np.int32),
            ((views, rows, *form.image_shape), np.dtype(form.image_dtype)),
        ):
            arrays.append(np.ndarray(shape, kind, buffer, start))
            start += arrays[-1].nbytes
        keys, parts, types, tokens, role_tokens, images = arrays
        return cls(images, tokens, keys, parts, types, role_tokens)


class Slots:
    """The blocks of one crew. Safe in threads.

    Args:
        form: Size of a block.
        folder: Folder of the file on a system without memfd; None for blocks of this process alone.
    """

    def __init__(self, form: Form, folder: Path | None = None) -> None:
        self.form = form
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._arrays: list[Arrays] = []
        self._file, self.path = (-1, "") if folder is None else _new_file(folder)

    def take(self) -> int:
        """Return the number of a block that nobody uses; a new one where all are in use."""
        with self._lock:
            if self._free:
                return self._free.pop()
            number, size = len(self._arrays), self.form.num_bytes
            if self._file < 0:
                buffer = mmap.mmap(-1, size)
            else:
                os.ftruncate(self._file, (number + 1) * size)
                buffer = mmap.mmap(self._file, size, offset=number * size)
            self._arrays.append(Arrays.of(buffer, self.form))
            return number

    def arrays(self, number: int) -> Arrays:
        """Return a block."""
        return self._arrays[number]

    def free(self, number: int) -> None:
        """Let a block be taken again."""
        with self._lock:
            self._free.append(number)

    def __len__(self) -> int:
        """Return the number of blocks, in use and free."""
        return len(self._arrays)

    def close(self) -> None:
        """Close the file. Blocks that are still looked at stay until nobody does."""
        with self._lock:
            self._arrays, self._free = [], []
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


class MappedSlots:
    """The blocks of another process's `Slots`."""

    def __init__(self, path: str, form: Form) -> None:
        self._path, self._form = path, form
        self._arrays: dict[int, Arrays] = {}

    def arrays(self, number: int) -> Arrays:
        """Return a block, mapped when it is first asked for."""
        if number not in self._arrays:
            file = os.open(self._path, os.O_RDWR)
            try:
                buffer = mmap.mmap(file, self._form.num_bytes, offset=number * self._form.num_bytes)
            finally:
                os.close(file)
            self._arrays[number] = Arrays.of(buffer, self._form)
        return self._arrays[number]


def _new_file(folder: Path) -> tuple[int, str]:
    """Open an empty file for this user alone; returns its descriptor, and a path that other processes can open."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        file = os.memfd_create("medclip-batches", os.MFD_CLOEXEC)
        return file, f"/proc/{os.getpid()}/fd/{file}"
    path = folder / "batches"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), str(path)
