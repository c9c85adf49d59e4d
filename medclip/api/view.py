"""The verb `view`: one image that shows what a model would see of a file, beside what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medclip.inspecting.draw_view import Viewed, draw_view
from medclip.runs.planning.options import DEFAULT_MODEL, parse_modality
from medclip.sample import Modality
from medclip.settings import Settings

if TYPE_CHECKING:
    from medclip.models.model import Model


def view(
    path: str | Path,
    out: str | Path,
    modality: Modality | str | None = None,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    number: int = 1,
    settings: Settings | None = None,
    overwrite: bool = False,
) -> Viewed:
    """Draw what the model would see of a file or series, beside the raw image, with the provenance below.

    The image names no file and quotes no identifier from a header; text that is burned into the pixels is shown as
    it is.

    Args:
        path: A file, or the folder of one study.
        out: The PNG to write. It is put in place when it is complete.
        modality: What it shows, where headers do not say.
        model: Name or folder of the pack whose input size is drawn, or a loaded model.
        number: Which of the things found there, from 1.
        settings: Limits and policy.
        overwrite: Replace an existing file, but never one of those that are looked at.

    Returns:
        What was drawn.

    Raises:
        MedclipError: Why it cannot be read; PERMISSION_DENIED where nothing can be written; OUTPUT_IN_USE where a file
            is; WRONG_USE for a number beyond those found, an output that is not .png, is a folder or is the input, and
            a window that the file cannot have.
    """
    return draw_view(
        Path(path), Path(out), parse_modality(modality), model, number, settings or Settings(), overwrite=overwrite
    )
