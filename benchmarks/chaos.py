"""Claim: whatever is killed, and whenever, a run ends in the same bytes as one that nothing disturbed.

Usage: python benchmarks/chaos.py [--files 1000] [--kills 30] [--folder SCRATCH] [--model PACK] [--workers 2] [--seed 1]
           [--engine local]
       python benchmarks/chaos.py --starts 20 [--busy 6] [--files 40] ...

Makes the folder of `benchmarks/soak.py` (1 % of the files broken in 12 ways), runs `medclip score` over it once
undisturbed, and then again and again with SIGKILL at random moments: two of three of the run itself, which the same
command then goes on with, the others of one of its reading processes, under which the run goes on. After so many kills
and every time a run ends, its tables, run.json and report are compared. At least one run ends for every six kills.

With `--engine ray` the victims are in turn the run, a worker, Ray's raylet, its gcs_server, and the process that talks
to Ray: a run goes on without a worker, and ends with a sentence and exit code 4 without the others.

With `--starts` Ray is started so often for a run, while busy loops of 300 MB each hold the machine, and of every five
starts one has its raylet killed as soon as it is there, one its gcs_server, and one each raylet of its tries. Claim:
each ends as a run, in the same bytes, or in one sentence with exit code 4, and leaves neither a process nor a folder.
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
from itertools import cycle
from pathlib import Path

from soak import build, counts, digests, family

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


INCOMPLETE = 4
RAY = {
    "worker": "ray::ChunkWorker",
    "raylet": "raylet/raylet",
    "gcs_server": "gcs/gcs_server",
    "talker": "engines.ray_host",
}
"""What command lines of Ray's processes hold."""
BUSY = "data = bytearray(300 << 20)\nwhile True:\n    for at in range(0, len(data), 4096): data[at] ^= 1"
MARK = f"\0MEDCLIP_FOLDER={tempfile.gettempdir()}/".encode()
"""In the environment of whatever was started for a run on Ray."""


def of_ray(pid: int, name: str) -> list[int]:
    """Return the processes below a run that have a name of RAY."""
    pids = []
    for one in family(pid):
        with contextlib.suppress(OSError):
            pids += [one] if RAY[name].encode() in Path(f"/proc/{one}/cmdline").read_bytes() else []
    return pids


def left_of_ray() -> list[str]:
    """Return the processes and folders that runs on Ray have left."""
    left = [str(folder) for folder in Path(tempfile.gettempdir()).glob("medclip-ray-*")]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            left += [process.name] if MARK in (process / "environ").read_bytes() else []
    return left


def kill_of_ray(process: subprocess.Popen[bytes], victim: str, out: Path, rng: random.Random) -> bool:
    """Kill one process of a run on Ray while there are rows to come; return whether it was there."""
    name = "worker" if victim == "run" else victim
    least = rng.uniform(0.05, 0.8)
    while process.poll() is None:
        pids = of_ray(process.pid, name)
        num_files, num_rows = counts(out)
        if pids and of_ray(process.pid, "worker") and (num_rows or 0) >= least * (num_files or 1):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid if victim == "run" else rng.choice(pids), signal.SIGKILL)
                return True
        time.sleep(0.1)
    return False


def chaos_of_ray(root: Path, scratch: Path, options: list[str], num_kills: int, rng: random.Random) -> str:
    """Kill processes of runs on Ray in turn; return what was done."""
    expected = undisturbed(root, scratch / "whole", [word for word in options if word not in ("--engine", "ray")])
    killed, num_ended, own = Counter[str](), 0, 0
    victims = cycle(["run", *RAY])
    while killed.total() < num_kills or own:
        out, victim = scratch / f"out{num_ended}", ""
        process = start(root, out, options)
        if own < OUTPUT_KILLS and killed.total() < num_kills:
            victim = next(victims)
            killed.update([victim] if kill_of_ray(process, victim, out, rng) else [])
        _, errors = process.communicate()
        if process.returncode in (-signal.SIGKILL, INCOMPLETE):
            own += 1
            how = last_line(errors) if process.returncode == INCOMPLETE else "killed"
            print(f"| {killed.total()} | {victim} | {process.returncode} | {how} |", flush=True)
            continue
        refuse_other(process.returncode, errors, out, expected)
        num_ended, own = num_ended + 1, 0
        print(f"| {killed.total()} | {victim or '-'} | {process.returncode} | the same bytes |", flush=True)
    return f"{', '.join(f'{n} of {name}' for name, n in killed.items())}; {num_ended} runs ended, all in the same bytes"


def starts_of_ray(root: Path, scratch: Path, options: list[str], num_starts: int, num_busy: int) -> str:
    """Start Ray on a busy machine; return how the starts ended."""
    expected = undisturbed(root, scratch / "whole", options)
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(num_busy)]
    endings = Counter[str]()
    try:
        for number in range(num_starts):
            before, out = time.perf_counter(), scratch / f"out{number}"
            process = start(root, out, [*options, "--engine", "ray"])
            disturbance = ("nothing", "raylet", "nothing", "gcs_server", "every raylet")[number % 5]
            num_killed = disturb_start(process, disturbance)
            _, errors = process.communicate()
            sentence = ""
            if process.returncode == INCOMPLETE:
                sentence = last_line(errors)
            else:
                refuse_other(process.returncode, errors, out, expected)
            endings["a sentence" if sentence else "a run"] += 1
            print(
                f"| {number + 1} | {disturbance}, {num_killed} killed | {1 + errors.count(b'it is tried again')} | "
                f"{time.perf_counter() - before:.0f} s | {process.returncode} {sentence or 'the same bytes'} |",
                flush=True,
            )
            if left := left_of_ray():
                raise SystemExit(f"{left} was left")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return f"{num_starts} starts beside {num_busy} busy loops: {dict(endings)}; no process and no folder left"


def disturb_start(process: subprocess.Popen[bytes], disturbance: str) -> int:
    """Kill one process of Ray, or each of its kind, as soon as it is there; return how many were killed."""
    killed: set[int] = set()
    name = disturbance.split()[-1]
    while process.poll() is None and name in RAY and (not killed or disturbance.startswith("every")):
        for pid in of_ray(process.pid, name):
            if pid not in killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.05)
    return len(killed)


def last_line(errors: bytes) -> str:
    """Return the last line that a run wrote on standard error."""
    return next((line.strip() for line in reversed(errors.decode().splitlines()) if line.strip()), "")


def undisturbed(root: Path, out: Path, options: list[str]) -> dict[str, str]:
    """Run once and return the hashes of what it wrote."""
    process = start(root, out, options)
    _, errors = process.communicate()
    if process.returncode not in (0, 3):
        raise SystemExit(f"the undisturbed run ended with {process.returncode}: {errors.decode()[-2000:]}")
    return digests(out)


def refuse_other(code: int, errors: bytes, out: Path, expected: dict[str, str]) -> None:
    """Raise where a run did not end, or in other bytes."""
    if code not in (0, 3):
        raise SystemExit(f"a run ended with {code}: {errors.decode()[-2000:]}")
    if digests(out) != expected:
        raise SystemExit(f"{out.name} ended in other bytes")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--model", default="medclip-mini")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--starts", type=int, default=0)
    parser.add_argument("--busy", type=int, default=6)
    args = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load}")
    options = ["--model", args.model, "--workers", args.workers, "--modality", "xray"]
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        root, whole = Path(scratch, "in"), Path(scratch, "whole")
        build(root, args.files)
        if args.starts:
            print(starts_of_ray(root, Path(scratch), options, args.starts, args.busy))
            return
        if args.engine != "local":
            print(chaos_of_ray(root, Path(scratch), [*options, "--engine", args.engine], args.kills, rng))
            return
        began = time.perf_counter()
        expected = undisturbed(root, whole, options)
        seconds = time.perf_counter() - began
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
            refuse_other(process.returncode, errors, out, expected)
            num_ended, own = num_ended + 1, 0
    print(
        f"{args.files} files, {seconds:.0f} s undisturbed: {killed['run']} kills of runs and {killed['reader']} of "
        f"reading processes; {num_ended} runs ended, all in the same bytes"
    )


if __name__ == "__main__":
    main()
