"""Towers of ECGs: against MERL's own numbers, missing leads, sizes, and what a masked autoencoder does with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.signal_input import SIZES, TOWERS
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.layers import layer_depths
from medclip.models.towers.masked_autoencoder import MaskedAutoencoder, prepare_trunk
from medclip.models.towers.signal_tower import VIT_SHAPES, SignalResNet, SignalViT, build_signal_tower
from medclip.models.towers.timm_tower import without_words
from medclip.objectives.masked import draw_patch_mask

SAMPLES, PATCH = 200, 20


def _tower(name: str = "joint_patch", dim: int | None = None):
    torch.manual_seed(0)
    values = {"tower": name, "size": "test", "samples": SAMPLES}
    return build_signal_tower(values if name == "resnet1d" else values | {"patch": PATCH}, dim).eval()


def _records(num: int = 3, missing: tuple[int, ...] = ()) -> Tensor:
    records_B1LT = torch.randn(num, 1, 12, SAMPLES, generator=torch.Generator().manual_seed(1))
    records_B1LT[:, :, list(missing)] = 0
    return records_B1LT


@pytest.mark.golden
def test_the_joint_tower_gives_merls_own_tokens_and_features(golden: Path) -> None:
    stored = np.load(golden / "ecg_vit1d_and_loss.npz")
    weights = {name.removeprefix("sd/"): torch.from_numpy(stored[name]) for name in stored.files if "sd/" in name}
    names = {
        "attn.norm": "norm1",
        "attn.fn.to_qkv": "attn.qkv",
        "attn.fn.to_out.0": "attn.proj",
        "ff.norm": "norm2",
        "ff.fn.net.0": "mlp.fc1",
        "ff.fn.net.3": "mlp.fc2",
    }
    state = {}
    for name, value in weights.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        name = name.replace("block0", "blocks.0").replace("block1", "blocks.1").replace("pos_embedding", "pos_embed")
        name = name.replace("to_patch_embedding", "patch_embed.proj")
        name = f"fc_{name}" if name.startswith("norm.") else name
        state[name] = value[:, None] if name == "patch_embed.proj.weight" else value
    records_B1LT = torch.from_numpy(stored["x"])[:, None]
    vit = SignalViT(200, 20, by_lead=False, width=16, depth=2, heads=2, mlp_ratio=2).eval()
    vit.load_state_dict(state)
    tokens_BDN = vit.patch_embed(records_B1LT).mT
    torch.testing.assert_close(tokens_BDN, torch.from_numpy(stored["patch_tokens"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(vit(records_B1LT), torch.from_numpy(stored["y"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("dim", [None, 10])
def test_towers_give_one_vector_a_record_that_depends_on_no_other(name: str, dim: int | None) -> None:
    tower, records = _tower(name, dim), _records()
    features = tower(records)
    assert features.shape == (3, tower.dim)
    assert tower.dim == (dim or tower.trunk.num_features)
    torch.testing.assert_close(tower(records[:1]), features[:1], atol=1e-5, rtol=1e-5)
    features.sum().backward()
    learned = [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [n for n in learned if not n.startswith("trunk.fc_norm")]


def test_ten_seconds_become_a_hundred_tokens_of_all_leads_and_313_moments_of_a_resnet() -> None:
    joint = SignalViT(5000, 50, by_lead=False, width=24, depth=1, heads=2)
    records = torch.zeros(1, 1, 12, 5000)
    assert joint.forward_features(records).shape == (1, 100, 24)
    lead = SignalViT(5000, 125, by_lead=True, width=24, depth=1, heads=2)
    assert lead.forward_features(records).shape == (1, 480, 24)
    assert SignalResNet(5000, 8, (1, 1, 1, 1)).eval().feature_map(records).shape == (1, 64, 313)


@pytest.mark.parametrize("by_lead", [False, True])
def test_positions_begin_with_a_deviation_of_one_also_where_lead_and_time_are_added(by_lead: bool) -> None:
    torch.manual_seed(0)
    tower = SignalViT(2000, 50, by_lead=by_lead, width=192, depth=1, heads=3)
    assert float(tower.pos_embed.detach().std()) == pytest.approx(1, abs=0.05)


def test_sizes_are_those_of_the_papers() -> None:
    assert {name: VIT_SHAPES[name] for name in ("tiny", "small", "base")} == {
        "tiny": (192, 12, 3),
        "small": (384, 12, 6),
        "base": (768, 12, 12),
    }
    assert set(VIT_SHAPES) == set(SIZES)


def test_tokens_of_missing_leads_change_nothing() -> None:
    tower = _tower("lead_patch")
    records = _records(missing=(3, 11))
    before = tower(records)
    with torch.no_grad():  # what stands for those leads is changed; nothing looks at it
        columns = SAMPLES // PATCH
        for lead in (3, 11):
            tower.trunk.pos_embed[:, lead * columns : (lead + 1) * columns].normal_(std=5)
    assert torch.equal(tower(records), before)
    assert not torch.allclose(tower(_records()), before, atol=1e-3)
    with torch.no_grad():
        tower.trunk.pos_embed[:, :columns].normal_(std=5)
    assert not torch.allclose(tower(records), before, atol=1e-3)


def test_a_record_without_any_lead_gives_finite_numbers() -> None:
    for name in TOWERS:
        assert torch.isfinite(_tower(name)(torch.zeros(2, 1, 12, SAMPLES))).all()


@pytest.mark.parametrize("name", ["joint_patch", "lead_patch"])
def test_a_masked_autoencoder_reads_visible_patches_alone(name: str) -> None:
    trunk = _tower(name).trunk
    prepare_trunk(trunk)
    decoder = MaskedAutoencoder(trunk, "dec128d2", normalise=False)
    records = _records(missing=(3,) if name == "lead_patch" else ())
    mask = draw_patch_mask(3, decoder.num_patches, 0.75, torch.Generator().manual_seed(0))
    sums = decoder(trunk, records, mask)
    assert torch.equal(decoder.count(trunk, records, mask), sums[:, 1])
    hidden = mask.view(3, *decoder.grid)
    if name == "lead_patch":
        assert torch.equal(sums[:, 1], (hidden.sum((1, 2)) - hidden[:, 3].sum(1)).float())
    encoded = decoder.encode(trunk, records, mask)
    rows, columns = decoder.patch
    changed = records.clone()
    spots = hidden.repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, None]
    changed[spots.expand_as(changed)] *= 2
    torch.testing.assert_close(decoder.encode(trunk, changed, mask), encoded)
    sums[:, 0].sum().backward()
    assert trunk.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_with_every_patch_visible_the_autoencoder_encodes_what_the_tower_does() -> None:
    trunk = _tower("lead_patch").trunk
    decoder = MaskedAutoencoder(trunk, "dec128d2", normalise=False)
    records = _records(missing=(5,))
    nothing = torch.zeros(3, decoder.num_patches, dtype=torch.bool)
    tokens = decoder.encode(trunk, records, nothing)
    expected = trunk.fc_norm(trunk.forward_features(records))
    present = trunk.present(records)
    assert present is not None
    torch.testing.assert_close(tokens[present], expected[present], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_a_dual_encoder_takes_the_place_of_its_image_tower(name: str) -> None:
    signal = {"tower": name, "size": "test", "samples": SAMPLES} | ({} if name == "resnet1d" else {"patch": PATCH})
    config = default_config(vocab_size=300, embed_dim=16, text_width=16, text_heads=2, text_layers=1, signal=signal)
    model: Any = build_clip(config).eval()
    assert model.encode_image(_records(), normalize=True).shape == (3, 16)
    depths = layer_depths(model)
    assert set(depths) == {n for n, _ in model.named_parameters() if n not in ("logit_scale", "logit_bias")}
    assert depths["visual.head.proj.weight"] == max(d for n, d in depths.items() if n.startswith("visual."))
    alone = build_clip(without_words(config)).eval()
    alone.visual.trunk.load_state_dict(model.visual.trunk.state_dict())
    assert alone.encode_image(_records()).shape == (3, alone.visual.dim)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tower": "vit"}, "takes tower, size, patch, samples"),
        ({"tower": "joint_patch", "size": "huge", "patch": 20, "samples": 200}, "size one of"),
        ({"tower": "joint_patch", "size": "test", "patch": 30, "samples": 200}, "patches of 30"),
        ({"tower": "resnet1d", "size": "test", "samples": 0}, "0 samples"),
    ],
)
def test_what_cannot_be_built_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(MedclipError, match=message) as refused:
        build_signal_tower(values)
    assert refused.value.reason is Reason.PACK_INVALID
