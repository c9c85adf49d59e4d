"""Read the pixels of a record again: from the slide that it names, and from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.captioning.patch_reading import pixels_sha256
from medclip.captioning.write_records import PatchRecord
from medclip.errors import MedclipError, Reason
from medclip.imaging.slides.readers.pyramid import SlideReader


def reread_pixels(reader: SlideReader, record: PatchRecord | Mapping[str, Any]) -> NDArray[np.uint8]:
    """Read what a record was made of.

    Args:
        reader: Its slide, opened with the scale that it was opened with (of a slide that states none).
        record: A row of records.parquet, or what a sample's JSON has under `slide`.

    Returns:
        RGB uint8 [size_px, size_px, 3]: the very pixels.

    Raises:
        MedclipError: CHANGED where they are others; what reading raises.
    """
    facts = vars(record) if isinstance(record, PatchRecord) else record
    pixels = reader.read(facts["top_um"], facts["left_um"], facts["size_px"], facts["size_px"], facts["mpp_um"])
    if pixels_sha256(pixels) != facts["pixels_sha256"]:
        raise MedclipError(Reason.CHANGED, "the slide has other pixels there than the record: it is another slide.")
    return pixels
