"""Masks of patches and the loss of guessing their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.objectives.masked import (
    apply_patch_mask,
    draw_patch_mask,
    foreground_of,
    hide,
    mask_of_noise,
    masked_pixel_loss,
    num_kept,
    patches_of,
)

TINY = "medical_mae_tiny.npz"


def _batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, 2, 8, 12, generator=generator)
    return images, draw_patch_mask(3, 6, 0.5, generator), torch.randn(3, 6, 32, generator=generator)


@given(batch=st.integers(1, 4), patches=st.integers(2, 40), ratio=st.floats(0, 0.5), seed=st.integers(0, 999))
def test_every_image_hides_the_same_number_and_the_seed_decides_which(
    batch: int, patches: int, ratio: float, seed: int
) -> None:
    masks = [draw_patch_mask(batch, patches, ratio, torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert torch.equal(*masks)
    assert masks[0].dtype == torch.bool
    assert masks[0].sum(1).tolist() == [patches - int(patches * (1 - ratio))] * batch


@pytest.mark.parametrize("ratio", [0.96, 1.0, -0.1, float("nan")])
def test_a_ratio_that_leaves_nothing_to_see_is_refused(ratio: float) -> None:
    with pytest.raises(MedclipError) as caught:
        draw_patch_mask(2, 16, ratio, torch.Generator())
    assert caught.value.reason is Reason.WRONG_USE


def test_patches_go_row_by_row_and_their_channels_are_fastest() -> None:
    images = torch.arange(2 * 4 * 4).view(1, 2, 4, 4)
    patches = patches_of(images, 2)
    assert patches.shape == (1, 4, 8)
    assert patches[0, 1].tolist() == [2, 18, 3, 19, 6, 22, 7, 23]


def test_hidden_patches_hold_the_fill_and_the_others_their_pixels() -> None:
    images, mask, _ = _batch()
    hidden = apply_patch_mask(images, mask, 4, fill=-7.0)
    assert bool((patches_of(hidden, 4)[mask] == -7).all())
    assert torch.equal(patches_of(hidden, 4)[~mask], patches_of(images, 4)[~mask])
    learned = torch.zeros(2, 1, 1, requires_grad=True)
    apply_patch_mask(images, mask, 4, fill=learned).sum().backward()
    assert learned.grad.flatten().tolist() == [int(mask.sum()) * 16] * 2


def test_only_hidden_patches_count() -> None:
    images, mask, pred = _batch()
    exact = patches_of(images, 4)
    assert masked_pixel_loss(exact, images, mask, 4).item() == 0
    off = exact + torch.where(mask[:, :, None], 3.0, pred)
    assert masked_pixel_loss(off, images, mask, 4).item() == pytest.approx(9, rel=1e-5)
    assert masked_pixel_loss(pred, images, torch.zeros_like(mask), 4).item() == 0


def test_a_flat_image_normalised_has_targets_of_zero() -> None:
    _, mask, pred = _batch()
    loss = masked_pixel_loss(pred, torch.full((3, 2, 8, 12), 5.0), mask, 4, normalise=True)
    torch.testing.assert_close(loss, pred[mask].square().mean())


def test_weights_count_samples_and_weight_zero_leaves_one_out() -> None:
    images, mask, pred = _batch()
    weights = torch.tensor([1.0, 0.0, 3.0])
    one, three = (masked_pixel_loss(pred[i : i + 1], images[i : i + 1], mask[i : i + 1], 4) for i in (0, 2))
    pred[1], images[1] = torch.nan, torch.nan
    pred.requires_grad_()
    loss = masked_pixel_loss(pred, images, mask, 4, weights_B=weights)
    torch.testing.assert_close(loss, (one + 3 * three) / 4)


def test_patches_of_chosen_numbers_are_those_of_all() -> None:
    for images, patch in ((torch.randn(2, 3, 8, 12), 4), (torch.randn(2, 1, 4, 8, 4), (2, 4, 2))):
        every = patches_of(images, patch)
        chosen = torch.stack([torch.randperm(every.shape[1])[:3] for _ in images])
        assert torch.equal(
            patches_of(images, patch, chosen), every.gather(1, chosen[:, :, None].expand(-1, -1, every.shape[2]))
        )


def test_tubes_go_time_by_time_and_in_a_tube_frame_by_frame() -> None:
    clip = torch.arange(2 * 4 * 2 * 4).view(1, 2, 4, 2, 4)
    tubes = patches_of(clip, (2, 2, 2))
    assert tubes.shape == (1, 4, 16)
    assert tubes[0, 1].tolist() == [2, 34, 3, 35, 6, 38, 7, 39, 10, 42, 11, 43, 14, 46, 15, 47]
    assert int(tubes[0, 2, 0]) == 16


@pytest.mark.parametrize(
    ("shape", "patch", "words"),
    [
        ((1, 1, 30, 32), 16, "30 x 32 pixels cannot be cut into patches of 16"),
        ((1, 1, 1, 32, 32), (2, 16, 16), "1 x 32 x 32 .* cannot be cut into tubes of 2 x 16 x 16"),
        ((1, 1, 0, 32, 32), (2, 16, 16), "cannot be cut"),
    ],
)
def test_sizes_that_are_no_whole_patches_are_refused(shape: tuple[int, ...], patch: Any, words: str) -> None:
    with pytest.raises(MedclipError, match=words) as caught:
        patches_of(torch.zeros(shape), patch)
    assert caught.value.reason is Reason.WRONG_USE


@given(
    size=st.integers(2, 40),
    kept=st.integers(1, 40),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_the_foreground_shows_its_share_and_every_image_the_same_number(
    size: int, kept: int, shares: list[float], seed: int
) -> None:
    kept, generator = min(kept, size), torch.Generator().manual_seed(seed)
    noise = torch.rand(len(shares), size, generator=generator)
    foreground = torch.rand(len(shares), size, generator=generator) < torch.tensor(shares)[:, None]
    mask = hide(noise, kept, foreground)
    assert (~mask).sum(1).eq(kept).all()
    for shown, number in zip((~mask & foreground).sum(1).tolist(), foreground.sum(1).tolist(), strict=True):
        assert shown == max(number * kept // size, min(number, 1))


def test_an_image_that_is_all_foreground_is_hidden_as_without_it() -> None:
    noise = torch.rand(3, 16)
    assert torch.equal(hide(noise, 4), hide(noise, 4, torch.ones(3, 16, dtype=torch.bool)))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_flat_patches_are_background_whatever_their_value_and_colour(kind: torch.dtype) -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[:, 0, :4, 4:] = 1.0  # red all over
    images[:, 1, 4:, :4] = torch.linspace(0.4, 0.6, 16).view(4, 4)  # in one channel
    images[:, :, 4:, 4:] = torch.tensor([0.5, 0.504]).repeat(8).view(4, 4)  # noise of one grey level
    given_images = (images * 255).round().to(torch.uint8) if kind is torch.uint8 else images
    assert foreground_of(given_images, 4).tolist() == [[False, False, True, False]]


def test_shapes_that_do_not_fit_are_refused() -> None:
    images, mask, pred = _batch()
    for arguments in ((pred[:, :5], images, mask, 4), (pred, images, mask[:, :5], 4), (pred, images, mask, 5)):
        with pytest.raises(MedclipError) as caught:
            masked_pixel_loss(*arguments)
        assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.golden
def test_the_masks_and_the_loss_equal_the_golden_vectors(golden: Path) -> None:
    stored = np.load(golden / TINY, allow_pickle=False)
    images, noise = torch.tensor(stored["imgs"]), torch.tensor(stored["noise"])
    patch_px = stored["sd/patch_embed.proj.weight"].shape[-1]
    np.testing.assert_array_equal(patches_of(images, patch_px), stored["patchify"])
    ratios = sorted({key.split("/")[0] for key in stored if key.startswith("mr")})
    assert ratios
    for name in ratios:
        mask = mask_of_noise(noise, float(name.removeprefix("mr")))
        np.testing.assert_array_equal(mask.float(), stored[f"{name}/mask"])
        for normalise in (0, 1):
            pred = torch.tensor(stored[f"{name}/pred"], requires_grad=True)
            loss = masked_pixel_loss(pred, images, mask, patch_px, normalise=bool(normalise))
            loss.backward()
            np.testing.assert_allclose(loss.item(), stored[f"{name}/loss_normpix{normalise}"], atol=1e-5, rtol=1e-4)
            bias = pred.grad.sum((0, 1))  # the last layer's bias is added to every guess
            expected = stored[f"{name}/grad_normpix{normalise}/decoder_pred.bias"]
            np.testing.assert_allclose(bias, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.golden
def test_the_counts_of_visible_patches_equal_the_golden_table(golden: Path) -> None:
    stored = np.load(golden / "medical_mae_posemb_and_counts.npz", allow_pickle=False)
    assert len(stored["keep_table"])
    for patches, ratio, kept, masked in stored["keep_table"]:
        if kept == 0:  # upstream lets the encoder see nothing; here that is refused
            with pytest.raises(MedclipError):
                num_kept(int(patches), float(ratio))
            continue
        found = num_kept(int(patches), float(ratio))
        assert (found, int(patches) - found) == (kept, masked)
