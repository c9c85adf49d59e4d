"""`medclip ecg render` and `medclip ecg digitise`: records to paper sheets and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from medclip.api import ecg as verbs
from medclip.cli.derive import derive
from medclip.errors import printable
from medclip.exit_codes import ExitCode


def print_sheet(sheet: Any, as_json: bool, _: Any) -> None:
    """Print what was drawn."""
    if as_json:
        fields = {**vars(sheet), "out": str(sheet.out), "map": asdict(sheet.map)}
        print(json.dumps(fields))
        return
    places = sheet.map
    if sheet.num_found > 1:
        print(f"{sheet.number} of {sheet.num_found}: --number N for another")
    print(f"Layout {places.layout}, {places.width_px} x {places.height_px} px, {places.px_per_mm:.2f} px/mm")
    if sheet.missing_leads:
        print(f"No usable signal: {', '.join(sheet.missing_leads)}")
    print(f"Written: {printable(str(sheet.out))}")


def print_record(record: Any, as_json: bool, _: Any) -> int:
    """Print what was read of each lead, and how sure it is."""
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


render = derive(verbs.render, print_sheet, exit_codes="0 drawn")
digitise = derive(
    verbs.digitise,
    print_record,
    exit_codes="0 all twelve leads read and sure, 3 written but some leads are missing or in doubt",
)
