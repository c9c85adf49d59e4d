"""Vectors of sentences that lie in a pack: the same bits as encoding gives, and only for the tower that made them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import check_pack, find_pack, load_model, pack_card, update_pack, write_sentence_vectors
from medclip.models.prototypes.sentence_vectors import (
    FILE_NAME,
    load_sentence_vectors,
    save_sentence_vectors,
    task_sentences,
    text_tower_digest,
)

MINI = find_pack("medclip-mini")


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MINI, tmp_path / "pack"))


def test_the_pack_that_comes_along_holds_every_sentence_of_its_tasks():
    assert set(task_sentences(pack_card("medclip-mini"))) <= set(load_sentence_vectors(MINI))


def test_a_sentence_of_the_pack_has_the_vector_that_encoding_gives():
    model = load_model("medclip-mini", verify=False)
    sentences = task_sentences(model.card)[:24]
    encoded_ND = model.without_sentences().encode_text(sentences)
    np.testing.assert_allclose(model.encode_text(sentences), encoded_ND, rtol=0, atol=1e-6)


def test_vectors_of_another_text_tower_are_not_used_and_are_a_fault_when_a_pack_is_checked(pack: Path):
    tokens = pack / "tokenizer_config.json"
    tokens.write_text(tokens.read_text() + "\n")
    update_pack(pack)
    assert load_sentence_vectors(pack) == {}
    with pytest.raises(MedclipError, match="another text tower") as caught:
        check_pack(pack)
    assert caught.value.reason is Reason.PACK_INVALID


def test_vectors_that_the_tower_does_not_compute_are_a_fault(pack: Path):
    save_sentence_vectors(pack, ["no sign of it"], np.eye(1, 256, dtype=np.float32))
    update_pack(pack)
    with pytest.raises(MedclipError, match="other vectors than its text tower computes"):
        check_pack(pack)


def test_a_file_that_holds_no_vectors_is_refused(pack: Path):
    (pack / FILE_NAME).write_bytes(b"nothing")
    with pytest.raises(MedclipError, match="does not hold vectors of sentences"):
        load_sentence_vectors(pack)


def test_the_hash_of_the_text_tower_is_that_of_the_pack_whatever_its_card_says(pack: Path):
    before = text_tower_digest(pack)
    update_pack(pack, card=pack_card(pack).model_copy(update={"version": "9"}))
    assert text_tower_digest(pack) == before


def test_a_pack_without_the_file_works_and_gets_one_where_its_card_has_tasks(pack: Path):
    (pack / FILE_NAME).unlink()
    card = pack_card(pack)
    update_pack(pack, card=card.model_copy(update={"tasks": {"fundus_cataract": card.tasks["fundus_cataract"]}}))
    assert load_sentence_vectors(pack) == {}
    write_sentence_vectors(pack)
    assert set(load_sentence_vectors(pack)) == set(task_sentences(pack_card(pack)))
