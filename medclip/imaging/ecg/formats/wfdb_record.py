"""The two files of a WFDB record as medclip writes it: whole microvolts, 16 bits a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.ecg.lead_names import TWELVE

UNITS_PER_MV = 1000
_MISSING = -(2**15)
"""Of 16-bit samples of WFDB: nothing is known here."""


def wfdb_record(
    name: str,
    leads_mv: NDArray[np.floating],
    sampling_hz: float,
    names: Sequence[str] = TWELVE,
    comment: str = "",
) -> tuple[bytes, str]:
    """Return the bytes of the signals, for `name`.dat, and the text of the header, for `name`.hea.

    Args:
        name: Name of the record: letters, digits, _ and -.
        leads_mv: float [L, T] in mV; NaN where nothing is known. Beyond 32.767 mV they are cut off.
        sampling_hz: Samples per second.
        names: Names of the L leads.
        comment: A line below the header; none where empty.

    Reference: https://physionet.org/physiotools/wag/header-5.htm

    Example:
        >>> signals, header = wfdb_record("r1", np.array([[0.0, 1.0]]), 500, ["II"])
        >>> header.splitlines()
        ['r1 1 500 2', 'r1.dat 16 1000.0(0)/mV 16 0 0 1000 0 II']
    """
    known = np.isfinite(leads_mv)
    stored = np.where(known, np.clip(np.rint(np.where(known, leads_mv, 0) * UNITS_PER_MV), -32767, 32767), _MISSING)
    stored = stored.astype("<i2")
    lines = [f"{name} {len(names)} {sampling_hz:g} {stored.shape[1]}"]
    for lead, line in zip(names, stored, strict=True):
        checksum = (int(line.astype(np.int64).sum()) + 0x8000) % 0x10000 - 0x8000
        lines.append(f"{name}.dat 16 {UNITS_PER_MV}.0(0)/mV 16 0 {line[0]} {checksum} 0 {lead}")
    if comment:
        lines.append(f"# {comment}")
    return stored.T.tobytes(), "\n".join(lines) + "\n"
