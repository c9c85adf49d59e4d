"""The verbs of `medclip.ecg`: a record drawn as a paper sheet, and a sheet read back into a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import Chance
from medclip.api.groups.reading import Limits, OneOfMany
from medclip.api.groups.running import Overwriting, Recipe, settings_of
from medclip.options import argument, needs, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.ecg.sheets import DigitisedRecord, RenderedSheet


@options
class SheetLayout:
    """How the leads of an ECG stand on paper."""

    layout: str | None = option(
        "Rows x columns of leads, and strips of ten seconds below: 3x4, 3x4+1, 3x4+3, 6x2 or 12x1. Default: 3x4+1 for "
        "a sheet that is drawn, and what is found on one that is read.",
        default=None,
        often=True,
    )


@options
class RenderOptions(Limits, Recipe, SheetLayout, OneOfMany, Overwriting, Chance):
    """What `ecg render` is asked."""

    path: str | Path = argument("Record of any ECG format, or folder of one.", place=True, present="file or folder")
    out: str | Path = argument("PNG to write; it is put in place when it is complete.", named=True, place=True)
    grid: str = option("Colour of the paper's grid: red, pink, brown, blue, green or grey.", default="red", often=True)
    dpi: int = option("Dots per inch.", default=200, least=50, most=400, often=True)
    mm_per_mv: float = option("Gain: 5, 10 or 20 mm/mV.", default=10.0)
    start_s: float | None = option(
        "Second of the record that the sheet begins with. Default: that of its middle ten.", default=None, often=True
    )
    filtered: bool = option(
        "Take out the wander of the baseline, as models have it taken out; otherwise it is as recorded.", default=False
    )
    header: str = option("Line of text above the leads.", default="")
    photograph: bool = option(
        "Do to the sheet what a telephone's photograph would. It is turned, at an angle, with shadows, noise and JPEG, "
        "by values drawn from --seed.",
        default=False,
        often=True,
    )
    map_out: str | Path | None = option(
        "JSON file to write that says where every lead lies in the image.", default=None, often=True, place=True
    )

    rules = (needs("seed", "photograph", "a seed does nothing without a photograph.", hint="Name --photograph, too."),)


@verb(RenderOptions)
def render(options: RenderOptions) -> RenderedSheet:
    """Draw ten seconds of a record as a paper sheet: 25 mm/s on a millimetre grid. Nothing of its header is written.

    No name and no date: the sampling rate alone decides what the sheet shows.

    Returns:
        The sheet's map, and what was drawn.

    Raises:
        MedclipError: Why the record cannot be read; WRONG_USE for what cannot be drawn, or an output that is not .png,
            is a folder or is the input; OUTPUT_IN_USE where a file is there.
    """
    from medclip.ecg.sheets import RenderedSheet, find_one, missing_leads, read_apart, record_signal, write_sheet
    from medclip.errors import MedclipError, Reason
    from medclip.files.output import claim_file
    from medclip.imaging.ecg.sheet.draw_sheet import SheetOptions
    from medclip.inspecting.draw_view import check_target, refuse_input
    from medclip.sample import Kind

    path, out, settings = Path(options.path), Path(options.out), settings_of(options)
    map_out = None if options.map_out is None else Path(options.map_out)
    drawn = SheetOptions(
        options.layout or SheetOptions.layout,
        options.grid,
        options.dpi,
        options.mm_per_mv,
        options.start_s,
        options.header,
    )
    check_target(out, path, overwrite=options.overwrite)
    if map_out is not None and map_out.suffix.lower() != ".json":
        raise MedclipError(Reason.WRONG_USE, "the map is JSON; its name ends in .json.", where=map_out)
    source, num_found = find_one(path, Kind.SIGNAL, options.number, settings)
    for file in [out] if map_out is None else [out, map_out]:
        refuse_input(file, source.paths)
        claim_file(file, overwrite=options.overwrite)
    signal = read_apart(record_signal, source, settings, options.filtered)
    if options.start_s is not None and not 0 <= options.start_s < signal.duration_s:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the sheet cannot begin at {options.start_s:g} s: the record lasts {signal.duration_s:g} s.",
            where=path,
        )
    places = write_sheet(signal, drawn, out, photograph=options.seed if options.photograph else None, map_out=map_out)
    return RenderedSheet(out, places, missing_leads(signal), signal.duration_s, options.number, num_found)


@options
class DigitiseOptions(Limits, Recipe, SheetLayout, OneOfMany, Overwriting):
    """What `ecg digitise` is asked."""

    path: str | Path = argument(
        "Image of a sheet, scanned, photographed or drawn, or folder of one.", place=True, present="file or folder"
    )
    out: str | Path = argument(
        "Table (.csv, .parquet) or WFDB record (.hea) to write. A table has seconds, millivolts and confidence of "
        "every lead, empty where nothing was read; a record has its .dat beside it, at 500 Hz.",
        named=True,
        place=True,
    )
    together: bool = option(
        "Write all columns as of one moment, for models of signals. They take twelve leads of the same moment; the "
        "record is as long as a column.",
        default=False,
    )
    min_lead_confidence: float = option(
        "Least confidence of what is written of a lead; what is less sure is left out.",
        default=0.0,
        least=0,
        most=1,
    )


@verb(DigitiseOptions)
def digitise(options: DigitiseOptions) -> DigitisedRecord:
    """Read the leads of a printed ECG back into millivolts, and say where that is not sure.

    The paper must show its millimetre grid; 25 mm/s is taken for granted, the gain is read off the calibration pulses.
    Text on the sheet is not read: leads are named by where they stand.

    Returns:
        Every lead with its confidence, and notes on what was assumed.

    Raises:
        MedclipError: Why the image cannot be read; TOO_SMALL; NO_SCALE without a millimetre grid or on a sheet that
            does not lie flat; NOT_AN_IMAGE without traces; NOT_SUPPORTED_YET for another arrangement of leads;
            WRONG_USE for an unknown layout or ending; OUTPUT_IN_USE where a file is there.
    """
    from medclip.ecg.sheets import (
        WRITERS,
        DigitisedRecord,
        check_record_name,
        files_of,
        find_one,
        leads_of,
        read_apart,
        sheet_pixels,
        written_values,
    )
    from medclip.errors import MedclipError
    from medclip.files.output import claim_file
    from medclip.imaging.ecg.sheet.digitise import digitise
    from medclip.inspecting.draw_view import refuse_input
    from medclip.sample import Kind

    out, settings = Path(options.out), settings_of(options)
    check_record_name(out)
    for file in files_of(out):
        claim_file(file, overwrite=options.overwrite)
    source, num_found = find_one(Path(options.path), Kind.IMAGE, options.number, settings)
    for file in files_of(out):
        refuse_input(file, source.paths)
    pixels = read_apart(sheet_pixels, source, settings)
    try:
        sheet = digitise(pixels, layout=options.layout)
    except MedclipError as error:
        raise error.at(source.path) from None
    values, sure = written_values(sheet, options.together, options.min_lead_confidence)
    WRITERS[out.suffix.lower()](out, values, sure, sheet.signal.sampling_hz, sheet.layout)
    return DigitisedRecord(
        out,
        sheet.layout,
        sheet.rhythm,
        leads_of(sheet),
        sheet.notes,
        sheet.grid.px_per_mm,
        sheet.grid.degrees,
        sheet.signal.sampling_hz,
        values,
        sure,
        options.number,
        num_found,
    )
