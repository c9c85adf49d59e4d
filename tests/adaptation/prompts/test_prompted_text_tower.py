from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from medclip.adaptation.prompts.prompted_text_tower import (
    embed,
    encode_embedded,
    place,
    placeholders,
    token_embedding,
)
from medclip.errors import MedclipError, Reason
from medclip.models.towers.build import build_clip, default_config
from medclip.text.tokenizers.clip import ClipTokenizer
from medclip.text.tokenizers.tokenizer import Tokenizer, train_tokenizer
from medclip.training.steps.fast_towers import encode_short
from tests.kits.adapt_towers import bert_tower
from tests.kits.adaptation import tiny_model

SAID = ["apple", "a much longer apple, perhaps two"]


def towers(kind: str, folder: Path) -> tuple[Any, Tokenizer]:
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    base = None
    if kind == "clip":
        tokenizer: Tokenizer = ClipTokenizer(20)
        text: dict[str, Any] = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
        config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    elif kind == "bert":
        base = folder
        config, tokenizer = bert_tower(folder)
    else:
        tokenizer = train_tokenizer(SAID * 3, folder, vocab_size=320, context_length=48)
        config = default_config(
            vocab_size=320,
            context_length=48,
            embed_dim=12,
            size_px=64,
            image_tower="test_efficientnet",
            text_width=16,
            text_heads=2,
            text_layers=2,
        )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_clip(config, base).eval(), tokenizer


@pytest.mark.parametrize("kind", ["clip", "custom", "bert"])
def test_sentences_given_as_embeddings_encode_like_their_ids(kind: str, tmp_path: Path) -> None:
    clip, tokenizer = towers(kind, tmp_path)
    tokens = torch.from_numpy(tokenizer.encode(SAID))
    with torch.no_grad():
        expected = normalize(clip.encode_text(tokens), dim=-1)
        torch.testing.assert_close(normalize(encode_short(clip, tokens, tokenizer.pad_id), dim=-1), expected)
        embedded = embed(clip, tokens)
        torch.testing.assert_close(encode_embedded(clip, tokens, embedded, tokenizer.pad_id), expected)
        # The tower is left as it was: other embeddings give other features, and then ids count again.
        other = encode_embedded(clip, tokens, embedded.flip(-1), tokenizer.pad_id)
        assert (other - expected).abs().max() > 1e-3
        torch.testing.assert_close(normalize(clip.encode_text(tokens), dim=-1), expected)


@pytest.mark.parametrize("kind", ["clip", "custom", "bert"])
def test_the_words_of_a_template_as_vectors_give_the_template(kind: str, tmp_path: Path) -> None:
    clip, tokenizer = towers(kind, tmp_path)
    made = placeholders(tokenizer, SAID, count := len(_ids(tokenizer, "a photo of a")))
    assert made.prefix == 1
    assert made.num_vectors == count
    start = embed(clip, torch.from_numpy(tokenizer.encode(["a photo of a"])))[0, 1 : 1 + count]
    embedded = place(embed(clip, made.tokens_CL), start, made)
    with torch.no_grad():
        found = encode_embedded(clip, made.tokens_CL, embedded, tokenizer.pad_id)
        said = torch.from_numpy(tokenizer.encode([f"a photo of a {p}." for p in SAID]))
        torch.testing.assert_close(found, normalize(clip.encode_text(said), dim=-1))


@pytest.mark.parametrize("kind", ["clip", "custom", "bert"])
def test_the_names_are_counted_without_their_full_stop(kind: str, tmp_path: Path) -> None:
    _, tokenizer = towers(kind, tmp_path)
    made = placeholders(tokenizer, SAID, 3)
    assert made.name_lens == tuple(len(_ids(tokenizer, p)) for p in SAID)


def test_gradients_reach_the_vectors_and_nothing_else() -> None:
    base = tiny_model()
    made = placeholders(base.tokenizer, ["apple", "pear"], 4)
    vectors = torch.zeros(4, 32, requires_grad=True)
    embedded = place(embed(base.clip, made.tokens_CL), vectors, made)
    encode_embedded(base.clip, made.tokens_CL, embedded, base.tokenizer.pad_id).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().max() > 0
    assert all(p.grad is None for p in base.clip.parameters())


def test_the_places_of_the_vectors() -> None:
    base = tiny_model()
    made = placeholders(base.tokenizer, ["apple"], 3)
    embedded = torch.arange(16.0).reshape(1, 16, 1)
    vectors = torch.tensor([[101.0], [102.0], [103.0]])
    length = made.name_lens[0]
    name = list(range(4, 4 + length))
    rest = list(range(4 + length, 16))
    assert place(embedded, vectors, made, "end").flatten().tolist() == [0, 101, 102, 103, *name, *rest]
    assert place(embedded, vectors, made, "middle").flatten().tolist() == [0, 101, *name, 102, 103, *rest]
    assert place(embedded, vectors, made, "front").flatten().tolist() == [0, *name, 101, 102, 103, *rest]
    with pytest.raises(MedclipError, match="no position 'above'"):
        place(embedded, vectors, made, "above")  # type: ignore[arg-type]


def test_a_context_too_short_names_the_class() -> None:
    base = tiny_model()
    with pytest.raises(MedclipError, match=r"'pear_class'.* 16 tokens") as e:
        placeholders(base.tokenizer, ["apple", "pear " * 9], 8, ["apple_class", "pear_class"])
    assert e.value.problem().reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="0 learned vectors"):
        placeholders(base.tokenizer, ["apple"], 0)


def test_the_embedding_is_found_in_every_tower(tmp_path: Path) -> None:
    for kind in ("clip", "custom", "bert"):
        (tmp_path / kind).mkdir()
        clip, tokenizer = towers(kind, tmp_path / kind)
        assert token_embedding(clip)(torch.zeros(1, 1, dtype=torch.int64)).shape[-1] == 16, tokenizer


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    row, empty = tokenizer.encode([text])[0], tokenizer.encode([""])[0]
    used = int(np.flatnonzero(row == tokenizer.eos_id)[0])
    return [int(i) for i in row[int(np.flatnonzero(empty == tokenizer.eos_id)[0]) : used]]
