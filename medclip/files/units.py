"""Say which files are read together, as what: pictures, sorted series, records, slides."""

from __future__ import annotations

from collections.abc import Mapping

from medclip.files.dicom_header import modality_code
from medclip.files.inspect import FileFacts
from medclip.files.sniff import Format
from medclip.sample import Kind

_BY_FORMAT: Mapping[Format, Kind] = {
    Format.NIFTI: Kind.VOLUME,
    Format.MINC: Kind.VOLUME,
    Format.NRRD: Kind.VOLUME,
    Format.METAIMAGE: Kind.VOLUME,
    Format.SLIDE: Kind.SLIDE,
    Format.WFDB: Kind.SIGNAL,
    Format.EDF: Kind.SIGNAL,
    Format.SCP_ECG: Kind.SIGNAL,
    Format.XML_ECG: Kind.SIGNAL,
    Format.MATLAB: Kind.SIGNAL,
    Format.MP4: Kind.CINE,
    Format.AVI: Kind.CINE,
}
_SLICES = frozenset({"CT", "MR"})
_SLIDES = frozenset({"SM"})
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."


def kind_of(facts: FileFacts) -> Kind:
    """Say what one file on its own is.

    CT and MR objects are volumes even where there is a single slice; other DICOM objects of several frames are cine.
    """
    header = facts.header
    if facts.format is not Format.DICOM or header is None:
        return _BY_FORMAT.get(facts.format, Kind.IMAGE)
    if header.sop_class.startswith(_WAVEFORMS):
        return Kind.SIGNAL
    code = modality_code(header)
    if code in _SLIDES:
        return Kind.SLIDE
    if code in _SLICES:
        return Kind.VOLUME
    return Kind.CINE if header.frames > 1 else Kind.IMAGE
