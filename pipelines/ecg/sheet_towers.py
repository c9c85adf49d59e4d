"""The three towers of the published study in a small size, and their names in full size."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

__all__ = ["FULL", "SMALL", "beit_sheet_small", "swin_sheet_small", "vit_sheet_small"]

SMALL = {"vit": "vit_sheet_small", "beit": "beit_sheet_small", "swin": "swin_sheet_small"}
"""About 0.9 million parameters each; patches of 16 pixels, or of 4 and windows of 7, on 112 px."""
FULL = {"vit": "vit_base_patch16_224", "beit": "beit_base_patch16_224", "swin": "swin_tiny_patch4_window7_224"}
_PLAIN = {"embed_dim": 128, "depth": 4, "num_heads": 4, "patch_size": 16}


def _made(kind: Any, fixed: dict[str, Any], arguments: dict[str, Any]) -> Any:
    for name in ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        arguments.pop(name, None)
    return kind(**{"img_size": 112} | fixed | arguments)


@register_model
def vit_sheet_small(**arguments: Any) -> Any:
    """Build a small ViT."""
    return _made(VisionTransformer, _PLAIN, arguments)


@register_model
def beit_sheet_small(**arguments: Any) -> Any:
    """Build a small BEiT: relative positions, layer scale, patch tokens averaged."""
    return _made(Beit, _PLAIN | {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}, arguments)


@register_model
def swin_sheet_small(**arguments: Any) -> Any:
    """Build a small Swin."""
    sizes = {"patch_size": 4, "window_size": 7, "embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
    return _made(SwinTransformer, sizes, arguments)
