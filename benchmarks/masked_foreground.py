"""Foreground-aware masks on images with much empty background: what they change, with all else equal.

    MEDCLIP_SHARED=/work/shared python benchmarks/masked_foreground.py [--steps 400] [--seeds 2] [--threads 2]

Two sets of breasts on black: contrast mammography (cdd_cesm) and film mammograms (mini_mias), 112 px in patches of 8. A
masked autoencoder (192 wide, 6 blocks, dec128d2, plain pixels, mask 0.9) learns from the images of 70 % of the
patients, once with masks drawn anywhere and once with `objective.masked.foreground`, with the same initial weights,
batches, noise and steps for each seed. Printed:
- of the visible patches how many are empty, and how many of an image's foreground are seen in the worst 5 % of images;
- the error of hidden foreground patches of the other patients, under the same masks, drawn anywhere, for both;
- AUROC of a logistic regression on the mean of the patch tokens, trained on the same 70 % of patients: malignant or not
  (cdd_cesm), density (mini_mias, mean over three classes); with the paired difference and its 95 % interval.
Steps, sizes and questions were fixed before the first run. There is no target; foreground masks are off by default.
"""

from __future__ import annotations

import argparse
import csv
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from medclip.models.towers.masked_autoencoder import MaskedAutoencoder, prepare_trunk
from medclip.objectives.masked import foreground_of, mask_of_noise, patches_of
from medclip.statistics.metrics.classification import HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of
from medclip.statistics.resampling.weights import draw_weights

PIXELS, PATCH, RATIO, BATCH, RATE = 112, 8, 0.9, 32, 1e-3
TEST_SHARE, NUM_RESAMPLES = 0.3, 2000
METRIC = "macro_auroc"
QUESTIONS = {"cdd_cesm": ("pathology", lambda value: value == "Malignant"), "mini_mias": ("density", str)}
ARMS = {"anywhere": False, "foreground": True}


@dataclass(frozen=True)
class ImageSet:
    """The images of one set."""

    pixels_NHW: Tensor
    """uint8."""
    targets_N: NDArray[np.int64]
    patients: tuple[str, ...]
    tested_N: NDArray[np.bool_]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def read(folder: Path, column: str, class_of: Callable[[str], Any]) -> ImageSet:
    """Read a set, padded to squares at the lower right; the hash of a patient decides which side they are on."""
    with (folder / "labels.csv").open(encoding="utf-8") as f:
        rows = [row for row in csv.DictReader(f) if row[column]]
    pixels = []
    for row in rows:
        grey = Image.open(folder / row["file"]).convert("L")
        square = Image.new("L", (max(grey.size),) * 2)
        square.paste(grey)
        pixels.append(np.asarray(square.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)))
    classes = [class_of(row[column]) for row in rows]
    patients = tuple(row["patient_id"] for row in rows)
    tested = np.array([zlib.crc32(patient.encode()) % 1000 < 1000 * TEST_SHARE for patient in patients])
    return ImageSet(torch.from_numpy(np.stack(pixels)), np.unique(classes, return_inverse=True)[1], patients, tested)


def normalised(pixels_NHW: Tensor) -> Tensor:
    """Return float images [N, 3, H, W]."""
    return ((pixels_NHW.float() / 255 - 0.25) / 0.25)[:, None].expand(-1, 3, -1, -1)


def train(
    pixels_NHW: Tensor, seed: int, steps: int, *, foreground: bool
) -> tuple[VisionTransformer, MaskedAutoencoder]:
    """Train a masked autoencoder; everything but the masks depends on the seed alone."""
    torch.manual_seed(seed)
    trunk = VisionTransformer(PIXELS, PATCH, embed_dim=192, depth=6, num_heads=3, num_classes=0, global_pool="")
    prepare_trunk(trunk)
    decoder = MaskedAutoencoder(trunk, "dec128d2", normalise=False)
    learning = [p for p in (*trunk.parameters(), *decoder.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = pixels_NHW[torch.randint(len(pixels_NHW), (BATCH,), generator=generator)]
        noise = torch.rand(BATCH, decoder.num_patches, generator=generator)
        front = foreground_of(batch[:, None], PATCH) if foreground else None
        optimizer.zero_grad(set_to_none=True)
        total, count = decoder(trunk, normalised(batch), mask_of_noise(noise, RATIO, front)).sum(0)
        (total / count).backward()
        optimizer.step()
        schedule.step()
    return trunk.eval(), decoder.eval()


@torch.no_grad()
def error_of_foreground(trunk: VisionTransformer, decoder: MaskedAutoencoder, pixels_NHW: Tensor) -> float:
    """Return the mean squared error of hidden foreground patches under masks that are drawn anywhere."""
    noise = torch.rand(len(pixels_NHW), decoder.num_patches, generator=torch.Generator().manual_seed(1))
    total = count = 0.0
    for part in torch.arange(len(pixels_NHW)).split(64):
        images, mask = normalised(pixels_NHW[part]), mask_of_noise(noise[part], RATIO)
        counted = mask & foreground_of(pixels_NHW[part][:, None], PATCH)
        guess = decoder.reconstruct(trunk, images, mask)
        error = (guess - patches_of(images, PATCH)).square().mean(-1)
        total, count = total + float(error[counted].sum()), count + int(counted.sum())
    return total / count


@torch.no_grad()
def features(trunk: VisionTransformer, pixels_NHW: Tensor) -> NDArray[np.float32]:
    """Return the mean of the patch tokens of whole images, [N, D]."""
    parts = [trunk.forward_features(normalised(part))[:, 1:].mean(1) for part in pixels_NHW.split(64)]
    return torch.cat(parts).numpy()


def answers(own: ImageSet, vectors_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits of the tested images from a logistic regression on the others."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000, class_weight="balanced"))
    probe.fit(vectors_ND[~own.tested_N], own.targets_N[~own.tested_N])
    return np.log(np.clip(probe.predict_proba(vectors_ND[own.tested_N]), 1e-6, 1))


def describe_masks(pixels_NHW: Tensor, *, foreground: bool) -> str:
    """Count what one mask of each image shows."""
    front = foreground_of(pixels_NHW[:, None], PATCH)
    noise = torch.rand(front.shape, generator=torch.Generator().manual_seed(0))
    visible = ~mask_of_noise(noise, RATIO, front if foreground else None)
    empty = (visible & ~front).sum() / visible.sum()
    seen_N = (visible & front).sum(1) / front.sum(1).clamp_min(1)
    return (
        f"{empty:.1%} of visible patches are empty; worst 5 % of images: {seen_N.quantile(0.05):.1%} of foreground seen"
    )


def main() -> None:
    """Train both arms for each seed and print."""
    chosen = options()
    torch.set_num_threads(chosen.threads)
    data = Path(os.environ["MEDCLIP_SHARED"]) / "data"
    sets = {name: read(data / name, *question) for name, question in QUESTIONS.items()}
    learned = torch.cat([s.pixels_NHW[torch.from_numpy(~s.tested_N)] for s in sets.values()])
    tested = torch.cat([s.pixels_NHW[torch.from_numpy(s.tested_N)] for s in sets.values()])
    print(f"{len(learned)} images to learn from, {len(tested)} of other patients")
    logits: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for arm, foreground in ARMS.items():
        print(f"{arm}: {describe_masks(learned, foreground=foreground)}")
        for seed in range(chosen.seeds):
            trunk, decoder = train(learned, seed, chosen.steps, foreground=foreground)
            print(
                f"  seed {seed}: error of hidden foreground {error_of_foreground(trunk, decoder, tested):.4f}",
                flush=True,
            )
            for name, own in sets.items():
                logits.setdefault((name, arm), []).append(answers(own, features(trunk, own.pixels_NHW)))
    for name, own in sets.items():
        held_out = HeldOut(
            own.targets_N[own.tested_N],
            numbered([p for p, yes in zip(own.patients, own.tested_N, strict=True) if yes]),
            int(own.targets_N.max()) + 1,
        )
        weights_PB = draw_weights(held_out.num_patients, NUM_RESAMPLES, seed=0)
        values: dict[str, Resampled] = {
            arm: figures(np.stack(logits[name, arm]), held_out, weights_PB, [METRIC], runs=(chosen.seeds, 1))[METRIC]
            for arm in ARMS
        }
        for arm, value in values.items():
            e = interval_of(value)
            print(f"{name}, {arm}: AUROC {e.value:.3f} [{e.low:.3f}, {e.high:.3f}], {held_out.num_patients} patients")
        d = difference(values["anywhere"], values["foreground"])
        print(f"{name}, foreground minus anywhere: {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p {d.p:.3f}")


if __name__ == "__main__":
    main()
