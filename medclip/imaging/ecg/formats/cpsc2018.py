"""Read the records of CPSC 2018, MATLAB files that hold one struct `ECG` with sex, age and data.

The file states neither gain nor rate nor lead names. Its data set does: 12 leads in the canonical order, 500 Hz, mV.
So only a struct of exactly that shape is read, and only if its leads obey Einthoven's law, which no other order or
mixture of gains does. Every other MATLAB file is refused: its scale is unknown.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording, check_size, no_scale
from medclip.settings import Settings

HZ = 500.0
_FIELDS = ("sex", "age", "data")
_MAX_MV = 20.0
_LAW_MV = 0.05
_COMPRESSED = 15
_CHUNK = 1024**2


def read_matlab(path: Path, settings: Settings) -> Recording:
    """Read a CPSC 2018 record.

    Raises:
        MedclipError: NO_SCALE for other contents, TOO_LARGE or CORRUPT.
    """
    with path.open("rb") as file:
        head = file.read(128)
    if not head.startswith(b"MATLAB 5.0"):
        raise no_scale("A MATLAB matrix states no gain; the header of its record (.hea) belongs beside it")
    _check_expansion(path, settings.max_volume_bytes)
    import scipy.io

    try:
        with quiet("scipy"):
            struct = scipy.io.loadmat(path, appendmat=False, variable_names=["ECG"]).get("ECG")
    except Exception as error:  # a broken file raises whatever the parser does
        raise MedclipError(Reason.CORRUPT, f"the MATLAB file cannot be read ({type(error).__name__}).") from None
    values = _data(struct)
    if values is None:
        raise no_scale("The MATLAB file states no gain, and is not of the one layout (CPSC 2018) that has a known one")
    check_size(values.shape[0], values.shape[1], settings)
    samples = values.shape[1]
    note = "gain (mV), rate (500 Hz) and lead order by the convention of the CPSC 2018 data set"
    return Recording(
        values.astype(np.float32), TWELVE, HZ, TWELVE, samples, HZ, ("mV",) * len(TWELVE), (note,), "scipy"
    )


def _data(value: object) -> NDArray[np.float64] | None:
    """Return the data of a struct that is a CPSC 2018 record, else None."""
    if not isinstance(value, np.ndarray) or value.dtype.names != _FIELDS or value.size != 1:
        return None
    data = value.ravel()[0]["data"]
    if not isinstance(data, np.ndarray) or data.dtype.kind != "f" or data.ndim != 2 or data.shape[0] != len(TWELVE):
        return None
    one, two, three, right = (np.asarray(row, np.float64) for row in data[:4])
    off = max(_median(three - (two - one)), _median(right + (one + two) / 2))
    return data if data.shape[1] and np.nanmax(np.abs(data), initial=0) <= _MAX_MV and off <= _LAW_MV else None


def _median(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(np.abs(finite))) if finite.size else np.inf


def _check_expansion(path: Path, limit: int) -> None:
    """Refuse a file whose compressed variables would grow past the limit, without keeping what they hold.

    Raises:
        MedclipError: TOO_LARGE or CORRUPT.
    """
    with path.open("rb") as file:
        head = file.read(128)
        order = "big" if head[126:128] == b"MI" else "little"
        while len(tag := file.read(8)) == 8:
            kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
            if kind != _COMPRESSED:
                file.seek(size, 1)
                continue
            remaining, stream = size, zlib.decompressobj()
            total = 0
            while remaining > 0 and (packed := file.read(min(_CHUNK, remaining))):
                remaining -= len(packed)
                while packed:
                    try:
                        total += len(stream.decompress(packed, _CHUNK))
                    except zlib.error:
                        raise MedclipError(Reason.CORRUPT, "the MATLAB file's compression is broken.") from None
                    packed = stream.unconsumed_tail
                    if total > limit:
                        raise MedclipError(
                            Reason.TOO_LARGE, f"the MATLAB file expands to more than the limit of {limit:,} bytes."
                        )
