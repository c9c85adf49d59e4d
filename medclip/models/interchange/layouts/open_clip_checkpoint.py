"""A bare state dict or training checkpoint in open_clip's names (OpenAI's are the same): it says nothing of itself."""

from __future__ import annotations

from medclip.models.interchange.layouts.layout import Layout, Place, Source, no_weights
from medclip.models.interchange.layouts.open_clip_folder import OPEN_CLIP_WEIGHTS

_IMAGE = "visual."
_TEXT = ("text.", "transformer.resblocks.", "token_embedding.")


def _matches(place: Place) -> bool:
    if place.architecture is not None:
        return True
    if place.path.is_dir():  # a folder must say what it is, or the user must
        return False
    names = place.tensors((place.path,))
    two_towers = any(n.startswith(_IMAGE) for n in names) and any(n.startswith(_TEXT) for n in names)
    return not names or two_towers  # nothing is seen of a pickle that may not be converted here


def _read(place: Place) -> Source:
    weights = place.find_weights(*OPEN_CLIP_WEIGHTS)
    if not weights:
        raise no_weights(place.path)
    folder = place.path if place.path.is_dir() else None
    return Source(None, weights, folder, place=place.path, layout=LAYOUT.name)


LAYOUT = Layout(
    "open_clip_checkpoint",
    "open_clip checkpoint",
    "a state dict or training checkpoint with tensors visual.* and text.* or transformer.*, with --architecture",
    _matches,
    _read,
)
