"""Longer text: early positions stay, short sentences keep their vectors, late words begin to count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medclip.models.interchange.load_start import Started, load_start
from medclip.models.towers.state_dict import KEEP, stretch_positions
from tests.kits.layouts import BPE_TEXT, VIT, hub_folder, plain_state, random_model

CONFIG: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = plain_state(random_model(CONFIG))
    return hub_folder(tmp_path_factory.mktemp("clip"), CONFIG, state, "open_clip_model.safetensors")


@pytest.fixture(scope="module")
def short(folder: Path) -> Started:
    return load_start(folder)


@pytest.fixture(scope="module")
def long(folder: Path) -> Started:
    return load_start(folder, overrides={"text_cfg": {"context_length": 256}})


@torch.inference_mode()
def embed(started: Started, text: str) -> torch.Tensor:
    model: Any = started.model.eval()
    return model.encode_text(torch.from_numpy(started.tokenizer.encode([text])), normalize=True)[0]


def test_the_first_20_rows_stay_and_there_are_256(short: Started, long: Started) -> None:
    before, after = (s.model.positional_embedding for s in (short, long))
    assert after.shape == (256, before.shape[1])
    assert torch.equal(after[:KEEP], before[:KEEP])
    torch.testing.assert_close(after[-1], before[-1])
    torch.testing.assert_close(after[KEEP], before[KEEP])


def test_the_causal_mask_is_made_for_the_new_length(long: Started) -> None:
    mask = long.model.attn_mask
    assert mask.shape == (256, 256)
    assert torch.equal(torch.isinf(mask), torch.ones(256, 256).triu(1).bool())


@pytest.mark.parametrize("words", [1, 5, 18])
def test_a_text_of_up_to_20_tokens_embeds_as_before(short: Started, long: Started, words: int) -> None:
    text = " ".join(["lung"] * words)
    assert (short.tokenizer.encode([text]) != 0).sum() == words + 2 <= KEEP
    torch.testing.assert_close(embed(short, text), embed(long, text), atol=1e-6, rtol=0)


def test_a_change_at_token_200_counts_with_256_tokens_and_not_with_77(short: Started, long: Started) -> None:
    words = ["lung"] * 300
    changed = [*words[:198], "heart", *words[199:]]  # the begin token is the first
    one, other = " ".join(words), " ".join(changed)
    assert torch.equal(embed(short, one), embed(short, other))
    assert float((embed(long, one) - embed(long, other)).abs().max()) > 1e-5
    difference = long.tokenizer.encode([one, other])
    assert np.flatnonzero(difference[0] != difference[1]).tolist() == [199]


def test_a_shorter_context_keeps_the_first_rows(folder: Path, short: Started) -> None:
    cut = load_start(folder, overrides={"text_cfg": {"context_length": 48}})
    assert torch.equal(cut.model.positional_embedding, short.model.positional_embedding[:48])
    torch.testing.assert_close(embed(cut, "no pneumonia"), embed(short, "no pneumonia"), atol=1e-6, rtol=0)


@given(present=st.integers(2, 90), length=st.integers(1, 300))
def test_any_length_is_reached_with_the_early_rows_unchanged(present: int, length: int) -> None:
    rows = torch.linspace(0, 1, present)[:, None].repeat(1, 3)
    made = stretch_positions(rows, length)
    assert made.shape == (length, 3)
    kept = min(KEEP, present // 2, length)
    assert torch.equal(made[:kept], rows[:kept])
    assert bool((made.diff(dim=0) >= -1e-6).all())  # no row jumps over another


def test_half_precision_stays_half_precision() -> None:
    assert stretch_positions(torch.zeros(77, 4, dtype=torch.float16), 256).dtype == torch.float16
