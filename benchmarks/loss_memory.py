"""Claim: forward and backward, the contrastive loss needs at most 1/32 of the memory of open_clip's ClipLoss on the CPU
at a batch of 32,768, at no less than 0.9 of its speed.

    python benchmarks/loss_memory.py                    # open_clip's side needs 17 GB
    python benchmarks/loss_memory.py --batch 16384      # 4.2 GB; at most 1/16

Memory: one child process for each side and one that only makes the features and the gradients' tensors. Each resets
its high-water mark (VmHWM of /proc/self/status; the whole life of the process where that cannot be reset) once the
features are there, takes one loss and its backward pass, and reports the mark minus the memory held before. So what
is compared is what the loss adds: logits, their gradients, and the gradients of the features, which both sides make.
Time: CPU time of forward and backward on one thread, both sides in turn in this process, medians. The children's
losses and gradients must agree. Memory grows with the square of the batch on open_clip's side and with the batch on
ours, so the limit is 1/32 at 32,768 and in proportion below. The children's CPU times give the speed at that size.
Ends with 1 if ours needs more, or is slower than 0.9 of open_clip's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIMIT, AT = 1 / 32, 32768
SPEED = 0.9
SIZES = (64, 256, 1024)


def _loss_of(side: str) -> Callable[..., object]:
    if side == "medclip":
        from medclip.objectives.contrastive import clip_loss

        return clip_loss
    from open_clip.loss import ClipLoss

    return ClipLoss()


def _features(batch: int, width: int) -> list[object]:
    import torch

    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(batch, width, generator=generator) for _ in range(2)]
    return [
        *(torch.nn.functional.normalize(x, dim=1).requires_grad_() for x in made),
        torch.tensor(50.0, requires_grad=True),
    ]


def _status(field: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(side: str, batch: int, width: int) -> None:
    """Print what one loss and its backward pass add to the memory of this process, and what it found."""
    warm = _features(64, width)
    loss = _loss_of(side)
    loss(*warm).backward()  # libraries and threads take their memory now
    inputs = _features(batch, width)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the mark
    before = _status("VmRSS") or _peak()
    start, cpu = time.perf_counter(), time.process_time()
    value = loss(*inputs)
    value.backward()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    found = {
        "bytes": _peak() - before,
        "seconds": seconds,
        "cpu": cpu,
        "loss": float(value.detach()),
        "gradient": float(inputs[0].grad.double().norm()),
        "scale": float(inputs[2].grad),
    }
    print(json.dumps(found))


def memory(batch: int, width: int) -> tuple[float, float]:
    """Run both children; give the ratio of what they added, and how many times as fast ours was (CPU time)."""
    found = {}
    for side in ("open_clip", "medclip"):
        command = [sys.executable, __file__, "--child", side, "--batch", str(batch), "--width", str(width)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{side} did not finish ({done.returncode}):\n{done.stderr[-2000:]}")
        found[side] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{side:10} {found[side]['bytes'] / 2**20:8.0f} MiB {found[side]['seconds']:7.2f} s, "
            f"{found[side]['cpu']:.2f} s of CPU"
        )
    for key in ("loss", "gradient", "scale"):
        ours, theirs = found["medclip"][key], found["open_clip"][key]
        if abs(ours - theirs) > 1e-4 * max(abs(theirs), 1e-3):
            sys.exit(f"the {key} differs: {ours} and {theirs}")
    ratio = found["medclip"]["bytes"] / found["open_clip"]["bytes"]
    return ratio, found["open_clip"]["cpu"] / found["medclip"]["cpu"]


def speed(batch: int, width: int, rounds: int) -> float:
    """Give how many times as fast ours is, medians of rounds in turn."""
    sides = {side: _loss_of(side) for side in ("open_clip", "medclip")}
    inputs = _features(batch, width)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for i in range(rounds + 2):
        for side, loss in sides.items():
            start = time.process_time()
            loss(*inputs).backward()
            if i >= 2:
                times[side].append(time.process_time() - start)
    return statistics.median(times["open_clip"]) / statistics.median(times["medclip"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=AT)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.batch, chosen.width)
        return 0
    import open_clip
    import torch

    versions = f"torch {torch.__version__}, open_clip {open_clip.__version__}"
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {versions}")
    ratio, faster = memory(chosen.batch, chosen.width)
    limit, size = LIMIT * max(1, AT / chosen.batch), f"{chosen.batch} x {chosen.width}"
    print(f"memory of the loss at {size}, medclip / open_clip: {ratio:.4f} (limit {limit:.4f})")
    print(f"time at {size}, open_clip / medclip: {faster:.2f} (limit {SPEED})")
    failed = ratio > limit or faster < SPEED
    torch.set_num_threads(1)
    for rows in SIZES:
        print(f"time at {rows} x {chosen.width}, open_clip / medclip: {speed(rows, chosen.width, chosen.rounds):.2f}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
