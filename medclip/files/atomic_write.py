"""Result files that are there whole or not at all, and tables as bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    import pyarrow as pa


def put(path: Path, content: bytes, folder: Path) -> None:
    """Put a file in place in one step: a reader, or a kill, sees the old one or the new one, never a part.

    Args:
        path: The file; its folder is made.
        content: Its bytes.
        folder: What errors name.

    Raises:
        MedclipError: DISK_FULL; WRONG_USE where it cannot be written for another reason.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as e:
        reason = Reason.DISK_FULL if e.errno == errno.ENOSPC else Reason.WRONG_USE
        message = f"the results cannot be written ({e.strerror or type(e).__name__})."
        raise MedclipError(reason, message, where=folder) from e


def parquet_bytes(table: pa.Table) -> bytes:
    """Give a table as the bytes of a Parquet file; equal tables give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
