"""Masks learned by each arm from a share of the images, measured on the images held out; then one table.

Usage: python pipelines/maps/measure.py DATA RUN [--sets NAME ...] [--arms NAME ...] [--seeds N ...]

RUN/SET_ARM_SHARE_SEED.json holds Dice and patient of each image held out; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from measured_plan import ARMS, NUM_RESAMPLES, SEEDS, SETS, SHARES, TUNED, UNET, UNET_RATE, UNET_STEPS
from measuring import in_words, plain
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from medclip.adaptation.maps.decoders import BATCH, position_margin, segmentation_loss
from medclip.adaptation.maps.feature_maps import FeatureMaps, encode_maps
from medclip.adaptation.maps.learn import MapExamples, fit_map_probe
from medclip.adaptation.maps.tuned_tower import changed_pair, fit_map_tuned, steps_of_rows
from medclip.adaptation.methods import Fitted
from medclip.evaluation.dense.masked_set import MaskedSet, drawn_share, find_masks, held_out
from medclip.evaluation.dense.measure import mean_over_runs
from medclip.evaluation.dense.towers import IMAGENET, PACK, RANDOM, same_tower
from medclip.evaluation.zero_shot.suite import load_suite
from medclip.files.output import write_file
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.model import Model
from medclip.models.packs.pack import load_model
from medclip.settings import Settings
from medclip.statistics.metrics.classification import numbered
from medclip.statistics.metrics.masks import dice_and_iou
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.training.recipe.augment import Augment

KEY = b"medclip public sets".ljust(32)
_AUGMENT = Augment(crop_scale=(0.7, 1.0), rotate_deg=10.0, brightness=0.2, contrast=0.25, flip=0.0)
"""The defaults of `map-tuned`."""


class Learning:
    """A set, encoded by what its arms begin with, and divided."""

    def __init__(self, masked: MaskedSet, starts: Mapping[str, Model], folder: Path) -> None:
        self.masked, self.starts = masked, starts
        self.patients_N = numbered([row.patient for row in masked.rows])
        self.is_test_N = held_out(self.patients_N.tolist())
        modality, settings = str(masked.part.modality), Settings()
        self.maps: dict[str, FeatureMaps] = {}
        for name, model in starts.items():
            place = folder / name
            place.mkdir(parents=True)
            self.maps[name] = encode_maps(
                {PACK: model}, masked.rows, modality, place, settings, lambda _: None, levels=True, keep_pixels=True
            )
        first = next(iter(self.maps.values()))
        readable = np.array([image.problem is None for image in first.images])
        self.train, self.test = np.flatnonzero(readable & ~self.is_test_N), np.flatnonzero(readable & self.is_test_N)
        self.marked = np.array([(first.labels[n] == 1).any() for n in self.train])

    def dices(self, arm: str, share: float, seed: int) -> list[float]:
        """Learn by an arm, and return the Dice of each image held out."""
        chosen = self.train[drawn_share(self.marked, share, seed=seed)]
        start = {"tuned_imagenet": IMAGENET, "tuned_random": RANDOM}.get(arm, PACK)
        maps, model = self.maps[start], self.starts[start]
        if arm == "position":
            grids = [position_margin(np.array(maps.labels[np.sort(chosen)]))] * len(self.test)
        elif arm == "unet":
            grids = unet_margins(MapExamples(maps, chosen), self.test, seed)
        else:
            learn: Any = fit_map_probe if arm == "probe" else fit_map_tuned
            grids = answers(learn(model, None, MapExamples(maps, chosen), None, seed=seed), model, maps, self.test)
        return [self.dice(maps, n, grid) for n, grid in zip(self.test.tolist(), grids, strict=True)]

    def dice(self, maps: FeatureMaps, number: int, grid: NDArray[np.float32]) -> float:
        """Compare a grid with the mask of the image's own pixels."""
        image = maps.images[number]
        assert image.shown is not None
        return dice_and_iou(image.shown.to_mask(grid), image.mask())[0]


def answers(fitted: Fitted, base: Model, maps: FeatureMaps, test: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Ask what was learned about images, one at a time."""
    model, head = fitted.merged(base), fitted.head
    assert maps.pixels is not None
    grids = []
    for n in test.tolist():
        tokens: Any = model.encode_tokens(np.array(maps.pixels[n : n + 1]), levels=True)
        grids.append(head.grids(head.logits(tokens, model)[0])[0])  # pyright: ignore[reportAttributeAccessIssue]
    return grids


def unet_margins(train: MapExamples, test: NDArray[np.int64], seed: int) -> list[NDArray[np.float32]]:
    """Learn a U-Net from nothing, and return what it says of images, above 0 where it marks."""
    from monai.networks.nets.unet import UNet

    def inputs(images: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module = UNet(spatial_dims=2, in_channels=3, out_channels=2, **UNET)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(net.parameters(), lr=UNET_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UNET_STEPS)
    order = steps_of_rows(len(train.chosen), torch.Generator().manual_seed(seed))
    chance, size = np.random.default_rng(seed), train.maps.labels.shape[1:]
    for _ in range(UNET_STEPS):
        pairs = [changed_pair(train, int(train.chosen[row]), _AUGMENT, chance) for row in next(order)]
        images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
        logits = functional.interpolate(net(inputs(images)), size=size, mode="bilinear", align_corners=False)
        optimizer.zero_grad()
        segmentation_loss(logits, torch.from_numpy(labels)).backward()
        optimizer.step()
        schedule.step()
    grids = []
    with torch.inference_mode():
        for start in range(0, len(test), BATCH):
            logits = net.eval()(inputs(np.array(train.pixels[test[start : start + BATCH]])))
            grids += list((logits[:, 1] - logits[:, 0]).numpy())
    return grids


def measured(learning: Learning, run: Path, arms: Sequence[str], shares: Sequence[float], seeds: Sequence[int]) -> None:
    """Measure what is missing of a set."""
    test = learning.test
    for seed in seeds:
        for arm in arms:
            for share in shares:
                place = cell(run, learning.masked.part.id, arm, share, seed)
                if place.is_file():
                    continue
                dices = [None if np.isnan(dice) else dice for dice in learning.dices(arm, share, seed)]
                figures = {"dice": dices, "patient": learning.patients_N[test].tolist(), "row": test.tolist()}
                write_file(place, json.dumps(figures) + "\n")
                print(f"{place.stem}: {np.nanmean(np.array(dices, float)):.3f}", flush=True)


def cell(run: Path, name: str, arm: str, share: float, seed: int) -> Path:
    """Return the file of one result."""
    return run / f"{name}_{arm}_{share:g}_{seed}.json"


def results(run: Path, name: str, share: float) -> dict[str, list[Any]]:
    """Return what is there of each arm, of the seeds that all arms have."""
    by_seed = [{arm: cell(run, name, arm, share, seed) for arm in ARMS} for seed in SEEDS]
    arms = [arm for arm in ARMS if any(files[arm].is_file() for files in by_seed)]
    whole = [files for files in by_seed if all(files[arm].is_file() for arm in arms)]
    return {arm: [json.loads(files[arm].read_text(encoding="utf-8")) for files in whole] for arm in arms if whole}


def table(run: Path, sets: Sequence[str], shares: Sequence[float]) -> str:
    """Write the table of all that is there: Dice of each arm, and `tuned` less it."""
    lines = ["| set | images to learn from | arm | seeds | Dice | tuned less it |", "|---|---|---|---|---|---|"]
    for name in sets:
        for share in shares:
            of = results(run, name, share)
            if TUNED not in of:
                continue
            patients_N = numbered(of[TUNED][0]["patient"])
            weights_PB = draw_weights(int(patients_N.max()) + 1, NUM_RESAMPLES, seed=0)
            means = {
                arm: mean_over_runs([np.array(one["dice"], float) for one in runs], patients_N, weights_PB)
                for arm, runs in of.items()
            }
            for arm, mean in means.items():
                less = "" if arm == TUNED else in_words(plain(difference(mean, means[TUNED])))
                cells = [name, f"{share:.0%}", ARMS[arm], str(len(of[arm])), in_words(plain(interval_of(mean))), less]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    asked = parser.parse_args()
    asked.run.mkdir(parents=True, exist_ok=True)
    parts = {part.id: part for part in load_suite("dense").masks}
    model = load_model("medclip-mini")
    with TemporaryFolder("weights") as weights:
        beside, _ = same_tower(model, Path(weights))
        for name in asked.sets:
            masked = find_masks(asked.data, parts[name], KEY)
            if masked is None:
                print(f"{name}: not there.")
                continue
            starts = {PACK: model, **(beside if any("_" in arm for arm in asked.arms) else {})}
            with TemporaryFolder("maps") as folder:
                measured(Learning(masked, starts, Path(folder)), asked.run, asked.arms, asked.shares, asked.seeds)
    text = table(asked.run, asked.sets, asked.shares)
    write_file(asked.run / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
