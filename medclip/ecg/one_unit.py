"""The one record or the one image that a path stands for, read in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import RASTERS, Source
from medclip.adapters.ecg import raw_signal
from medclip.adapters.raw import raw_image
from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.imaging.ecg.filters import prepare
from medclip.imaging.raster import read_raster
from medclip.inspecting.opened_study import opened_units
from medclip.sample import Kind, Modality, Signal
from medclip.settings import EcgOptions, Settings
from medclip.wording import count

_T = TypeVar("_T")


def find_one(path: Path, kind: Kind, number: int, settings: Settings) -> tuple[Source, int]:
    """Return the record or image of this number that a path holds, and how many of them there are.

    Raises:
        MedclipError: Why it cannot be read; NOTHING_TO_DO where there is none; WRONG_USE for a number beyond them, or
            where an image was named for a record or the other way round.
    """
    units, problems = opened_units(path, Modality.ECG, settings)
    sources = [unit.source for unit in units if unit.source.kind is kind]
    if not sources and problems:
        raise problems[0].error(path)
    if not sources and units:
        raise _other_kind(kind, path)
    if not sources:
        what = "ECG record" if kind is Kind.SIGNAL else "image"
        raise MedclipError(Reason.NOTHING_TO_DO, f"there is no {what} here.", where=path, hint="Name another file.")
    if not 1 <= number <= len(sources):
        things = count(len(sources), "record" if kind is Kind.SIGNAL else "image")
        raise MedclipError(
            Reason.WRONG_USE, f"there is no number {number} here; {things} found, counted from 1.", where=path
        )
    return sources[number - 1], len(sources)


def _other_kind(kind: Kind, path: Path) -> MedclipError:
    if kind is Kind.SIGNAL:
        return MedclipError(
            Reason.WRONG_USE,
            "a sheet is drawn from a record of signals, and this is an image.",
            where=path,
            hint="Read a sheet back into a record with `medclip ecg digitise`.",
        )
    return MedclipError(
        Reason.WRONG_USE,
        "a sheet is read from an image, and this is a record of signals already.",
        where=path,
        hint="Draw a record as a sheet with `medclip ecg render`.",
    )


def read_apart(reader: Callable[..., _T], source: Source, settings: Settings, *args: Any) -> _T:
    """Run a reader of a source in a process of its own, with the limits of the settings; errors name the file."""
    with ReadingPool.of(settings, 1) as pool:
        try:
            return pool.submit(reader, source, settings, *args).result()
        except MedclipError as error:
            raise error.at(error.where or source.path) from None


def record_signal(source: Source, settings: Settings, filtered: bool) -> Signal:
    """Read the twelve leads in mV at the record's own rate and length, with or without the wander of the baseline."""
    signal = raw_signal(source, settings)
    return prepare(signal, EcgOptions(sampling_hz=None, seconds=None)) if filtered else signal


def sheet_pixels(source: Source, settings: Settings) -> NDArray[np.uint8]:
    """Read the image of a sheet, upright as its EXIF says, white where it is transparent: uint8 [H, W, 1 or 3]."""
    if source.first.format in RASTERS:
        pixels = read_raster(source.path, source.first.format, settings, paper=True).pixels
        if pixels.dtype == np.uint8:
            return pixels.astype(np.uint8, copy=False)
    return raw_image(source, settings)
