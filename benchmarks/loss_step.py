"""What options of a recipe cost: CPU time and memory of a training step with them against without, on one CPU thread.

    python benchmarks/loss_step.py '{token_alignment: {}}' [--tower efficientnet_lite0] [--rounds 9] [--batch 32]
    python benchmarks/loss_step.py --recipe '{train.micro_batch: 8}' --recipe '{model.experts: {count: 4}}'

A small text tower, images of noise at 128 px, captions of the task vocabularies, and texts of other roles made of them.
A step is forward, backward and AdamW. Each variant is a process of its own, as is the plain recipe, and all take steps
in turn, so that they have the same load of the machine. One line of JSON for each variant: the ratio to the plain one
of the CPU seconds of a step (median, least and most of the rounds), and of the peak memory above that before the
towers were made.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
import yaml
from train_step import captions

from medclip.models.inputs.preprocess import Preprocess
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.layers import recompute_activations
from medclip.models.towers.table import ROTARY
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.training.batches.loader import Batch, used_columns
from medclip.training.batches.sample_texts import ROLES, RoleTexts
from medclip.training.ranks import World, choose_precision
from medclip.training.recipe.schema import Recipe, load_recipe
from medclip.training.steps.experts import ExpertsHook, place_experts
from medclip.training.steps.loss_terms import Start, begin_losses
from medclip.training.steps.optimizer import Ema, Hook, Update, make_optimizer, moving_statistics, training_mode
from medclip.training.steps.step import StepComputer
from medclip.training.steps.towers import Towers

SIZE_PX = 128
STEPS = 1000
"""Of the run that the steps are the first ones of: shares that grow over a run are small."""


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", nargs="*", help="objective.losses of a variant, as YAML")
    parser.add_argument("--recipe", action="append", default=[], help="a variant by keys of the recipe, as YAML")
    parser.add_argument("--tower", default="vit_tiny_patch16_224")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def role_texts(recipe: Recipe, texts: tuple[str, ...], encode: Any) -> dict[str, RoleTexts]:
    """Make the texts that the losses of a recipe read beside captions: other captions, long ones, words, pairs."""
    size, made = len(texts), {}
    for role in recipe.roles:
        if role.name in ("tags", "absent"):
            says = [
                tuple(w if (i + k + (role.name == "tags")) % 2 else "" for k, w in enumerate(recipe.data.tags))
                for i in range(size)
            ]
        elif role.name == "pair":
            says = [(f"pair {i // 2}",) for i in range(size)]
        else:
            says = [(" ".join([text] * (12 if role.name == "long" else 1)) + f" {i}",) for i, text in enumerate(texts)]
        num, used = len(says[0]), 0
        tokens = np.zeros((size, num, 0), np.int32)
        if ROLES[role.name].is_encoded:
            tokens, used = encode([one[0] for one in says])
            tokens = tokens[:, None]
        made[role.name] = RoleTexts(tuple(says), tokens, used)
    return made


def begun(chosen: argparse.Namespace) -> tuple[StepComputer, Update, Batch]:
    """Make what takes steps, and the batch that it takes again and again."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = load_tokenizer("clip", {"context_length": 77})
    size = chosen.batch
    plain = {"name": "bench", "data": {"shards": "none"}, "train": {"batch_size": size}}
    recipe = load_recipe(plain, yaml.safe_load(chosen.recipe[0]))
    m, t = recipe.model, recipe.train
    config = default_config(
        vocab_size=tokenizer.vocab_size, context_length=77, size_px=SIZE_PX, image_tower=chosen.tower
    )
    if m.text is not None:
        config["text_cfg"][ROTARY] = m.text.config
    model = build_clip(config)
    if m.experts is not None:
        place_experts(model.visual, m.experts, alike=False)
    if m.grad_checkpointing:
        recompute_activations(model)
    losses = begin_losses(Start(recipe, model, config["embed_dim"], tokenizer, torch.device("cpu"), STEPS))
    parts = {one.name: one.state for one in losses if isinstance(one.state, torch.nn.Module)}
    looks = {one.name: functools.partial(one.look, one.state) for one in losses if one.look is not None}
    towers = Towers(model, tokenizer.pad_id, parts=parts, looks=looks)
    training_mode(towers, freeze_bn=m.freeze_bn)
    preprocess = Preprocess(SIZE_PX, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    texts, names = captions(size, full=False), tuple(map(str, range(size)))

    def encode(of: Any) -> tuple[Any, int]:
        ids = tokenizer.encode(of).astype(np.int32)
        return ids, used_columns(ids, tokenizer)

    views = 1 if recipe.objective.two_views is None else 2
    ids, used = encode(texts * views)
    images = np.random.default_rng(0).integers(0, 256, (views * size, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    keys = np.repeat(np.arange(size)[:, None], 6, axis=1)
    batch = Batch(
        images,
        ids,
        used,
        np.tile(keys, (views, 1)),
        texts * views,
        names,
        names,
        names,
        np.ones(size, bool),
        num_views=views,
        num_texts=views,
        roles=role_texts(recipe, texts, encode),
    )
    bf16 = choose_precision(t.precision, torch.device("cpu"), None) == "bf16"
    followers = (
        m.experts and ExpertsHook(m.experts, STEPS),
        Ema(towers, t.ema) if t.ema else None,
        *(one.state for one in losses),
    )
    update = Update(
        towers,
        World(),
        make_optimizer(towers, recipe),
        [one for one in followers if isinstance(one, Hook)],
        moving_statistics(towers, freeze_bn=m.freeze_bn),
        clip_norm=t.clip_norm,
    )
    return StepComputer(recipe, towers, towers, tokenizer, preprocess, World(), losses, bf16=bf16), update, batch


def take_steps(chosen: argparse.Namespace) -> None:
    """Take a step for each line that comes in; write its CPU seconds and the memory so far."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps, update, batch = begun(chosen)
    for number, _ in enumerate(sys.stdin):
        start = time.process_time()
        update.begin()
        loss = steps.backward(steps.prepare(batch, number), number)
        update.apply(loss, number, 1e-4)
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps({"seconds": time.process_time() - start, "memory_mb": memory}), flush=True)


def main() -> None:
    """Let all variants take steps in turn and print the ratios."""
    chosen = options()
    if chosen.side:
        take_steps(chosen)
        return
    settings = ["--side", "--tower", chosen.tower, "--batch", str(chosen.batch)]
    losses = [json.dumps({"objective.losses": yaml.safe_load(one)}) for one in chosen.losses]
    variants = ["{}", *losses, *chosen.recipe]
    sides = [
        subprocess.Popen(
            [sys.executable, __file__, "--recipe", of, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for of in variants
    ]
    rounds: list[list[float]] = []
    memory = [0.0] * len(sides)
    for number in range(chosen.rounds + 2):
        seconds = [0.0] * len(sides)
        for i in itertools.islice(
            itertools.cycle(range(len(sides))), number % len(sides), number % len(sides) + len(sides)
        ):
            stdin, stdout = sides[i].stdin, sides[i].stdout
            assert stdin is not None
            assert stdout is not None
            print("step", file=stdin, flush=True)
            step = json.loads(stdout.readline())
            seconds[i], memory[i] = step["seconds"], step["memory_mb"]
        rounds.append(seconds)
    for side in sides:
        side.communicate()
    measured = rounds[2:]  # the first two warm up
    for i, variant in enumerate(variants[1:], start=1):
        ratios = [one[i] / one[0] for one in measured]
        values = {
            "recipe": yaml.safe_load(variant),
            "tower": chosen.tower,
            "batch": chosen.batch,
            "step_cpu_s": [round(statistics.median(one[j] for one in measured), 3) for j in (0, i)],
            "ratio": [round(f(ratios), 3) for f in (statistics.median, min, max)],
            "memory_mb": [round(memory[j]) for j in (0, i)],
            "memory_ratio": round(memory[i] / memory[0], 3),
            "load": round(os.getloadavg()[0], 1),
            "torch": torch.__version__,
        }
        print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
