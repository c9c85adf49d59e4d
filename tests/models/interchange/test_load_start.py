"""A run starts from a name, a file, a folder or a pack; what is missing or does not fit is said in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import CLIP_MEAN
from medclip.models.interchange.load_start import alike, load_start
from medclip.models.packs.pack import load_model
from medclip.models.towers.build import build_clip
from tests.kits.hf_models import save_siglip, train_pieces
from tests.kits.layouts import (
    BPE_TEXT,
    VIT,
    add_architecture,
    bert_folder,
    bert_text,
    features,
    hub_folder,
    images,
    plain_state,
    preset_file,
    random_model,
)

CONFIG: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}


def refusal(*args: Any, **options: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        load_start(*args, **options)
    return caught.value


@pytest.fixture
def name(tmp_path: Path) -> str:
    return add_architecture(tmp_path / "configs", "tiny-ViT", CONFIG)


def test_an_architectures_name_gives_random_weights_and_clips_tokenizer(name: str) -> None:
    torch.manual_seed(3)
    started = load_start(name)
    torch.manual_seed(3)
    again = load_start(name)
    assert torch.equal(started.model.visual.conv1.weight, again.model.visual.conv1.weight)
    assert started.preprocess.mean == CLIP_MEAN
    assert started.tokenizer.encode(["lung"]).shape == (1, 77)
    assert started.base is None


def test_a_real_name_of_open_clips_builds_with_its_sizes() -> None:
    with torch.device("meta"):
        model: Any = build_clip(open_clip.get_model_config("ViT-B-16-quickgelu"))
    assert sum(p.numel() for p in model.parameters()) == 149_620_737
    assert type(model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_a_pack_starts_with_the_weights_it_holds(pack: Path) -> None:
    started, model = load_start(pack), load_model(pack)
    for key, value in model.clip.state_dict().items():
        assert torch.equal(started.model.state_dict()[key], value)
    np.testing.assert_array_equal(started.tokenizer.encode(["a b"]), model.tokenizer.encode(["a b"]))
    assert started.preprocess == replace(model.preprocess, adapters={})
    assert all(p.requires_grad for p in started.model.parameters())


def test_the_builtin_pack_starts_by_its_name() -> None:
    started = load_start("medclip-mini", overrides={"text_cfg": {"context_length": 20}})
    assert started.tokenizer.encode(["no pneumonia"]).shape == (1, 20)


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_a_bare_checkpoint_loads_by_its_architecture_wrapped_or_not(tmp_path: Path, name: str, prefix: str) -> None:
    state = plain_state(random_model(CONFIG))
    save_file({prefix + k: v for k, v in state.items()}, tmp_path / "w.safetensors")
    started = load_start(tmp_path / "w.safetensors", architecture=name, preset=preset_file(tmp_path))
    assert all(torch.equal(started.model.state_dict()[k], v) for k, v in state.items())


def test_a_checkpoint_with_a_text_module_of_its_own_and_a_bias_loads(tmp_path: Path, name: str) -> None:
    model = random_model(CONFIG | {"custom_text": True, "init_logit_bias": -10.0})
    state = plain_state(model)
    state["logit_scale"] = state["logit_scale"].reshape(1)
    save_file(state, tmp_path / "w.safetensors")
    started = load_start(tmp_path / "w.safetensors", architecture=name, preset=preset_file(tmp_path))
    assert started.config["custom_text"] is True
    assert started.model.logit_bias.item() == -10
    assert build_clip(started.config).load_state_dict(started.model.state_dict())


def test_half_precision_weights_become_float32(tmp_path: Path, name: str) -> None:
    state = {k: v.half() for k, v in plain_state(random_model(CONFIG)).items()}
    save_file(state, tmp_path / "w.safetensors")
    started = load_start(tmp_path / "w.safetensors", architecture=name, preset=preset_file(tmp_path))
    assert {p.dtype for p in started.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("size", [64, 48])
def test_another_image_size_resamples_the_grid_as_open_clip_does(tmp_path: Path, name: str, size: int) -> None:
    save_file(plain_state(random_model(CONFIG)), tmp_path / "w.safetensors")
    started = load_start(
        tmp_path / "w.safetensors",
        architecture=name,
        preset=preset_file(tmp_path),
        overrides={"vision_cfg": {"image_size": size}},
    )
    theirs = open_clip.create_model(name, pretrained=str(tmp_path / "w.safetensors"), force_image_size=size)
    pixels = torch.from_numpy(images(size)).permute(0, 3, 1, 2) / 255
    tokens = torch.from_numpy(started.tokenizer.encode(["lung"]))
    np.testing.assert_allclose(
        features(started.model, pixels, tokens)[0], features(theirs, pixels, tokens)[0], atol=1e-5
    )


def test_another_image_size_of_a_timm_tower_is_open_clips_too(tmp_path: Path) -> None:
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    config = CONFIG | {"vision_cfg": vision}
    folder = hub_folder(tmp_path / "m", config, plain_state(random_model(config)), "open_clip_model.safetensors")
    started = load_start(folder, overrides={"vision_cfg": {"image_size": 96}})
    theirs = open_clip.create_model(f"local-dir:{folder}", force_image_size=96)
    pixels = torch.from_numpy(images(96)).permute(0, 3, 1, 2) / 255
    tokens = torch.from_numpy(started.tokenizer.encode(["lung"]))
    np.testing.assert_allclose(
        features(started.model, pixels, tokens)[0], features(theirs, pixels, tokens)[0], atol=1e-5
    )
    assert build_clip(started.config).load_state_dict(started.model.state_dict())


@pytest.mark.parametrize(
    ("start", "word"),
    [("ViT-B-61", "ViT-B-16"), ("/no/such/file.safetensors", "no file"), ("ViT-B-32:no_such_tag", "no_such_tag")],
)
def test_a_name_that_is_nothing_is_not_found(start: str, word: str) -> None:
    error = refusal(start)
    assert error.reason is Reason.PACK_NOT_FOUND
    assert word in str(error)


def test_a_bare_checkpoint_without_an_architecture_names_those_of_its_sizes(tmp_path: Path, name: str) -> None:
    save_file(plain_state(random_model(CONFIG)), tmp_path / "w.safetensors")
    error = refusal(tmp_path / "w.safetensors")
    assert error.reason is Reason.WRONG_USE
    assert "--architecture" in str(error)
    assert name in error.hint
    assert "ViT-B-16" not in error.hint
    assert refusal(tmp_path / "w.safetensors", architecture="no-such").reason is Reason.PACK_NOT_FOUND


def test_the_sizes_of_a_vit_b_16_and_a_bert_lead_to_its_names() -> None:
    with torch.device("meta"):
        state = dict(build_clip(open_clip.get_model_config("ViT-B-16")).state_dict())
    assert set(alike(state)) == {"ViT-B-16", "ViT-B-16-quickgelu"}
    visual = {k: v for k, v in state.items() if k.startswith("visual.")}
    assert {"ViT-B-16", "ViT-B-16-quickgelu"} <= set(alike(visual))
    assert alike({"visual.trunk.x": torch.zeros(1)}) == ()


def test_a_checkpoint_with_a_bert_asks_for_its_folder_too(tmp_path: Path) -> None:
    model = random_model({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text(bert_folder(tmp_path / "bert"))})
    save_file(plain_state(model), tmp_path / "w.safetensors")
    assert "--text-folder" in refusal(tmp_path / "w.safetensors").hint


def test_an_architecture_for_a_model_that_brings_one_is_wrong_use(tmp_path: Path, pack: Path, name: str) -> None:
    assert refusal(pack, architecture=name).reason is Reason.WRONG_USE
    assert refusal(name, architecture=name).reason is Reason.WRONG_USE


def test_weights_that_do_not_fit_name_a_few_tensors(tmp_path: Path, name: str) -> None:
    state = plain_state(random_model(CONFIG))
    state["odd"] = state.pop("visual.proj")
    state["ln_final.weight"] = torch.zeros(5)
    save_file(state, tmp_path / "w.safetensors")
    error = refusal(tmp_path / "w.safetensors", architecture=name)
    assert error.reason is Reason.PACK_INVALID
    for part in ("visual.proj is missing", "odd is unknown", "ln_final.weight is [5], not [16]"):
        assert part in str(error)


def test_a_pickle_under_the_name_of_safetensors_is_refused(tmp_path: Path, name: str) -> None:
    torch.save(plain_state(random_model(CONFIG)), tmp_path / "w.safetensors")
    assert refusal(tmp_path / "w.safetensors", architecture=name).reason is Reason.UNSAFE_WEIGHTS


def test_a_hub_tokenizer_or_bert_that_does_not_lie_beside_the_model_is_asked_for(tmp_path: Path) -> None:
    assert "text-folder" in str(refusal("ViT-B-16-SigLIP"))
    assert "text-folder" in str(refusal("roberta-ViT-B-32"))
    bert = bert_folder(tmp_path / "bert")
    model = random_model({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text(bert)})
    told = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text("org/bert")}
    folder = hub_folder(tmp_path / "m", told, plain_state(model), "open_clip_model.safetensors")
    error = refusal(folder)
    assert error.reason is Reason.MISSING_FILE
    assert "org/bert" in str(error)


@pytest.mark.parametrize("trunk", ["hf-hub:timm/vit", "local-dir:/x", "org/vit"])
def test_an_image_tower_on_a_hub_is_refused(trunk: str) -> None:
    with pytest.raises(MedclipError, match="network"):
        build_clip(CONFIG | {"vision_cfg": {"timm_model_name": trunk}})


def test_a_folder_with_several_weights_or_none_asks_for_the_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).reason is Reason.MISSING_FILE
    for file in ("a.safetensors", "b.safetensors"):
        save_file({"a": torch.zeros(1)}, tmp_path / file)
    assert "Name the file" in str(refusal(tmp_path))


def test_a_tokenizer_with_more_ids_than_the_text_tower_is_refused(tmp_path: Path) -> None:
    config = CONFIG | {"text_cfg": BPE_TEXT | {"vocab_size": 100}}
    folder = hub_folder(tmp_path / "m", config, plain_state(random_model(config)), "open_clip_model.safetensors")
    assert "49,408 ids" in str(refusal(folder))


REVISION = "0" * 40


def test_a_hub_name_and_a_tag_are_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    real = __import__("huggingface_hub").hf_hub_download
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download",
        lambda *a, cache_dir=None, **k: real(*a, cache_dir=cache_dir or tmp_path, **k),
    )
    state = plain_state(random_model(CONFIG))
    for repository in ("org--tiny", "laion--CLIP-ViT-B-32-laion2B-s34B-b79K"):
        snapshot = tmp_path / f"models--{repository}" / "snapshots" / REVISION
        hub_folder(snapshot, CONFIG, state, "open_clip_model.safetensors")
        (tmp_path / f"models--{repository}" / "refs").mkdir()
        (tmp_path / f"models--{repository}" / "refs" / "main").write_text(REVISION)
    started = load_start("hf-hub:org/tiny")
    assert torch.equal(started.model.visual.proj, state["visual.proj"])
    # The tag's architecture is ViT-B-32: it is found, read, and does not fit the small weights put there.
    assert "do not fit" in str(refusal("ViT-B-32:laion2b_s34b_b79k"))
    assert refusal("hf-hub:org/other").reason is Reason.PACK_NOT_FOUND
    assert refusal("RN50:openai").reason is Reason.PACK_NOT_FOUND


def test_overrides_do_not_change_what_was_given(tmp_path: Path, name: str) -> None:
    overrides = {"text_cfg": {"context_length": 12}}
    started = load_start(name, overrides=overrides)
    started.config["text_cfg"]["context_length"] = 99
    assert overrides == {"text_cfg": {"context_length": 12}}
    assert json.loads((tmp_path / "configs" / f"{name}.json").read_text()) == CONFIG


def test_one_refusal_names_all_that_a_bare_checkpoint_with_a_bert_lacks(tmp_path: Path) -> None:
    words = {"text.transformer.embeddings.word_embeddings.weight": torch.zeros(9, 8)}
    save_file({**words, "visual.trunk.norm.bias": torch.zeros(8)}, tmp_path / "w.safetensors")
    with pytest.raises(MedclipError) as caught:
        load_start(tmp_path / "w.safetensors")
    said = str(caught.value)
    assert "3 things are missing" in said
    assert all(option in said for option in ("--architecture", "--text-folder", "--preset"))


def test_one_refusal_names_weights_and_tokenizer_that_a_folder_lacks(tmp_path: Path) -> None:
    save_siglip(tmp_path, vocab_size=44)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(MedclipError, match="3 things are missing") as caught:
        load_start(tmp_path)
    said = str(caught.value)
    assert all(part in said for part in ("no weights", "no tokenizer", "how their authors treat images"))


def test_a_tokenizer_of_another_model_is_refused_with_the_numbers_that_do_not_agree(tmp_path: Path) -> None:
    save_siglip(tmp_path, vocab_size=400)
    (tmp_path / "spiece.model").write_bytes(train_pieces())
    with pytest.raises(MedclipError, match="the tokenizer has 44 ids, and the text tower's table of words 400 rows"):
        load_start(tmp_path)
