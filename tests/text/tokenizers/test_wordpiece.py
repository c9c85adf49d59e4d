"""WordPiece from a folder gives open_clip's ids, from tokenizer.json and from vocab.txt alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer

from medclip.errors import MedclipError, Reason
from medclip.text.tokenizers.tokenizer import Tokenizer, load_tokenizer
from tests.kits.layouts import SENTENCES, bert_folder, bert_text

TEXTS = [
    *SENTENCES,
    "[SEP] in the text [PAD]",
    "肺 chest",
    "x\u200bray ﬁne",
    "Tumour &lt;2 cm",
    "CHEST chest Chest",
    "naïve œdème ÅNGSTRÖM",
    "a" * 150,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


def variant(folder: Path, target: Path, config: dict[str, Any] | None, *, as_json: bool, lower: bool = True) -> Path:
    """The same vocabulary in other files."""
    from tokenizers import BertWordPieceTokenizer

    target.mkdir()
    (target / "config.json").write_text((folder / "config.json").read_text())
    if as_json:
        BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lower).save(str(target / "tokenizer.json"))
    else:
        (target / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    if config is not None:
        (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def cfg(**more: Any) -> dict[str, Any]:
    return bert_text("bert", **more)


@pytest.mark.parametrize("length", [8, 256])
@pytest.mark.parametrize(
    ("config", "as_json"),
    [
        (None, False),
        ({"do_lower_case": True}, False),
        ({"do_lower_case": False}, False),
        ({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}, False),
        ({"tokenizer_class": "BertTokenizer", "strip_accents": False}, False),
        ({"tokenizer_class": "BertTokenizer", "model_max_length": 512}, True),
        ({"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}, True),
        (None, True),
    ],
)
def test_any_layout_of_a_bert_folder_gives_open_clips_ids(
    folder: Path, tmp_path: Path, config: dict[str, Any] | None, as_json: bool, length: int
) -> None:
    place = variant(folder, tmp_path / "v", config, as_json=as_json)
    ours = load_tokenizer(place, cfg(context_length=length))
    theirs = HFTokenizer(str(place), context_length=length)
    np.testing.assert_array_equal(ours.encode(TEXTS), theirs(TEXTS).numpy())


def test_a_cased_json_of_a_bert_class_is_lower_cased_as_transformers_does(folder: Path, tmp_path: Path) -> None:
    place = variant(folder, tmp_path / "v", {"tokenizer_class": "BertTokenizer"}, as_json=True, lower=False)
    theirs = HFTokenizer(str(place), context_length=32)(TEXTS).numpy()
    np.testing.assert_array_equal(load_tokenizer(place, cfg(context_length=32)).encode(TEXTS), theirs)


def test_what_is_saved_gives_the_same_ids_here_and_in_open_clip(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder, cfg())
    tokenizer.save(tmp_path / "saved")
    ids = tokenizer.encode(TEXTS)
    assert ids.shape == (len(TEXTS), 256)
    np.testing.assert_array_equal(load_tokenizer(tmp_path / "saved").encode(TEXTS), ids)
    np.testing.assert_array_equal(load_tokenizer(tmp_path / "saved", cfg()).encode(TEXTS), ids)
    np.testing.assert_array_equal(HFTokenizer(str(tmp_path / "saved"), context_length=256)(TEXTS).numpy(), ids)
    load_tokenizer(tmp_path / "saved").save(tmp_path / "again")
    for file in (tmp_path / "saved").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_a_long_text_is_cut_and_still_ends_with_sep(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, cfg(context_length=16))
    row = tokenizer.encode(["word after word " * 50])[0]
    assert row[-1] == tokenizer.eos_id
    assert row[0] == 2
    assert tokenizer.pad_id == 0
    assert tokenizer.decode(row).startswith("word after word")


def test_without_a_stated_length_a_bert_has_256_tokens(folder: Path) -> None:
    assert load_tokenizer(folder).context_length == 256


@given(st.text(max_size=60))
def test_any_text_has_one_begin_and_one_end(text: str) -> None:
    tokenizer: Tokenizer = test_any_text_has_one_begin_and_one_end.tokenizer  # type: ignore[attr-defined]
    row = tokenizer.encode([text])[0]
    assert row[0] == 2
    last = int(np.flatnonzero(row != tokenizer.pad_id)[-1])
    assert row[last] == tokenizer.eos_id


@pytest.fixture(scope="module", autouse=True)
def _tokenizer_for_hypothesis(folder: Path) -> None:
    test_any_text_has_one_begin_and_one_end.tokenizer = load_tokenizer(folder)  # type: ignore[attr-defined]


def test_another_kind_of_tokenizer_json_is_read_as_it_says_and_needs_its_end_named(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors

    vocabulary = {"<pad>": 1, "<s>": 0, "</s>": 2, "<unk>": 3, "chest": 4, "lung": 5}
    backend: Any = Backend(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    settings = cfg(context_length=6, tokenizer_kwargs={"clean": "canonicalize"})
    with pytest.raises(MedclipError, match="how it pads, ends"):
        load_tokenizer(tmp_path, settings)
    with pytest.raises(MedclipError, match="EOS"):  # an argmax tower takes the highest id for the end
        load_tokenizer(tmp_path, {"hf_tokenizer_name": "x", "context_length": 6})
    config["eos_token"] = {"__type": "AddedToken", "content": "</s>", "lstrip": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(tmp_path, settings)
    theirs = HFTokenizer(str(tmp_path), context_length=6, clean="canonicalize")
    texts = ["Chest, LUNG!", "a_lung"]
    np.testing.assert_array_equal(ours.encode(texts), theirs(texts).numpy())
    assert (ours.pad_id, ours.eos_id) == (1, 2)


def test_the_end_token_is_left_out_where_the_config_says_so(folder: Path) -> None:
    settings = cfg(context_length=16, tokenizer_kwargs={"strip_sep_token": True})
    theirs = HFTokenizer(str(folder), context_length=16, strip_sep_token=True)
    np.testing.assert_array_equal(load_tokenizer(folder, settings).encode(TEXTS), theirs(TEXTS).numpy())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"tokenizer_mode": "clips"}, "tokenizer_mode"),
        ({"tokenizer_kwargs": {"reduction_mask": "random"}}, "reduction_mask"),
        ({"tokenizer_kwargs": {"clean": "scrub"}}, "scrub"),
    ],
)
def test_settings_that_change_ids_in_ways_we_do_not_know_are_refused(
    folder: Path, settings: dict[str, Any], word: str
) -> None:
    with pytest.raises(MedclipError, match=word) as caught:
        load_tokenizer(folder, cfg(**settings))
    assert caught.value.reason is Reason.PACK_INVALID


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("chest\nlung\n")
    with pytest.raises(MedclipError) as caught:
        load_tokenizer(tmp_path, cfg())
    assert caught.value.reason is Reason.PACK_INVALID
