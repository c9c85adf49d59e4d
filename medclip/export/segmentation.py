"""What a pack of maps marks in a study's images as a DICOM Segmentation: masks of the images' own rows and columns.

Each structure is a segment, and each image of the study that was scored has a frame of it, also an empty one: a viewer
tells what was looked at from what was not. Images of several sizes or series have no object that holds all of them.
UIDs are made of what the object holds, and times are the caller's: equal calls write equal bytes.

Standard: DICOM PS3.3 A.51, C.8.20.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.hashed_uid import hashed_uid
from medclip.dicom.header.elements import quiet
from medclip.export.source_headers import Headers
from medclip.export.structured_report import (
    bytes_of,
    coded_concept,
    equipment_of,
    require_highdicom,
    uid_parts,
)
from medclip.export.study_result import Algorithm, MarkedImage, StudyResult

_SERIES_NUMBER = 9903
"""Behind those of the structured report and of heat maps."""


def segmentation(result: StudyResult, headers: Headers, algorithm: Algorithm, created: datetime) -> bytes:
    """Write the masks of a study as a DICOM file.

    Args:
        result: The answers, with masks.
        headers: Headers of the study's images; at least one.
        algorithm: Algorithm that marked.
        created: Time at which the object counts as made.

    Raises:
        MedclipError: MISSING_CODEC without highdicom.
        ValueError: For images of several sizes, and for what highdicom does not take.
    """
    require_highdicom()
    import highdicom as hd
    from pydicom.sr.codedict import codes

    structures = list(dict.fromkeys(one.structure for one in result.masks))
    images = [header for header in headers.images if _masks_of(result.masks, headers, header)]
    masks_KHWS = np.stack([_stacked(_masks_of(result.masks, headers, image), structures) for image in images])
    parts = uid_parts(result, headers, algorithm, created)
    content = hashlib.sha256(masks_KHWS.tobytes()).hexdigest()
    with quiet("highdicom"), quiet("pydicom"):
        identified = hd.AlgorithmIdentificationSequence(
            algorithm.name, codes.DCM.ArtificialIntelligence, algorithm.version
        )
        segments = [
            hd.seg.SegmentDescription(
                number,
                structure.meaning[:64],
                codes.SCT.MorphologicallyAbnormalStructure,
                coded_concept(structure),
                hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                identified,
            )
            for number, structure in enumerate(structures, 1)
        ]
        written: Any = hd.seg.Segmentation(
            images,
            masks_KHWS,
            hd.seg.SegmentationTypeValues.BINARY,
            segments,
            series_instance_uid=hashed_uid(*parts, "segmentation series"),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=hashed_uid(*parts, "segmentation", content),
            instance_number=1,
            omit_empty_frames=False,
            content_label="MEDCLIP",
            **equipment_of(algorithm, "AI masks"),
        )
        written.ContentDescription = "Marked by a model, checked by nobody. For research."
        for name, value in (("ContentDate", created.strftime("%Y%m%d")), ("ContentTime", created.strftime("%H%M%S"))):
            setattr(written, name, value)
        return bytes_of(written, created)


def _masks_of(masks: Sequence[MarkedImage], headers: Headers, header: Any) -> list[MarkedImage]:
    """Return the masks of one image."""
    return [one for one in masks if headers.uids.get(one.file) == str(header.SOPInstanceUID)]


def _stacked(masks: Sequence[MarkedImage], structures: Sequence[Any]) -> NDArray[np.uint8]:
    """Return the masks of an image by structure, [H, W, S]."""
    from PIL import Image

    decoded = {one.structure: np.asarray(Image.open(BytesIO(one.png)), np.uint8) for one in masks}
    size = next(iter(decoded.values())).shape
    return np.stack([decoded.get(structure, np.zeros(size, np.uint8)) for structure in structures], axis=-1)
