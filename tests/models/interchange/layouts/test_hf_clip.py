"""A CLIP that transformers saved gives transformers' own tokens, features and logits, also split or pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from medclip.api.models import export_model, import_model
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.load_start import load_start
from medclip.models.packs.pack import load_model
from tests.kits.hf_models import CONTEXT, TEXTS, edit_config, images, save_clip

OLD_END = 2
"""`eos_token_id` of OpenAI's, PLIP's and PubMedCLIP's config.json."""


def refusal(source: Path, out: Path) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        import_model(source, out)
    assert not out.exists()
    return caught.value


def check_equal(pack: Path, theirs: Any, tokenize: Any) -> None:
    """Compare tokens, features and logits with those of transformers."""
    ours = load_model(pack)
    ids = tokenize(TEXTS, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    np.testing.assert_array_equal(ours.tokenizer.encode(TEXTS), ids["input_ids"].numpy())
    pixels = images()
    with torch.inference_mode():
        out = theirs(**ids, pixel_values=ours.normalise(pixels))
    image, text = ours.encode_image(pixels), ours.encode_text(TEXTS)
    np.testing.assert_allclose(image, out.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(text, out.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(image @ text.T * ours.logit_scale, out.logits_per_image.numpy(), atol=1e-4)
    assert np.ptp(image, axis=0).max() > 1e-2  # images and texts differ: the comparison says something
    assert np.ptp(text, axis=0).max() > 1e-2


@pytest.mark.parametrize("eos", [OLD_END, None])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_features_and_logits_are_those_of_transformers(tmp_path: Path, activation: str, eos: int | None) -> None:
    theirs = save_clip(tmp_path / "plip", activation=activation, eos=eos)
    pack = import_model(tmp_path / "plip", tmp_path / "pack", license="MIT")
    check_equal(pack, theirs, CLIPTokenizer.from_pretrained(tmp_path / "plip"))
    created = json.loads((pack / "card.json").read_text())["created_from"]
    assert created["layout"] == "hf_clip"
    assert created["imported_from"] == "plip"


def test_a_tokenizer_json_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    theirs = save_clip(tmp_path / "m")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "m" / name).unlink(missing_ok=True)
    check_equal(import_model(tmp_path / "m", tmp_path / "pack"), theirs, tokenizer)


def test_split_weights_and_pickled_ones_give_the_same_pack(tmp_path: Path) -> None:
    theirs = save_clip(tmp_path / "split", max_shard_size="20KB")
    assert len(list((tmp_path / "split").glob("model-*.safetensors"))) > 1
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "split")
    split = import_model(tmp_path / "split", tmp_path / "a")
    check_equal(split, theirs, tokenizer)
    save_clip(tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    state = {**theirs.state_dict(), "text_model.embeddings.position_ids": torch.arange(CONTEXT)[None]}
    torch.save(state, tmp_path / "pickled" / "pytorch_model.bin")
    pickled = import_model(tmp_path / "pickled", tmp_path / "b")
    assert (split / "model.safetensors").read_bytes() == (pickled / "model.safetensors").read_bytes()
    (tmp_path / "pickled" / "pytorch_model.bin").unlink()
    weight_map = {}
    for n in range(2):
        part = dict(list(state.items())[n::2])
        torch.save(part, tmp_path / "pickled" / f"pytorch_model-{n}.bin")
        weight_map |= dict.fromkeys(part, f"pytorch_model-{n}.bin")
    (tmp_path / "pickled" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    both = import_model(tmp_path / "pickled", tmp_path / "c")
    assert (split / "model.safetensors").read_bytes() == (both / "model.safetensors").read_bytes()


def test_a_processor_that_cannot_be_followed_gives_way_to_what_the_user_states(tmp_path: Path) -> None:
    save_clip(tmp_path / "m")
    processor = tmp_path / "m" / "preprocessor_config.json"
    processor.write_text(json.dumps({**json.loads(processor.read_text()), "do_pad": True}))
    error = refusal(tmp_path / "m", tmp_path / "pack")
    assert "it pads images" in str(error)
    assert "--resize" in str(error)
    pack = import_model(tmp_path / "m", tmp_path / "pack", resize="squash", mean=[0.5] * 3, std=[0.25] * 3)
    assert load_model(pack).preprocess.resize == "squash"


def test_training_starts_from_the_folder_and_the_pack_loads_in_open_clip(tmp_path: Path) -> None:
    import open_clip

    save_clip(tmp_path / "m")
    pack = import_model(tmp_path / "m", tmp_path / "pack")
    ours = load_model(pack)
    proj = ours.clip.state_dict()["visual.proj"]
    for start in (tmp_path / "m", pack):
        started = load_start(start)
        np.testing.assert_array_equal(started.tokenizer.encode(TEXTS), ours.tokenizer.encode(TEXTS))
        assert torch.equal(started.model.state_dict()["visual.proj"], proj)
    folder = export_model(pack, tmp_path / "exported").folder
    theirs: Any = open_clip.create_model(f"local-dir:{folder}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS[:1])
    np.testing.assert_array_equal(ids.numpy(), ours.tokenizer.encode(TEXTS[:1]))
    with torch.inference_mode():
        text = theirs.encode_text(ids, normalize=True).numpy()
    np.testing.assert_allclose(ours.encode_text(TEXTS[:1]), text, atol=1e-5)


def test_weights_of_another_size_than_the_config_are_refused_either_way(tmp_path: Path) -> None:
    save_clip(tmp_path / "m")
    edit_config(tmp_path / "m", vision_config={"num_hidden_layers": 2})
    error = refusal(tmp_path / "m", tmp_path / "pack")
    assert "vision_model.encoder.layers.2" in error.message
    assert (error.reason, error.where) == (Reason.PACK_INVALID, str(tmp_path / "m" / "model.safetensors"))
    edit_config(tmp_path / "m", vision_config={"num_hidden_layers": 4})
    assert "vision_model.encoder.layers.3" in refusal(tmp_path / "m", tmp_path / "pack").message
    edit_config(tmp_path / "m", vision_config={"num_hidden_layers": 3}, projection_dim=20)
    assert "do not fit" in refusal(tmp_path / "m", tmp_path / "pack").message


def test_a_folder_without_a_tokenizer_or_with_a_damaged_one_is_refused(tmp_path: Path) -> None:
    save_clip(tmp_path / "m")
    (tmp_path / "m" / "merges.txt").write_text("one two three\n")
    error = refusal(tmp_path / "m", tmp_path / "pack")
    assert (error.reason, error.where) == (Reason.PACK_INVALID, str(tmp_path / "m"))
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "m" / name).unlink()
    error = refusal(tmp_path / "m", tmp_path / "pack")
    assert error.reason is Reason.MISSING_FILE
    assert "no tokenizer" in error.message
    assert "--text-folder" in error.hint


def test_an_image_size_that_is_no_multiple_of_the_patch_and_odd_settings_are_refused(tmp_path: Path) -> None:
    save_clip(tmp_path / "m")
    for vision, word in (
        ({"image_size": 50}, "50 is no multiple of the patch 8"),
        ({"image_size": [48, 40]}, "takes a whole number"),
        ({"image_size": 48, "hidden_act": "gelu"}, "'gelu' and 'quick_gelu'"),
    ):
        edit_config(tmp_path / "m", vision_config=vision)
        error = refusal(tmp_path / "m", tmp_path / "pack")
        assert word in error.message
        assert error.where
        assert error.where.startswith(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "768"),
        ("hidden_size", 0),
        ("intermediate_size", [64]),
        ("num_hidden_layers", None),
        ("num_hidden_layers", 1.5),
        ("num_attention_heads", True),
        ("layer_norm_eps", "1e-5"),
        ("image_size", {}),
    ],
)
def test_a_setting_of_another_kind_is_refused_with_its_name(tmp_path: Path, key: str, value: Any) -> None:
    save_clip(tmp_path / "m")
    edit_config(tmp_path / "m", vision_config={key: value})
    error = refusal(tmp_path / "m", tmp_path / "pack")
    assert error.reason is Reason.PACK_INVALID
    assert f"its {key} is " in error.message
    edit_config(tmp_path / "m", vision_config=3)
    assert "its vision_config is '3'; it takes a table" in refusal(tmp_path / "m", tmp_path / "pack").message


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_clip(tmp_path / "m")
    state = load_file(tmp_path / "m" / "model.safetensors")
    state["text_projection.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "m" / "model.safetensors")
    error = refusal(tmp_path / "m", tmp_path / "pack")
    assert (error.reason, error.where) == (Reason.NON_FINITE, str(tmp_path / "m" / "model.safetensors"))


def test_an_architecture_cannot_be_given_to_a_folder_that_states_its_own(tmp_path: Path) -> None:
    save_clip(tmp_path / "m")
    with pytest.raises(MedclipError, match="brings its own architecture"):
        import_model(tmp_path / "m", tmp_path / "pack", architecture="ViT-B-16")
