"""Files of a record that was read from paper: a table with the confidence of every sample, or a WFDB record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.imaging.ecg.formats.wfdb_record import wfdb_record
from medclip.imaging.ecg.lead_names import TWELVE

_RECORD_NAME = re.compile(r"[A-Za-z0-9_-]+")


def check_record_name(out: Path) -> None:
    """Refuse an ending that is not written, and a name that no WFDB record may have.

    Raises:
        MedclipError: WRONG_USE.
    """
    if out.suffix.lower() not in WRITERS:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a digitised record is written as {', '.join(WRITERS)}; the name ends otherwise.",
            where=out,
        )
    if out.suffix.lower() == ".hea" and not _RECORD_NAME.fullmatch(out.stem):
        raise MedclipError(
            Reason.WRONG_USE,
            "the name of a WFDB record is made of letters, digits, _ and -.",
            where=out,
            hint="Name it otherwise, such as record_1.hea.",
        )


def files_of(out: Path) -> tuple[Path, ...]:
    """Return the files that are written: of a WFDB record its signals, too."""
    return (out.with_suffix(".dat"), out) if out.suffix.lower() == ".hea" else (out,)


def _write_table(
    out: Path, values_mv: NDArray[np.float32], confidence: NDArray[np.float32], hz: float, _layout: str
) -> None:
    import pyarrow as pa

    columns = {"time_s": pa.array(np.round(np.arange(values_mv.shape[1]) / hz, 6))}
    for lead, line in zip(TWELVE, values_mv, strict=True):
        columns[f"{lead}_mv"] = pa.array(np.round(line.astype(np.float64), 4), from_pandas=True)  # NaN becomes empty
    for lead, line in zip(TWELVE, confidence, strict=True):
        columns[f"{lead}_confidence"] = pa.array(np.round(line.astype(np.float64), 3))
    table = pa.table(columns)
    write_file(out, csv_bytes(table) if out.suffix.lower() == ".csv" else parquet_bytes(table))


def _write_wfdb(
    out: Path, values_mv: NDArray[np.float32], _confidence: NDArray[np.float32], hz: float, layout: str
) -> None:
    """Write signals, then their header: whoever sees the header finds the signals."""
    content, text = wfdb_record(out.stem, values_mv, hz, comment=f"read from paper, layout {layout}")
    signals, header = files_of(out)
    write_file(signals, content)
    write_file(header, text)


WRITERS: Mapping[str, Callable[[Path, NDArray[np.float32], NDArray[np.float32], float, str], None]] = MappingProxyType(
    {".csv": _write_table, ".parquet": _write_table, ".hea": _write_wfdb}
)
"""By the ending of the file."""
