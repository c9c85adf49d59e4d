from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.text.captions.draw import all_wordings
from medclip.text.tokenizers.tokenizer import FILES, load_tokenizer, train_tokenizer

SENTENCES = [
    "Chest X-ray: no pneumonia",
    "COVID-19 &amp; pleural   effusion",
    "“quoted” œdème naïve façade",
    "",
    "unseen words like zygote 1234 µm",
    "word " * 100,
    "(rÃ©sumÃ©)",
    "[EOS] in the text [PAD]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(all_wordings(), path, vocab_size=1024, context_length=32)
    return path


def test_pad_is_zero_and_the_end_has_the_highest_id(folder):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(SENTENCES)
    assert ids.dtype == np.int64
    assert ids.shape == (len(SENTENCES), 32)
    assert tokenizer.eos_id == tokenizer.vocab_size - 1 <= 1023
    assert ids.max() == tokenizer.eos_id
    for row in ids[:-1]:
        end = int(row.argmax())
        assert row[end] == tokenizer.eos_id
        assert (row[end + 1 :] == 0).all()


def test_case_does_not_matter_and_ordinary_words_survive(folder):
    tokenizer = load_tokenizer(folder)
    a, b = tokenizer.encode(["No PNEUMONIA", "no pneumonia"])
    assert (a == b).all()
    assert tokenizer.decode(a) == "no pneumonia"
    assert not (tokenizer.encode(list(all_wordings())) == 1).any()


def test_no_sentences_give_no_rows_and_one_string_gives_one(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode([]).shape == (0, 32)
    assert tokenizer.encode("pneumonia").shape == (1, 32)


def test_the_context_length_is_stored(folder):
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 32
    assert load_tokenizer(folder).context_length == 32


def test_another_context_length_is_saved_with_the_tokenizer(folder, tmp_path):
    longer = load_tokenizer(folder, {"hf_tokenizer_name": "tokenizer", "context_length": 96})
    longer.save(tmp_path / "longer")
    assert load_tokenizer(tmp_path / "longer").encode(SENTENCES).shape == (len(SENTENCES), 96)
    load_tokenizer(folder).save(tmp_path / "same")
    for name in FILES:
        assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()


def test_open_clip_reads_the_same_folder_to_the_same_ids(folder):
    from open_clip.tokenizer import HFTokenizer

    ours, theirs = load_tokenizer(folder), HFTokenizer(str(folder), context_length=32)
    texts = [*SENTENCES, *list(all_wordings())[::20]]
    assert np.array_equal(ours.encode(texts), theirs(texts).numpy())


@given(st.text(max_size=80))
def test_any_text_has_one_end(text):
    tokenizer = test_any_text_has_one_end.tokenizer
    row = tokenizer.encode([text])[0]
    assert row[0] == 2
    assert (row == tokenizer.eos_id).any()


@pytest.fixture(scope="module", autouse=True)
def _tokenizer_for_hypothesis(folder):
    test_any_text_has_one_end.tokenizer = load_tokenizer(folder)  # type: ignore[attr-defined]


def test_training_again_in_another_process_and_order_gives_the_same_bytes(folder, tmp_path):
    code = (  # string hashes differ from process to process: nothing may depend on them
        "import random, sys; from pathlib import Path; from medclip.text.captions.draw import all_wordings;"
        "from medclip.text.tokenizers.tokenizer import train_tokenizer;"
        " w = list(all_wordings()); random.Random(1).shuffle(w);"
        f"train_tokenizer(w, Path({str(tmp_path)!r}), vocab_size=1024, context_length=32)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_folder_without_a_tokenizer_or_with_another_kind_is_refused(folder, tmp_path):
    with pytest.raises(MedclipError) as e:
        load_tokenizer(tmp_path)
    assert e.value.reason is Reason.MISSING_FILE
    for name in FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(MedclipError) as e:
        load_tokenizer(tmp_path)
    assert e.value.reason is Reason.PACK_INVALID
    other = json.loads((folder / "tokenizer.json").read_text().replace("[EOS]", "[END]"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(MedclipError, match="EOS"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("options", [{"context_length": 2}, {"vocab_size": 10}])
def test_useless_sizes_and_no_captions_are_refused(tmp_path, options):
    with pytest.raises(MedclipError):
        train_tokenizer(["a b c"], tmp_path, **options)
    with pytest.raises(MedclipError):
        train_tokenizer([], tmp_path)
