"""Deflated DICOM data sets, inflated no further than somebody reads and never beyond a limit.

pydicom inflates a whole data set at once before it looks at a single element, so that a file of a megabyte can take
gigabytes. Here it never gets to: a guarded file refuses the read that pydicom begins this with, and such a file is
then read through a view that inflates piece by piece.
"""

from __future__ import annotations

import io
import zlib
from bisect import bisect_left, bisect_right
from typing import Any, BinaryIO

from medclip.errors import MedclipError, Reason

UID = "1.2.840.10008.1.2.1.99"
HEADER_MOST = 64 * 1024**2
"""Inflated bytes in front of the pixels. The largest real headers (per-frame groups) have a few millions."""

_PLAIN = b"1.2.840.10008.1.2.1".ljust(len(UID), b"\0")
_CHUNK = 1 << 16


class DeflatedError(Exception):
    """The data set is deflated."""


class Guarded:
    """A file that pydicom can parse, as long as the data set is not deflated."""

    def __init__(self, file: BinaryIO) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read some bytes.

        Raises:
            DeflatedError: For all the rest of the file: pydicom asks for it only in order to inflate it.
        """
        if size < 0:
            raise DeflatedError
        return self._read(size)


class Inflated:
    """A deflated DICOM file as if it were not: preamble, meta information (explicit little endian), data set.

    Args:
        file: A binary file whose meta information names the deflated syntax.
        most: Number of inflated bytes beyond which reading is refused. It may be raised later.

    Raises:
        MedclipError: CORRUPT if the meta information cannot be read.
    """

    def __init__(self, file: BinaryIO, most: int = HEADER_MOST) -> None:
        # The private function is what decides in pydicom, so that both see the same end of the meta information.
        from pydicom.filereader import _read_file_meta_info, read_preamble

        file.seek(0)
        read_preamble(file, force=True)
        _read_file_meta_info(file)
        start = file.tell()
        file.seek(0)
        # Pieces, and no buffer that grows: one of 32 MB that the allocator moves is kept beside its copy, or is not, by
        # what the process did before (101 MB instead of 67 at the end of a long one).
        self._pieces = [file.read(start).replace(UID.encode(), _PLAIN)]
        self._ends = [len(self._pieces[0])]
        self._file, self._at = file, 0
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._waiting = b""
        self.most = most

    def read_small(self, most: int) -> bytes | None:
        """Return the whole file if it takes no more than some bytes."""
        while self._ends[-1] <= most and self._more():
            pass
        return b"".join(self._pieces) if self._ends[-1] <= most else None

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, from the start or from here."""
        self._at = max(0, offset + (self._at if whence == io.SEEK_CUR else 0))
        return self._at

    def read(self, size: int) -> bytes:
        """Read some bytes, fewer only at the end.

        Raises:
            MedclipError: TOO_LARGE beyond `most`; TRUNCATED or CORRUPT where the stream ends early or is damaged.
        """
        end = self._at + size
        # One byte is always looked at: the parser looks for an end.
        while self._ends[-1] < min(end, self.most + 1) and self._more():
            pass
        if end > self.most and self._ends[-1] > self.most:
            raise MedclipError(
                Reason.TOO_LARGE,
                f"the deflated data set takes more than {self.most:,} bytes, which its header does not explain.",
            )
        chunk = self._between(self._at, end)
        self._at += len(chunk)
        return chunk

    def _between(self, start: int, end: int) -> bytes:
        """Return what is inflated between two positions."""
        first, last = bisect_right(self._ends, start), bisect_left(self._ends, end) + 1
        parts = []
        for piece, piece_end in zip(self._pieces[first:last], self._ends[first:last], strict=True):
            begin = piece_end - len(piece)
            parts.append(memoryview(piece)[max(0, start - begin) : end - begin])
        return b"".join(parts)

    def _more(self) -> bool:
        """Inflate a piece; say whether there was one."""
        if self._stream.eof:
            return False
        taken = self._waiting or self._file.read(4 * _CHUNK)
        try:
            piece = self._stream.decompress(taken, 16 * _CHUNK)
        except zlib.error:
            raise MedclipError(Reason.CORRUPT, "the deflated data set is damaged.") from None
        self._waiting = self._stream.unconsumed_tail
        if not piece and not taken:
            raise MedclipError(Reason.TRUNCATED, "the deflated data set ends too early.")
        if piece:
            self._pieces.append(piece)
            self._ends.append(self._ends[-1] + len(piece))
        return True


def restore(dataset: Any) -> None:
    """Name the syntax of a data set that was read from an `Inflated` file."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
