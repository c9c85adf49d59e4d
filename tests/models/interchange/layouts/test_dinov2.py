"""A DINOv2 that transformers saved (RAD-DINO) gives the features of transformers and of its own image processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model, pack_card
from tests.kits.image_towers import colour_png, dinov2_pixels, embedded, save_dinov2, unit


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"table_px": 98, "image_px": 70}, id="another image size than the position table's"),
        pytest.param({"registers": 3}, id="registers"),
        pytest.param({"registers": 4, "image_px": 56}, id="registers and another image size"),
        pytest.param({"use_swiglu_ffn": True}, id="SwiGLU"),
        pytest.param({"qkv_bias": False}, id="no bias"),
    ],
)
def test_features_are_those_of_transformers_from_the_same_png(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = save_dinov2(tmp_path / "source", **options)
    image = colour_png(tmp_path / "image.png")
    pack = import_model(tmp_path / "source", tmp_path / "pack")
    with torch.inference_mode():
        expected = unit(theirs(dinov2_pixels(tmp_path / "source", image)).pooler_output)
    np.testing.assert_allclose(embedded(pack, image), expected, atol=1e-5)
    assert load_model(pack).dim == 24
    assert pack_card(pack).created_from["layout"] == "dinov2"


def test_the_mean_of_the_patches_leaves_class_and_register_tokens_out(tmp_path: Path) -> None:
    theirs = save_dinov2(tmp_path / "source", registers=3)
    image = colour_png(tmp_path / "image.png")
    pack = import_model(tmp_path / "source", tmp_path / "pack", pooling="mean")
    with torch.inference_mode():
        tokens = theirs(dinov2_pixels(tmp_path / "source", image)).last_hidden_state
    np.testing.assert_allclose(embedded(pack, image), unit(tokens[:, 4:].mean(1)), atol=1e-5)


def test_the_card_says_image_only_and_how_its_tokens_become_a_vector(tmp_path: Path) -> None:
    save_dinov2(tmp_path / "source")
    card = pack_card(import_model(tmp_path / "source", tmp_path / "rad-dino"))
    assert "image only" in card.summary
    assert any("no text tower" in limit and "the class token" in limit for limit in card.limits)


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_dinov2(source)
    config = json.loads((source / "config.json").read_text())

    def refusal(**changes: Any) -> MedclipError:
        (source / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(MedclipError) as caught:
            import_model(source, tmp_path / "pack")
        assert not (tmp_path / "pack").exists()
        assert caught.value.reason is Reason.PACK_INVALID
        return caught.value

    for key, value in (("num_hidden_layers", 1.5), ("layer_norm_eps", "x"), ("qkv_bias", 1)):
        assert f"its {key} is " in str(refusal(**{key: value}))
    assert "is missing" in str(refusal(num_hidden_layers=3))
    assert "is unknown" in str(refusal(num_hidden_layers=1))
    assert "no multiple of the patch 14" in str(refusal(image_size=71))
    assert "its activation is 'relu'" in str(refusal(hidden_act="relu"))
    assert "do not fit" in str(refusal(hidden_size=48))
