"""BERT towers from a local folder: sizes, pooling and projection as open_clip has them, and one pooling more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.interchange.load_start import load_start
from medclip.models.towers.bert import POOLINGS, bert_text_cfg, start_text_tower
from medclip.models.towers.build import build_clip
from tests.kits.layouts import (
    BPE_TEXT,
    VIT,
    add_architecture,
    bert_folder,
    bert_text,
    plain_state,
    preset_file,
    random_model,
)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return bert_folder(tmp_path / "bert")


def built(folder: Path, **options: Any) -> Any:
    config = {"embed_dim": options.pop("embed_dim", 16), "vision_cfg": VIT, "text_cfg": bert_text_cfg(**options)}
    return build_clip(config, folder).eval()


def tokens() -> Tensor:
    rows = torch.zeros(2, 10, dtype=torch.long)
    rows[0, :6] = torch.tensor([2, 20, 21, 22, 23, 3])
    rows[1, :3] = torch.tensor([2, 20, 3])
    return rows


def test_the_mlp_of_biomedclip_has_819200_parameters_and_no_bias(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bert", hidden=768, layers=1, num_attention_heads=12)
    with torch.device("meta"):
        model = build_clip({"embed_dim": 512, "vision_cfg": VIT, "text_cfg": bert_text_cfg()}, folder)
    layers = [m for m in model.text.proj if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features, m.bias) for m in layers] == [(768, 640, None), (640, 512, None)]
    assert sum(p.numel() for p in model.text.proj.parameters()) == 819_200


@torch.inference_mode()
@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_each_pooling_takes_what_its_name_says(bert: Path, pooling: str) -> None:
    model = built(bert, pooling=pooling, projection="none", embed_dim=32)
    rows = tokens()
    out = model.text.transformer(input_ids=rows, attention_mask=(rows != 0).long())
    states = out.last_hidden_state
    expected = {
        "cls_last_hidden_state": states[:, 0],
        "eos": torch.stack([states[0, 5], states[1, 2]]),
        "mean": torch.stack([states[0, :6].mean(0), states[1, :3].mean(0)]),
        "pooler_output": out.pooler_output,
    }[pooling]
    torch.testing.assert_close(model.encode_text(rows), expected)


@torch.inference_mode()
@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_padding_does_not_change_a_vector(bert: Path, pooling: str, projection: Any) -> None:
    model = built(bert, pooling=pooling, projection=projection)
    rows = tokens()
    torch.testing.assert_close(model.encode_text(rows[:, :6]), model.encode_text(rows), atol=1e-5, rtol=1e-5)
    assert model.encode_text(rows).shape == (2, 16)


def test_without_a_projection_the_widths_must_agree(bert: Path) -> None:
    with pytest.raises(MedclipError, match="32 and 16"):
        built(bert, projection="none")


@pytest.mark.parametrize("options", [{"pooling": "max"}, {"projection": "conv"}])
def test_a_pooling_or_projection_that_does_not_exist_lists_those_that_do(options: dict[str, Any]) -> None:
    with pytest.raises(MedclipError, match="cls_last_hidden_state, eos, mean, pooler_output"):
        bert_text_cfg(**options)


def test_a_context_beyond_the_text_models_positions_is_refused(bert: Path) -> None:
    with pytest.raises(MedclipError, match="600 tokens is more than the text model's 512"):
        built(bert, context_length=600)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model_type": "deberta", "auto_map": {"AutoModel": "x.Y"}}'])
def test_a_folder_without_the_config_of_a_known_kind_is_refused(bert: Path, content: str | None) -> None:
    if content is None:
        (bert / "config.json").unlink()
    else:
        (bert / "config.json").write_text(content)
    with pytest.raises(MedclipError) as caught:
        built(bert)
    assert caught.value.reason is Reason.PACK_INVALID


def test_a_hub_name_is_never_asked_for(bert: Path) -> None:
    with pytest.raises(MedclipError, match="network"):
        build_clip({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text("org/bert")}, bert)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_run_starts_from_the_language_models_weights_where_its_folder_has_them(
    bert: Path, tmp_path: Path, prefix: str
) -> None:
    name = add_architecture(
        tmp_path / "configs", "tiny-ViT", {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    )
    trained: Any = random_model({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text(bert)}, seed=5)
    state = {prefix + k: v for k, v in plain_state(trained.text.transformer).items()}
    state["cls.predictions.bias"] = torch.zeros(3)  # the head of another task
    save_file(state, bert / "model.safetensors")
    started = load_start(name, text_folder=bert)
    for key, value in trained.text.transformer.state_dict().items():
        assert torch.equal(started.model.text.transformer.state_dict()[key], value), key
    assert started.base == bert
    assert started.tokenizer.context_length == 256


def test_old_names_of_layer_norms_are_understood(bert: Path) -> None:
    trained: Any = built(bert)
    state = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v + 1
        for k, v in plain_state(trained.text.transformer).items()
    }
    save_file(state, bert / "model.safetensors")
    fresh: Any = built(bert)
    assert start_text_tower(fresh, bert)
    for key, value in fresh.text.transformer.state_dict().items():
        assert torch.equal(value, trained.text.transformer.state_dict()[key] + 1), key


def test_image_weights_of_a_clip_and_a_language_model_make_a_new_pair(bert: Path, tmp_path: Path) -> None:
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    name = add_architecture(tmp_path / "configs", "tiny-ViT", config)
    clip = plain_state(random_model(config))
    save_file(clip, tmp_path / "metaclip.safetensors")
    started = load_start(
        tmp_path / "metaclip.safetensors", architecture=name, preset=preset_file(tmp_path), text_folder=bert
    )
    found = started.model.state_dict()
    assert all(torch.equal(found[n], clip[n]) for n in clip if n.startswith("visual."))
    assert started.model.text.proj[0].weight.shape == (24, 32)
    assert started.config["text_cfg"]["hf_model_name"] == "."


def test_a_pickled_language_model_and_one_of_other_sizes_are_refused(bert: Path, tmp_path: Path) -> None:
    model = built(bert)
    assert not start_text_tower(model, bert)
    (bert / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(MedclipError, match="medclip models import") as caught:
        start_text_tower(model, bert)
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS
    other = built(bert_folder(tmp_path / "other", hidden=16))
    save_file(plain_state(other.text.transformer), bert / "model.safetensors")
    with pytest.raises(MedclipError, match="do not fit"):
        start_text_tower(model, bert)


def test_a_text_model_that_pads_with_another_id_than_its_tokenizer_is_refused(bert: Path, tmp_path: Path) -> None:
    values = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(values | {"pad_token_id": 1}))
    name = add_architecture(
        tmp_path / "configs", "tiny-ViT", {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    )
    with pytest.raises(MedclipError, match="fills short texts with the id 0"):
        load_start(name, text_folder=bert)
