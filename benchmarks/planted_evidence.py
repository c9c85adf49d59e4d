"""Whether heat maps find evidence that was planted: a square that alone decides the class, among squares that do not.

    python benchmarks/planted_evidence.py --images 200

Images of noise hold three squares of equal mean and contrast: one of stripes, whose direction is the class, and two of
checks; where all are of checks the class is "neither", and such images are learned from and not tested. A tiny
transformer and a tiny convolutional tower learn them in code, become packs of images alone and are adapted with
`medclip adapt` (linear probe, 16 shots). What `medclip.explain` computes then shows what raises the class of each test
image: a hit is a map whose largest value, in the image's own coordinates, lies in the striped square. The same again
with all weights shuffled, over several draws. Goal: hits in at least 95 %, and with random weights no more than chance,
the square's share of the image.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import medclip
from medclip.adapters.base import source_of
from medclip.explaining.explain_unit import explain_unit, shuffle_weights
from medclip.explaining.explainers import NONE, ExplainOptions
from medclip.explaining.seen import read_seen
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import IMPORTED, Card
from medclip.models.packs.pack import load_model, save_pack
from medclip.models.towers.build import build_clip
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Modality
from medclip.scoring.targets import Targets
from medclip.settings import Settings

SIDE, SQUARE = 64, 16
_STEP = 8
"""Squares lie on a grid of so many pixels, which is the transformer's: it learns sooner."""
CLASSES = ("upright", "level", "neither")
"""Without the third a tower may learn one direction alone and call all else the other, which then has no evidence."""
TOWERS: dict[str, dict[str, Any]] = {
    "transformer": {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": SIDE,
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_pool": "token",
            "timm_model_args": {"img_size": SIDE, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4},
        },
    },
    "convolution": {
        "embed_dim": 96,
        "vision_cfg": {
            "image_size": SIDE,
            "timm_model_name": "test_resnet",
            "timm_pool": "avg",
            "timm_model_args": {"output_stride": 8},
        },
    },
}


@dataclass(frozen=True)
class Planted:
    """One image."""

    pixels: NDArray[np.uint8]
    label: int
    box: tuple[int, int, int, int]
    """Top, left, bottom and right of the square that decides."""


@dataclass(frozen=True)
class Figures:
    """What was counted."""

    accuracy: float
    hits: int
    num: int
    empty: int
    random_hits: int
    num_random: int

    @property
    def chance(self) -> float:
        """Share of the image that the square covers."""
        return (SQUARE / SIDE) ** 2


def plant(rng: np.random.Generator, *, striped: bool = False) -> Planted:
    """Draw an image: noise, a square of stripes (of checks where there are neither) and two of checks.

    Args:
        rng: Draws it.
        striped: There are stripes.
    """
    image = rng.normal(128, 30, (SIDE, SIDE))
    label, places = int(rng.integers(2 if striped else 3)), list[tuple[int, int]]()
    while len(places) < 3:
        top, left = (_STEP * int(n) for n in rng.integers(0, (SIDE - SQUARE) // _STEP + 1, 2))
        if all(max(abs(top - other[0]), abs(left - other[1])) >= SQUARE for other in places):
            places.append((top, left))
    rows, columns = np.indices((SQUARE, SQUARE)) // 2 % 2
    patterns = [(columns, rows, rows ^ columns)[label], rows ^ columns, rows ^ columns]
    for (top, left), pattern in zip(places, patterns, strict=True):
        image[top : top + SQUARE, left : left + SQUARE] = (
            128 + 60 * (2 * pattern - 1) + rng.normal(0, 10, pattern.shape)
        )
    top, left = places[0]
    pixels = np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return Planted(pixels, label, (top, left, top + SQUARE, left + SQUARE))


def train(config: dict[str, Any], *, steps: int, batch: int = 32, seed: int = 0) -> nn.Module:
    """Teach an image tower to tell the classes apart, with a linear layer that is then forgotten."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = build_clip(config)
    head = nn.Linear(config["embed_dim"], len(CLASSES))
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        drawn = [plant(rng) for _ in range(batch)]
        pixels = torch.from_numpy(np.stack([p.pixels for p in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1
        features = nn.functional.normalize(model.visual(pixels), dim=-1)  # type: ignore[operator]
        loss = nn.functional.cross_entropy(10 * head(features), torch.tensor([p.label for p in drawn]))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


def adapted_pack(name: str, folder: Path, *, steps: int) -> Path:
    """Train a tower, write it as a pack of images alone, and adapt that to the question."""
    config = TOWERS[name]
    card = Card(
        name=name, version="1", summary="Learned stripes.", modalities=("pathology",), created_from={IMPORTED: "code"}
    )
    base = save_pack(
        folder / "base", train(config, steps=steps), None, Preprocess(SIDE), card, config=config, half=False
    )
    rng, rows = np.random.default_rng(1), ["file,patient,modality,stripes"]
    for number in range(120):
        drawn = plant(rng)
        write(drawn, folder / f"learn{number}.png")
        rows.append(f"learn{number}.png,p{number},pathology,{CLASSES[drawn.label]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    medclip.adapt(
        folder / "labels.csv",
        "stripes",
        out=folder / "pack",
        model=base,
        method="linear-probe",
        shots=16,
        workers=1,
        test_share=0.3,
    )
    return folder / "pack"


def write(drawn: Planted, path: Path) -> Path:
    Image.fromarray(drawn.pixels).save(path)
    return path


def measure(pack: Path, folder: Path, *, images: int, draws: int, seed: int = 7, method: str | None = None) -> Figures:
    """Explain test images with the pack, then with shuffled weights."""
    rng = np.random.default_rng(seed)
    drawn = [plant(rng, striped=True) for _ in range(images)]
    paths = [write(d, folder / f"test{n}.png") for n, d in enumerate(drawn)]
    model = load_model(pack)
    (task,) = model.card.tasks
    hits, empty, right = _count(model, task, paths, drawn, method)
    generator = torch.Generator().manual_seed(seed)
    random_hits = num_random = 0
    for _ in range(draws):
        shuffled = load_model(pack)
        for parameter in shuffled.clip.visual.parameters():
            shuffle_weights(parameter, generator)
        random_hits += _count(shuffled, task, paths, drawn, method)[0]
        num_random += images
    return Figures(right / images, hits, images, empty, random_hits, num_random)


def _count(
    model: Any, task: str, paths: Sequence[Path], drawn: Sequence[Planted], method: str | None
) -> tuple[int, int, int]:
    """Count hits, empty maps and right answers, as `medclip.explain` computes them but without a drawing."""
    settings, options = Settings(workers=1), ExplainOptions(method, checks=NONE)
    hits = empty = right = 0
    for path, one in zip(paths, drawn, strict=True):
        seen = read_seen(source_of(path, settings), Modality.PATHOLOGY, model.preprocess, settings)
        targets = Targets(model, ScoreOptions(), [f"{task}:{CLASSES[one.label]}"])
        explained = explain_unit(model, seen, targets, options, row=1, file="", draw=False)
        (heat,) = explained.maps
        right += heat.score > 0
        if heat.is_empty:  # its largest value lies nowhere: a miss
            empty += 1
            continue
        values = explained.in_image(heat, 0)
        row, column = np.argwhere(values >= np.nanmax(values) * (1 - 1e-6)).mean(axis=0)  # of ties the middle
        top, left, bottom, right_ = one.box
        hits += top <= row < bottom and left <= column < right_
    return hits, empty, right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--method", help="One of explaining.explainers.EXPLAINERS; by default that of the tower.")
    parser.add_argument("--tower", choices=sorted(TOWERS), action="append")
    args = parser.parse_args()
    for name in args.tower or TOWERS:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            pack = adapted_pack(name, Path(folder), steps=args.steps)
            made = time.perf_counter()
            found = measure(pack, Path(folder), images=args.images, draws=args.draws, method=args.method)
        print(
            f"{name}: peak in the square in {found.hits} of {found.num} images ({found.hits / found.num:.1%}; "
            f"{found.empty} empty maps; accuracy {found.accuracy:.1%}); with random weights in {found.random_hits} of "
            f"{found.num_random} ({found.random_hits / max(1, found.num_random):.1%}), chance {found.chance:.1%}. "
            f"{made - began:.0f} s to learn and adapt, {time.perf_counter() - made:.0f} s to explain."
        )


if __name__ == "__main__":
    main()
