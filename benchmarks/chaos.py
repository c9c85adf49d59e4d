"""Claim: whatever is killed, and whenever, a run ends in the same bytes as one that nothing disturbed.

Usage: python benchmarks/chaos.py [--files 1000] [--kills 30] [--folder SCRATCH] [--model PACK] [--workers 2] [--seed 1]

Makes the folder of `benchmarks/soak.py` (1 % of the files broken in 12 ways), runs `medclip score` over it once
undisturbed, and then again and again with SIGKILL at random moments: two of three of the run itself, which the same
command then goes on with, the others of one of its reading processes, under which the run goes on. After so many kills
and every time a run ends, its tables, run.json and report are compared. At least one run ends for every six kills.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from soak import build, digests, family

OUTPUT_KILLS = 6
"""Kills of the run itself in one output folder; then it is left alone until it ends."""
RUNS_SHARE = 2 / 3
"""Of the kills."""


def start(root: Path, out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start a run."""
    command = [sys.executable, "-m", "medclip.cli.main", "score", str(root), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_some(process: subprocess.Popen[bytes], rng: random.Random, seconds: float, *, may_end: bool) -> str | None:
    """Kill a run or one of its reading processes once, at a random moment; return which, None where it ended before."""
    try:
        process.wait(rng.uniform(0, 0.95 * seconds))
    except subprocess.TimeoutExpired:
        readers = family(process.pid)[1:]
        if may_end and (not readers or rng.random() < RUNS_SHARE):
            process.kill()
            process.wait()
            return "run"
        if readers:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(rng.choice(readers), signal.SIGKILL)
                return "reader"
    return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--model", default="medclip-mini")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load}")
    options = ["--model", args.model, "--workers", args.workers, "--modality", "xray"]
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        root, whole = Path(scratch, "in"), Path(scratch, "whole")
        build(root, args.files)
        began = time.perf_counter()
        undisturbed = start(root, whole, options)
        if (code := undisturbed.wait()) not in (0, 3):
            raise SystemExit(f"the undisturbed run ended with {code}")
        seconds, expected = time.perf_counter() - began, digests(whole)
        killed, num_ended, own = Counter[str](), 0, 0
        while killed.total() < args.kills or own:
            out = Path(scratch, f"out{num_ended}")
            process = start(root, out, options)
            may_end = own < OUTPUT_KILLS and killed.total() < args.kills
            victim = kill_some(process, rng, seconds, may_end=may_end)
            killed.update([victim] if victim else [])
            _, errors = process.communicate()
            if process.returncode == -signal.SIGKILL:
                own += 1
                continue
            if process.returncode not in (0, 3):
                raise SystemExit(f"a run ended with {process.returncode}: {errors.decode()[-2000:]}")
            if digests(out) != expected:
                raise SystemExit(f"run {num_ended} ended in other bytes")
            num_ended, own = num_ended + 1, 0
    print(
        f"{args.files} files, {seconds:.0f} s undisturbed: {killed['run']} kills of runs and {killed['reader']} of "
        f"reading processes; {num_ended} runs ended, all in the same bytes"
    )


if __name__ == "__main__":
    main()
