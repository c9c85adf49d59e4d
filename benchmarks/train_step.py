"""Samples a second of a training step: medclip's against a loop around open_clip's own model and ClipLoss.

    python benchmarks/train_step.py [--rounds 15] [--batch 64] [--threads 2]
    python benchmarks/train_step.py --device cuda --model ViT-B-16 --batch 1024 --bf16 --peak-tflops 989

The same model with the same weights, images, captions and AdamW on both sides; without --model a small ViT at 128 px.
open_clip's loop is given float images and token ids that are ready; medclip starts from uint8 images and sentences, as
its trainer does, and normalises and tokenises inside the timed step. Both must give the same loss at the first step.
Captions are drawn from the task vocabularies; the context is 77 tokens, as in CLIP. The two take steps in turn; CPU and
wall time are told, with --peak-tflops also the share of the card's peak that the matrix products of the whole context
would need (MFU). Ends with 1 when the median ratio of the wall times is below 1.0.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CustomTextCLIP
from torch.utils.flop_counter import FlopCounterMode

from medclip.sample import Modality
from medclip.text.captions.draw import CaptionRecord, draw_caption
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.training.batches.loader import Batch, used_columns
from medclip.training.ranks.sharding import clip_gradients
from medclip.training.ranks.world import World
from medclip.training.recipe.file import load_recipe
from medclip.training.steps.step import StepComputer
from medclip.training.steps.towers import Towers

TARGET = 1.0
SMALL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "patch_size": 16, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 4},
}


def captions(count: int) -> tuple[str, ...]:
    """Draw captions of chest films as a training run would."""
    rng = np.random.default_rng(0)
    record = CaptionRecord(
        Modality.XRAY, view="PA", age_years=54, sex="F", labels={"chest_xray_findings": {"pneumonia": 1, "effusion": 0}}
    )
    return tuple(draw_caption(record, rng) for _ in range(count))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="open_clip architecture; a small ViT where left out")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--peak-tflops", type=float, help="of the card, in the precision that is used")
    return parser.parse_args()


def main() -> int:
    """Compare and print."""
    chosen = options()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    tokenizer = load_tokenizer("clip", {"context_length": 77})
    config = open_clip.get_model_config(chosen.model) if chosen.model else SMALL
    assert config is not None, f"open_clip knows no {chosen.model}"
    theirs = CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"}).to(chosen.device)
    ours = copy.deepcopy(theirs)

    size = config["vision_cfg"].get("image_size", 224)
    images = np.random.default_rng(1).integers(0, 256, (chosen.batch, size, size, 3), dtype=np.uint8)
    said, names = captions(chosen.batch), tuple(map(str, range(chosen.batch)))
    ids = tokenizer.encode(said).astype(np.int32)
    keys = np.repeat(np.arange(chosen.batch)[:, None], 3, axis=1)
    batch = Batch(
        images, ids, used_columns(ids, tokenizer), keys, said, names, names, names, np.ones(chosen.batch, bool)
    )
    ready = ((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).to(chosen.device)
    tokens = torch.from_numpy(tokenizer.encode(said)).to(chosen.device)

    objective = {"same_label": "negative", "same_text": "negative", "same_study": "negative"}
    precision = {"precision": "bf16" if chosen.bf16 else "fp32"}
    recipe = load_recipe({"name": "bench", "data": {"shards": "none"}, "objective": objective, "train": precision})
    towers, half = Towers(ours, tokenizer.pad_id), (0.5, 0.5, 0.5)
    world = World(device=torch.device(chosen.device))
    computer = StepComputer(recipe, towers, towers, tokenizer, half, half, world, None)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-4) for m in (ours, theirs)]
    loss = ClipLoss()

    def our_step() -> float:
        optimizers[0].zero_grad(set_to_none=True)
        value = computer.backward(batch, 0)
        clip_gradients(list(ours.parameters()), 1.0)
        optimizers[0].step()
        return value

    def their_step() -> float:
        optimizers[1].zero_grad(set_to_none=True)
        with torch.autocast(world.device.type, torch.bfloat16, enabled=chosen.bf16):
            value = loss(*theirs(ready, tokens))
        value.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizers[1].step()
        return float(value.detach())

    with FlopCounterMode(display=False) as counter:
        their_first = their_step()
    first = (our_step(), their_first)
    if abs(first[0] - first[1]) > (2e-2 if chosen.bf16 else 1e-4):
        print(f"the first losses differ: {first}")
        return 1
    return told(chosen, *rounds(chosen.rounds, our_step, their_step), counter.get_total_flops())


def rounds(
    number: int, our_step: Callable[[], float], their_step: Callable[[], float]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Time steps in turn: wall and CPU seconds of ours and theirs."""
    spent: dict[Callable[[], float], list[tuple[float, float]]] = {our_step: [], their_step: []}
    for i in range(number):
        for step in (our_step, their_step) if i % 2 else (their_step, our_step):
            spent[step].append(timed(step))
    return spent[our_step], spent[their_step]


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Give wall and CPU seconds of a step; the loss that it returns has waited for a GPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def told(
    chosen: argparse.Namespace, ours: list[tuple[float, float]], theirs: list[tuple[float, float]], flops: int
) -> int:
    """Print the ratios; give the exit code."""
    for name, which in (("wall", 0), ("CPU", 1)):
        ratios = [b[which] / a[which] for a, b in zip(ours, theirs, strict=True)]
        print(f"{name:4} medclip / open_clip {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    for name, found in (("medclip", ours), ("open_clip", theirs)):
        seconds = statistics.median(wall for wall, _ in found)
        share = f", MFU {flops / seconds / chosen.peak_tflops / 1e12:.1%}" if chosen.peak_tflops else ""
        print(f"{name:9} {chosen.batch / seconds:.1f} samples/s{share}")
    middle = statistics.median(b[0] / a[0] for a, b in zip(ours, theirs, strict=True))
    print(f"at least {TARGET:g}: {'yes' if middle >= TARGET else 'no'}")
    return int(middle < TARGET)


if __name__ == "__main__":
    sys.exit(main())
