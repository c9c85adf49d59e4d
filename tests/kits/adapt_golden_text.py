"""The text tower and the embedded sentences of the golden vectors of CoOp and CoCoOp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medclip.adaptation.prompts.prompted_text_tower import Placeholders


def golden_clip(z: Mapping[str, Any]) -> nn.Module:
    """open_clip's CLIP with the golden text tower; its image tower is never asked."""
    from open_clip.model import CLIP

    state = {k.removeprefix("sd/"): torch.tensor(z[k]) for k in z if k.startswith("sd/")}
    context, width = state["positional_embedding"].shape
    layers = len({k.split(".")[2] for k in state if k.startswith("transformer.resblocks.")})
    with torch.random.fork_rng():
        clip = CLIP(
            state["text_projection"].shape[1],
            {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},  # type: ignore[arg-type]
            {
                "context_length": context,
                "vocab_size": 49408,
                "width": width,
                "heads": HEADS,
                "layers": layers,
            },  # type: ignore[arg-type]
            quick_gelu=True,
        )
    missing, unexpected = clip.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(m.startswith(("visual.", "logit_scale", "token_embedding")) for m in missing)
    return clip.eval().requires_grad_(False)


HEADS = 2


def golden_words(z: Mapping[str, Any], part: str = "") -> tuple[Placeholders, Tensor]:
    """The tokenised placeholder sentences, and their embeddings with zeros where the vectors go."""
    prefix, suffix = torch.tensor(z[f"{part}token_prefix"]), torch.tensor(z[f"{part}token_suffix_used"])
    tokens = torch.tensor(z[f"{part}tokenized_prompts"])
    count = z[f"{part}ctx"].shape[-2]
    room = torch.zeros(len(tokens), count, prefix.shape[2])
    pad = torch.tensor(z[f"{part}pad_embedding"])
    rest = pad.expand(len(tokens), tokens.shape[1] - 1 - count - suffix.shape[1], -1)
    lens = tuple(int(n) for n in z[f"{part}name_lens"]) if f"{part}name_lens" in z else (0,) * len(tokens)
    return Placeholders(tokens, count, lens, 1), torch.cat([prefix, room, suffix, rest], dim=1)


def load(path: Any) -> dict[str, Any]:
    """Every array of a file."""
    with np.load(path) as z:
        return dict(z)
