"""What this version reads, and the sentence for everything it does not."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medclip.errors import Problem, Reason
from medclip.files.dicom_header import TO_BE_INFERRED, DicomHeader, modality_code
from medclip.files.sniff import Format

READS = "this version reads projection X-ray and mammography DICOM, PNG, JPEG and TIFF"
SCORABLE_FORMATS = frozenset({Format.DICOM, Format.PNG, Format.JPEG, Format.TIFF})
PROJECTION_CODES = frozenset({"CR", "DX", "MG"}) | TO_BE_INFERRED
"""DICOM modality codes whose single-frame pixels are read."""

_NOT_YET: Mapping[Format, str] = {
    Format.SLIDE: "a whole-slide image",
    Format.GIF: "a GIF image",
    Format.BMP: "a BMP image",
    Format.WEBP: "a WebP image",
    Format.JPEG2000: "a JPEG 2000 image",
    Format.NIFTI: "a NIfTI volume",
    Format.NRRD: "an NRRD volume",
    Format.METAIMAGE: "a MetaImage volume",
    Format.MINC: "a NetCDF or MINC volume",
    Format.WFDB: "a WFDB signal header",
    Format.EDF: "an EDF or BDF recording",
    Format.SCP_ECG: "an SCP-ECG recording",
    Format.XML_ECG: "an ECG stored as XML",
    Format.MATLAB: "a MATLAB file",
    Format.HDF5: "an HDF5 file",
    Format.MP4: "an MP4 or QuickTime video",
    Format.AVI: "an AVI video",
    Format.ZIP: "a ZIP archive; unpack it first",
    Format.GZIP: "a gzip archive; unpack it first",
}
_COMPANIONS: Mapping[Format, str] = {
    Format.PDF: "a PDF document",
    Format.HTML: "an HTML page",
    Format.XML: "an XML document",
    Format.JSON: "a JSON file",
    Format.CSV: "a table of text",
    Format.TEXT: "a text file",
}
_DICOM_NAMES: Mapping[str, str] = {
    "CT": "a CT image",
    "MR": "an MR image",
    "US": "an ultrasound image",
    "NM": "a nuclear medicine image",
    "PT": "a PET image",
    "XA": "an angiography image",
    "RF": "a fluoroscopy image",
    "SM": "a whole-slide image",
    "OP": "an ophthalmic photograph",
    "OPT": "an optical coherence tomography image",
    "XC": "a photograph",
    "ES": "an endoscopy image",
    "IO": "an intra-oral X-ray image",
    "PX": "a panoramic dental X-ray image",
}
_MAPS = frozenset({"SEG", "RTDOSE", "RWV", "REG"})
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_DOCUMENTS: Mapping[str, str] = {
    "SR": "a structured report",
    "KO": "a key object selection",
    "PR": "a presentation state",
    "RTSTRUCT": "a radiotherapy structure set",
    "RTPLAN": "a radiotherapy plan",
    "DOC": "an encapsulated document",
}
_IMAGE_CLASS = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(?:1|2|3|4|6|7|12|13|20|77|128|130|481\.1)(?:\.|$)")
"""SOP classes of images, by the first number behind the common stem (DICOM PS3.4, table B.5-1)."""
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."


def format_problem(fmt: Format) -> Problem | None:
    """Say why a format is not scored; None for the formats that are read."""
    if fmt in SCORABLE_FORMATS:
        return None
    if fmt is Format.EMPTY:
        return Problem(Reason.EMPTY_FILE, "The file is empty (0 bytes).")
    if fmt is Format.DICOMDIR:
        return Problem(Reason.NO_PIXELS, "The file is a DICOMDIR, an index of other files, and holds no image.")
    if fmt in _NOT_YET:
        return Problem(Reason.NOT_SUPPORTED_YET, f"The file is {_NOT_YET[fmt]}; {READS}.")
    if fmt in _COMPANIONS:
        return Problem(Reason.NOT_AN_IMAGE, f"The file is {_COMPANIONS[fmt]}, not an image.")
    return Problem(Reason.UNKNOWN_FORMAT, f"The file's bytes match no format known here; {READS}.")


def dicom_problem(header: DicomHeader) -> Problem | None:
    """Say why a DICOM object is not scored; None for single-frame projection images."""
    code = modality_code(header)
    if header.sop_class.startswith(_WAVEFORMS):
        return Problem(Reason.NOT_SUPPORTED_YET, f"The DICOM object is a waveform, such as an ECG; {READS}.")
    if header.cut and (header.rows or header.columns or not header.sop_class or _IMAGE_CLASS.match(header.sop_class)):
        return Problem(Reason.TRUNCATED, "The DICOM file ends inside its header, before any pixels.")
    if not header.has_pixels:
        what = _DOCUMENTS.get(code)
        detail = f" ({what})" if what else ""
        return Problem(
            Reason.NO_PIXELS, f"The DICOM object{detail} holds no pixel data, so there is no image to score."
        )
    if code in _MAPS:
        return Problem(Reason.NOT_AN_IMAGE, "The DICOM object is a map over other images, not an image itself.")
    if header.float_pixels or header.sop_class.startswith(_PARAMETRIC_MAP):
        return Problem(Reason.NOT_SUPPORTED_YET, f"The DICOM object is a parametric map; {READS}.")
    if code not in PROJECTION_CODES:
        what = _DICOM_NAMES.get(code, "an image of another modality")
        return Problem(Reason.NOT_SUPPORTED_YET, f"The DICOM object is {what}; {READS}.")
    if header.frames > 1:
        return Problem(
            Reason.NOT_SUPPORTED_YET,
            f"The DICOM object holds {header.frames} frames; this version reads single-frame images.",
        )
    return None
