"""Small towers of every kind that CLIP-SVD takes, and the golden CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medclip.adaptation.towers.clip_svd import decompose
from medclip.adaptation.towers.layers import choose_layers, list_layers
from medclip.adaptation.towers.split_attention import split_attention
from medclip.models.towers.bert import bert_text_cfg
from medclip.models.towers.build import build_clip, default_config
from tests.kits.layouts import VIT, bert_folder, timm

TEXT = {"context_length": 12, "vocab_size": 80, "width": 32, "heads": 2, "layers": 3}
KINDS = ("open_clip", "timm_vit", "efficientnet", "bert")


def tower_pair(kind: str, folder: Path) -> Any:
    """Build a dual encoder with random weights, in eval mode."""
    torch.manual_seed(0)
    if kind == "open_clip":
        model = build_clip({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT})
    elif kind == "timm_vit":
        vision = timm("test_vit", image_size=32)
        model = build_clip({"embed_dim": 16, "custom_text": True, "vision_cfg": vision, "text_cfg": TEXT})
    elif kind == "efficientnet":
        model = build_clip(default_config(vocab_size=80, context_length=12, embed_dim=16, size_px=32, text_width=32))
    else:
        text = bert_text_cfg(context_length=12)
        model = build_clip({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": text}, bert_folder(folder / "bert"))
    return model.eval()


def batch(size_px: int = 32) -> tuple[Tensor, Tensor]:
    """Give images and tokens: rows that begin, end and are padded as all kinds of text tower want."""
    images = torch.randn(3, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    rows = torch.zeros(2, 12, dtype=torch.long)
    rows[0, :5] = torch.tensor([2, 20, 21, 22, 79])
    rows[1, :3] = torch.tensor([2, 23, 79])
    return images, rows


def features(model: Any, images: Tensor, tokens: Tensor) -> Tensor:
    """Give image and text features one below the other."""
    return torch.cat([model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)])


def decomposed_whole(model: nn.Module, **options: Any) -> nn.Module:
    """Decompose every layer of the blocks, in place."""
    split_attention(model)
    decompose(model, choose_layers(list_layers(model)), **options)
    return model


class TinyClip:
    """The CLIP of clip_svd_tiny_clip.npz; shapes, heads and values are the file's."""

    def __init__(self, folder: Path) -> None:
        self.stored = np.load(folder / "clip_svd_tiny_clip.npz", allow_pickle=False)
        state = {n[3:]: torch.tensor(self.stored[n]) for n in self.stored.files if n.startswith("sd/")}
        width, _, patch, _ = state["visual.conv1.weight"].shape
        context, text_width = state["positional_embedding"].shape
        blocks = {
            t: len({n.split("resblocks.")[1].split(".")[0] for n in state if n.startswith(f"{t}.r")})
            for t in ("transformer", "visual.transformer")
        }
        self.images, self.tokens, self.labels = (torch.tensor(self.stored[n]) for n in ("images", "tokens", "labels"))
        vision = {
            "image_size": self.images.shape[-1],
            "patch_size": patch,
            "width": width,
            "layers": blocks["visual.transformer"],
            "head_width": width // int(self.stored["vision_heads"]),
        }
        text = {
            "context_length": context,
            "vocab_size": len(state["token_embedding.weight"]),
            "width": text_width,
            "heads": int(self.stored["text_heads"]),
            "layers": blocks["transformer"],
        }
        embed_dim = state["text_projection"].shape[1]
        self.clip: Any = build_clip(
            {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
        )
        self.clip.load_state_dict(state)
        self.clip.eval()

    def outputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give image features, text features, logits and loss."""
        image, text = self.clip.encode_image(self.images), self.clip.encode_text(self.tokens)
        scale = float(self.stored["logit_scale_train"])
        logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        return image, text, logits, F.cross_entropy(logits, self.labels)

    def check(self, part: str) -> Tensor:
        """Compare what comes out with what is stored; give the loss."""
        image, text, logits, loss = self.outputs()
        for name, value in (("image_features", image), ("text_features", text), ("logits", logits)):
            expected = self.stored[f"{part}/{name}"]
            atol, rtol = (5e-4, 0) if name == "logits" else (1e-5, 1e-4)
            if part == "pert":  # each singular vector counts by itself, see check_gradient: another CPU, other rounding
                atol = 1e-4 * float(np.abs(expected).max())
            np.testing.assert_allclose(value.detach(), expected, atol=atol, rtol=rtol)
        np.testing.assert_allclose(loss.detach(), self.stored[f"{part}/loss"], atol=5e-4, rtol=1e-4)
        return loss

    def vector(self, part: str, layer: str) -> np.ndarray:
        """Give a stored vector of a layer."""
        return self.stored[f"{part}/{layer.replace('out_proj', 'proj')}.vector_S"][0]


def check_gradient(found: Tensor | None, expected: np.ndarray) -> None:
    """Compare to 1e-3 of the largest entry.

    Singular values that lie close together share their vectors in any rotation that rounding makes of them, so that
    a small entry next to a large one may differ by more than 1e-3 of itself, from one number of threads to the next.
    """
    assert found is not None
    allowed = max(1e-5, 1e-3 * float(np.abs(expected).max()))
    np.testing.assert_allclose(found.detach().numpy().reshape(-1), expected.reshape(-1), atol=allowed, rtol=0)
