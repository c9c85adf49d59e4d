from __future__ import annotations

from pathlib import Path

import pytest

from medclip.models.packs.pack import find_pack
from medclip.text.checks.prompt_words import num_read, prompt_notes
from medclip.text.tokenizers.clip import ClipTokenizer
from medclip.text.tokenizers.tokenizer import Tokenizer, load_tokenizer
from medclip.text.vocabulary.own_words import read_prompts

_PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] pneumonia the a with no ##a p ##n ##e ##u ##m ##o ##t ##r ##x"


@pytest.fixture(params=["own", "clip"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return load_tokenizer(find_pack("medclip-mini")) if request.param == "own" else ClipTokenizer()


def _word_pieces(folder: Path) -> Tokenizer:
    (folder / "vocab.txt").write_text("\n".join(_PIECES.split()) + "\n")
    return load_tokenizer(folder, {"hf_tokenizer_name": "x", "hf_model_name": "y", "context_length": 16})


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("a pneumotorax", "“pneumotorax”: did you mean “pneumothorax”?"),
        ("lobar neumonia", "“neumonia”: did you mean “pneumonia”?"),
        ("an effusoin on the left", "“effusoin”: did you mean “effusion”?"),
        ("Atelectesis of a lobe", "“Atelectesis”: did you mean “atelectasis”?"),
    ],
)
def test_a_misspelt_word_of_the_vocabulary_is_pointed_out_once(tokenizer: Tokenizer, prompt: str, hint: str) -> None:
    assert prompt_notes(read_prompts(prompt), tokenizer) == (hint,)


@pytest.mark.parametrize(
    "prompt",
    [
        "pneumothorax",
        "pleural effusions",
        "a tumor, or tumour, of the brain",
        "lung oedema | pulmonary edema",
        "Consolidations in both lungs",
        "a central line and a chest tube",
    ],
)
def test_words_of_the_vocabulary_in_any_form_raise_no_alarm(tokenizer: Tokenizer, prompt: str) -> None:
    assert prompt_notes(read_prompts(prompt), tokenizer) == ()


@pytest.mark.parametrize("word", ["cholecystolithiasis", "osteosarcoma", "intensities", "infusion", "perfusion"])
def test_a_word_in_pieces_is_not_unknown_to_a_general_tokenizer(word: str) -> None:
    assert prompt_notes(read_prompts(f"signs of {word}"), ClipTokenizer()) == ()


def test_a_word_that_a_small_tokenizer_spells_was_hardly_in_its_captions() -> None:
    own = load_tokenizer(find_pack("medclip-mini"))
    (note,) = prompt_notes(read_prompts("cholecystolithiasis | onychomycosis"), own)
    assert note.startswith(
        "Hardly in the texts that the model was trained on: “cholecystolithiasis” and “onychomycosis”"
    )


def test_a_word_that_becomes_no_token_is_named(tmp_path: Path) -> None:
    notes = prompt_notes(read_prompts("pneumonia with 肺"), _word_pieces(tmp_path))
    assert notes == ("The model's tokenizer does not know the word “肺”, which is left out of the question.",)


def test_a_prompt_of_400_words_is_cut_and_that_is_pointed_out_once_with_what_remains(tokenizer: Tokenizer) -> None:
    words = ("the left lung is clear " * 80).split()
    (note,) = prompt_notes(read_prompts(" ".join(words)), tokenizer)
    kept = num_read(" ".join(words), tokenizer)
    assert note == (
        "The prompt “the left lung is clear the left lung …” has 400 words; the model reads the first "
        f"{kept} and nothing after them."
    )
    ids = tokenizer.encode([" ".join(words)])
    assert (ids == tokenizer.encode([" ".join(words[: kept + 5])])).all()  # more words change nothing
    assert (ids == tokenizer.encode([" ".join(words[:kept])])).all()  # each of these words is one token
    assert (ids != tokenizer.encode([" ".join(words[: kept - 1])])).any()


def test_a_prompt_that_just_fits_is_not_cut(tokenizer: Tokenizer) -> None:
    room = tokenizer.context_length - 2
    assert num_read(" ".join(["lung"] * room), tokenizer) == room
    assert num_read(" ".join(["lung"] * (room + 1)), tokenizer) == room
    assert num_read("", tokenizer) == 0
