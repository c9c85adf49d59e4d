"""A bare state dict in OpenAI's layout (CheXzero) needs its architecture named, and gives open_clip's features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model
from tests.kits.layouts import (
    BPE_TEXT,
    PIXELS,
    SENTENCES,
    VIT,
    add_architecture,
    features,
    images,
    plain_state,
    random_model,
)


def test_a_state_dict_in_openais_layout_is_open_clips_own(tmp_path: Path) -> None:
    config: dict[str, Any] = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    state = {name: value.half() for name, value in plain_state(random_model(config)).items()}
    sizes = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(9)}
    torch.save(state | sizes, tmp_path / "chexzero.pt")
    with pytest.raises(MedclipError, match="--architecture") as caught:
        import_model(tmp_path / "chexzero.pt", tmp_path / "pack", **PIXELS)
    assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "pack").exists()
    name = add_architecture(tmp_path / "configs", "tiny-ViT-openai", config)
    ours = load_model(import_model(tmp_path / "chexzero.pt", tmp_path / "pack", architecture=name, **PIXELS))
    theirs = random_model(config)
    theirs.load_state_dict({n: v.float() for n, v in state.items()})
    tokens = torch.from_numpy(ours.tokenizer.encode(SENTENCES))
    image, text = features(theirs, ours.normalise(images()), tokens)
    np.testing.assert_allclose(ours.encode_image(images()), image, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(SENTENCES), text, atol=1e-5)
