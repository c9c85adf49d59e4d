"""Tokens spent on black, letterboxed and at the image's own aspect ratio, and what a native ViT costs.

    MEDCLIP_SHARED=/work/shared python benchmarks/native_aspect.py [--most 60] [--rounds 9] [--json]

Both forms show an image in the same number of tokens (196 patches of 16 px: a square of 224 px). Images are read
through the adapter that scores them, which cuts dark borders off; black inside an image stands in both columns. Then a
step (forward and backward) of a ViT-S/16 on the same squares as a plain tower and as a native one, and on images of
mixed shapes, the three in turn, in CPU time of one thread. Ends with 1 when the native tower's tokens a second are
below 0.8 of the plain one's, or where a native image has a bar.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medclip.adapters.base import source_of
from medclip.adapters.model_images import images_of
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError
from medclip.imaging.geometry import TokenBudget, letterbox
from medclip.imaging.intensity import to_uint8
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.native_aspect import make_native
from medclip.models.towers.tokens import place_patches
from medclip.sample import Modality
from medclip.settings import Settings

SIZE, PATCH = 224, 16
BUDGET = TokenBudget(PATCH, (SIZE // PATCH) ** 2)
SETS = {
    "mini_mias": ("images/*.png", Modality.MAMMOGRAPHY),
    "cdd_cesm": ("images/*.jpg", Modality.MAMMOGRAPHY),
    "mammo_4view": ("dicom/**/*.dcm", Modality.MAMMOGRAPHY),
    "nih_cxr": ("images/*.jpg", Modality.XRAY),
    "ecg_sheet": ("images/*.jpg", None),
}
BLACK = 8
"""Grey values up to this are black."""
TARGET = 0.8


def black_tokens(image: NDArray[np.uint8]) -> int:
    """Count the patches in which everything is black."""
    rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
    return int((image.reshape(rows, PATCH, columns, PATCH, 3).max(axis=(1, 3, 4)) <= BLACK).sum())


def of_image(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Compare both forms of an image."""
    height, width = pixels.shape[:2]
    square, native = letterbox(pixels, SIZE), BUDGET.fit(pixels)
    longest = max(height, width)
    inside = round(height * SIZE / longest), round(width * SIZE / longest)
    # Tokens without a single pixel of the image: the letterbox's bars in whole patches.
    bars = letterbox(np.full((height, width, 3), 255, np.uint8), SIZE)
    tokens = native.shape[0] * native.shape[1] // PATCH**2
    return {
        "aspect": longest / min(height, width),
        "bars": black_tokens(bars) / BUDGET.max_tokens,
        "native_bars": black_tokens(BUDGET.fit(np.full((height, width, 3), 255, np.uint8))) / tokens,
        "black": black_tokens(square) / BUDGET.max_tokens,
        "native_black": black_tokens(native) / tokens,
        "unused": 1 - tokens / BUDGET.max_tokens,
        "side_px": float(np.sqrt(inside[0] * inside[1])),
        "native_side_px": float(np.sqrt(native.shape[0] * native.shape[1])),
        "distortion": float(np.exp(abs(np.log(native.shape[0] / native.shape[1] * width / height)))) - 1,
    }


def measure_set(folder: Path, pattern: str, modality: Modality | None, most: int) -> dict[str, Any]:
    """Return the means over images of a set, evenly spread over its files."""
    files = sorted(folder.glob(pattern))
    files = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))]
    rows = []
    for file in files:
        try:
            views = images_of(read_unit(source_of(file, Settings()), modality, Settings()))
        except MedclipError as error:
            print(f"left out: {error.reason}", file=sys.stderr)
            continue
        rows += [of_image(to_uint8(view)) for view in views]
    return {"images": len(rows), **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]}}


def tower(native: bool) -> Any:
    """Build a ViT-S/16, the same weights in either form."""
    torch.manual_seed(0)
    visual: Any = build_clip(default_config(vocab_size=300, image_tower="vit_small_patch16_224", text_layers=1)).visual
    if native:
        make_native(visual, "vit_small_patch16_224", SIZE)
    return visual.train()


def measure_steps(rounds: int, batch: int) -> dict[str, Any]:
    """Time a step of each form in turn; returns tokens a second and their ratios."""
    torch.set_num_threads(1)
    plain, native = tower(False), tower(True)
    rng = np.random.default_rng(0)
    mixed = [BUDGET.grid(*rng.integers(100, 400, 2)) for _ in range(batch)]
    patches = torch.randn(batch, BUDGET.max_tokens, PATCH**2 * 3)
    inputs = {
        "plain": (plain, torch.randn(batch, 3, SIZE, SIZE), batch * BUDGET.max_tokens),
        "native": (native, place_patches(patches, torch.tensor([[14, 14]] * batch)), batch * BUDGET.max_tokens),
        "mixed": (native, place_patches(patches, torch.tensor(mixed)), sum(h * w for h, w in mixed)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in inputs}
    for number in range(rounds + 1):
        for name, (visual, x, tokens) in inputs.items():
            start = time.process_time()
            visual(x).square().sum().backward()
            if number:
                speeds[name].append(tokens / (time.process_time() - start))
    ratios = {
        name: sorted(a / b for a, b in zip(speeds[name], speeds["plain"], strict=True)) for name in ("native", "mixed")
    }
    return {
        "tokens_s": {name: statistics.median(each) for name, each in speeds.items()},
        "ratio": {name: [statistics.median(each), each[0], each[-1]] for name, each in ratios.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=60, help="images of a set")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    data = Path(os.environ["MEDCLIP_SHARED"]) / "data"
    sets = {n: measure_set(data / n, pattern, modality, asked.most) for n, (pattern, modality) in SETS.items()}
    steps = measure_steps(asked.rounds, asked.batch)
    if asked.json:
        print(json.dumps({"sets": sets, "steps": steps}))
    else:
        columns = "set", "images", "aspect", "bars", "black tokens: letterbox / native", "side px: letterbox / native"
        print(f"| {' | '.join(columns)} |")
        print("|---|---|---|---|---|---|")
        for name, s in sets.items():
            print(
                f"| {name} | {s['images']} | {s['aspect']:.2f} | {s['bars']:.1%} | {s['black']:.1%} / "
                f"{s['native_black']:.1%} | {s['side_px']:.0f} / {s['native_side_px']:.0f} |"
            )
        for name, (median, low, high) in steps["ratio"].items():
            print(f"tokens a second, {name} / plain: {median:.2f} ({low:.2f} to {high:.2f})")
        print(
            f"budget not used: {max(s['unused'] for s in sets.values()):.1%} at most, aspect off by "
            f"{max(s['distortion'] for s in sets.values()):.1%} in the mean at most"
        )
    return int(steps["ratio"]["native"][0] < TARGET or any(s["native_bars"] > 0 for s in sets.values()))


if __name__ == "__main__":
    sys.exit(main())
