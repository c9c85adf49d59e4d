"""`medclip ecg render` and `medclip ecg digitise`: records to paper sheets and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options
from medclip.exit_codes import ExitCode

_Number = Annotated[int, typer.Option("--number", help="Which image, series or record of a folder, from 1.")]


def render(
    path: Annotated[
        Path, typer.Argument(help="Record of any ECG format, or folder of one.", show_default=False, readable=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    layout: Annotated[
        str, typer.Option("--layout", help="Rows x columns of leads + strips: 3x4, 3x4+1, 3x4+3, 6x2 or 12x1.")
    ] = "3x4+1",
    grid: Annotated[str, typer.Option("--grid", help="Colour: red, pink, brown, blue, green or grey.")] = "red",
    dpi: Annotated[int, typer.Option("--dpi", help="Dots per inch, 50 to 400.")] = 200,
    mm_per_mv: Annotated[float, typer.Option("--mm-per-mv", help="Gain: 5, 10 or 20.")] = 10.0,
    start_s: Annotated[
        float | None, typer.Option("--start-s", help="Second that the sheet begins with. Default: the middle ten.")
    ] = None,
    filtered: Annotated[bool, typer.Option("--filtered", help="Take out the wander of the baseline.")] = False,
    header: Annotated[str, typer.Option("--header", help="A line of text above the leads.")] = "",
    photograph: Annotated[
        int | None, typer.Option("--photograph", min=0, metavar="SEED", help="Spoil it as a photograph would.")
    ] = None,
    map_out: Annotated[
        Path | None, typer.Option("--map-out", help="A JSON file that says where every lead lies.")
    ] = None,
    number: _Number = 1,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Draw ten seconds of a record as a paper sheet: 25 mm/s on a millimetre grid. Nothing of its header is written.

    Exit code: 0 drawn, 2 it cannot be read, or wrong use.
    """
    from medclip.ecg.rendered_sheet import render_record
    from medclip.errors import printable

    sheet = render_record(
        path,
        out,
        layout=layout,
        grid=grid,
        dpi=dpi,
        mm_per_mv=mm_per_mv,
        start_s=start_s,
        filtered=filtered,
        header=header,
        photograph=photograph,
        map_out=map_out,
        number=number,
        overwrite=overwrite,
    )
    if as_json:
        fields = {**vars(sheet), "out": str(sheet.out), "map": asdict(sheet.map)}
        print(json.dumps(fields))
        return ExitCode.COMPLETE
    places = sheet.map
    if sheet.num_found > 1:
        print(f"{sheet.number} of {sheet.num_found}: --number N for another")
    print(f"Layout {places.layout}, {places.width_px} x {places.height_px} px, {places.px_per_mm:.2f} px/mm")
    if sheet.missing_leads:
        print(f"No usable signal: {', '.join(sheet.missing_leads)}")
    print(f"Written: {printable(str(sheet.out))}")
    return ExitCode.COMPLETE


def digitise(
    path: Annotated[
        Path, typer.Argument(help="Image of a sheet, or folder of one.", show_default=False, readable=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Table (.csv, .parquet) or WFDB record (.hea) to write.")],
    layout: Annotated[
        str | None, typer.Option("--layout", help="Rows x columns of leads + strips: 3x4, 3x4+1, 3x4+3, 6x2 or 12x1.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="Write all columns as of one moment, for models of signals.")
    ] = False,
    least_confidence: Annotated[
        float, typer.Option("--least-confidence", min=0, max=1, help="Leave out what is less sure than this.")
    ] = 0.0,
    number: _Number = 1,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> int:
    """Read the leads of a printed ECG back into millivolts, and say where that is not sure.

    Exit code: 0 all twelve leads read and sure, 3 written but some leads are missing or in doubt, 2 it cannot be read,
    or wrong use.
    """
    from medclip.ecg.digitised_record import digitise_sheet
    from medclip.errors import printable

    record = digitise_sheet(
        path,
        out,
        layout=layout,
        together=together,
        least_confidence=least_confidence,
        number=number,
        overwrite=overwrite,
    )
    code = ExitCode.COMPLETE if record.all_sure else ExitCode.SOME_FAILED
    if as_json:
        fields = {k: v for k, v in vars(record).items() if k not in ("values_mv", "confidence")}
        fields |= {"out": str(record.out), "leads": [asdict(lead) for lead in record.leads]}
        print(json.dumps(fields | {"all_sure": record.all_sure}))
        return code
    if record.num_found > 1:
        print(f"{record.number} of {record.num_found}: --number N for another")
    strips = f", strips of {', '.join(record.rhythm)}" if record.rhythm else ""
    print(f"Layout {record.layout}{strips}, {record.px_per_mm:.2f} px/mm, turned by {record.degrees:.1f} degrees")
    for lead in record.leads:
        doubt = "" if lead.sure else "  not found" if not lead.seconds else "  not sure"
        print(f"  {lead.lead:<4} {lead.seconds:5.2f} s  confidence {lead.confidence:.2f}{doubt}")
    for note in record.notes:
        print(note)
    print(f"Written: {printable(str(record.out))}")
    return code
