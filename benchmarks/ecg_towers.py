"""Run the towers of ECGs forwards, and forwards and backwards, in turn, and print records a second and their ratios.

Usage: python ecg_towers.py [--rounds 5] [--batch 16] [--hz 500] [--size small] [--towers resnet1d,joint_patch]

Records of 10 s, random weights, one thread. CPU time of this process is measured, the median over interleaved rounds;
the first tower counts 1. Each tower sees the same records; lead_patch has 480 tokens of single leads where joint_patch
has 100 over all of them, and leaves those of missing leads out of what is looked at, but not out of what is computed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from medclip.models.towers.signal_tower import SignalTower, build_signal_tower
from medclip.training.recipe.model import SignalPart

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


SECONDS = 10
TOWERS = ("resnet1d", "joint_patch", "lead_patch")


def forwards(tower: SignalTower, records_B1LT: torch.Tensor) -> None:
    """Encode, as scoring does."""
    with torch.inference_mode():
        tower.eval()(records_B1LT)


def both_ways(tower: SignalTower, records_B1LT: torch.Tensor) -> None:
    """Encode and learn, as a training step does."""
    tower.train()(records_B1LT).square().mean().backward()
    tower.zero_grad()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--hz", type=float, default=500.0)
    parser.add_argument("--size", default="small")
    parser.add_argument("--towers", default=",".join(TOWERS))
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = {
        name: SignalPart.model_validate({"tower": name, "size": args.size, "sampling_hz": args.hz, "seconds": SECONDS})
        for name in args.towers.split(",")
    }
    towers = {name: build_signal_tower(part.config) for name, part in parts.items()}
    records_B1LT = torch.randn(args.batch, 1, 12, round(args.hz * SECONDS))
    for what, run in (("forwards", forwards), ("both ways", both_ways)):
        seconds: dict[str, list[float]] = {name: [] for name in towers}
        for tower in towers.values():
            run(tower, records_B1LT)  # the first one sets things up
        for _ in range(args.rounds):
            for name, tower in towers.items():
                start = time.process_time()
                run(tower, records_B1LT)
                seconds[name].append(time.process_time() - start)
        speeds = {name: args.batch / median(own) for name, own in seconds.items()}
        first = next(iter(speeds.values()))
        for name, speed in speeds.items():
            size = sum(p.numel() for p in towers[name].parameters()) / 1e6
            print(f"{what:10} {name:12} {args.size:6} {size:6.1f} M {speed:8.1f} records/s  {speed / first:5.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
