"""open_clip's CoCa: its contrastive half alone. encode_image and encode_text never call the decoder.

Reference: Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, TMLR 2022.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medclip.models.interchange.layouts import open_clip_folder
from medclip.models.interchange.layouts.layout import Layout, Place, Source
from medclip.models.packs.manifest import CONFIG_NAME, read_config

if TYPE_CHECKING:
    from torch import Tensor

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


def _matches(place: Place) -> bool:
    return CONFIG_NAME in place.names and _DECODER in read_config(place.path)["model_cfg"]


def _read(place: Place) -> Source:
    return replace(contrastive_half(open_clip_folder.LAYOUT.read(place)), layout=LAYOUT.name)


LAYOUT = Layout(
    "open_clip_coca",
    "open_clip CoCa",
    f"a folder with {CONFIG_NAME} that has a {_DECODER}, and weights; the decoder is left out",
    _matches,
    _read,
)
