"""Records drawn as sheets, sheets read back as records, and the files of both."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medclip.adapters.base import RASTERS, Source
from medclip.adapters.ecg import raw_signal
from medclip.adapters.raw import raw_image
from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.files.readers.pool import ReadingPool
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.imaging.ecg.filters import prepare
from medclip.imaging.ecg.formats.wfdb import wfdb_record
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.digitise import DigitisedSheet
from medclip.imaging.ecg.sheet.draw_sheet import SheetOptions, distort, draw_distortion, render
from medclip.imaging.ecg.sheet.layouts import LAYOUTS, SheetMap
from medclip.imaging.raster import read_raster
from medclip.inspecting.opened_study import opened_units
from medclip.result import Result
from medclip.sample import Kind, Modality, Signal
from medclip.settings import EcgOptions, Settings
from medclip.wording import count, list_of

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


@dataclass(frozen=True, repr=False)
class RenderedSheet(Result):
    """A sheet that was drawn."""

    out: Path
    map: SheetMap
    """Where every lead lies in the image: pixels to seconds and millivolts."""
    missing_leads: tuple[str, ...]
    """Leads without a usable signal; the sheet says so where they would be."""
    duration_s: float
    """Of the record."""
    number: int
    """Which of the records found there it is, from 1."""
    num_found: int

    def _facts(self) -> dict[str, object]:
        sheet_map = self.map
        return {
            "layout": sheet_map.layout,
            "size": f"{sheet_map.width_px} x {sheet_map.height_px} px, {sheet_map.px_per_mm:.2f} px/mm, "
            f"{sheet_map.mm_per_mv:g} mm/mV",
            "record": f"{self.duration_s:.3g} s, {self.number} of {count(self.num_found, 'record')}",
            "leads without a signal": ", ".join(self.missing_leads) or "none",
            "image": self.out,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [vars(box) for box in self.map.boxes][:most]


def write_sheet(
    signal: Signal, drawn: SheetOptions, out: Path, *, photograph: int | None, map_out: Path | None
) -> SheetMap:
    """Draw a record, write the image and perhaps the map of where its leads lie, and return that map.

    Args:
        signal: The record.
        drawn: Layout, colours and scale of the sheet.
        out: The PNG.
        photograph: Seed of what a photograph does to it; None leaves it clean.
        map_out: The JSON file.
    """
    pixels, places = render(signal, drawn)
    if photograph is not None:
        pixels, places = distort(pixels, places, draw_distortion(photograph))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", dpi=(drawn.dpi, drawn.dpi))
    write_file(out, buffer.getvalue())
    if map_out is not None:
        write_file(map_out, places.to_json() + "\n")
    return places


def missing_leads(signal: Signal) -> tuple[str, ...]:
    """Return the leads that have no usable signal."""
    return tuple(lead for lead, present in zip(TWELVE, signal.mask, strict=True) if not present)


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


@dataclass(frozen=True)
class DigitisedLead:
    """What was read of one lead."""

    lead: str
    seconds: float
    """That are shown and were read; 0 for a lead that was not found."""
    confidence: float
    """Mean over what was read, 0 to 1."""
    sure: bool
    """Whether so little of it is in doubt that it may be taken for the lead."""


@dataclass(frozen=True, repr=False, eq=False)
class DigitisedRecord(Result):
    """What was read of a sheet, and written."""

    out: Path
    layout: str
    rhythm: tuple[str, ...]
    """Leads of the strips of ten seconds."""
    leads: tuple[DigitisedLead, ...]
    """All twelve."""
    notes: tuple[str, ...]
    """What was assumed, corrected or could not be read, in sentences."""
    px_per_mm: float
    degrees: float
    """By which the sheet lay turned, clockwise; a note says so where it lay on its side or upside down."""
    sampling_hz: float
    values_mv: NDArray[np.float32] = field(hash=False)
    """float32 [12, T] in mV, as written: NaN where nothing was read."""
    confidence: NDArray[np.float32] = field(hash=False)
    """float32 [12, T], 0 to 1."""
    number: int = 1
    num_found: int = 1

    @property
    def all_sure(self) -> bool:
        """Whether all twelve leads were read and none is in doubt."""
        return all(lead.sure for lead in self.leads)

    def _facts(self) -> dict[str, object]:
        doubtful = [lead.lead for lead in self.leads if not lead.sure]
        return {
            "layout": f"{self.layout}, strips of {list_of(self.rhythm)}" if self.rhythm else self.layout,
            "scale": f"{self.px_per_mm:.2f} px/mm, turned by {self.degrees:.1f} degrees",
            "record": f"{self.values_mv.shape[1] / self.sampling_hz:g} s at {self.sampling_hz:g} Hz",
            "not sure of": ", ".join(doubtful) or "none",
            "notes": " ".join(self.notes) or "none",
            "written": self.out,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [vars(lead) for lead in self.leads][:most]


def leads_of(sheet: DigitisedSheet) -> tuple[DigitisedLead, ...]:
    """Return what was read of each lead."""
    seconds = sheet.shown.sum(1) / sheet.signal.sampling_hz
    means, sure = sheet.lead_confidence, sheet.sure_leads
    return tuple(
        DigitisedLead(lead, round(float(seconds[n]), 3), round(means[lead], 3), lead in sure)
        for n, lead in enumerate(TWELVE)
    )


def written_values(
    sheet: DigitisedSheet, together: bool, min_confidence: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what is written: mV, NaN where nothing was read, and confidence."""
    is_sure = sheet.shown & (sheet.confidence >= min_confidence)
    values = np.where(is_sure, sheet.signal.values_mv, np.float32(np.nan))
    confidence = np.where(is_sure, sheet.confidence, np.float32(0))
    if not together:
        return values, confidence
    layout, hz = LAYOUTS[sheet.layout], sheet.signal.sampling_hz
    length = round(layout.column_s * hz)
    starts = {lead: round(sheet.column_starts_s[column] * hz) for lead, _, column in layout.cells}
    parts = [slice(starts[lead], starts[lead] + length) for lead in TWELVE]
    return (
        np.stack([line[part] for line, part in zip(values, parts, strict=True)]),
        np.stack([line[part] for line, part in zip(confidence, parts, strict=True)]),
    )
