"""A table of one's own: the columns of a table for shards, with what is known of each breast in words of BI-RADS.

`density` (A to D), `birads`, `findings` (a list in JSON), `cancer` or `pathology`, `implant`; and the label columns of
mammography tasks, which say that a finding is there or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.cells import shown
from medclip.files.tables.mammography.mammogram_row import (
    BREAST_CANCER,
    Cells,
    MammogramRow,
    Reading,
    birads_of,
    composition_of,
    flag_of,
    images_of,
    side_of,
)
from medclip.sample import VIEW_KINDS
from medclip.text.breast_record import (
    CALCIFICATION,
    COMPOSITIONS,
    FINDINGS_TASK,
    LYMPH_NODE,
    PATHOLOGIES,
    BreastFinding,
    record_of,
)

COLUMNS = ("file", "patient", "laterality", "view")
USES = (
    *COLUMNS,
    "study",
    "view_kind",
    "exam_date",
    "age",
    "split",
    "report",
    "caption",
    "captions",
    "source",
    "license",
    "density",
    "birads",
    "findings",
    "cancer",
    "pathology",
    "implant",
)
FILE = "{file}"
_LABEL = f"label:{FINDINGS_TASK}:"


def read(rows: Sequence[Cells], more: Sequence[Cells] | None, images: Path) -> Reading:
    """Read it, one row an image."""
    del more, images
    return Reading(images_of(rows, ("file",), _image))


def _image(rows: Sequence[Cells]) -> MammogramRow:
    row = rows[0]
    side = side_of(row.get("laterality", ""))
    values: dict[str, object] = {
        "view": row.get("view", "").upper(),
        "view_kind": _word(row, "view_kind", VIEW_KINDS) or "standard",
        "birads": birads_of(row.get("birads", "") or row.get("label:breast_birads", "").removeprefix("birads_")),
        "implant": flag_of(row.get("implant", "")),
        "pathology": _word(row, "pathology", PATHOLOGIES) or _word(row, "label:mammography_malignancy", PATHOLOGIES),
    }
    cancer = flag_of(row.get("cancer", ""))
    if cancer is not None:
        if values["pathology"] and cancer != (values["pathology"] == "malignant"):
            raise MedclipError(
                Reason.TABLE_INVALID, f"`cancer` is {int(cancer)}, and the pathology {values['pathology']}."
            )
        values["cancer"] = int(cancer)
    if row.get("findings"):
        values["findings"] = _json(row["findings"])
    record = record_of(values, side)
    record = replace(record, composition=_composition(row))
    stated = {name.removeprefix(_LABEL): cell for name, cell in row.items() if name.startswith(_LABEL) and cell}
    if stated and not row.get("findings"):
        present = [kind for kind, cell in stated.items() if flag_of(cell)]
        record = replace(
            record,
            findings=tuple(
                BreastFinding(k, suspicious=True if k in (CALCIFICATION, LYMPH_NODE) else None) for k in present
            ),
            absent=tuple(kind for kind in stated if kind not in present),
        )
    labels = {} if cancer is None else {BREAST_CANCER: str(int(cancer))}  # 0 is neither normal nor benign
    labels |= {name: cell for name, cell in row.items() if name.startswith("label:") and cell}
    kept = {name: row.get(name, "") for name in ("study", "exam_date", "age", "split", "report")}
    texts = tuple(
        t for cell in (row.get("caption", ""), row.get("captions", "")) for t in cell.split("\n") if t.strip()
    )
    return MammogramRow(
        row.get("file", ""), row.get("patient", ""), record, texts=texts, labels=labels, source=row, **kept
    )


def _word(row: Cells, column: str, words: Sequence[str]) -> str:
    """Return a cell in small letters.

    Raises:
        MedclipError: TABLE_INVALID for a word that is none of the known ones.
    """
    value = row.get(column, "").strip().lower()
    if value and value not in words:
        hint = did_you_mean(value, words, "It is one of")
        raise MedclipError(Reason.TABLE_INVALID, f"`{column}` is {shown(value)}.", hint=hint)
    return value


def _composition(row: Cells) -> str:
    value = row.get("density", "").strip()
    composition = composition_of(value)
    if value and not composition:
        raise MedclipError(Reason.TABLE_INVALID, f"`density` is {shown(value)}.", hint="Use A to D, or 1 to 4.")
    return composition or _word(row, "label:breast_composition", tuple(COMPOSITIONS.values()))


def _json(cell: str) -> list[dict[str, object]]:
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError) as e:
        values = None if cell else e
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise MedclipError(
            Reason.TABLE_INVALID,
            "`findings` is no list of findings in JSON.",
            hint='Write for instance [{"type": "mass", "quadrant": "upper outer", "shape": "oval"}].',
        )
    return values
