"""What the stage `tissue` leaves of a slide: the mask as a 1-bit PNG that says what it is of, and its outlines.

The PNG is one pixel for one pixel of the mask; its text chunk `medclip` is JSON with µm/px, shares, notes, and the
hashes of slide and options by which the next stage knows it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from medclip.files.output import write_file
from medclip.imaging.slides.tissue.find import TissueMask

TISSUE = "tissue"
_CHUNK = "medclip"


def write_tissue(path: Path, tissue: TissueMask, identity: Mapping[str, Any]) -> None:
    """Write a mask.

    Args:
        path: The PNG.
        tissue: The mask.
        identity: Identity of the mask: hashes of the slide and of the options.

    Raises:
        MedclipError: As `medclip.files.output.disk_errors`.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    facts = {
        **identity,
        "mpp_um": list(tissue.mpp_um),
        "pen_share": tissue.pen_fraction,
        "problem": tissue.problem,
        "notes": list(tissue.notes),
    }
    chunk = PngInfo()
    chunk.add_itxt(_CHUNK, json.dumps(facts, sort_keys=True))
    buffer = io.BytesIO()
    Image.fromarray(tissue.mask).save(buffer, format="PNG", pnginfo=chunk)
    write_file(path, buffer.getvalue())


def read_tissue(path: Path, identity: Mapping[str, Any]) -> TissueMask | None:
    """Read a mask back; None where there is none, it cannot be read, or it is of another slide or other options."""
    from PIL import Image

    with suppress(OSError, ValueError, KeyError, TypeError, SyntaxError), Image.open(path) as image:
        facts = json.loads(image.text[_CHUNK])  # pyright: ignore[reportAttributeAccessIssue] (a PNG has it)
        if all(facts.get(name) == value for name, value in identity.items()):
            rows, columns = facts["mpp_um"]
            mask = np.array(image.convert("1"), bool)
            return TissueMask(mask, (rows, columns), facts["pen_share"], facts["problem"], tuple(facts["notes"]))
    return None
