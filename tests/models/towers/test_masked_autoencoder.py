"""Masked autoencoders: golden vectors, what the encoder may see, and what counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.models.towers.masked_autoencoder import MaskedAutoencoder, _indices, prepare_trunk
from medclip.models.towers.patch_decoder import DecoderShape, decoder_shape, sincos_positions
from medclip.objectives.masked import draw_decoded, draw_patch_mask, draw_tube_mask, mask_of_noise, patches_of
from tests.kits.masked_autoencoder import golden_autoencoder, tiny_trunk, tiny_tube_trunk
from tests.kits.objectives import check_golden, check_golden_gradient

SMALL = DecoderShape(16, 1, 2)
RATIOS = (0.75, 0.9)


@pytest.fixture
def stored(golden: Path) -> Any:
    return np.load(golden / "medical_mae_tiny.npz", allow_pickle=False)


def _errors(decoder: MaskedAutoencoder, trunk: Any, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean error of each image's hidden patches, [B]; 0 where none counts."""
    total, count = decoder(trunk, images, mask).unbind(1)
    return total / count.clamp_min(1)


@pytest.mark.golden
@pytest.mark.parametrize("ratio", RATIOS)
def test_latents_and_guesses_equal_the_golden_vectors(stored: Any, ratio: float) -> None:
    trunk, decoder = golden_autoencoder(stored, normalise=False)
    images, mask = torch.tensor(stored["imgs"]), mask_of_noise(torch.tensor(stored["noise"]), ratio)
    latent = decoder.encode(trunk, images, mask)
    kept = stored[f"mr{ratio}/latent"].shape[1] - 1
    order = stored[f"mr{ratio}/ids_shuffle"][:, :kept].argsort(1)  # ours are in the order of the grid
    expected = np.take_along_axis(stored[f"mr{ratio}/latent"][:, 1:], order[:, :, None], 1)
    check_golden(latent[:, 0], stored[f"mr{ratio}/latent"][:, 0])
    check_golden(latent[:, 1:], expected)
    check_golden(decoder.reconstruct(trunk, images, mask), stored[f"mr{ratio}/pred"])


@pytest.mark.golden
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("normalise", [False, True])
def test_losses_and_gradients_equal_the_golden_vectors(stored: Any, ratio: float, normalise: bool) -> None:
    trunk, decoder = golden_autoencoder(stored, normalise=normalise)
    mask = mask_of_noise(torch.tensor(stored["noise"]), ratio)
    loss = _errors(decoder, trunk, torch.tensor(stored["imgs"]), mask).mean()
    check_golden(loss, stored[f"mr{ratio}/loss_normpix{int(normalise)}"])
    loss.backward()
    prefix = f"mr{ratio}/grad_normpix{int(normalise)}/"
    ours = dict(trunk.named_parameters())
    ours |= {"mask_token": decoder.decoder.mask_token, "decoder_pred.bias": decoder.decoder.head.bias}
    names = [key.removeprefix(prefix) for key in stored if key.startswith(prefix)]
    assert len(names) == 5
    for name in names:
        check_golden_gradient(ours[name], stored[prefix + name])


def _images(trunk: Any, batch: int = 4) -> torch.Tensor:
    grid, (_, channels, *sides) = trunk.patch_embed.grid_size, trunk.patch_embed.proj.weight.shape
    return torch.randn(batch, channels, *(n * side for n, side in zip(grid, sides, strict=True)))


def _case(kind: str, **arguments: Any) -> tuple[Any, MaskedAutoencoder, torch.Tensor, torch.Tensor]:
    """A trunk, a decoder, images or clips, and a mask."""
    trunk = tiny_trunk() if kind == "patches" else tiny_tube_trunk()
    decoder = MaskedAutoencoder(trunk, SMALL, **{"normalise": False, **arguments}).eval()
    images, generator = _images(trunk), torch.Generator().manual_seed(1)
    if kind == "patches":
        return trunk, decoder, images, draw_patch_mask(4, 16, 0.75, generator)
    return trunk, decoder, images, draw_tube_mask(4, decoder.grid, 0.75, generator)  # type: ignore[arg-type]


KINDS = pytest.mark.parametrize("kind", ["patches", "tubes"])


@KINDS
def test_hidden_pixels_change_the_loss_and_nothing_else(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    patches = patches_of(images, decoder.patch)
    other = images.clone()
    flat = patches_of(torch.arange(images.numel()).view_as(images), decoder.patch)[mask].flatten()
    other.view(-1)[flat] += 5
    assert torch.equal(patches_of(other, decoder.patch)[~mask], patches[~mask])
    assert torch.equal(decoder.encode(trunk, images, mask), decoder.encode(trunk, other, mask))
    assert torch.equal(decoder.reconstruct(trunk, images, mask), decoder.reconstruct(trunk, other, mask))
    assert (_errors(decoder, trunk, images, mask) - _errors(decoder, trunk, other, mask)).abs().min() > 1


@KINDS
def test_with_nothing_hidden_the_encoder_is_the_trunk(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    torch.testing.assert_close(decoder.encode(trunk, images, torch.zeros_like(mask)), trunk.forward_features(images))


@pytest.mark.parametrize(
    "arguments",
    [
        {"reg_tokens": 2},
        {"class_token": False, "global_pool": "avg"},
        {"no_embed_class": True, "reg_tokens": 1},
        {"pre_norm": True, "init_values": 0.5, "qk_norm": True},
        {"global_pool": "avg", "fc_norm": False},
    ],
)
def test_other_plain_transformers_encode_as_they_do_themselves(arguments: dict[str, Any]) -> None:
    trunk = tiny_trunk(**arguments)
    decoder, images = MaskedAutoencoder(trunk, SMALL, normalise=False), torch.randn(2, 3, 32, 32)
    latent = decoder.encode(trunk, images, torch.zeros(2, 16, dtype=torch.bool))
    expected = trunk.forward_features(images)
    if isinstance(trunk.norm, torch.nn.Identity):  # its last norm stands behind the pooling
        expected = trunk.fc_norm(expected)
    torch.testing.assert_close(latent, expected)


@KINDS
def test_the_loss_is_the_error_of_hidden_patches_alone(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    error = (decoder.reconstruct(trunk, images, mask) - patches_of(images, decoder.patch)).square().mean(-1)
    expected = (error * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(_errors(decoder, trunk, images, mask), expected)


@KINDS
def test_a_perfect_guess_costs_nothing_and_a_shift_its_square(kind: str) -> None:
    trunk, decoder, _, mask = _case(kind)
    torch.nn.init.zeros_(decoder.decoder.head.weight)
    torch.nn.init.constant_(decoder.decoder.head.bias, 2.0)
    images = torch.full_like(_images(trunk), 2.0)
    assert _errors(decoder, trunk, images, mask).tolist() == [0.0] * 4
    torch.testing.assert_close(_errors(decoder, trunk, images - 3, mask), torch.full((4,), 9.0))


def test_a_flat_image_normalised_costs_the_square_of_the_guess() -> None:
    trunk, decoder, images, mask = _case("patches", normalise=True)
    images = torch.full_like(images, 5.0)
    guess = decoder.reconstruct(trunk, images, mask)
    expected = (guess.square().mean(-1) * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(_errors(decoder, trunk, images, mask), expected)


@KINDS
def test_the_mask_token_learns_and_fixed_positions_do_not(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    prepare_trunk(trunk)
    _errors(decoder, trunk, images, mask).sum().backward()
    assert decoder.decoder.mask_token.grad is not None
    assert bool(decoder.decoder.mask_token.grad.any())
    assert trunk.pos_embed.grad is None
    assert "decoder.positions_LD" not in dict(decoder.named_parameters())
    assert all(bool(p.grad.any()) for p in trunk.parameters() if p.requires_grad and p.grad is not None)
    missing = {name for name, p in trunk.named_parameters() if p.grad is None}
    assert missing == {"pos_embed"}


@KINDS
def test_the_order_of_the_batch_does_not_matter(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        _errors(decoder, trunk, images[order], mask[order]), _errors(decoder, trunk, images, mask)[order]
    )


@KINDS
def test_an_image_of_which_nothing_is_hidden_counts_nothing_and_leaves_the_others_alone(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    without = mask.clone()
    without[1] = False
    error, expected = _errors(decoder, trunk, images, without), _errors(decoder, trunk, images, mask)
    assert error[1].detach().item() == 0
    torch.testing.assert_close(error[[0, 2, 3]], expected[[0, 2, 3]])


def test_numbers_that_are_known_beforehand_are_those_that_are_counted() -> None:
    """On an accelerator they are known, so that the host does not wait."""
    mask = draw_patch_mask(5, 30, 0.7, torch.Generator().manual_seed(0))
    assert torch.equal(_indices(mask, 21), _indices(mask))
    assert torch.equal(_indices(~mask, 9), _indices(~mask))


@KINDS
def test_with_counts_nothing_is_asked_of_an_accelerator(kind: str) -> None:
    """Tensors of torch's meta device have no values: whatever waits for one fails."""
    trunk, decoder, images, mask = _case(kind)
    trunk.to("meta")
    decoder.to("meta")
    images, mask = images.to("meta"), mask.to("meta")
    assert decoder(trunk, images, mask, None, (12, 12)).shape == (4, 2)
    with pytest.raises((RuntimeError, NotImplementedError)):
        decoder(trunk, images, mask)


@KINDS
def test_counts_are_checked_on_a_cpu(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    assert torch.equal(decoder(trunk, images, mask, None, (3, 3)), decoder(trunk, images, mask))


def test_a_batch_in_which_no_image_takes_part_gives_gradients_of_zero_to_all() -> None:
    trunk, decoder, images, mask = _case("patches")
    loss = _errors(decoder, trunk, images, torch.zeros_like(mask)).sum()
    loss.backward()
    assert loss.detach().item() == 0
    for p in [*trunk.parameters(), *decoder.parameters()]:
        assert p.grad is not None  # ranks wait for each other's gradients
        assert not p.grad.any()


def test_images_that_show_different_numbers_of_patches_are_refused() -> None:
    trunk, decoder, images, mask = _case("patches")
    mask[0] = torch.arange(16) > 2
    for call in (decoder, decoder.encode):
        with pytest.raises(MedclipError, match=r"equally many patches .* \[3, 4\]") as caught:
            call(trunk, images, mask)
        assert caught.value.reason is Reason.WRONG_USE


def test_images_and_masks_of_another_grid_are_refused() -> None:
    trunk, decoder, images, mask = _case("patches")
    for arguments in ((images[:, :, :24], mask), (images, mask[:, :12]), (images[:2], mask), (images[:, :, :30], mask)):
        with pytest.raises(MedclipError) as caught:
            decoder(trunk, *arguments)
        assert caught.value.reason is Reason.WRONG_USE


def test_a_volume_of_one_slice_is_refused_in_words() -> None:
    trunk, decoder, clips, mask = _case("tubes")
    with pytest.raises(MedclipError, match=r"1 x 16 x 16 .* cannot be cut into tubes of 2 x 8 x 8"):
        decoder(trunk, clips[:, :, :1], mask)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_towers_without_patches_to_leave_out_are_refused(name: str) -> None:
    import timm

    with torch.device("meta"):
        trunk = timm.create_model(name, num_classes=0)
    with pytest.raises(MedclipError, match=f"{name} is no plain vision transformer") as caught:
        MaskedAutoencoder(trunk, "dec128d2", normalise=False)
    assert caught.value.reason is Reason.RECIPE_INVALID


@pytest.mark.parametrize(("name", "width", "depth"), [("dec128d2", 128, 2), ("dec512d2", 512, 2), ("dec512d8", 512, 8)])
def test_decoders_have_the_sizes_of_their_names(name: str, width: int, depth: int) -> None:
    decoder = MaskedAutoencoder(tiny_trunk(), name, normalise=False)
    assert (decoder.decoder.embed.out_features, len(decoder.decoder.blocks)) == (width, depth)
    assert decoder_shape(name, 384).heads == 16
    assert 0.01 < decoder.decoder.mask_token.std().item() < 0.04
    assert decoder.decoder.embed.bias is not None


@pytest.mark.parametrize(("encoder", "width", "heads"), [(384, 192, 3), (768, 384, 6), (1024, 512, 8), (32, 64, 1)])
def test_the_video_decoder_is_half_as_wide_as_the_encoder(encoder: int, width: int, heads: int) -> None:
    assert decoder_shape("video", encoder) == DecoderShape(width, 4, heads, bias=False)


def test_an_unknown_decoder_is_refused_with_those_that_exist() -> None:
    with pytest.raises(MedclipError) as caught:
        decoder_shape("dec64d1", 384)
    assert "dec512d8 and video" in str(caught.value)


@pytest.mark.parametrize("trunk", [tiny_trunk(), tiny_trunk(no_embed_class=True, reg_tokens=1), tiny_tube_trunk()])
def test_a_trunk_starts_as_the_paper_says(trunk: Any) -> None:
    prepare_trunk(trunk)
    qkv = trunk.blocks[0].attn.qkv
    bound = (6 / (qkv.in_features + qkv.out_features)) ** 0.5
    assert 0.9 * bound < qkv.weight.abs().max().item() <= bound
    flat = trunk.patch_embed.proj.weight.flatten(1)
    assert 0.9 < flat.abs().max().item() / (6 / sum(flat.shape)) ** 0.5 <= 1
    assert not qkv.bias.any()
    assert 0.005 < trunk.cls_token.std().item() < 0.04
    own = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    torch.testing.assert_close(
        trunk.pos_embed[0].double(), sincos_positions(trunk.patch_embed.grid_size, 32, prefix=own), atol=1e-6, rtol=0
    )


# Dual masking


def test_the_decoder_writes_the_asked_patches_in_the_order_of_the_grid() -> None:
    trunk, decoder, clips, mask = _case("tubes")
    hidden_order = decoder.reconstruct(trunk, clips, mask)[mask].view(4, 12, -1)
    torch.testing.assert_close(decoder.reconstruct(trunk, clips, mask, mask), hidden_order)
    decoded = draw_decoded(4, decoder.grid, 0.5, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert decoder.reconstruct(trunk, clips, mask, decoded).shape == (4, 8, 2 * 8 * 8)


def test_what_the_decoder_writes_first_is_the_first_decoded_tube() -> None:
    """Where blocks add nothing a token depends on its own position alone."""
    trunk, decoder, clips, mask = _case("tubes")
    inner = decoder.decoder
    for block in inner.blocks:
        for layer in (block.get_submodule("proj"), block.get_submodule("fc2")):
            torch.nn.init.zeros_(layer.get_parameter("weight"))
    decoded = draw_decoded(4, (4, 2, 2), 0.5, torch.Generator().manual_seed(0))
    by_position = inner.head(inner.norm(inner.mask_token + inner.positions_LD))[0]
    expected = torch.stack([by_position[row] for row in decoded])
    torch.testing.assert_close(decoder.reconstruct(trunk, clips, mask, decoded), expected)


def test_only_what_is_decoded_and_hidden_counts() -> None:
    trunk, decoder, clips, mask = _case("tubes")
    decoded = draw_decoded(4, decoder.grid, 0.5, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    guess = decoder.reconstruct(trunk, clips, mask, decoded)
    error = (guess - patches_of(clips, decoder.patch)[decoded].view_as(guess)).square().mean(-1)
    counted = mask[decoded].view(4, -1)
    sums = decoder(trunk, clips, mask, decoded)
    torch.testing.assert_close(sums[:, 0], (error * counted).sum(1))
    assert torch.equal(sums[:, 1], (mask & decoded).sum(1).float())
    assert torch.equal(decoder.count(trunk, clips, mask, decoded), sums[:, 1])


def test_tubes_of_the_background_count_nothing_in_a_normalised_target() -> None:
    trunk, decoder, clips, mask = _case("tubes", normalise=True)
    clips[:, :, :, :8] = -1.5  # the upper half stands still
    sums = decoder(trunk, clips, mask)
    lower = torch.zeros(4, 4, 2, 2, dtype=torch.bool)
    lower[:, :, 1] = True
    assert torch.equal(sums[:, 1], (mask & lower.flatten(1)).sum(1).float())
    assert torch.equal(decoder.count(trunk, clips, mask), sums[:, 1])
    clips[:] = 0.0
    assert _errors(decoder, trunk, clips, mask).tolist() == [0.0] * 4


def test_the_floor_under_the_deviation_is_in_units_of_pixels() -> None:
    trunk, plain, clips, mask = _case("tubes", normalise=True)
    scaled = MaskedAutoencoder(trunk, SMALL, normalise=True, pixel_std=[0.02, 0.5, 0.5])  # a grey clip takes the first
    scaled.load_state_dict(plain.state_dict())
    clips = clips * 0.1  # deviations of 0.1, or of 0.002 in units of pixels: below a floor of 0.01
    assert (_errors(plain, trunk, clips, mask) / _errors(scaled, trunk, clips, mask)).min().item() > 1.2


def test_recomputed_activations_give_the_same_gradients() -> None:
    trunk, decoder, images, mask = _case("patches")
    gradients = []
    for recompute in (False, True):
        trunk.grad_checkpointing = recompute
        trunk.zero_grad()
        _errors(decoder, trunk, images, mask).sum().backward()
        gradients.append(trunk.blocks[0].attn.qkv.weight.grad.clone())
    assert torch.equal(*gradients)


@KINDS
def test_in_bfloat16_the_error_is_float32_and_nearly_the_same(kind: str) -> None:
    trunk, decoder, images, mask = _case(kind)
    with torch.autocast("cpu", torch.bfloat16):
        rough = _errors(decoder, trunk, images, mask)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, _errors(decoder, trunk, images, mask), rtol=0.02, atol=0)


def test_a_few_steps_make_the_guess_better() -> None:
    trunk, decoder, _, mask = _case("patches")
    prepare_trunk(trunk)
    ramp = torch.linspace(-1, 1, 32).expand(4, 3, 32, 32) * torch.tensor([1.0, -1.0, 0.5, 2.0])[:, None, None, None]
    optimizer = torch.optim.AdamW([*trunk.parameters(), *decoder.parameters()], lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = _errors(decoder, trunk, ramp, mask).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
