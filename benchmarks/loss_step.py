"""What losses cost: CPU time and memory of a training step with them against without, on one thread of a CPU.

    python benchmarks/loss_step.py '{token_alignment: {}}' [--tower efficientnet_lite0] [--rounds 9] [--batch 32]

A small text tower, images of noise at 128 px, captions of the task vocabularies. Each side is a process of its own, and
the two take steps in turn, so that both have the same load of the machine. Ends with one line of JSON: the ratio of the
CPU seconds of a step (median, least and most of the rounds) and that of the peak memory less what lies there before.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import yaml
from train_step import captions

from medclip.models.inputs.preprocess import Preprocess
from medclip.models.towers.build import build_clip, default_config
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.training.batches.loader import Batch, used_columns
from medclip.training.ranks import World
from medclip.training.recipe.schema import load_recipe
from medclip.training.steps.loss_terms import Start, begin_losses
from medclip.training.steps.step import StepComputer
from medclip.training.steps.towers import Towers

SIZE_PX = 128


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", help="objective.losses, as YAML")
    parser.add_argument("--tower", default="vit_tiny_patch16_224")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def computer(chosen: argparse.Namespace) -> tuple[StepComputer, Batch, Towers]:
    """Make what takes steps, and the batch that it takes again and again."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = load_tokenizer("clip", {"context_length": 77})
    config = default_config(
        vocab_size=tokenizer.vocab_size, context_length=77, size_px=SIZE_PX, image_tower=chosen.tower
    )
    model, size = build_clip(config).train(), chosen.batch
    objective = {"losses": yaml.safe_load(chosen.losses)}
    recipe = load_recipe(
        {"name": "bench", "data": {"shards": "none"}, "objective": objective, "train": {"batch_size": size}}
    )
    losses = begin_losses(Start(recipe, model, config["embed_dim"], tokenizer, torch.device("cpu")))
    parts = {one.name: one.state for one in losses if isinstance(one.state, torch.nn.Module)}
    looks = {one.name: functools.partial(one.look, one.state) for one in losses if one.look is not None}
    towers = Towers(model, tokenizer.pad_id, parts=parts, looks=looks)
    preprocess = Preprocess(SIZE_PX, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    texts, names = captions(size, full=False), tuple(map(str, range(size)))
    ids = tokenizer.encode(texts).astype(np.int32)
    images = np.random.default_rng(0).integers(0, 256, (size, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    keys = np.repeat(np.arange(size)[:, None], 6, axis=1)
    batch = Batch(images, ids, used_columns(ids, tokenizer), keys, texts, names, names, names, np.ones(size, bool))
    return StepComputer(recipe, towers, towers, tokenizer, preprocess, World(), losses), batch, towers


def take_steps(chosen: argparse.Namespace) -> None:
    """Take a step for each line that comes in; write its CPU seconds and the memory so far."""
    steps, batch, towers = computer(chosen)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, _ in enumerate(sys.stdin):
        begun = time.process_time()
        towers.zero_grad()
        steps.backward(steps.prepare(batch, number), number)
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps({"seconds": time.process_time() - begun, "memory_mb": memory}), flush=True)


def main() -> None:
    """Let both sides take steps in turn and print the ratios."""
    chosen = options()
    if chosen.side:
        take_steps(chosen)
        return
    settings = ["--side", "--tower", chosen.tower, "--batch", str(chosen.batch)]
    sides = [
        subprocess.Popen(
            [sys.executable, __file__, of, *settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for of in ("{}", chosen.losses)
    ]
    rounds: list[list[float]] = []
    memory = [0.0, 0.0]
    for number in range(chosen.rounds + 2):
        seconds = [0.0, 0.0]
        for i in (0, 1) if number % 2 else (1, 0):
            stdin, stdout = sides[i].stdin, sides[i].stdout
            assert stdin is not None
            assert stdout is not None
            print("step", file=stdin, flush=True)
            step = json.loads(stdout.readline())
            seconds[i], memory[i] = step["seconds"], step["memory_mb"]
        rounds.append(seconds)
    for side in sides:
        side.communicate()
    ratios = [one[1] / one[0] for one in rounds[2:]]  # the first two warm up
    values = {
        "losses": chosen.losses,
        "tower": chosen.tower,
        "batch": chosen.batch,
        "step_cpu_s": [round(statistics.median(x), 3) for x in zip(*rounds[2:], strict=True)],
        "ratio": [round(f(ratios), 3) for f in (statistics.median, min, max)],
        "memory_mb": [round(x) for x in memory],
        "memory_ratio": round(memory[1] / memory[0], 3),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
