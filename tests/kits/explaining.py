"""Small image towers and targets for the tests of heat maps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medclip.explaining.target import Target, logit_target

SIDE = 32


def tower(name: str) -> nn.Module:
    """Build a small tower with random weights, in eval mode."""
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    sizes = {
        "image_size": SIDE,
        "patch_size": 8,
        "width": 32,
        "layers": 3,
        "heads": 2,
        "mlp_ratio": 2.0,
        "output_dim": 16,
    }
    timm = {"embed_dim": 16, "image_size": SIDE, "proj": "linear", "pretrained": False}
    built: dict[str, Any] = {
        "open_clip": lambda: VisionTransformer(**sizes),
        "open_clip mean": lambda: VisionTransformer(**sizes, pool_type="avg", final_ln_after_pool=True),
        "open_clip coca": lambda: VisionTransformer(
            **{**sizes, "output_dim": 32}, attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2
        ),
        "timm": lambda: TimmModel("test_vit", **timm, pool=""),
        "timm mean": lambda: TimmModel("test_vit", **timm, pool="avg"),
        "timm map": lambda: TimmModel("vit_base_patch16_siglip_224", **timm, pool="map"),
        "resnet": lambda: TimmModel("test_resnet", **timm, pool="avg"),
        "efficientnet": lambda: TimmModel("test_efficientnet", **timm, pool="avg"),
        "convnext": lambda: TimmModel("test_convnext", **timm, pool="avg"),
        "swin": lambda: TimmModel("swin_tiny_patch4_window7_224", **{**timm, "image_size": 224}, pool="avg"),
    }
    visual = built[name]()
    if name in ("timm", "timm mean", "timm map"):
        visual.set_input_size((SIDE, SIDE))
    for parameter in visual.parameters():  # poolers and layer scales begin at zero or near it
        if float(parameter.detach().abs().max()) < 1e-3:
            nn.init.normal_(parameter, std=0.3)
    return visual.eval().requires_grad_(False)


def model_of(visual: nn.Module, batch_size: int = 4) -> Any:
    """Wrap a tower in as much of a model as maps need; images are float arrays [N, 3, H, W] already."""
    return SimpleNamespace(
        clip=SimpleNamespace(visual=visual),
        preprocess=SimpleNamespace(signal=None, budget=None, together=np.stack),
        batch_size=batch_size,
        normalise=lambda images: torch.from_numpy(np.asarray(images, np.float32)),
    )


def linear_target(direction_D: NDArray, name: str = "finding") -> Target:
    """Return the target of a logit that is linear in the features."""
    weights = np.asarray(direction_D, np.float32)[:, None]
    return logit_target(name, "no finding", "prompt", lambda features: features @ weights, 0, exclusive=False)
