"""A training step of medclip beside a loop around open_clip's own model and ClipLoss, on a CPU or on a card.

    python benchmarks/train_step.py [--rounds 15] [--batch 64] [--threads 2] [--full-captions] [--json]
    python benchmarks/train_step.py --device cuda
    torchrun --standalone --nproc-per-node 8 benchmarks/train_step.py --device cuda --batch 2048

The second line is all that is wanted of a card: ViT-B/16 in bfloat16, 256 images at 224 px, and one line of JSON with
images_s, mfu, step_ms, host_cpu_ms (of the thread that takes the steps), device_idle, data_wait, memory, collectives of
a step, versions and the card. With torchrun only medclip is measured; --batch is that of all ranks.

The same model with the same weights, images, captions, precision, clipping and AdamW on both sides; without --model a
small ViT at 128 px on a CPU. open_clip's loop is given float images and token ids that lie on the device; medclip
starts from uint8 images and token ids in the host's memory, as its workers leave them: what its feed copies and
normalises is in the timed step. Both must give the same loss at the first step. Captions are drawn from the task
vocabularies, context 77 as in CLIP; medclip computes only the columns that they use, and --full-captions makes them
fill the context. The two take rounds of steps in turn; on a card a round is ten steps and one wait for the card. MFU
counts the products of matrices that medclip computed, against --peak-tflops (known for some cards).
On one device a third side, `ratio_to_open_clip_cut`, is open_clip's loop with token ids cut to those columns and a
fused AdamW, as one could write it with little effort: what is left of the ratio then is medclip's own.
Ends with 1 when the median ratio of the wall times is below 1.4, or 1.2 with --full-captions.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import platform
import resource
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CustomTextCLIP
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils.flop_counter import FlopCounterMode

from medclip.models.inputs.preprocess import Preprocess
from medclip.sample import Modality
from medclip.text.captions.draw import CaptionRecord, draw_caption
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.training.batches.loader import Batch, used_columns
from medclip.training.ranks import Pace, World, allow_fast_products, choose_precision, joined
from medclip.training.recipe.schema import load_recipe
from medclip.training.sharding import blocks_of, spread
from medclip.training.steps.inputs import Feed
from medclip.training.steps.loss_terms import Start, begin_losses
from medclip.training.steps.optimizer import Outcome, Update, make_optimizer, read
from medclip.training.steps.step import StepComputer
from medclip.training.steps.towers import Towers

TARGETS = {False: 1.4, True: 1.2}
SMALL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "patch_size": 16, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 4},
}
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.0}
"""Of bfloat16 with float32 sums, dense, from the makers' data sheets (SXM where there are several)."""


def captions(count: int, full: bool) -> tuple[str, ...]:
    """Draw captions of chest films as a training run would."""
    rng = np.random.default_rng(0)
    record = CaptionRecord(
        Modality.XRAY, view="PA", age_years=54, sex="F", labels={"chest_xray_findings": {"pneumonia": 1, "effusion": 0}}
    )
    return tuple(" ".join([draw_caption(record, rng)] * (12 if full else 1)) for _ in range(count))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, help="64, or 256 on a card")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="open_clip architecture; a small ViT on a CPU, ViT-B-16 on a card")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--full-captions", action="store_true", help="captions that fill the context")
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--grad-checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--parallel", default="ddp", choices=("ddp", "fsdp"))
    parser.add_argument("--shard-size", type=int)
    parser.add_argument("--peak-tflops", type=float, help="of the card, in the precision that is used")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, as on a card")
    chosen = parser.parse_args()
    card = chosen.device.startswith("cuda")
    chosen.batch = chosen.batch or (256 if card else 64)
    chosen.model = chosen.model or ("ViT-B-16" if card else None)
    chosen.json = chosen.json or card
    return chosen


class Same:
    """Stands for `Batches`: the same batch again and again, as workers would leave it."""

    def __init__(self, batch: Batch) -> None:
        self._batch, self.seen, self.bad = batch, 0, Counter[str]()

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        for _ in range(first_step, last_step):
            yield self._batch

    def over_budget(self) -> None:
        return None


class Ours:
    """medclip's step: what `Trainer` does of it, without files."""

    def __init__(self, chosen: argparse.Namespace, model: Any, batch: Batch, tokenizer: Any, world: World) -> None:
        precision = choose_precision(chosen.precision, world.device, None)
        soft = {"same_label": "negative", "same_text": "negative", "same_study": "negative"}
        train = {
            "lr": 1e-4,
            "image_lr_factor": 1.0,
            "weight_decay": 0.01,
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "batch_size": chosen.batch,
            "micro_batch": chosen.micro_batch,
            "parallel": chosen.parallel,
        }
        recipe = load_recipe({"name": "bench", "data": {"shards": "none"}, "objective": soft, "train": train})
        allow_fast_products(world.device)
        towers, bf16 = Towers(model, tokenizer.pad_id), precision == "bf16"
        preprocess = Preprocess(batch.images.shape[-2], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        if chosen.compile:
            for block in blocks_of(towers):
                block.compile()
        losses = begin_losses(Start(recipe, model, 0, tokenizer, world.device))
        call = spread(towers, world, parallel=chosen.parallel, bf16=bf16, shard_size=chosen.shard_size)
        self.computer = StepComputer(recipe, towers, call, tokenizer, preprocess, world, losses, bf16=bf16)
        copies = world.size // (chosen.shard_size or world.size)
        self.update = Update(towers, world, make_optimizer(towers, recipe), [], [], clip_norm=1.0, copies=copies)
        self.pace = Pace(world.device)
        self.feed = Feed(Same(batch), self.computer.prepare, world.device, 0, 10**9)  # type: ignore[arg-type]
        self._inputs, self._steps, self._size = iter(self.feed), itertools.count(), chosen.batch
        self.precision = precision

    def step(self) -> torch.Tensor:
        """Take a step; return its row, on the device."""
        fed, step = next(self._inputs), next(self._steps)
        self.pace.count(self._size, fed.wait_s)
        assert fed.inputs is not None
        self.pace.tick()
        self.update.begin()
        row = self.update.apply(self.computer.backward(fed.inputs, step), step, 1e-4)
        self.pace.tick()
        return row

    def round(self, steps: int) -> Outcome:
        """Take steps and look at them once, as a run does."""
        return read([self.step() for _ in range(steps)])[-1]


class Theirs:
    """A loop around open_clip's model and loss, as in its `train_one_epoch`."""

    def __init__(
        self, model: Any, images: torch.Tensor, tokens: torch.Tensor, bf16: bool, *, fused: bool = False
    ) -> None:
        self._model, self._images, self._tokens, self._bf16 = model, images, tokens, bf16
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused or None)
        self._loss = ClipLoss()

    def step(self) -> torch.Tensor:
        """Take a step; return its loss, on the device."""
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._images.device.type, torch.bfloat16, enabled=self._bf16):
            loss = self._loss(*self._model(self._images, self._tokens))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        with torch.no_grad():
            self._model.logit_scale.clamp_(0, np.log(100))
        return loss.detach()

    def round(self, steps: int) -> float:
        """Take steps and look at the last loss."""
        return float([self.step() for _ in range(steps)][-1])


def main() -> int:
    """Compare and print."""
    chosen = options()
    torch.set_num_threads(chosen.threads)
    with joined(chosen.device) as world:
        return measure(chosen, world)


def measure(chosen: argparse.Namespace, world: World) -> int:
    """Measure on these ranks."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer("clip", {"context_length": 77})
    config = open_clip.get_model_config(chosen.model) if chosen.model else SMALL
    assert config is not None, f"open_clip knows no {chosen.model}"
    model: Any = CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"}).to(world.device)
    if chosen.grad_checkpointing:
        model.set_grad_checkpointing()
    copied = copy.deepcopy(model)
    own, size = chosen.batch // world.size, config["vision_cfg"].get("image_size", 224)
    images = np.random.default_rng(world.rank).integers(0, 256, (own, size, size, 3), dtype=np.uint8)
    texts = captions(own, chosen.full_captions)
    ids, names = tokenizer.encode(texts).astype(np.int32), tuple(map(str, range(own)))
    keys = np.repeat(np.arange(own)[:, None], 3, axis=1)
    used = used_columns(ids, tokenizer)
    batch = Batch(images, ids, used, keys, texts, names, names, names, np.ones(own, bool))
    ours = Ours(chosen, model, batch, tokenizer, world)
    ready = ((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).to(world.device)
    alone = world.size == 1
    tokens, bf16 = torch.from_numpy(ids).long().to(world.device), ours.precision == "bf16"
    short = copy.deepcopy(copied)
    short.text.attn_mask = short.text.attn_mask[:used, :used]  # open_clip takes it for the context
    cut = Theirs(short, ready, tokens[:, :used], bf16, fused=True)
    theirs = Theirs(copied, ready, tokens, bf16)
    try:
        with warnings.catch_warnings(), FlopCounterMode(display=False) as counted, CommDebugMode() as collectives:
            warnings.simplefilter("ignore")  # of hooks that the counters set
            first = ours.round(1).loss
        if alone and max(abs(first - side.round(1)) for side in (theirs, cut)) > (2e-2 if bf16 else 1e-4):
            print("the first losses differ", file=sys.stderr)
            return 1
        steps = 10 if world.device.type == "cuda" else 1
        sides = (ours.round, theirs.round, cut.round) if alone else (ours.round,)
        for each in sides:
            each(steps)
        ours.pace.read()
        spent = rounds(chosen.rounds, steps, sides)
        speed = ours.pace.read()
    finally:
        ours.feed.close()
    if not world.is_first:
        return 0
    other = spent[1] if alone else spent[0]
    ratios, of_cpu = ([b[i] / a[i] for a, b in zip(spent[0], other, strict=True)] for i in (0, 1))
    to_cut, to_cut_of_cpu = ([b[i] / a[i] for a, b in zip(spent[0], spent[-1], strict=True)] for i in (0, 1))
    values = {
        "images_s": round(chosen.batch / statistics.median(wall for wall, _, _ in spent[0]), 1),
        "ratio_to_open_clip": [round(f(ratios), 3) for f in (statistics.median, min, max)] if alone else None,
        "ratio_of_cpu": round(statistics.median(of_cpu), 3) if alone else None,
        "ratio_to_open_clip_cut": [round(f(to_cut), 3) for f in (statistics.median, min, max)] if alone else None,
        "ratio_of_cpu_cut": round(statistics.median(to_cut_of_cpu), 3) if alone else None,
        "step_ms": round(1e3 * statistics.median(wall for wall, _, _ in spent[0]), 2),
        "open_clip_step_ms": round(1e3 * statistics.median(wall for wall, _, _ in spent[1]), 2) if alone else None,
        "host_cpu_ms": round(1e3 * statistics.median(thread for _, _, thread in spent[0]), 2),
        "mfu": mfu(chosen, counted.get_total_flops() / statistics.median(wall for wall, _, _ in spent[0])),
        "tflop_a_step": round(counted.get_total_flops() / 1e12, 4),
        "device_idle": speed.get("device_idle"),
        "data_wait": round(speed["data_wait"], 4),
        "memory_mb": round(memory_mb(world.device)),
        "collectives": {str(name).split(".")[-1]: n for name, n in collectives.get_comm_counts().items()},
        "ranks": world.size,
        "parallel": chosen.parallel,
        "batch": chosen.batch,
        "tokens": used,
        "size_px": size,
        "model": chosen.model or "small ViT",
        "precision": ours.precision,
        "compile": chosen.compile,
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
    }
    show(values, chosen.json)
    return int(alone and values["ratio_to_open_clip"][0] < TARGETS[chosen.full_captions])


def rounds(
    number: int, steps: int, sides: tuple[Callable[[int], object], ...]
) -> list[list[tuple[float, float, float]]]:
    """Time rounds in turn: seconds of wall, process and thread for a step of each side."""
    spent: list[list[tuple[float, float, float]]] = [[] for _ in sides]
    for i in range(number):
        for j in range(len(sides)) if i % 2 else reversed(range(len(sides))):
            start = time.perf_counter(), time.process_time(), time.thread_time()
            sides[j](steps)  # reads a loss at its end, so it has waited for the device
            end = time.perf_counter(), time.process_time(), time.thread_time()
            wall, process, thread = ((b - a) / steps for a, b in zip(start, end, strict=True))
            spent[j].append((wall, process, thread))
    return spent


def mfu(chosen: argparse.Namespace, flops_s: float) -> float | None:
    """Return the share of the card's peak; None where that is not known."""
    peak = chosen.peak_tflops
    if peak is None and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        peak = next((tflops for card, tflops in PEAK_TFLOPS.items() if card in name), None)
    return None if peak is None else round(flops_s / peak / 1e12, 4)


def memory_mb(device: torch.device) -> float:
    """Return the largest memory so far: of the card, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values))
        return
    for name, value in values.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    sys.exit(main())
