"""Masked autoencoders: golden vectors, what the encoder may see, and what counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medclip.models.towers.masked_autoencoder import DecoderShape
from medclip.objectives.masked import mask_of_noise
from tests.kits.masked_autoencoder import golden_autoencoder
from tests.kits.objectives import check_golden, check_golden_gradient

SMALL = DecoderShape(16, 1, 2)
RATIOS = (0.75, 0.9)


@pytest.fixture
def stored(golden: Path) -> Any:
    return np.load(golden / "medical_mae_tiny.npz", allow_pickle=False)


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
    loss = decoder(trunk, torch.tensor(stored["imgs"]), mask).mean()
    check_golden(loss, stored[f"mr{ratio}/loss_normpix{int(normalise)}"])
    loss.backward()
    prefix = f"mr{ratio}/grad_normpix{int(normalise)}/"
    ours = dict(trunk.named_parameters())
    ours |= {"mask_token": decoder.mask_token, "decoder_pred.bias": decoder.head.bias}
    names = [key.removeprefix(prefix) for key in stored if key.startswith(prefix)]
    assert len(names) == 5
    for name in names:
        check_golden_gradient(ours[name], stored[prefix + name])
