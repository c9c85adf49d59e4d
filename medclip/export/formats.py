"""The forms that runs and audits are written in for others: one table of names. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.lazy import Table

Whole = Literal["tables", "study", "audit"]
"""What is written: the tables of a run, each study of a run, or an audit."""


@dataclass(frozen=True)
class Format:
    """One row of the table."""

    title: str
    of: Whole
    target: str
    """module:function. Of tables: the run's folder to nothing, it writes beside them. Of a study: `StudyResult`, its
    `Headers`, `Algorithm` and the time that it counts as made, to bytes. Of an audit: `AuditResult` and the sentences
    of its summary, by heading, to text."""
    file: str = ""
    """Name of the file that an audit is written to; of studies, which have one each, its suffix."""
    about: str = ""
    """What help says of it in brackets."""
    needs_header: bool = False
    """A study without DICOM headers has none."""
    needs_map: bool = False
    """It is of a heat map, which the model draws."""
    needs_masks: bool = False
    """It is of what a pack of maps marked, and of no answer."""
    names_earlier: bool = False
    """It names those that it replaces: the target takes files of earlier results, as `earlier`."""

    fhir_version: str = ""
    """What the version of FHIR begins with that a server has to speak, which takes it; "" where none does."""

    @property
    def is_dicom(self) -> bool:
        """Whether a PACS takes it."""
        return self.file == ".dcm"


_ROWS: dict[str, Format] = {
    "csv": Format("CSV tables", "tables", "medclip.runs.outputs.results:write_csv_tables"),
    "sr": Format(
        "DICOM SR",
        "study",
        "medclip.export.structured_report:structured_report",
        ".dcm",
        about="DICOM SR",
        needs_header=True,
        names_earlier=True,
    ),
    "sc": Format(
        "DICOM heat map",
        "study",
        "medclip.export.heat_map_image:heat_map_image",
        ".dcm",
        about="the heat map of the most probable finding as a DICOM image; sc:TASK:CLASS of another",
        needs_header=True,
        needs_map=True,
        names_earlier=True,
    ),
    "seg": Format(
        "DICOM SEG",
        "study",
        "medclip.export.segmentation:segmentation",
        ".dcm",
        about="masks of a pack that marks structures, as DICOM segmentations",
        needs_header=True,
        needs_masks=True,
    ),
    "fhir-r4b": Format(
        "FHIR R4B", "study", "medclip.export.fhir:fhir_r4b", ".json", names_earlier=True, fhir_version="4"
    ),
    "fhir-r5": Format(
        "FHIR R5",
        "study",
        "medclip.export.fhir:fhir_r5",
        ".json",
        names_earlier=True,
        fhir_version="5",
    ),
    "chai": Format(
        "CHAI model card", "audit", "medclip.export.applied_model_card:applied_model_card", "applied_model_card.xml"
    ),
    "tripod": Format("TRIPOD+AI", "audit", "medclip.export.checklists:tripod_checklist", "tripod_ai.md"),
    "claim": Format("CLAIM", "audit", "medclip.export.checklists:claim_checklist", "claim.md"),
}
FORMATS = Table("medclip.formats", _ROWS)
"""Forms by name, which is that of the folder of their studies, too."""
_OWNERS: Mapping[Whole, str] = {"tables": "results have", "study": "results have", "audit": "an audit has"}


def formats_of(*wholes: Whole) -> dict[str, Format]:
    """Return the forms of tables, of studies, of audits."""
    return {name: form for name, form in FORMATS.items() if form.of in wholes}


def check_formats(names: Iterable[str], *wholes: Whole) -> None:
    """Refuse a form that there is not of these.

    Raises:
        MedclipError: WRONG_USE.
    """
    forms = formats_of(*wholes)
    for name in names:
        if name not in forms:
            hint = did_you_mean(name, forms, "Formats are")
            raise MedclipError(Reason.WRONG_USE, f"{_OWNERS[wholes[0]]} no format {name!r}.", hint=hint)
