"""The simulated ECG cohort of pipelines/ecg, small: records with reports, SCP codes and labels of the six ECG tasks."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "ecg"


@cache
def module_of(name: str) -> ModuleType:
    """Load a script of the pipeline."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # the scripts import each other; last, so that they hide nothing
    return load_stage(FOLDER, name)


def write_cohort(folder: Path, num: int = 10, **options: Any) -> Path:
    """Write records of `num` patients and return the table, one row a record; `folder/ptbxl_database.csv` has the same
    in PTB-XL's columns.

    About 10 ms a record of 10 s at 500 Hz. Of ten patients eight are for training, one for validation, one for testing.

    Args:
        folder: For `records/*.hea` and the tables.
        num: Patients.
        options: records, seed, sampling_hz, seconds, faults, noise and sizes of `simulate.write_cohort`.
    """
    return module_of("simulate").write_cohort(folder, num, **options)


def heart(**planted: Any) -> Any:
    """Return a heart with what is named planted in it (see `pipelines/ecg/heart.py`), else in sinus rhythm at 72."""
    base = {"patient": 1, "record": 0, "age": 60, "sex": 1, "rhythm": "SR", "rate": 72.0, "noise_mv": 0.0}
    return module_of("heart").Heart(**base | {"wander_mv": 0.0} | planted)


def leads(*, seed: int = 0, sampling_hz: float = 500.0, seconds: float = 10.0, **planted: Any) -> NDArray[np.float32]:
    """Compute the twelve leads of such a heart: float32 [12, T] in mV, without noise unless `noise_mv` is planted."""
    signal = module_of("heart_signal").simulate_leads
    return signal(heart(**planted), seed, sampling_hz=sampling_hz, seconds=seconds)
