"""CONCH: a CoCa of its authors' own code, whose checkpoint is a bare state dict. Its contrastive half alone.

A timm ViT pooled by one learned query, and open_clip's text transformer with a class token after the text. The sizes
are read off the tensors; what they do not tell (heads, image size) is as in the authors' conch_ViT-B-16.json.
Reference: https://github.com/mahmoodlab/CONCH, conch/open_clip_custom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medclip.models.interchange.choose_pixels import find_preset
from medclip.models.interchange.layouts.hf_names import converter
from medclip.models.interchange.layouts.layout import CONFIG, HUB_WEIGHTS, Layout, Place, Source
from medclip.models.packs.manifest import CONFIG_NAME

if TYPE_CHECKING:
    from torch import Tensor

_QUERY = "visual.attn_pool_contrast.query"
_CAPTIONS = ("text_decoder.", "visual.attn_pool_caption.", "visual.ln_caption.")
"""Parts that only write captions."""
_SIZE_PX = 448
_HEAD_WIDTH = 64
_POOL_HEADS = 8


def _matches(place: Place) -> bool:
    if CONFIG in place.names or CONFIG_NAME in place.names:
        return False
    return _QUERY in place.tensors(place.find_weights(*HUB_WEIGHTS))


def _read(place: Place) -> Source:
    weights = place.find_weights(*HUB_WEIGHTS)
    sizes = place.tensors(weights)
    width, _, patch, _ = sizes["visual.trunk.patch_embed.proj.weight"]
    vocab_size, text_width = sizes["text.token_embedding.weight"]
    config = {
        "embed_dim": sizes[_QUERY][1],
        "custom_text": True,
        "vision_cfg": {
            "image_size": _SIZE_PX,
            "timm_model_name": "vit_base_patch16_224",
            "timm_pool": "",
            "timm_proj": "none",
            "timm_model_args": {
                "img_size": _SIZE_PX,
                "patch_size": patch,
                "embed_dim": width,
                "depth": _count(sizes, "visual.trunk.blocks."),
                "num_heads": width // _HEAD_WIDTH,
                "mlp_ratio": sizes["visual.trunk.blocks.0.mlp.fc1.weight"][0] / width,
            },
            "query_pool_heads": _POOL_HEADS,
        },
        "text_cfg": {
            "context_length": sizes["text.positional_embedding"][0] - 1,  # the last place is the class token's
            "vocab_size": vocab_size,
            "width": text_width,
            "heads": text_width // _HEAD_WIDTH,
            "layers": _count(sizes, "text.transformer.resblocks."),
            "embed_cls": True,
            "hf_tokenizer_name": "tokenizer",
            "tokenizer_kwargs": {"clean": "none"},
        },
    }
    folder = place.path if place.path.is_dir() else place.path.parent
    pixels = find_preset("conch").to_config()
    convert = converter(_renamed, _SIZE_PX // patch)
    return Source(config, weights, folder, pixels, place.path, convert, LAYOUT.name, pixels_from="preset conch")


def _count(sizes: Mapping[str, object], blocks: str) -> int:
    return len({name.removeprefix(blocks).partition(".")[0] for name in sizes if name.startswith(blocks)})


def _renamed(state: Mapping[str, Tensor], grid: int) -> dict[str, Tensor]:
    from timm.layers.pos_embed import resample_abs_pos_embed

    renamed: dict[str, Tensor] = {}
    for name in state:
        value = state[name]
        if name.startswith(_CAPTIONS):
            continue
        for old, new in (("attn_pool_contrast.", "head.attn_pool."), ("ln_contrast.", "head.ln.")):
            name = name.replace(f"visual.{old}", f"visual.{new}")
        renamed["visual.head.proj" if name == "visual.proj_contrast" else name] = value
    positions = "visual.trunk.pos_embed"
    # As the authors' loader does; open_clip's own is bicubic.
    renamed[positions] = resample_abs_pos_embed(
        renamed[positions], new_size=[grid, grid], interpolation="bilinear", antialias=False
    )
    return renamed


LAYOUT = Layout(
    "conch",
    "CONCH",
    "a state dict with tensors visual.attn_pool_contrast.*, and conch_byte_level_bpe_uncased.json or tokenizer.json "
    "beside it (or --text-folder); the decoder is left out",
    _matches,
    _read,
)
