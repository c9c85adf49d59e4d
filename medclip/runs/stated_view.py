"""Which view of the breast a mammogram is, after table, header and the name of its file were heard."""

from __future__ import annotations

import json
from dataclasses import replace

from medclip.dicom.header.read import DicomHeader
from medclip.files.grouping.mammogram import exam_view
from medclip.runs.read_unit import Reading
from medclip.sample import ViewKind, ViewType


def with_stated_view(reading: Reading, name: str, header: DicomHeader | None, table: ViewType | None) -> Reading:
    """Return a reading of a mammogram with the side and view that its row has.

    Args:
        reading: As its adapter made it, which knows the header alone.
        name: Path of its file; a side in it is never believed, but it may contradict.
        header: Of a DICOM file.
        table: What a table states of it.

    Returns:
        The reading; without a side where two sources contradict, and with what images without a header cannot say
        among its header values: the kind of mammogram, a spot view, that sides contradict.
    """
    view = exam_view(name, header, table=table)
    known = json.loads(reading.headers) if reading.headers else {}
    if view.view.kind != ViewKind.STANDARD:
        known["exam_kind"] = view.view.kind
    if view.modifiers:
        known["view_modifiers"] = list(view.modifiers)
    if view.sides_contradict:
        known["sides_contradict"] = True
    return replace(
        reading,
        laterality=view.view.side or None,
        view=view.view.position or reading.view,
        headers=json.dumps(known) if known else reading.headers,
    )
