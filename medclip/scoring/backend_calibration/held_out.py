"""The images of a calibration in two halves: on one a back-end is chosen, on the other the choice is judged.

The largest change over the images that chose is the least of several largest changes, and says too little of others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import inspect_file
from medclip.settings import Settings

_AHEAD = 64


def hold_out(keys: Sequence[str]) -> NDArray[np.bool_]:
    """Choose the images that judge, about half of them.

    Args:
        keys: Key of each image: its patient, or its bytes where nothing names the patient. Equal ones stay in one half.

    Returns:
        bool [N]. Where all images have one key, every other one judges.

    Example:
        >>> hold_out(["a", "a", "b", "b", "c"]).tolist()
        [False, False, True, True, False]
    """
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    if len(places) == 1:
        return np.arange(len(keys)) % 2 == 1
    num_of = np.bincount([places[key] for key in keys])
    judges = np.zeros(len(places), bool)
    chosen = held = 0
    for place, num in enumerate(num_of):
        judges[place] = held < chosen
        held, chosen = (held + num, chosen) if judges[place] else (held, chosen + num)
    return judges[[places[key] for key in keys]]


def patients_of(paths: Sequence[Path], stated: Sequence[str | None], settings: Settings) -> list[str]:
    """Return what is equal for images of one patient, "" for an image that names none: the table's word, or a header's.

    Args:
        paths: Paths of the images; headers are read in reading processes.
        stated: Patient that a table states for each image; None where it states none.
        settings: Limits.
    """
    known = [patient or "" for patient in stated]
    jobs = [(path, settings) for path, patient in zip(paths, known, strict=True) if not patient]
    if not jobs:
        return known
    with ReadingPool.of(settings) as pool:
        of_headers = iter([_result(future) for future in pool.map(patient_in_header, jobs, ahead=_AHEAD)])
    return [patient or next(of_headers) for patient in known]


def patient_in_header(path: Path, settings: Settings) -> str:
    """Return a hash of the patient id in a file's header, "" where there is none."""
    header = inspect_file(path, settings).header
    named = "" if header is None else header.patient_id
    return hashlib.sha256(named.encode()).hexdigest() if named else ""


def _result(future: object) -> str:
    try:
        return future.result()  # type: ignore[attr-defined]
    except MedclipError:  # it will not be read either, with its reason
        return ""
