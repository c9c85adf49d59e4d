"""How tables write a modality: our own names, DICOM's codes and the words of the field."""

from __future__ import annotations

from collections.abc import Mapping

from medclip.sample import Modality

SPELLINGS: Mapping[Modality, str] = {
    Modality.XRAY: "X-ray, X-rays, XR, CXR, chest X-ray, radiograph, radiography, plain film, CR, DX, DR, RX",
    Modality.MAMMOGRAPHY: "MG, MMG, mammogram, mammo, FFDM",
    Modality.CT: "CT scan, CAT scan, computed tomography, CCT",
    Modality.MRI: "MR, MRT, MR imaging, MRI scan, magnetic resonance, magnetic resonance imaging",
    Modality.ULTRASOUND: "US, USG, ultrasonography, sonography, sonogram, echo, echocardiography, IVUS, BMUS",
    Modality.PATHOLOGY: "SM, GM, WSI, whole-slide image, histopathology, histology, H&E, slide",
    Modality.FUNDUS: "OP, CFP, fundus photo, fundus photograph, fundus photography, colour fundus, color fundus",
    Modality.DERMATOLOGY: "DMS, dermoscopy, dermatoscopy",
    Modality.ENDOSCOPY: "ES, colonoscopy, gastroscopy",
    Modality.OCT: "OPT, optical coherence tomography",
    Modality.ECG: "EKG, electrocardiogram, 12-lead ECG",
}
"""Beside the modality's own name. Codes are DICOM's (CID 29 of PS3.16), other abbreviations those of the field."""


def modality_of_name(text: str) -> Modality | None:
    """Return the modality that a cell names; case, blanks, dashes and underscores do not count.

    Returns:
        The modality; None where nobody calls one so.

    Example:
        >>> [str(modality_of_name(name)) for name in ("X-Ray", "ct_scan", "MR")]
        ['xray', 'ct', 'mri']
        >>> modality_of_name("PET") is None
        True
    """
    return _BY_LETTERS.get(_letters(text))


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


_BY_LETTERS = {
    _letters(spelling): modality
    for modality, spellings in SPELLINGS.items()
    for spelling in (modality, *spellings.split(","))
}
