"""open_clip's own forms: its folder, CoCa of which the contrastive half alone is taken, and a bare checkpoint.

The folder has open_clip_config.json, weights under one of its usual names, tokenizer files beside them. Of CoCa
encode_image and encode_text never call the decoder (Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation
Models, TMLR 2022). A state dict or training checkpoint in open_clip's names (OpenAI's are the same) says nothing of
itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medclip.models.interchange.layouts.layout import HUB_WEIGHTS, Layout, Place, Source, no_weights
from medclip.models.interchange.pixels import from_open_clip
from medclip.models.packs.manifest import CONFIG_NAME, read_config

if TYPE_CHECKING:
    from torch import Tensor

OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    *HUB_WEIGHTS,
)
"""What open_clip looks for in a folder, in its order."""


def _is_folder(place: Place) -> bool:
    return CONFIG_NAME in place.names


def _read_folder(place: Place) -> Source:
    values = read_config(place.path)
    weights = place.find_weights(*OPEN_CLIP_WEIGHTS)
    return Source(
        dict(values["model_cfg"]),
        weights,
        place.path,
        from_open_clip(values.get("preprocess_cfg") or {}),
        place.path,
        layout=FOLDER.name,
    )


FOLDER = Layout(
    "open_clip_folder",
    "open_clip folder",
    f"a folder with {CONFIG_NAME} and weights",
    _is_folder,
    _read_folder,
)


_DECODER = "multimodal_cfg"


def contrastive_half(source: Source) -> Source:
    """Return a source without the decoder that writes captions; one that has none comes back as it is."""
    if source.config is None or _DECODER not in source.config:
        return source
    config: dict[str, Any] = {key: value for key, value in source.config.items() if key != _DECODER}
    config["custom_text"] = True
    for part in ("vision_cfg", "text_cfg"):
        config[part] = {**config[part], "output_tokens": False}  # the decoder's input
    return replace(source, config=config, convert=_without_decoder)


def _without_decoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("text_decoder.")}


def _is_coca(place: Place) -> bool:
    return CONFIG_NAME in place.names and _DECODER in read_config(place.path)["model_cfg"]


def _read_coca(place: Place) -> Source:
    return replace(contrastive_half(_read_folder(place)), layout=COCA.name)


COCA = Layout(
    "open_clip_coca",
    "open_clip CoCa",
    f"a folder with {CONFIG_NAME} that has a {_DECODER}, and weights; the decoder is left out",
    _is_coca,
    _read_coca,
)


_IMAGE = "visual."
_TEXT = ("text.", "transformer.resblocks.", "token_embedding.")


def _is_checkpoint(place: Place) -> bool:
    if place.architecture is not None:
        return True
    if place.path.is_dir():  # a folder must say what it is, or the user must
        return False
    names = place.tensors((place.path,))
    two_towers = any(n.startswith(_IMAGE) for n in names) and any(n.startswith(_TEXT) for n in names)
    return not names or two_towers  # nothing is seen of a pickle that may not be converted here


def _read_checkpoint(place: Place) -> Source:
    weights = place.find_weights(*OPEN_CLIP_WEIGHTS)
    if not weights:
        raise no_weights(place.path)
    folder = place.path if place.path.is_dir() else None
    return Source(None, weights, folder, place=place.path, layout=CHECKPOINT.name)


CHECKPOINT = Layout(
    "open_clip_checkpoint",
    "open_clip checkpoint",
    "a state dict or training checkpoint with tensors visual.* and text.* or transformer.*, with --architecture",
    _is_checkpoint,
    _read_checkpoint,
)
