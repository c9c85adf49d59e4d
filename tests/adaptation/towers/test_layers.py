"""Layers are listed with their tower, block and role; sets of them are chosen by thirds."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from medclip.adaptation.towers.layers import Layer, block_of, choose_layers, list_layers
from medclip.adaptation.towers.split_attention import split_attention
from medclip.errors import MedclipError, Reason
from tests.kits.svd import KINDS, tower_pair


def row(block: int | None, role: str = "mlp", tower: str = "image") -> Layer:
    return Layer(f"{tower}.{block}.{role}", tower, block, role, nn.Identity())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tower_has_its_roles(kind: str, tmp_path: Path) -> None:
    model = tower_pair(kind, tmp_path)
    split_attention(model)
    found = list_layers(model)
    roles = {t: {x.role for x in found if x.tower == t and x.block is not None} for t in ("image", "text")}
    transformer = {"q", "k", "v", "out", "mlp"}
    assert roles == {"image": {"conv"} if kind == "efficientnet" else transformer, "text": transformer}
    for tower in ("image", "text"):
        blocks = {x.block for x in found if x.tower == tower} - {None}
        assert blocks == set(range(len(blocks)))
    assert {x.name for x in found} <= {n for n, _ in model.named_modules()}


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("text.transformer.encoder.block.3.layer.1.DenseReluDense.wo", "text.transformer.encoder.block.3"),
        ("text.transformer.encoder.layer.11.output.dense", "text.transformer.encoder.layer.11"),
        ("visual.trunk.layers.2.blocks.5.mlp.fc1", "visual.trunk.layers.2.blocks.5"),
        ("visual.trunk.blocks.5.3.conv_pwl", "visual.trunk.blocks.5.3"),
        ("visual.layer3.0.conv1", "visual.layer3.0"),
        ("visual.head.mlp.fc1", None),
        ("text.proj.0", None),
    ],
)
def test_a_block_is_what_each_library_numbers_as_one(name: str, block: str | None) -> None:
    assert block_of(name) == block


def test_an_efficientnet_counts_its_blocks_through_all_stages(tmp_path: Path) -> None:
    model = tower_pair("efficientnet", tmp_path)
    blocks = {x.block for x in list_layers(model) if x.tower == "image"} - {None}
    assert blocks == set(range(sum(len(stage) for stage in model.visual.trunk.blocks)))


@pytest.mark.parametrize("kind", KINDS)
def test_projections_into_the_joint_space_are_never_chosen(kind: str, tmp_path: Path) -> None:
    model = tower_pair(kind, tmp_path)
    split_attention(model)
    names = [x.name for x in choose_layers(list_layers(model))]
    assert names
    assert not [n for n in names if "head" in n or n.startswith(("text.proj", "text.text_projection"))]


def test_thirds_of_twelve_blocks_are_those_of_the_paper() -> None:
    layers = [row(b) for b in range(12)]
    third = {w: [x.block for x in choose_layers(layers, w)] for w in ("bottom", "middle", "top", "top+middle")}
    assert third == {
        "bottom": [0, 1, 2, 3],
        "middle": [4, 5, 6, 7],
        "top": [8, 9, 10, 11],
        "top+middle": [4, 5, 6, 7, 8, 9, 10, 11],
    }
    assert [x.block for x in choose_layers(layers, (3, 5))] == [3, 5]


@pytest.mark.parametrize("count", range(1, 20))
def test_thirds_of_any_number_of_blocks_are_all_of_them_once_and_the_top_is_never_empty(count: int) -> None:
    layers = [row(b) for b in range(count)]
    found: list[int | None] = []
    for word in ("bottom", "middle", "top")[3 - min(3, count) :]:
        found += [x.block for x in choose_layers(layers, word)]
    assert found == list(range(count))


def test_each_tower_has_thirds_of_its_own() -> None:
    layers = [row(b) for b in range(6)] + [row(b, tower="text") for b in range(3)]
    assert [(x.tower, x.block) for x in choose_layers(layers, "top")] == [("image", 4), ("image", 5), ("text", 2)]


def test_a_choice_that_leaves_nothing_says_what_there_is() -> None:
    layers = [row(b, "conv") for b in range(3)] + [row(None, "head")]
    for which, roles in (((7,), None), ("all", ("q", "v"))):
        with pytest.raises(MedclipError, match="has 3 image blocks, 0 to 2; roles: conv") as e:
            choose_layers(layers, which, roles)
        assert e.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="'upper'"):
        choose_layers(layers, "upper+top")


@pytest.mark.parametrize(
    ("which", "blocks"), [(1, [1]), ([0, 2], [0, 2]), ("1,2", [1, 2]), ("2", [2]), ("top + bottom", [0, 2])]
)
def test_blocks_are_named_by_one_number_several_or_words(which, blocks) -> None:
    assert [x.block for x in choose_layers([row(b) for b in range(3)], which)] == blocks


@pytest.mark.parametrize("which", [99, [1, 99], "1,99", -1, [], {"a": 1}, ["a"], 1.5])
def test_anything_else_is_refused_with_what_there_is(which) -> None:
    with pytest.raises(MedclipError) as refused:
        choose_layers([row(b) for b in range(3)], which)
    assert refused.value.reason is Reason.WRONG_USE
    assert refused.value.hint


def test_one_role_is_as_good_as_a_list_of_one() -> None:
    layers = [row(0, "conv"), row(1, "mlp")]
    assert [x.block for x in choose_layers(layers, "all", "mlp")] == [1]
