"""The lens: published numbers, masks, counts of tokens, and what of it learns in front of a pack's tower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.recording import MISSING
from medclip.models.inputs.normalise import normalise_records
from medclip.models.inputs.signal_input import Normalise, SignalInput
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.lens_tower import LensShape, LensTower, PerceiverLens, fourier_positions
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.lens import anchored_loss, token_distances

GOLDEN = LensShape(8, 16, 12, depth=3, self_per_cross=2, cross_heads=1, latent_heads=2, head_dim=8)
SIDE, LATENTS, WIDTH = 160, 100, 64
"""Of timm's `test_vit`."""


def _lens(shape: LensShape = GOLDEN) -> PerceiverLens:
    torch.manual_seed(0)
    return PerceiverLens(shape).eval()


def _config(words: bool = True, **lens: Any) -> dict[str, Any]:
    config = default_config(
        vocab_size=300, embed_dim=16, size_px=SIDE, image_tower="test_vit", text_width=16, text_heads=2, text_layers=1
    )
    if not words:
        config = {"vision_cfg": {"image_size": SIDE, "timm_model_name": "test_vit", "timm_pool": "mean"}}
    shape = LensShape(LATENTS, WIDTH, 24, depth=1, latent_heads=2, head_dim=8).to_config()
    config["vision_cfg"]["lens"] = shape | lens
    return config


def _ecg_tower(words: bool = True, **lens: Any) -> Any:
    config = _config(words, **lens)
    config["vision_cfg"]["signal"] = {"tower": "lens", "patch": 25, "samples": 1000}
    torch.manual_seed(0)
    return build_clip(config).eval()


@pytest.mark.golden
def test_the_published_lens_is_met(golden: Path) -> None:
    stored = np.load(golden / "vitlens_perceiver.npz")

    def read(name: str) -> Tensor:
        return torch.from_numpy(stored[name])

    lens = _lens()
    lens.load_state_dict({str(name): read(f"w__{name}") for name in stored["param_names"]})
    torch.testing.assert_close(lens(read("data")), read("out"), atol=1e-5, rtol=0)
    torch.testing.assert_close(lens(read("data"), read("mask")), read("out_masked"), atol=1e-5, rtol=0)
    counts = [sum(p.numel() for p in one.parameters()) for one in (lens, _lens(replace(GOLDEN, tied=True)))]
    assert counts == [int(stored["n_params_untied"]), int(stored["n_params_tied"])] == [37_352, 24_944]
    places = fourier_positions(torch.linspace(-1, 1, 5), 4, 10.0)
    torch.testing.assert_close(places, read("fourier_linspace5"), atol=1e-5, rtol=0)
    scale, features = float(stored["tri_logit_scale"]), read("tri_visual")
    loss = anchored_loss(features, (read("tri_image"), read("tri_text")), scale)
    assert float(loss) == pytest.approx(float(stored["tri_loss"]), abs=1e-5)
    for form, name in (("mse", "token_mse"), ("cosine", "token_cos")):
        distances = token_distances(read("tok_visual"), read("tok_image"), form)  # type: ignore[arg-type]
        assert float(distances.mean()) == pytest.approx(float(stored[name]), abs=1e-5)


def test_the_loss_of_one_sample_is_0_and_equal_anchors_count_twice() -> None:
    features = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    anchors = features.roll(1, dims=1)
    assert float(anchored_loss(features[:1], (anchors[:1], anchors[:1]), 10.0)) == 0
    twice = anchored_loss(features, (anchors, anchors), 10.0)
    torch.testing.assert_close(twice, 2 * clip_loss(features, anchors, 10.0))


def test_latents_do_not_depend_on_number_or_order_of_tokens_nor_on_masked_ones() -> None:
    lens, generator = _lens(), torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 30, 12, generator=generator)
    out = lens(tokens)
    assert out.shape == lens(torch.randn(2, 3136, 12, generator=generator)).shape == (2, 8, 16)
    order = torch.randperm(30, generator=generator)
    torch.testing.assert_close(lens(tokens[:, order]), out, atol=1e-5, rtol=0)
    torch.testing.assert_close(lens(tokens.flip(0)), out.flip(0), atol=1e-6, rtol=0)
    mask = torch.arange(30) < 20
    changed = torch.where(mask[:, None], tokens, 100.0)
    torch.testing.assert_close(lens(changed, mask.expand(2, -1)), lens(tokens, mask.expand(2, -1)))
    torch.testing.assert_close(lens(tokens, torch.ones(2, 30, dtype=torch.bool)), out, atol=1e-6, rtol=0)
    assert not torch.allclose(lens(tokens, mask.expand(2, -1)), out, atol=1e-3)


def test_ten_seconds_of_an_ecg_are_two_hundred_tokens() -> None:
    config = _config()
    config["vision_cfg"]["signal"] = {"tower": "lens", "patch": 25, "samples": 5000}
    tower: Any = build_clip(config).visual
    assert tower.input_tokens(torch.randn(1, 1, 12, 5000))[0].shape == (1, 200, 24)


@pytest.mark.parametrize("words", [True, False])
def test_records_come_into_the_space_of_the_pack(words: bool) -> None:
    model = _ecg_tower(words)
    assert isinstance(model.visual, LensTower)
    records = torch.randn(2, 1, 12, 1000, generator=torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    features = model.encode_image(records)
    assert features.shape == model.visual.visual(images).shape
    torch.testing.assert_close(model.encode_image(records[:1]), features[:1], atol=1e-5, rtol=1e-5)


def test_latents_that_are_the_patches_of_an_image_give_its_features() -> None:
    model = _ecg_tower()
    visual, image = model.visual.visual, torch.randn(1, 3, SIDE, SIDE)

    class Same(torch.nn.Module):
        def forward(self, *_: Any) -> Tensor:
            return visual.trunk.patch_embed(image).reshape(1, LATENTS, WIDTH)

    model.visual.lens = Same()
    torch.testing.assert_close(model.encode_image(torch.randn(1, 1, 12, 1000)), visual(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalise", get_args(Normalise))
def test_padding_of_a_short_record_is_not_looked_at_in_any_scale(normalise: Normalise) -> None:
    model, generator = _ecg_tower(), torch.Generator().manual_seed(0)
    microvolts = torch.randint(-900, 1000, (1, 12, 1000), generator=generator).to(torch.int16)
    microvolts[..., 500:] = 0
    microvolts[:, 4] = MISSING
    records = normalise_records(microvolts, SignalInput(100, 10, normalise=normalise, mean_mv=0.1))
    before = model.encode_image(records)
    with torch.no_grad():
        model.visual.positions[:, 20:].normal_(std=5)
    torch.testing.assert_close(model.encode_image(records), before)
    with torch.no_grad():
        model.visual.positions[:, 19].normal_(std=5)
    assert not torch.allclose(model.encode_image(records), before, atol=1e-4)
    assert torch.isfinite(model.encode_image(torch.zeros(1, 1, 12, 1000))).all()


def test_only_the_lens_learns_and_the_tower_stays_in_evaluation_mode() -> None:
    model = _ecg_tower()
    model.requires_grad_(False)
    own = {name: p for name, p in model.visual.named_parameters() if not name.startswith("visual.")}
    for parameter in own.values():
        parameter.requires_grad_(True)
    model.train()
    assert not model.visual.visual.training
    model.encode_image(torch.randn(2, 1, 12, 1000)).square().sum().backward()
    learned = {name for name, p in model.visual.named_parameters() if p.grad is not None}
    assert learned == set(own)
    assert own["tokenizer.weight"].grad is not None
    assert own["tokenizer.weight"].grad.abs().sum() > 0


def test_another_number_of_latents_gets_positions_of_its_own() -> None:
    assert _ecg_tower().visual.latent_positions is None
    model = _ecg_tower(latents=9, fourier_bands=2)
    assert model.visual.latent_positions.shape == (1, 9, WIDTH)
    assert model.encode_image(torch.randn(1, 1, 12, 1000)).shape == (1, 16)


def test_clips_of_volumes_go_through_the_same_lens_and_their_middle_is_an_anchor() -> None:
    config = _config()
    config["vision_cfg"]["tubelet"] = {"num_frames": 8, "tubelet": 2, "channels": 1}
    model: Any = build_clip(config).eval()
    clips = torch.randn(2, 1, 8, SIDE, SIDE)
    assert model.visual.input_tokens(clips)[0].shape == (2, 4 * 10 * 10, 24)
    assert model.encode_image(clips).shape == (2, 16)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    model.visual.mean_std = mean, std
    grey = clips[:, 0, 4] * std[0] + mean[0]
    colour = torch.stack([(grey - m) / s for m, s in zip(mean, std, strict=True)], dim=1)
    torch.testing.assert_close(model.visual.features_of_middle(clips), model.visual.visual(colour))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 32}, "32 wide"),
        ({"depth": 0}, "depth is '0'"),
        ({"rounds": 2}, "rounds is"),
        ({"latents": None}, "None"),
    ],
)
def test_what_cannot_be_built_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MedclipError, match=message) as refused:
        _ecg_tower(**change)
    assert refused.value.reason is Reason.PACK_INVALID


def test_no_lens_goes_in_front_of_a_convolutional_tower() -> None:
    config = _config()
    config["vision_cfg"] |= {
        "timm_model_name": "test_efficientnet",
        "signal": {"tower": "lens", "patch": 25, "samples": 100},
    }
    with pytest.raises(MedclipError, match="no lens goes in front"):
        build_clip(config)
