"""Locked towers do not move, and depths number every layer of every kind of tower."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.build import build_clip
from medclip.models.towers.layers import layer_depths, lock_image, lock_text
from tests.kits.layouts import BPE_TEXT, TOWERS, bert_folder, bert_text
from tests.models.conftest import tiny_config

TEXT = BPE_TEXT | {"context_length": 12, "vocab_size": 60}


def build(tower: str, text: dict[str, Any] | None = None, **more: Any) -> Any:
    return build_clip({"embed_dim": 16, "vision_cfg": TOWERS[tower], "text_cfg": text or TEXT, **more})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"), layers=3)


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("tower", sorted(TOWERS))
def test_every_parameter_of_both_towers_has_a_depth_without_gaps(tower: str, custom: bool) -> None:
    model = build(tower, custom_text=custom)
    depths = layer_depths(model)
    assert set(depths) == {n for n, _ in model.named_parameters()} - {"logit_scale"}
    for inside in (True, False):
        found = sorted({d for n, d in depths.items() if n.startswith("visual.") == inside})
        assert found == list(range(len(found)))
        assert len(found) >= 4  # stem, two or more blocks, projection


def test_depths_of_open_clips_towers_follow_its_own_groups() -> None:
    depths = layer_depths(build("vit", custom_text=True))
    for name, depth in {
        "visual.conv1.weight": 0,
        "visual.class_embedding": 0,
        "visual.positional_embedding": 0,
        "visual.ln_pre.weight": 0,
        "visual.transformer.resblocks.0.ln_1.weight": 1,
        "visual.transformer.resblocks.1.mlp.c_fc.weight": 2,
        "visual.ln_post.bias": 2,
        "visual.proj": 3,
        "text.token_embedding.weight": 0,
        "text.positional_embedding": 0,
        "text.transformer.resblocks.1.attn.in_proj_weight": 2,
        "text.ln_final.weight": 2,
        "text.text_projection": 3,
    }.items():
        assert depths[name] == depth, name


def test_depths_of_a_bert_go_from_the_embeddings_to_the_projection(bert: Path) -> None:
    depths = layer_depths(build("vit", bert_text(bert, hf_pooler_type="cls_pooler")))
    for name, depth in {
        "text.transformer.embeddings.word_embeddings.weight": 0,
        "text.transformer.embeddings.LayerNorm.weight": 0,
        "text.transformer.encoder.layer.0.attention.self.query.weight": 1,
        "text.transformer.encoder.layer.2.output.LayerNorm.bias": 3,
        "text.transformer.pooler.dense.weight": 4,
        "text.proj.2.weight": 4,
    }.items():
        assert depths[name] == depth, name


def test_a_tower_of_an_unknown_layout_counts_its_modules_in_order() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
            self.text = nn.Linear(2, 2)

    depths = layer_depths(Odd())
    assert [depths[f"visual.{i}.weight"] for i in (0, 2, 3)] == [0, 1, 2]
    assert depths["text.weight"] == 0


@pytest.mark.parametrize("tower", sorted(TOWERS))
def test_a_locked_image_tower_does_not_move_in_training(tower: str) -> None:
    model = build(tower)
    before = copy.deepcopy(model.visual.state_dict())
    locked = lock_image(model)
    assert set(locked) == {n for n, _ in model.named_parameters() if n.startswith("visual.")}
    assert not any(p.requires_grad for p in model.visual.parameters())
    step(model, TOWERS[tower]["image_size"])
    after = model.visual.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(p.requires_grad for n, p in model.named_parameters() if not n.startswith("visual."))


def test_batch_statistics_move_when_they_are_not_frozen() -> None:
    model = build("timm_effnet")
    lock_image(model, freeze_bn=False)
    before = model.visual.trunk.bn1.running_mean.clone()
    step(model, 64)
    assert not torch.equal(before, model.visual.trunk.bn1.running_mean)


def test_a_copy_of_a_locked_tower_stays_locked() -> None:
    model = build("timm_effnet")
    lock_image(model)
    twin = copy.deepcopy(model).train()
    assert not twin.visual.trunk.bn1.training
    assert twin.visual.trunk.conv_stem.training
    twin.visual.trunk.bn1.weight.data.fill_(3)
    assert float(model.visual.trunk.bn1.weight[0]) != 3


@pytest.mark.parametrize("unlocked", [0, 1, 2, 3])
def test_open_clips_own_vit_is_locked_as_open_clip_locks_it(unlocked: int) -> None:
    ours, theirs = build("vit"), build("vit")
    lock_image(ours, unlocked_groups=unlocked)
    theirs.lock_image_tower(unlocked_groups=unlocked)
    assert trainable(ours) == trainable(theirs)


@pytest.mark.parametrize("unlocked", [0, 1, 2, 3])
@pytest.mark.parametrize("custom", [False, True])
def test_open_clips_own_text_tower_is_locked_as_open_clip_locks_it(unlocked: int, custom: bool) -> None:
    ours, theirs = build("vit", custom_text=custom), build("vit", custom_text=custom)
    lock_text(ours, unlocked_layers=unlocked)
    theirs.lock_text_tower(unlocked_layers=unlocked)
    assert trainable(ours) == trainable(theirs)


def test_a_timm_trunk_is_locked_as_open_clip_locks_it_one_group_above() -> None:
    ours, theirs = build("timm_vit"), build("timm_vit")
    lock_image(ours, unlocked_groups=1)
    theirs.lock_image_tower()
    assert trainable(ours) == trainable(theirs)


@pytest.mark.parametrize("unlocked", [0, 1, 2, 5])
def test_a_bert_is_locked_from_the_embeddings_up(bert: Path, unlocked: int) -> None:
    model = build("vit", bert_text(bert))
    lock_text(model, unlocked_layers=unlocked)
    free = {n for n in trainable(model) if n.startswith("text.")}
    heads = {"text.proj.0.weight", "text.proj.2.weight"}
    last = {n for n, _ in model.named_parameters() if ".encoder.layer.2." in n}
    everything = {n for n, _ in model.named_parameters() if n.startswith("text.")}
    assert free == {0: set(), 1: heads, 2: heads | last, 5: everything}[unlocked]


@pytest.mark.parametrize("lock", [lock_image, lock_text])
@pytest.mark.parametrize("many", [-1, 99])
def test_more_groups_than_there_are_is_wrong_use(lock: Any, many: int) -> None:
    with pytest.raises(MedclipError, match="groups of layers") as caught:
        lock(build("vit"), many)
    assert caught.value.reason is Reason.WRONG_USE


def test_the_shipped_kind_of_model_has_depths_for_layer_wise_decay() -> None:
    depths = layer_depths(build_clip(tiny_config(60)))
    top = max(d for n, d in depths.items() if n.startswith("visual."))
    assert depths["visual.head.proj.weight"] == top
    assert depths["visual.trunk.conv_stem.weight"] == 0


def trainable(model: nn.Module) -> set[str]:
    return {n for n, p in model.named_parameters() if p.requires_grad}


def step(model: Any, size: int) -> None:
    """One step of training with weight decay on whatever learns."""
    model.train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, size, size, generator=generator)
    tokens = torch.randint(1, 60, (4, 12), generator=generator)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    image, text, scale = model(images, tokens)
    open_clip.ClipLoss()(image, text, scale).backward()
    optimizer.step()
