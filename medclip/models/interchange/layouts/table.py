"""The table of layouts: which one a place is in, or an error that says what was seen and what would be understood."""

from __future__ import annotations

from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.lazy import import_name, plug_ins
from medclip.models.interchange.layouts import (
    conch,
    dinov2,
    hf_clip,
    hf_siglip,
    open_clip_layouts,
    timm_layouts,
)
from medclip.models.interchange.layouts.layout import Layout, Place, Source, described, no_weights
from medclip.models.interchange.layouts.open_clip_layouts import OPEN_CLIP_WEIGHTS

LAYOUTS: tuple[Layout, ...] = (
    open_clip_layouts.COCA,
    open_clip_layouts.FOLDER,
    hf_clip.LAYOUT,
    hf_siglip.LAYOUT,
    conch.LAYOUT,
    timm_layouts.FOLDER,
    dinov2.LAYOUT,
    timm_layouts.CHECKPOINT,
    open_clip_layouts.CHECKPOINT,
)
"""Asked in this order; the first that matches reads the place. A bare checkpoint says least and comes last."""
ENTRY_POINTS = "medclip.layouts"


def every_layout() -> tuple[Layout, ...]:
    """Return the layouts in the order in which they are asked: those of other packages before those of the table."""
    brought = plug_ins(ENTRY_POINTS, {row.name for row in LAYOUTS})
    return (*map(import_name, brought.values()), *LAYOUTS)


def read_layout(path: Path, architecture: str | None = None, scratch: Path | None = None) -> Source:
    """Read what a file or folder of somebody else's is.

    Args:
        path: The file or folder.
        architecture: open_clip architecture that the user named for it.
        scratch: Folder for pickles that are converted to be looked into.

    Raises:
        MedclipError: PACK_INVALID where no layout matches; MISSING_FILE for a folder without weights; what the layout
            that matches raises.
    """
    place = Place(path, architecture, scratch)
    layout = next((row for row in every_layout() if row.matches(place)), None)
    if layout is not None:
        return layout.read(place)
    weights = place.find_weights(*OPEN_CLIP_WEIGHTS)
    if not weights and not place.config:
        raise no_weights(path)
    layouts = "; ".join(f"{row.title}: {row.looks_like}" for row in every_layout())
    raise MedclipError(
        Reason.PACK_INVALID,
        f"this is no layout of a model that medclip knows; seen were {described(place, weights) or 'no tensors'}.",
        where=path,
        hint=f"Understood are: {layouts}.",
    )
