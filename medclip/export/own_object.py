"""What all DICOM objects that medclip writes of a study have in common: identity, who wrote them, and their bytes."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO
from typing import Any

from medclip.export.source_headers import Headers
from medclip.export.study_result import Algorithm, StudyResult

IMPLEMENTATION = "2.25.98217650733871254308861337480243214527"
"""Implementation Class UID of medclip."""


def uid_parts(result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime) -> tuple[str, ...]:
    """Return what the UIDs of a study's objects are hashed from: the same results have the same ones."""
    study = str(headers.first.StudyInstanceUID)
    return study, result.key, algorithm.digest, algorithm.medclip, created.isoformat()


def equipment_of(algorithm: Algorithm, description: str) -> dict[str, Any]:
    """Return the arguments of highdicom that say what wrote an object, and how its series is called."""
    version = f"{algorithm.name} {algorithm.version}"
    return {
        "manufacturer": "medclip",
        "manufacturer_model_name": version[:64],
        "software_versions": algorithm.medclip,
        "device_serial_number": algorithm.digest[:16],
        "series_description": f"{description}, {version}"[:64],
        "specific_character_set": "ISO_IR 192",
    }


def bytes_of(dataset: Any, created: datetime) -> bytes:
    """Return the file of an object; what highdicom dates by the clock is dated `created`."""
    from pydicom.valuerep import DA, DT, TM

    dataset.InstanceCreationDate, dataset.InstanceCreationTime = DA(created.date()), TM(created.time())
    for item in dataset.get("ContributingEquipmentSequence") or ():  # highdicom itself
        item.ContributionDateTime = DT(created.strftime("%Y%m%d%H%M%S"))
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION
    dataset.file_meta.ImplementationVersionName = "MEDCLIP"
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
