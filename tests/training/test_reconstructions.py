"""What stands in the report of a masked run: what was hidden is the model's guess, what was seen is the image's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import medclip
from medclip.models.inputs.normalise import normalise_square
from medclip.objectives.masked import draw_patch_mask, normalise_tubes, patches_of
from medclip.shards.reading.mapped_rows import Columns, coded
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.reconstructions import Reconstruction, choose_samples, images_of, reconstruct
from medclip.training.steps.masked_pixels import MaskedPart
from medclip.training.steps.towers import borrowed
from medclip.training.trainer import Trainer
from tests.kits.training import masked_recipe, tiny_recipe

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def normalised(pixels: np.ndarray) -> Tensor:
    """uint8 [..., C] with the batch first to what a model takes."""
    images = torch.from_numpy(pixels.copy()).float().div(255).movedim(-1, 1)
    shape = (-1, *[1] * (images.ndim - 2))
    return (images - MEAN[: images.shape[1]].view(shape)) / STD[: images.shape[1]].view(shape)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def filled(
    images: Tensor, mask_BL: Tensor, guess: Tensor, patch: tuple[int, ...], *, by_patch: bool = False
) -> list[Reconstruction]:
    names = ["xray"] * len(images)
    return reconstruct(
        images, mask_BL, lambda *_: guess, patch, mean=MEAN, std=STD, normalised=by_patch, modalities=names
    )


@pytest.mark.parametrize(("shape", "patch"), [((2, 3, 8, 12), (4, 4)), ((2, 1, 4, 8, 12), (2, 4, 4))])
def test_putting_patches_together_undoes_taking_apart(shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images_of(patches_of(images, patch), shape, patch), images)


def test_hidden_patches_hold_the_guess_and_visible_ones_the_image() -> None:
    pixels = draw(2, 16, 16, 3)
    images = normalised(pixels)
    mask_BL = draw_patch_mask(2, 16, 0.75, torch.Generator().manual_seed(1))
    other = draw(3, 16, 16, 3)[1:]
    results = filled(images, mask_BL, patches_of(normalised(other), 4), (4, 4))
    for i, one in enumerate(results):
        hidden = mask_BL[i].view(4, 4).numpy().repeat(4, 0).repeat(4, 1)
        assert np.array_equal(one.original_HWC, pixels[i])
        assert np.array_equal(one.filled_HWC[~hidden], pixels[i][~hidden])
        assert np.array_equal(one.filled_HWC[hidden], other[i][hidden])
        assert (one.visible_HWC[hidden] == 128).all()
        assert np.array_equal(one.visible_HWC[~hidden], pixels[i][~hidden])
        assert one.hidden_share == 0.75


def test_the_errors_are_those_of_the_loss_and_of_the_mean_of_what_is_seen() -> None:
    images = normalised(draw(1, 16, 16, 3))
    mask_BL = draw_patch_mask(1, 16, 0.75, torch.Generator().manual_seed(1))
    target_BLP = patches_of(images, 4)
    (one,) = filled(images, mask_BL, target_BLP + 0.5, (4, 4))
    assert one.error == pytest.approx(0.25)
    seen = target_BLP[0][~mask_BL[0]].view(-1, 3).mean(0)
    wanted = (target_BLP[0][mask_BL[0]].view(-1, 3) - seen).square().mean()
    assert one.naive_error == pytest.approx(float(wanted), rel=1e-5)


def test_a_normalised_guess_is_shown_with_the_brightness_of_its_own_patch() -> None:
    pixels = draw(1, 16, 16, 3)
    images = normalised(pixels)
    mask_BL = draw_patch_mask(1, 16, 0.75, torch.Generator().manual_seed(1))
    target_BLP = patches_of(images, 4)
    variance, average = torch.var_mean(target_BLP, dim=-1, keepdim=True)
    (one,) = filled(images, mask_BL, (target_BLP - average) / (variance + 1e-6).sqrt(), (4, 4), by_patch=True)
    assert np.array_equal(one.filled_HWC, pixels[0])
    assert one.error == pytest.approx(0, abs=1e-6)
    assert one.naive_error == pytest.approx(47 / 48, rel=1e-4)  # unbiased variance of 48 values


def test_of_a_clip_the_middle_frame_is_shown_and_its_tubes_are_turned_back() -> None:
    pixels = draw(1, 4, 8, 8, 1)
    images = normalised(pixels)
    mask_BL = torch.tensor([[True, True, False, True] * 2])
    target_BLP = patches_of(images, (2, 4, 4))
    guess_BLP, _ = normalise_tubes(target_BLP, STD[:1])
    (one,) = filled(images, mask_BL, guess_BLP, (2, 4, 4), by_patch=True)
    assert one.original_HWC.shape == (8, 8, 3)
    assert np.array_equal(one.original_HWC, pixels[0, 2].repeat(3, -1))
    assert np.array_equal(one.filled_HWC, one.original_HWC)
    assert one.error == pytest.approx(0, abs=1e-6)


def columns(modalities: list[str]) -> Columns:
    numbers, names = coded(modalities)
    zeros = np.zeros(len(modalities), np.int32)
    return Columns(zeros, 1, zeros, ("",), numbers, names)


def test_samples_are_chosen_by_the_seed_and_every_modality_has_its_turn() -> None:
    many = columns(["xray"] * 50 + ["ct"] * 3 + ["ecg"])
    chosen = choose_samples(many, 5, 99)
    assert chosen == choose_samples(many, 5, 99)
    assert chosen != choose_samples(many, 6, 99)
    assert len(set(chosen)) == 8
    kinds = [("xray" if i < 50 else "ct" if i < 53 else "ecg") for i in chosen]
    assert (kinds.count("ct"), kinds.count("ecg"), kinds.count("xray")) == (3, 1, 4)
    assert max(choose_samples(many, 5, 10)) < 10
    assert sorted(choose_samples(columns(["xray"] * 3), 0, 99)) == [0, 1, 2]


@pytest.mark.parametrize("objective", ["autoencoder", "linear"])
def test_a_finished_run_returns_what_the_trained_part_fills_in_and_again_when_it_is_called_again(
    shards: Path, tmp_path: Path, objective: str
) -> None:
    plan = masked_recipe(shards)
    if objective == "linear":
        plan = tiny_recipe(shards) | {"objective": {"masked": {"ratio": 0.5, "normalise": True}}}
        plan["model"] = plan["model"] | {"size_px": 64}  # 2 x 2 patches
    first = run_recipe(plan, out=tmp_path / "run").reconstructions
    assert len(first) == 8
    assert {one.modality for one in first} == {"xray"}
    assert first[0].hidden_share == (0.5 if objective == "linear" else 0.75)
    assert 0 < first[0].error < 10
    again = run_recipe(plan, out=tmp_path / "run").reconstructions
    assert [one.error for one in again] == [one.error for one in first]
    assert all(np.array_equal(a.filled_HWC, b.filled_HWC) for a, b in zip(again, first, strict=True))
    trainer = Trainer(load_recipe(plan), tmp_path / "run")
    part = trainer.towers.masked
    assert part is not None
    mean, std = (torch.tensor(values) for values in trainer.normalisation)
    images = normalise_square(torch.from_numpy(np.stack([one.original_HWC for one in first])), mean, std)
    assert images.shape[2:] == (part.grid[0] * part.patch_px, part.grid[1] * part.patch_px)
    masks_BL, _ = part.draw(8, torch.Generator().manual_seed(3))
    with torch.no_grad(), borrowed(trainer.towers, trainer.ema.state if trainer.ema else None):
        trainer.towers.eval()
        errors = trainer.towers.masked(trainer.towers.clip, images, masks_BL)
    assert [one.error for one in first] == pytest.approx((errors[:, 0] / errors[:, 1]).tolist(), rel=1e-4)


def test_what_is_shown_is_hidden_as_in_training_where_it_goes_by_the_foreground(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the upper quarter of each image showed something: of 16 visible patches, 4 lie there."""
    upper_L = torch.arange(64) < 16
    monkeypatch.setattr(MaskedPart, "foreground", lambda _, images: upper_L.expand(len(images), 64))
    changes = ["model.size_px=128", "train.max_steps=1"]
    for one in run_recipe(masked_recipe(shards), changes, out=tmp_path / "run").reconstructions:
        patches = one.visible_HWC.reshape(8, 16, 8, 16, 3)
        visible = (patches != 128).any((1, 3, 4))
        assert (visible.sum(), visible[:2].sum()) == (16, 4)


def test_a_run_without_a_masked_part_or_without_validation_fills_in_nothing(shards: Path, tmp_path: Path) -> None:
    assert run_recipe(tiny_recipe(shards), out=tmp_path / "words").reconstructions == ()
    alone = masked_recipe(shards)
    alone["data"]["val_split"] = None
    assert run_recipe(alone, out=tmp_path / "alone").reconstructions == ()


def test_images_that_are_filled_in_are_in_the_report_and_in_no_other_file(shards: Path, tmp_path: Path) -> None:
    result = medclip.pretrain(masked_recipe(shards), out=tmp_path / "run")
    assert result.report is not None
    assert result.report.read_text().count("data:image/png") == 24
    assert not [p for p in (tmp_path / "run").rglob("*") if p.suffix.lower() in (".png", ".jpg", ".npz", ".npy")]
    assert "reconstructions" not in repr(result)
    assert "HWC" not in repr(result)
    assert "data:image" not in result._repr_html_()


def test_leads_of_ecgs_are_drawn_below_each_other() -> None:
    records = torch.zeros(1, 1, 12, 400)
    records[0, 0, 3, 200:204] = 2.5
    mask = torch.zeros(1, 12 * 4, dtype=torch.bool)
    mask[0, 4 * 3 + 2] = True  # the stretch of aVR with the spike
    std = torch.full((3,), 0.5)
    (shown,) = reconstruct(
        records,
        mask,
        lambda images, _: patches_of(images, (1, 100)),
        (1, 100),
        mean=std,
        std=std,
        normalised=False,
        modalities=["ecg"],
    )
    assert shown.original_HWC.shape == (12 * 20, 256, 3)
    is_black = shown.original_HWC[..., 0] == 0
    assert is_black[10::20].mean() > 0.98  # a line in the middle of each lead
    spike = is_black[60:80, 128:131]
    assert spike[2:10].any()
    assert not is_black[[*range(60), *range(80, 240)]][:, 128:131][2:8].any()
    assert not (shown.visible_HWC[60:68, 128:131] == 0).any()
    np.testing.assert_array_equal(shown.filled_HWC, shown.original_HWC)
