"""Read and filter ECG records with medclip, and with wfdb and scipy called one by one, in turn, and print the ratio.

Usage: python read_ecg.py [--rounds 7] [--records 60] [--hz 500] [--folder FOLDER]

Without `--folder` (WFDB records) twelve-lead records of 10 s are made in a temporary folder. Both sides make 10 s at
500 Hz in mV behind the same zero-phase high-pass (checked to be equal to 1e-4 mV); medclip also orders the leads by
name, looks for gaps, and flags what is wrong with them. CPU time of this process is measured, the median over
interleaved rounds printed. Exits 1 below the target: 1.5 times as many records a second.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
import wfdb
from scipy import signal as scipy_signal

from medclip.adapters.base import Source
from medclip.adapters.ecg import EcgAdapter
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.sample import Kind
from medclip.settings import Settings

TARGET = 1.5
SETTINGS = Settings()
FACTS = FileFacts("0" * 64, Format.WFDB)


def with_medclip(path: Path) -> np.ndarray:
    """Read a record through the adapter."""
    signal = EcgAdapter().read(Source(Kind.SIGNAL, (path,), (FACTS,)), SETTINGS).signal
    assert signal is not None
    return signal.values_mv


def with_wfdb(path: Path) -> np.ndarray:
    """Read a record as a careful script would: a filter designed for its rate, each lead by itself, then resampled."""
    record = wfdb.rdrecord(str(path.with_suffix("")))
    hz, leads = record.fs, np.asarray(record.p_signal).T
    order, edge = scipy_signal.ellipord(0.8, 0.2, 0.5, 40.0, fs=hz)
    sections = scipy_signal.ellip(order, 0.5, 40.0, edge, "highpass", output="sos", fs=hz)
    pad = min(leads.shape[1] - 1, round(2 * hz))
    lines = [scipy_signal.sosfiltfilt(sections, lead, padlen=pad) for lead in leads]
    if hz != 500:
        lines = [scipy_signal.resample_poly(line, 500, round(hz), padtype="edge") for line in lines]
    return np.stack(lines).astype(np.float32)


def seconds_of(paths: Sequence[Path], rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of all records over interleaved rounds."""
    spent: dict[str, list[float]] = {"medclip": [], "wfdb and scipy": []}
    for _ in range(rounds + 1):
        for name, read in (("medclip", with_medclip), ("wfdb and scipy", with_wfdb)):
            start = time.process_time()
            for path in paths:
                read(path)
            spent[name].append(time.process_time() - start)
    return {name: median(values[1:]) for name, values in spent.items()}


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=60)
    parser.add_argument("--hz", type=float, default=500.0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if options.folder is None:
            from tests.kits.ecg import heart, write_wfdb

            for number in range(options.records):
                write_wfdb(folder, heart(round(10 * options.hz), options.hz, number), options.hz, name=f"r{number}")
        paths = sorted(folder.glob("*.hea"))[: options.records]
        differ = max(float(np.abs(with_medclip(path) - with_wfdb(path)).max()) for path in paths[:5])
        assert differ < 1e-4, f"medclip and scipy differ by {differ:g} mV"
        spent = seconds_of(paths, options.rounds)
    for job, seconds in spent.items():
        print(f"{job:20} {seconds / len(paths) * 1000:7.2f} ms CPU a record, {len(paths) / seconds:6.0f} records/s")
    ratio = spent["wfdb and scipy"] / spent["medclip"]
    print(f"wfdb and scipy / medclip {ratio:5.2f}  (target {TARGET:g})")
    return int(ratio < TARGET)


if __name__ == "__main__":
    sys.exit(main())
