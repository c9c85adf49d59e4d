"""Reinforce once, train and measure every arm with every seed: one JSON file for each run, then the tables.

Usage: python pipelines/distil/measure.py RUN [--scale smoke|shared] [--arms NAME...] [--seeds N...] [--split test|val]

RUN holds the shards (run.sh builds them). Killed and called again, it goes on: stored answers, packs and results are
kept. What could be chosen by looking at results stands in measured_plan.py. `--split val` is for choosing: its results
lie beside those of the test patients, and no table is made of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import result_tables
import torch
import yaml
from measured_plan import ARMS, SCALES, SEEDS, TEACHER, Arm
from measured_split import Judged, Split, labelled, labelled_finding, load_split
from measuring import trained
from numpy.typing import NDArray

from medclip.files.output import write_file
from medclip.models.model import Model
from medclip.models.packs.pack import find_pack, load_model
from medclip.models.prototypes.class_vectors import class_vectors, score_features
from medclip.models.prototypes.sentence_vectors import task_sentences
from medclip.models.towers.build import image_tower_weights, start_image_tower
from medclip.pairs.distillation import Distilling, card_of_images, recipe_of
from medclip.pairs.reinforcement import Reinforcing, reinforce
from medclip.pairs.student_start import write_start
from medclip.settings import Settings
from medclip.statistics.metrics.classification import numbered
from medclip.text.vocabulary.load import load_task

RECIPE = Path(__file__).parents[1] / "mini" / "recipe.yaml"
DECIMALS = 4
ROUNDS, TIMED = 9, 32


@dataclass(frozen=True)
class Study:
    """A run folder and a scale."""

    run: Path
    scale: str
    teacher: Model

    @cached_property
    def card(self) -> Any:
        """The teacher's card, of the tasks of these images."""
        return card_of_images(self.teacher, self.shards)

    @property
    def shards(self) -> Path:
        """The images, as pipelines/mini makes them."""
        return self.run / "shards"

    def what(self, seed: int) -> Distilling:
        """Return what `medclip models distil` would be asked."""
        s, name = SCALES[self.scale], f"student-{seed}"
        return Distilling(
            str(self.teacher.path), self.shards, s.tower, Path(name), self.run, (), s.augmentations, s.epochs, s.size_px
        )

    def reinforced(self) -> dict[str, Any]:
        """Ask the teacher once; returns how long that took."""
        cost = self.run / "reinforced.json"
        if not cost.is_file():
            begin = time.perf_counter(), time.process_time()
            texts = tuple(task_sentences(self.card))
            stored = reinforce(
                Reinforcing(
                    str(self.shards),
                    self.run / "reinforced",
                    (str(self.teacher.path),),
                    augmentations=SCALES[self.scale].augmentations,
                    texts=texts,
                )
            )
            spent = {"wall_s": time.perf_counter() - begin[0], "cpu_s": time.process_time() - begin[1]}
            write_file(cost, json.dumps(spent | {"num_samples": stored.num_samples, "bytes": stored.num_bytes}) + "\n")
        return json.loads(cost.read_text(encoding="utf-8"))

    def start(self, kind: str) -> Path:
        """Return the pack that an arm begins with: the teacher's tower, or that tower from ImageNet."""
        own, other = self.run / "start_teacher", self.run / "start_imagenet"
        if not own.is_dir():
            scale = SCALES[self.scale]
            write_start(self.teacher, own, tower=scale.tower, size_px=scale.size_px)
        if kind == "imagenet" and not other.is_dir():
            _write_from_imagenet(own, other)
        return own if kind == "teacher" else other

    def recipe(self, name: str, arm: Arm, seed: int) -> dict[str, Any]:
        """Return the recipe of a run."""
        scale, num = SCALES[self.scale], self.reinforced()["num_samples"]
        start = self.start(arm.start)
        recipe = recipe_of(self.what(seed), self.teacher, self.card, self.shards, start, num)
        if not arm.taught:
            plain = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
            recipe |= {part: plain[part] for part in ("augment", "objective")}
            recipe["objective"].pop("text_teacher")
            recipe["data"] = {k: v for k, v in plain["data"].items() if k != "cache_mb"} | recipe["data"]
            recipe["data"].pop("reinforced")
            taken = ("batch_size", "lr", "image_lr_factor", "weight_decay", "warmup_steps", "ema")
            recipe["train"] |= {key: plain["train"][key] for key in taken}
        for key, value in {**scale.recipe, **arm.recipe}.items():
            part, _, field = key.partition(".")
            recipe.setdefault(part, {})[field] = value
        recipe["data"]["cache_mb"] = 2048
        recipe["train"] |= {"max_steps": scale.steps, "threads": 1, "log_every": 50}
        return recipe | {"name": f"distil-{name}", "seed": seed}


def _write_from_imagenet(own: Path, other: Path) -> None:
    """Copy a start with the trunk from ImageNet and a new projection behind it; the words stay."""
    from safetensors.torch import load_file, save_file

    from medclip.models.packs.manifest import WEIGHTS_NAME, read_config, read_manifest, seal
    from medclip.models.towers.build import build_clip

    shutil.copytree(own, other)
    torch.manual_seed(0)
    model = build_clip(read_config(own)["model_cfg"], own)
    start_image_tower(model, image_tower_weights(Settings().home / "cache"))
    state = load_file(own / WEIGHTS_NAME)
    save_file(state | {k: v for k, v in model.state_dict().items() if k.startswith("visual.")}, other / WEIGHTS_NAME)
    seal(other, read_manifest(other).preprocessing)


def asked_of(card: Any, split: Split) -> dict[str, Any]:
    """Return what is the same for all runs: of each task its rows, whose they are, where from, and what is true."""
    patients = numbered(split.patients.tolist())
    asked: dict[str, Any] = {}

    def add(name: str, rows: NDArray[np.intp], targets: NDArray[np.intp], classes: int) -> None:
        first = split.of_units(rows).first_U
        asked[name] = {
            "patients": patients[rows[first]].tolist(),
            "sources": split.sources[rows[first]].tolist(),
            "targets": targets[first].tolist(),
            "classes": classes,
        }

    for name, task in card.tasks.items():
        if load_task(name).kind == "multilabel":
            for finding in task.classes:
                add(f"{name}:{finding}", *labelled_finding(split, name, finding, Judged()), 1)
        else:
            add(name, *labelled(split, name, task.classes), len(task.classes))
    return asked


def scores_of(model: Model, card: Any, split: Split) -> dict[str, Any]:
    """Return the logits of each file or record, as `medclip score` answers for it, by task; of findings one each."""
    scores: dict[str, Any] = {}
    for name, task in card.tasks.items():
        kind = load_task(name).kind
        for finding in task.classes if kind == "multilabel" else ("",):
            rows = (
                labelled_finding(split, name, finding, Judged()) if finding else labelled(split, name, task.classes)
            )[0]
            vectors = class_vectors(model, load_task(name), [finding] if finding else task.classes)
            logits = score_features(split.features[rows], vectors, kind, model.logit_scale)[0]
            averaged = split.of_units(rows).mean(logits)
            scores[f"{name}:{finding}" if finding else name] = np.round(averaged, DECIMALS).tolist()
    return scores


def at_size(model: Model, size_px: int) -> Model:
    """Return the model asked with smaller images, as it is."""
    return Model(
        model.clip,
        model.tokenizer,
        replace(model.preprocess, size_px=size_px),
        model.card,
        name=model.name,
        path=model.path,
        sentences={},
    )


def speeds(models: Mapping[str, Model]) -> dict[str, Any]:
    """Time image towers by one thread, in turns: images a second at each batch, and ratios of each round."""
    first, *_ = models
    rng, figures = np.random.default_rng(0), {}
    for batch in (1, 4, 32):
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(ROUNDS + 1):
            for name, model in models.items():
                size = model.preprocess.size_px
                images = torch.from_numpy(rng.standard_normal((batch, 3, size, size), np.float32))
                images = images.to(memory_format=torch.channels_last)
                with torch.inference_mode():
                    begin = time.perf_counter()
                    for _ in range(TIMED // batch):
                        model.clip.visual(images)  # type: ignore[operator]
                if turn:  # the first one warms up
                    seconds[name].append(time.perf_counter() - begin)
        for name, of in seconds.items():
            ratios = [a / b for a, b in zip(seconds[first], of, strict=True)]
            figures[f"{name}, batch {batch}"] = {
                "images_s": TIMED // batch * batch / median(of),
                "ratio": median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            }
    return figures


def main(arguments: list[str]) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scale", choices=SCALES, default="shared")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--split", choices=("test", "val"), default="test")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    teacher = load_model(find_pack(TEACHER))
    study = Study(args.run, args.scale, teacher)
    results = args.run / f"results_{args.split}"
    results.mkdir(exist_ok=True)

    def keep(name: str, of: Callable[[], dict[str, Any]]) -> None:
        if not (results / f"{name}.json").is_file():
            write_file(results / f"{name}.json", json.dumps(of()) + "\n")
            print(f"{name}: done", flush=True)

    def measured(model: Model) -> dict[str, Any]:
        split = load_split(study.shards, args.split, model)
        write_file(args.run / f"asked_{args.split}.json", json.dumps(asked_of(teacher.card, split)) + "\n")
        return {"scores": scores_of(model, teacher.card, split)}

    size, epochs = SCALES[args.scale].size_px, SCALES[args.scale].epochs
    study.reinforced()
    for seed in args.seeds:
        for name in args.arms:
            out = args.run / "runs" / f"{name}_{seed}"

            def run(name: str = name, seed: int = seed, out: Path = out) -> dict[str, Any]:
                begin = time.process_time()
                pack = trained(out, study.recipe(name, ARMS[name], seed))
                spent = time.process_time() - begin
                return measured(load_model(pack)) | {"arm": name, "seed": seed, "cpu_s": spent, "epochs": epochs}

            keep(f"{name}_{seed}", run)
    keep("teacher", lambda: measured(teacher))
    keep("shrunk", lambda: measured(at_size(teacher, size)))
    keep("speed", lambda: speeds({"teacher": teacher, "student": at_size(teacher, size)}))
    if args.split == "test":
        print(result_tables.write_tables(args.run))


if __name__ == "__main__":
    main(sys.argv[1:])
