"""Tiny trunks of patches and of tubes, and a batch with masks, for masked autoencoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from medclip.models.towers.masked_autoencoder import MaskedAutoencoder
from medclip.models.towers.patch_decoder import DecoderShape
from medclip.models.towers.timm_tower import make_tubelets

_NAMES = {
    "decoder_embed": "decoder.embed",
    "decoder_blocks": "decoder.blocks",
    "decoder_norm": "decoder.norm",
    "decoder_pred": "decoder.head",
    "mask_token": "decoder.mask_token",
}


def tiny_trunk(**arguments: Any) -> VisionTransformer:
    """A transformer of 4 x 4 patches of 8 px, 32 wide, 2 blocks."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 0}
    return VisionTransformer(**{**sizes, "global_pool": "", **arguments}).eval()


def tiny_tube_trunk() -> VisionTransformer:
    """The same transformer over tubes: grey clips of 8 frames of 16 x 16 px, cut into 4 x 2 x 2 tubes."""
    trunk = tiny_trunk(img_size=16)
    make_tubelets(trunk, {"num_frames": 8, "tubelet": 2, "channels": 1}, 16)
    return trunk


def golden_autoencoder(stored: Mapping[str, Any], *, normalise: bool) -> tuple[VisionTransformer, MaskedAutoencoder]:
    """The trunk and the decoder of `medical_mae_tiny`, with its weights."""
    weights = {key.removeprefix("sd/"): torch.tensor(stored[key]) for key in stored if key.startswith("sd/")}
    trunk = tiny_trunk()
    trunk.load_state_dict({key: value for key, value in weights.items() if key in trunk.state_dict()})
    decoder = MaskedAutoencoder(trunk, DecoderShape(24, 1, 4), normalise=normalise)
    renamed = {
        key.replace(own := key.split(".")[0], _NAMES.get(own, own), 1)
        .replace(".attn.", ".")
        .replace(".mlp.", "."): value
        for key, value in weights.items()
    }
    decoder.load_state_dict({key: value for key, value in renamed.items() if key in decoder.state_dict()})
    return trunk, decoder.eval()
