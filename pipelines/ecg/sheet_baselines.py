"""Logistic regressions beside the towers of sheets: on features of a CNN trained on photographs, on pixels, on ink.

The features are those of EfficientNet-Lite0 with its ImageNet weights, of the input that a tower is shown, of the whole
sheet and of the strip below the frame, where the machine printed filter, speed and heart rate. How strongly a
regression is held back is chosen on the fold's validation sheets; classes are weighted alike.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medclip.files.output import new_file
from medclip.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
from baselines import linear_probe  # pyright: ignore[reportMissingImports]

CNN, PIXELS, INK = "frozen ImageNet CNN", "grey values", "shares of ink"
BASELINES: Mapping[str, tuple[str, ...]] = {
    CNN: ("whole", "grid", "border", "footer"),
    PIXELS: ("grid", "footer"),
    INK: ("grid", "border"),
}
"""What each is shown."""
_SIZES = {"grid": (384, 224), "border": (384, 272), "whole": (384, 272), "footer": (544, 32)}
"""Width and height in pixels: about the aspect ratio of each."""
_SMALL = {"grid": (64, 48), "footer": (256, 8)}
"""Of grey values."""
_INK = (60, 128, 190)
"""Below these grey values a pixel is ink: the shares say how much is drawn, and nothing of its form."""
_BATCH = 16


def encode(name: str, images: Sequence[NDArray[np.uint8]], kind: str, kept: Path) -> NDArray[np.float32]:
    """Compute the features of all sheets, [N, D], or read those that an earlier call computed."""
    if not kept.is_file() and name == INK:
        shares = [[(image < grey).mean() for grey in _INK] for image in images]
        _keep(kept, np.array(shares, np.float32))
    if not kept.is_file():
        sizes = _SIZES if name == CNN else _SMALL
        resample = Image.Resampling.BICUBIC if name == CNN else Image.Resampling.BOX
        small = np.stack([np.asarray(Image.fromarray(image).resize(sizes[kind], resample)) for image in images])
        grey_ND = small.reshape(len(small), -1).astype(np.float32) / np.float32(255)
        _keep(kept, _encode_cnn(small) if name == CNN else grey_ND)
    return np.load(kept)


def _keep(kept: Path, features: NDArray[np.float32]) -> None:
    with new_file(kept) as draft, draft.open("wb") as file:
        np.save(file, features)


def _encode_cnn(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import timm
    import torch

    from medclip.models.towers.build import image_tower_weights, start_image_tower

    trunk = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    shell: Any = SimpleNamespace(visual=SimpleNamespace(trunk=trunk))
    start_image_tower(shell, image_tower_weights(Settings().home / "cache"))
    trunk.eval()
    features = []
    for first in range(0, len(images), _BATCH):
        grey_B1HW = torch.from_numpy(images[first : first + _BATCH]).float()[:, None] / 127.5 - 1
        with torch.inference_mode():
            features.append(trunk(grey_B1HW.expand(-1, 3, -1, -1)).numpy())
    return np.concatenate(features)


def fit(features: NDArray[np.float32], labels: NDArray[np.int64], sides: Sequence[str]) -> NDArray[np.float64]:
    """Fit on the training sheets; returns log probabilities of the test sheets, as if classes were equally frequent."""
    at = {side: np.array([own == side for own in sides]) for side in ("train", "val", "test")}
    train, val = ((features[at[side]], labels[at[side]]) for side in ("train", "val"))
    probabilities = linear_probe(train, val, features[at["test"]], int(labels.max()) + 1)
    return np.log(np.clip(probabilities, 1e-9, 1)).astype(np.float64)
