"""A SigLIP that transformers saved gives transformers' own tokens, features and logits with scale and bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, Siglip2Tokenizer, SiglipConfig, SiglipModel, SiglipTokenizer

from medclip.api.models import export_model, import_model
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.layouts import hf_siglip
from medclip.models.interchange.layouts.layout import Place
from medclip.models.interchange.load_start import load_start
from medclip.models.packs.pack import load_model
from medclip.models.towers.build import build_clip
from tests.kits.hf_models import CONTEXT, TEXTS, edit_config, images, save_siglip, train_pieces

GEMMA = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    *(f"<0x{i:02X}>" for i in range(256)),
    *"abcdefghijklmnopqrstuvwxyz▁.",
    "ch",
    "che",
]


@pytest.fixture(scope="module")
def pieces() -> bytes:
    return train_pieces()


def check_equal(pack: Path, theirs: Any, tokenize: Any) -> None:
    """Compare tokens, features and logits with those of transformers, without an attention mask as in training."""
    ours = load_model(pack)
    ids = tokenize(TEXTS, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")["input_ids"]
    np.testing.assert_array_equal(ours.tokenizer.encode(TEXTS), ids.numpy())
    pixels = images()
    with torch.inference_mode():
        out = theirs(input_ids=ids, pixel_values=ours.normalise(pixels))
    unit = [torch.nn.functional.normalize(v, dim=-1).numpy() for v in (out.image_embeds, out.text_embeds)]
    image, text = ours.encode_image(pixels), ours.encode_text(TEXTS)
    np.testing.assert_allclose(image, unit[0], atol=1e-5)
    np.testing.assert_allclose(text, unit[1], atol=1e-5)
    logits = ours.similarity(image, text, logits=True)
    np.testing.assert_allclose(logits, out.logits_per_image.numpy(), atol=1e-5)
    assert abs(ours.logit_bias) > 0.01
    assert np.ptp(image, axis=0).max() > 1e-2  # images and texts differ: the comparison says something
    assert np.ptp(text, axis=0).max() > 1e-2


def test_a_siglip_with_a_spiece_model_alone_is_transformers_own(tmp_path: Path, pieces: bytes) -> None:
    theirs = save_siglip(tmp_path / "medsiglip", vocab_size=44)
    (tmp_path / "medsiglip" / "spiece.model").write_bytes(pieces)
    tokenizer = SiglipTokenizer(str(tmp_path / "medsiglip" / "spiece.model"))
    check_equal(import_model(tmp_path / "medsiglip", tmp_path / "pack"), theirs, tokenizer)
    tokenizer.save_pretrained(tmp_path / "medsiglip")  # with its configuration beside it
    check_equal(import_model(tmp_path / "medsiglip", tmp_path / "again"), theirs, tokenizer)


@pytest.mark.golden
def test_each_of_five_images_has_the_vector_of_transformers_own_processor_and_model(
    tmp_path: Path, pieces: bytes
) -> None:
    """Grey, in colour, upright, flat, and enlarged: with Pillow's arithmetic some were up to 4e-4 off."""
    theirs: Any = save_siglip(tmp_path / "m", vocab_size=44)
    (tmp_path / "m" / "spiece.model").write_bytes(pieces)
    ours = load_model(import_model(tmp_path / "m", tmp_path / "pack"))
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path / "m")
    rng = np.random.default_rng(0)
    for height, width, channels in [(90, 90, 1), (61, 84, 3), (200, 97, 1), (97, 256, 3), (31, 30, 3)]:
        pixels = np.repeat(rng.integers(0, 256, (height, width, channels), dtype=np.uint8), 4 - channels, axis=2)[
            ..., :3
        ]
        with torch.inference_mode():
            vector = theirs.get_image_features(**processor(Image.fromarray(pixels), return_tensors="pt")).pooler_output
        unit = torch.nn.functional.normalize(vector, dim=-1).numpy()
        np.testing.assert_allclose(ours.encode_image(ours.preprocess.fit(pixels)[None]), unit, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"add_eos_token": True}, {"add_eos_token": True, "padding_side": "right"}])
def test_a_siglip_2_with_gemmas_tokenizer_is_transformers_own(tmp_path: Path, options: dict[str, Any]) -> None:
    theirs = save_siglip(tmp_path / "m", vocab_size=len(GEMMA))
    vocabulary = {piece: i for i, piece in enumerate(GEMMA)}
    merges: Any = [("c", "h"), ("ch", "e")]
    tokenizer = Siglip2Tokenizer(vocab=vocabulary, merges=merges, **options)
    tokenizer.save_pretrained(tmp_path / "m")
    check_equal(import_model(tmp_path / "m", tmp_path / "pack"), theirs, tokenizer)


def test_training_starts_from_the_folder_and_export_says_that_open_clip_has_no_such_tower(
    tmp_path: Path, pieces: bytes
) -> None:
    save_siglip(tmp_path / "m", vocab_size=44)
    (tmp_path / "m" / "spiece.model").write_bytes(pieces)
    pack = import_model(tmp_path / "m", tmp_path / "pack")
    ours = load_model(pack)
    for start in (tmp_path / "m", pack):
        started = load_start(start)
        assert started.model.state_dict()["logit_bias"].item() == ours.logit_bias
        np.testing.assert_array_equal(started.tokenizer.encode(TEXTS), ours.tokenizer.encode(TEXTS))
    with pytest.raises(MedclipError, match="open_clip") as caught:
        export_model(pack, tmp_path / "exported")
    assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "exported").exists()


def test_the_one_size_that_its_authors_cut_off_is_taken_as_transformers_takes_it(tmp_path: Path, pieces: bytes) -> None:
    """google/siglip-so400m-patch14-384: 27 patches of 14 leave 6 of 384 pixels out."""
    theirs: Any = save_siglip(tmp_path / "m", vocab_size=44, image_size=384, patch_size=14)
    (tmp_path / "m" / "spiece.model").write_bytes(pieces)
    ours = load_model(import_model(tmp_path / "m", tmp_path / "pack"))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 384, 384, 3), dtype=np.uint8)
    with torch.inference_mode():
        image = theirs.get_image_features(ours.normalise(pixels)).pooler_output
    unit = torch.nn.functional.normalize(image, dim=-1).numpy()
    np.testing.assert_allclose(ours.encode_image(pixels), unit, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1152, 4304, 27, 16, 448, 14), (768, 3072, 12, 12, 224, 16)])
def test_names_and_sizes_of_the_real_models_fit_without_their_weights(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """MedSigLIP's and the base model's configurations, on torch's meta device."""
    width, inner, layers, heads, side, patch = sizes
    part = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    text = {**part, "bos_token_id": None, "eos_token_id": 1}
    config = SiglipConfig(text_config=text, vision_config={**part, "image_size": side, "patch_size": patch})
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nobody reads it")
    source = hf_siglip.LAYOUT.read(Place(tmp_path))
    assert source.config is not None
    assert source.convert is not None
    with torch.device("meta"):
        converted = source.convert(SiglipModel(config).state_dict())
        own = build_clip(source.config).state_dict()
    logit = {"logit_scale", "logit_bias"}
    assert {n: v.shape for n, v in converted.items() if n not in logit} == {
        n: v.shape for n, v in own.items() if n not in logit
    }


def test_a_naflex_model_is_refused_by_name(tmp_path: Path) -> None:
    save_siglip(tmp_path / "m", vocab_size=44)
    edit_config(tmp_path / "m", model_type="siglip2")
    with pytest.raises(MedclipError, match="NaFlex"):
        import_model(tmp_path / "m", tmp_path / "pack")


def test_a_siglip_without_a_tokenizer_or_of_odd_sizes_is_refused(tmp_path: Path, pieces: bytes) -> None:
    save_siglip(tmp_path / "m", vocab_size=44)
    cases = [
        ({}, "no tokenizer"),
        ({"vision_config": {"image_size": 50}}, "no multiple of the patch 8"),
        ({"vision_config": {"image_size": 48, "hidden_act": "gelu"}}, "'gelu'"),
        ({"vision_config": {"hidden_act": "gelu_pytorch_tanh"}, "text_config": {"projection_size": 16}}, "16"),
        ({"text_config": {"projection_size": 32, "num_hidden_layers": 1}}, "text_model.encoder.layers.1"),
    ]
    for changes, word in cases:
        edit_config(tmp_path / "m", **changes)
        with pytest.raises(MedclipError, match=word) as caught:
            import_model(tmp_path / "m", tmp_path / "pack")
        assert caught.value.where
        assert not (tmp_path / "pack").exists()
        (tmp_path / "m" / "spiece.model").write_bytes(pieces)
    edit_config(tmp_path / "m", text_config={"num_hidden_layers": 2})
    (tmp_path / "m" / "spiece.model").write_bytes(pieces[:200])
    with pytest.raises(MedclipError, match="tokenizer files cannot be read"):
        import_model(tmp_path / "m", tmp_path / "pack")
