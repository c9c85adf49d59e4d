"""The modality that a DICOM header names."""

from __future__ import annotations

from medclip.dicom.header.codes import ECG_CLASSES, MODALITIES, SOP_MODALITIES, TO_BE_INFERRED
from medclip.dicom.header.read import DicomHeader
from medclip.sample import Modality


def modality_code(header: DicomHeader) -> str:
    """Return the DICOM modality code, from the SOP class where the Modality element does not say."""
    if header.modality in TO_BE_INFERRED:
        return SOP_MODALITIES.get(header.sop_class, header.modality)
    return header.modality


def modality_from_header(header: DicomHeader) -> Modality | None:
    """Return the modality that a DICOM header names; None where it must be inferred or medclip has no name for it."""
    if header.sop_class in ECG_CLASSES:
        return Modality.ECG  # whatever the device calls itself: some ECG carts write "ECG", some "HD" or nothing
    return MODALITIES.get(modality_code(header))
