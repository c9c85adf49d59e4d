"""Samples a second of a training step: medclip's against a loop around open_clip's own model and ClipLoss.

    python benchmarks/train_step.py [--rounds 15] [--batch 64] [--threads 2]

The same small ViT (open_clip's) with the same weights, images, captions, AdamW and fp32 on both sides, on the CPU.
open_clip's loop is given float images and token ids that are ready; medclip starts from uint8 images and sentences, as
its trainer does, and normalises and tokenises inside the timed step. Both must give the same loss at the first step.
Captions are drawn from the task vocabularies; the context is 77 tokens, as in CLIP. The two take steps in turn; CPU and
wall time are told, and the script ends with 1 when the median ratio of the wall times is below 1.0.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CustomTextCLIP

from medclip.sample import Modality
from medclip.text.captions import CaptionRecord, draw_caption
from medclip.text.tokens import load_tokenizer
from medclip.training.data import Batch
from medclip.training.recipe import load_recipe
from medclip.training.sharding import clip_gradients
from medclip.training.step import StepComputer
from medclip.training.towers import Towers
from medclip.training.world import World

TARGET = 1.0
SIZE = 128


def captions(count: int) -> tuple[str, ...]:
    """Draw captions of chest films as a training run would."""
    rng = np.random.default_rng(0)
    record = CaptionRecord(
        Modality.XRAY, view="PA", age_years=54, sex="F", labels={"chest_xray_findings": {"pneumonia": 1, "effusion": 0}}
    )
    return tuple(draw_caption(record, rng) for _ in range(count))


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokenizer = load_tokenizer("clip", {"context_length": 77})
    vision = {"image_size": SIZE, "patch_size": 16, "width": 192, "layers": 6, "head_width": 64}
    text = {"context_length": 77, "vocab_size": tokenizer.vocab_size, "width": 192, "heads": 3, "layers": 4}
    theirs = CustomTextCLIP(128, vision, text)
    ours = copy.deepcopy(theirs)

    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (options.batch, SIZE, SIZE, 3), dtype=np.uint8)
    said = captions(options.batch)
    names = tuple(map(str, range(options.batch)))
    batch = Batch(images, said, names, names, names, np.ones(options.batch, bool))
    ready = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    tokens = torch.from_numpy(tokenizer.encode(said))

    changes = {"objective": {"soft_same_label": False, "soft_same_text": False, "soft_same_study": False}}
    recipe = load_recipe({"name": "bench", "data": {"shards": "none"}, **changes})
    towers = Towers(ours, tokenizer.pad_id)
    half = (0.5, 0.5, 0.5)
    computer = StepComputer(recipe, towers, towers, tokenizer, half, half, World(), None)
    our_optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-4)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4)
    loss = ClipLoss()

    def our_step() -> float:
        our_optimizer.zero_grad(set_to_none=True)
        value = computer.backward(batch, 0)
        clip_gradients(list(ours.parameters()), 1.0)
        our_optimizer.step()
        return value

    def their_step() -> float:
        their_optimizer.zero_grad(set_to_none=True)
        value = loss(*theirs(ready, tokens))
        value.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        their_optimizer.step()
        return float(value.detach())

    first = (our_step(), their_step())
    if abs(first[0] - first[1]) > 1e-4:
        print(f"the first losses differ: {first}")
        return 1
    pairs = []
    for number in range(options.rounds):
        order = (our_step, their_step) if number % 2 else (their_step, our_step)
        spent = {step: timed(step) for step in order}
        pairs.append((spent[our_step], spent[their_step]))
    for name, which in (("wall", 0), ("CPU", 1)):
        ratios = [theirs[which] / ours[which] for ours, theirs in pairs]
        mine = options.batch / statistics.median(ours[which] for ours, _ in pairs)
        print(f"{name:4} medclip / open_clip {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
              f"medclip {mine:.1f} samples/s")  # fmt: skip
    middle = statistics.median(theirs[0] / ours[0] for ours, theirs in pairs)
    print(f"at least {TARGET:g}: {'yes' if middle >= TARGET else 'no'}")
    return int(middle < TARGET)


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Give wall and CPU seconds of a step."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(main())
