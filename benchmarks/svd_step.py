"""Compare a step of CLIP-SVD with one of the same dense model in which only the layer norms learn.

16 shots of 4 classes in batches of 32 images: both towers run forward and backward, cross-entropy over the classes,
AdamW. Both sides leave out padding columns of the prompts. Rounds in turn, medians; peak memory of each in a process of
its own. The dense model is measured a second time computing only the class token in its last block, which medclip does.
Ends with 1 when the median ratio of the wall times is above 1.1, or that of the memory above 1.6.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CustomTextCLIP
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from medclip.adaptation.towers.clip_svd import decompose
from medclip.adaptation.towers.layers import choose_layers, list_layers
from medclip.adaptation.towers.split_attention import read_class_token_only, split_attention
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.training.steps.fast_towers import encode_short

TIME, MEMORY = 1.1, 1.6
CLASSES = ("glioma", "meningioma", "pituitary tumor", "normal brain")
SMALL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "patch_size": 16, "width": 256, "layers": 4, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
VARIANTS = {"svd": "CLIP-SVD", "norm": "dense, layer norms", "trimmed": "dense, layer norms, class token alone"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="ViT-B-16", help="open_clip architecture, or small")
    parser.add_argument("--blocks", type=int, help="of each tower, for a quick look; all where left out")
    parser.add_argument(
        "--side", choices=("float32", "bfloat16"), help="precision of what only the gradient of S needs"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def ready(model: nn.Module, variant: str, side: str | None) -> list[nn.Parameter]:
    """Make a dense model what a variant trains; give what learns."""
    model.eval().requires_grad_(False)
    if variant == "svd":
        split_attention(model)
        decompose(model, choose_layers(list_layers(model)), side=getattr(torch, side) if side else None)
    else:
        if variant == "trimmed":
            split_attention(model)
            read_class_token_only(model)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
    return [p for p in model.parameters() if p.requires_grad]


def stepper(model: nn.Module, variant: str, side: str | None, images: Tensor, tokens: Tensor) -> Callable[[], float]:
    """Give a function that takes one step and returns the loss before it."""
    learning = ready(model, variant, side)
    optimizer = torch.optim.AdamW(learning, lr=1e-4, weight_decay=0)
    labels = torch.arange(len(images)) % len(CLASSES)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        image = F.normalize(model.encode_image(images), dim=-1)  # type: ignore[operator]
        text = F.normalize(encode_short(model, tokens), dim=-1)
        loss = F.cross_entropy(100 * image @ text.T, labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def made(chosen: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """Give the dense model, images and prompts."""
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    config = SMALL if chosen.model == "small" else open_clip.get_model_config(chosen.model)
    assert config is not None, f"open_clip knows no {chosen.model}"
    if chosen.blocks:
        for tower in ("vision_cfg", "text_cfg"):
            config[tower]["layers"] = chosen.blocks
    model = CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    size = config["vision_cfg"].get("image_size", 224)
    tokens = load_tokenizer("clip", {"context_length": 77}).encode([f"a photo of a {c}." for c in CLASSES])
    return model, torch.randn(chosen.batch, 3, size, size), torch.from_numpy(tokens)


def high_water_kib() -> int:
    """Give the most memory that this process held since its mark was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def child(chosen: argparse.Namespace) -> int:
    """Take two steps and print by how many bytes the process grew at most."""
    Path("/proc/self/clear_refs").write_text("5")  # else the mark is the one of the process that started this one
    before = high_water_kib()
    model, images, tokens = made(chosen)
    step = stepper(model, chosen.child, chosen.side, images, tokens)
    for _ in range(2):
        step()
    print(json.dumps({"mib": (high_water_kib() - before) / 1024}))
    return 0


def memory(chosen: argparse.Namespace, variant: str) -> float:
    """Give MiB at the peak of a variant in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--child", variant, "--batch", str(chosen.batch)]
    command += ["--threads", str(chosen.threads), "--model", chosen.model]
    command += ["--blocks", str(chosen.blocks)] if chosen.blocks else []
    command += ["--side", chosen.side] if chosen.side else []
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])[
        "mib"
    ]


def ratio(spent: dict[str, list[tuple[float, float]]], other: str) -> float:
    """Print CLIP-SVD's time beside another's; give the median ratio of the wall times."""
    middle = []
    for name, which in (("wall", 0), ("CPU", 1)):
        found = [a[which] / b[which] for a, b in zip(spent["svd"], spent[other], strict=True)]
        middle.append(statistics.median(found))
        print(f"{name:4} CLIP-SVD / {VARIANTS[other]}: {middle[-1]:.2f} ({min(found):.2f} to {max(found):.2f})")
    return middle[0]


def main() -> int:
    """Compare and print."""
    chosen = options()
    if chosen.child:
        return child(chosen)
    model, images, tokens = made(chosen)
    steps = {v: stepper(copy.deepcopy(model), v, chosen.side, images, tokens) for v in VARIANTS}
    first, flops = {}, {}
    for variant, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            first[variant] = step()
        flops[variant] = counter.get_total_flops() / 1e9
    if max(first.values()) - min(first.values()) > 1e-2:
        print(f"the first losses differ: {first}")
        return 1
    spent: dict[str, list[tuple[float, float]]] = {v: [] for v in VARIANTS}
    for i in range(chosen.rounds):
        for variant in list(VARIANTS)[:: 1 if i % 2 else -1]:
            start = time.perf_counter(), time.process_time()
            steps[variant]()
            spent[variant].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    for variant, title in VARIANTS.items():
        seconds = statistics.median(wall for wall, _ in spent[variant])
        print(f"{title:38} {seconds:7.3f} s a step, {flops[variant]:8.1f} GFLOP in products")
    good = ratio(spent, "norm") <= TIME
    ratio(spent, "trimmed")
    print(f"at most {TIME:g}: {'yes' if good else 'no'}")
    if not chosen.no_memory:
        mib = {v: memory(chosen, v) for v in ("svd", "norm")}
        share = mib["svd"] / mib["norm"]
        print(
            f"peak memory {mib['svd']:.0f} and {mib['norm']:.0f} MiB: {share:.2f}, "
            f"at most {MEMORY:g}: {'yes' if share <= MEMORY else 'no'}"
        )
        good = good and share <= MEMORY
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
