"""What changed: the change of each head, and the sentences it speaks of."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medclip.adaptation.towers.clip_svd import decomposed, singular_values
from medclip.adaptation.towers.svd_report import (
    explain_variance,
    per_head,
    vocabulary_sentences,
    what_changed,
)
from medclip.errors import MedclipError
from tests.kits.svd import decomposed_whole, tower_pair


class FewWords:
    """A model with words of its own, as far as `what_changed` looks at it."""

    batch_size = 2

    def __init__(self, clip: Any) -> None:
        self.clip = clip

    def normalise(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255

    def encode_text(self, texts: Any) -> np.ndarray:
        rows = [np.random.default_rng(len(t)).normal(size=16) for t in texts]
        return np.stack([r / np.linalg.norm(r) for r in rows]).astype(np.float32)


def learned(model: Any, *, only: str = "") -> dict[str, torch.Tensor]:
    values = singular_values(decomposed_whole(copy.deepcopy(model)))
    return {n: v * 1.3 if only in n else v for n, v in values.items()}


@pytest.mark.parametrize("kind", ["open_clip", "timm_vit"])
def test_the_changes_of_a_layers_heads_add_up_to_the_change_of_its_singular_values(kind: str, tmp_path: Path) -> None:
    model = decomposed_whole(tower_pair(kind, tmp_path))
    before = singular_values(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in decomposed(model).values():
            layer.S += torch.randn_like(layer.S)
    parts = per_head(model, before)
    assert [p.change for p in parts] == sorted((p.change for p in parts), reverse=True)
    assert {p.role for p in parts if p.head is not None} == {"v", "out"}
    for name, layer in decomposed(model).items():
        if name.startswith("visual."):
            whole = float((layer.S.detach() - before[name]).norm())
            assert sum(p.change**2 for p in parts if p.layer == name) ** 0.5 == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(("role", "rows"), [("v_proj", True), ("out_proj", False)])
def test_a_change_of_one_heads_rows_or_columns_is_found_at_that_head(role: str, rows: bool, tmp_path: Path) -> None:
    model = decomposed_whole(tower_pair("open_clip", tmp_path))
    name = f"visual.transformer.resblocks.1.attn.{role}"
    layer = decomposed(model)[name]
    with torch.no_grad():  # the first singular vector lies in the second head alone
        side = layer.U[:, 0] if rows else layer.V[0]
        side[: len(side) // 2] = 0
    before = singular_values(model)
    with torch.no_grad():
        layer.S[0] += 1
    first, second, *_ = per_head(model, before)
    assert (first.layer, first.head, second.change) == (name, 1, 0)


@pytest.mark.parametrize(("kind", "heads"), [("open_clip", True), ("timm_vit", True), ("efficientnet", False)])
def test_what_changed_undoes_parts_and_names_sentences(kind: str, heads: bool, tmp_path: Path) -> None:
    clip = tower_pair(kind, tmp_path)
    values, state = learned(clip), {n: t.clone() for n, t in clip.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = what_changed(FewWords(clip), values, images, num_parts=40, num_sentences=3)  # type: ignore[arg-type]
    assert {m.part.head is not None for m in found} == ({True, False} if heads else {False})
    assert all(m.effect >= 0 for m in found)
    assert any(m.effect > 0 for m in found)
    for meaning in found:
        shares = [share for _, share in meaning.sentences]
        assert len(shares) <= 3
        assert 0 <= sum(shares) <= 1 + 1e-9
        assert {s for s, _ in meaning.sentences} <= set(vocabulary_sentences())
    assert all(torch.equal(t, state[n]) for n, t in clip.state_dict().items())


def test_parts_that_did_not_learn_have_no_effect_and_no_sentences(tmp_path: Path) -> None:
    clip = tower_pair("open_clip", tmp_path)
    values = learned(clip, only="visual.transformer.resblocks.1.mlp.c_fc")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    first, *others = what_changed(FewWords(clip), values, images, num_parts=9)  # type: ignore[arg-type]
    assert first.part.layer.endswith("1.mlp.c_fc")
    assert first.effect > 0
    assert all(m.part.change == 0 and m.effect < 1e-6 for m in others)


def test_the_sentence_along_which_differences_vary_comes_first_with_its_share() -> None:
    vectors = np.eye(6, dtype=np.float32)
    along = vectors - vectors.mean(axis=0)
    amounts = np.random.default_rng(0).normal(size=(20, 2)) * [3.0, 1.0]
    amounts -= amounts.mean(axis=0)
    moved = amounts[:, :1] * along[2] + amounts[:, 1:] * along[4] + 7
    found = explain_variance(moved.astype(np.float32), list("abcdef"), vectors, 6)
    assert [s for s, _ in found[:2]] == ["c", "e"]
    assert found[0][1] > 0.7
    assert sum(share for _, share in found) == pytest.approx(1, abs=1e-5)
    assert explain_variance(np.ones((4, 6), np.float32), list("abcdef"), vectors, 3) == ()


def test_two_images_or_layers_of_another_model_are_refused(tmp_path: Path) -> None:
    model: Any = SimpleNamespace(clip=tower_pair("open_clip", tmp_path), encode_text=FewWords(None).encode_text)
    images = np.zeros((3, 32, 32, 3), np.uint8)
    with pytest.raises(MedclipError, match="2 images"):
        what_changed(model, {}, images[:2])
    with pytest.raises(MedclipError, match="0 of the 1 layers"):
        what_changed(model, {"visual.other": torch.ones(3)}, images)
