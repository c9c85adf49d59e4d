"""What stands beside every figure of ECGs: the median beat, distances of beats, and a regression on both.

It knows no pack and no words: whoever measures a tower of ECGs has to be better than this.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import combined_sha256, source_of
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError
from medclip.imaging.ecg.quality import beat_windows, coarse, find_beats
from medclip.sample import Modality
from medclip.settings import Settings

SAMPLES = 32
"""Of a median beat of 0.55 s in each lead: 58 Hz, above which the regression learns noise."""
FEATURES = 12 * SAMPLES + 12 + 5


def heartbeat(values_LT: NDArray[np.float32], hz: float) -> NDArray[np.float32]:
    """Measure a record.

    Args:
        values_LT: float32 [12, T] in mV; leads that were not recorded are 0.
        hz: Samples per second.

    Returns:
        float32 [F]: median beat and spread of each lead, then mean, deviation, successive difference and range of the
        distances of beats in seconds, and their number; zeros for the beats of a record without any.
    """
    lines, slow_hz = coarse(np.asarray(values_LT, np.float32), hz)
    beats = find_beats(lines, slow_hz)
    windows = beat_windows(lines, beats, slow_hz)
    median_LW = np.median(windows, axis=0) if len(windows) else np.zeros((12, 2), np.float32)
    places = np.linspace(0, median_LW.shape[1] - 1, SAMPLES)
    beat = [np.interp(places, np.arange(median_LW.shape[1]), lead) for lead in median_LW]
    distances = np.diff(beats) / slow_hz
    rhythm = np.zeros(5)
    if len(distances) > 1:
        rhythm[:4] = distances.mean(), distances.std(), np.abs(np.diff(distances)).mean(), np.ptp(distances)
    rhythm[4] = len(beats)
    return np.concatenate([np.ravel(beat), lines.std(axis=1), rhythm]).astype(np.float32)


def heartbeats(table: Path) -> Mapping[str, NDArray[np.float32]]:
    """Measure the ECG records of a table of the pack; sheets and records that cannot be read are left out.

    Args:
        table: Table that the shards were built of, with the columns `file` and `modality`.

    Returns:
        By the sha256 that the shards know a record by.
    """
    with table.open(newline="", encoding="utf-8") as file:
        files = [Path(row["file"]) for row in csv.DictReader(file) if row["modality"] == "ecg"]
    return dict(_measured(path for path in files if path.suffix == ".hea"))


def _measured(records: Iterable[Path]) -> Iterable[tuple[str, NDArray[np.float32]]]:
    settings = Settings()
    for path in records:
        try:
            unit = source_of(path, settings)
            signal = read_unit(unit, Modality.ECG, settings).signal
        except MedclipError as error:
            print(f"a record has no heartbeat: {error.reason}")
            continue
        if signal is not None:
            yield combined_sha256(unit), heartbeat(signal.values_mv, signal.sampling_hz)
