"""Pixels as a tower takes them: the same bits however fast they are computed."""

from __future__ import annotations

import numpy as np
import torch

from medclip.models.inputs.normalise import normalise_square


def test_normalising_line_by_line_gives_the_bits_of_the_plain_form() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 28, 3), dtype=np.uint8))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.48, 0.45, 0.40), (0.26, 0.27, 0.28)))
    plain = images.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
    fast = normalise_square(images, mean, std)
    assert torch.equal(fast, plain)
    assert fast.is_contiguous(memory_format=torch.channels_last)
