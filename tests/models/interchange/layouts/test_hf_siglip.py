"""A SigLIP that transformers saved gives transformers' own tokens, features and logits with scale and bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Siglip2Tokenizer, SiglipTokenizer

from medclip.errors import MedclipError, Reason
from medclip.models.interchange.import_export import export_model, import_model
from medclip.models.interchange.load_start import load_start
from medclip.models.packs.pack import load_model
from tests.kits.hf_models import CONTEXT, TEXTS, edit_config, images, save_siglip, train_pieces

GEMMA = [
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256)),
    *"abcdefghijklmnopqrstuvwxyz▁.", "ch", "che",
]  # fmt: skip


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
