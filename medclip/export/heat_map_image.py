"""A heat map of a study as a DICOM image: a Secondary Capture in a series of its own, beside the images it is of.

It shows the image in grey with the map in colour, and below it what it is: model, finding, probability, and that
it is for research. It says what it was drawn from in Source Image Sequence. It is no parametric map: the adapter may
have cut or turned the image, and a viewer would lay values over the wrong places.

Patient and study are those of the images' headers. UIDs are made of what the object holds, and times are the caller's:
equal calls write equal bytes. Pixels are JPEG, as an image for the eye may be. One that replaces another names it in
Referenced Image Sequence; the standard has no code for that, so that the purpose is one of ours.

Standard: DICOM PS3.3 A.8.1, C.12.4.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.hashed_uid import hashed_uid
from medclip.dicom.header.elements import quiet
from medclip.export.earlier_results import newest, reference_to
from medclip.export.source_headers import Headers
from medclip.export.structured_report import bytes_of, equipment_of, require_highdicom, uid_parts, uids_of
from medclip.export.study_result import Algorithm, DrawnMap, StudyResult

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SERIES_NUMBER = 9902
"""Behind that of the structured report."""
_LINE_PX, _LETTER_PX = 18, 7.5
_CAUTION = "Where the score comes from, not where a finding is. For research; not a medical device."


def heat_map_image(
    result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime, earlier: Sequence[bytes] = ()
) -> bytes:
    """Write the heat map of a study as a DICOM file.

    Args:
        result: The answers, with a heat map.
        headers: Headers of the study's images; at least one.
        algorithm: Algorithm that answered.
        created: Time at which the image counts as made.
        earlier: Files of earlier heat maps of the study, which this one replaces.

    Returns:
        The bytes of the file; those of an earlier one that shows the same.

    Raises:
        MedclipError: MISSING_CODEC without highdicom.
    """
    require_highdicom()
    return newest(partial(_image, result, headers, algorithm, created), earlier)


def _image(
    result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime, replaced: Sequence[Dataset]
) -> bytes:
    import highdicom as hd
    from pydicom.uid import JPEGBaseline8Bit
    from pydicom.valuerep import DA, TM

    drawn = result.drawn
    assert drawn is not None
    version = f"{algorithm.name} {algorithm.version}"
    pixels = captioned(drawn, version)
    first = headers.first
    parts = uid_parts(result, headers, algorithm, created)
    content = hashlib.sha256(pixels.tobytes()).hexdigest()
    with quiet("highdicom"), quiet("pydicom"):
        image: Any = hd.sc.SCImage.from_ref_dataset(
            first,
            pixel_array=pixels,
            photometric_interpretation="YBR_FULL_422",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # emptied below: the adapter may have turned the image
            series_instance_uid=hashed_uid(*parts, "heat map series"),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=hashed_uid(*parts, drawn.finding, drawn.image, content, *uids_of(replaced)),
            instance_number=1,
            **equipment_of(algorithm, "AI heat map"),
            transfer_syntax_uid=JPEGBaseline8Bit,
        )
        _describe(image, drawn, headers)
        if replaced:
            image.ReferencedImageSequence = [reference_to(old) for old in replaced]
        image.ConversionType = "WSD"
        image.PatientOrientation = image.Laterality = None
        image.BurnedInAnnotation = "NO"  # the words below the image name nobody
        image.LossyImageCompression = "01"
        image.LossyImageCompressionMethod = "ISO_10918_1"
        size = len(image.PixelData)
        image.LossyImageCompressionRatio = f"{pixels.size / size:.2f}"
        for name in ("ContentDate", "DateOfSecondaryCapture"):
            setattr(image, name, DA(created.date()))
        for name in ("ContentTime", "TimeOfSecondaryCapture"):
            setattr(image, name, TM(created.time()))
        return bytes_of(image, created)


def _describe(image: Any, drawn: DrawnMap, headers: Headers) -> None:
    """Describe what the image shows, and name what it was drawn from."""
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes

    image.DerivationDescription = f"Heat map of what raises the score: {drawn.described}"
    image.ImageComments = _CAUTION
    sources = []
    for header in headers.of_files(drawn.files):
        purpose, source = Dataset(), Dataset()
        code = codes.DCM.SourceImageForImageProcessingOperation
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, "DCM", code.meaning
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        source.PurposeOfReferenceCodeSequence = [purpose]
        sources.append(source)
    if sources:
        image.SourceImageSequence = sources


def captioned(drawn: DrawnMap, model: str) -> NDArray[np.uint8]:
    """Write below a heat map what it is, since a viewer may show the pixels alone.

    Args:
        drawn: The map.
        model: Name and version of the model.

    Returns:
        [H, W, 3], higher than the map.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width, _ = drawn.pixels.shape
    words = f"{model}: {drawn.described}. {_CAUTION}"
    lines = textwrap.wrap(words, max(20, int((width - 12) / _LETTER_PX)))
    sheet = Image.new("RGB", (width, height + 8 + _LINE_PX * len(lines)))
    sheet.paste(Image.fromarray(drawn.pixels))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, line in enumerate(lines):
        draw.text((6, height + 4 + number * _LINE_PX), line, fill=(255, 255, 255), font=font)
    return np.asarray(sheet)
