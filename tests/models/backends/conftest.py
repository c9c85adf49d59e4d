"""Two tiny models with random weights: a convolutional net and a transformer."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.models.inputs.preprocess import Preprocess
from medclip.models.model import Model
from medclip.models.packs.card import Card
from medclip.text.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from tests.models.conftest import CAPTIONS, SIZE, random_clip, tiny_config, xray


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(CAPTIONS * 3, folder, vocab_size=400, context_length=16)
    tokenizer = load_tokenizer(folder)
    conv = tiny_config(tokenizer.vocab_size)
    vit = {**conv, "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16}}
    card, pixels = Card(name="tiny", modalities=("xray",)), Preprocess(SIZE, adapters=xray())
    return {
        name: Model(random_clip(config), tokenizer, pixels, card, name=name, path=Path(name))
        for name, config in (("conv", conv), ("vit", vit))
    }
