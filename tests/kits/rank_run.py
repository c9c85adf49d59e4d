"""What the ranks of a test do: one process group, several runs, each stopped where the test says.

Called as: python -m torch.distributed.run --standalone --nproc-per-node N tests/kits/rank_run.py JOBS.json
JOBS.json: a list of {"recipe": {...}, "overrides": [...], "out": folder, "stop": step, "full_disk": true}. With
"stop_rank" only that rank is asked to stop; with "count" the calls of each collective are written; with "losses",
"module:NAME", rows are put into the table of losses before.
One with "beside_open_clip" lets open_clip's loop train a copy of the model, and writes how far apart the two are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from medclip.errors import MedclipError
from medclip.lazy import import_name
from medclip.training.checkpoints import state as checkpoint
from medclip.training.loop import run_recipe
from medclip.training.losses import LOSSES
from tests.kits.loaded_python import Programs
from tests.kits.open_clip_steps import train_both


class Collectives(TorchDispatchMode):
    """Counts what goes through process groups."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            self.counts[str(func).split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def run_ranks(number: int, jobs: list[dict[str, Any]], folder: Path, programs: Programs) -> None:
    """Start ranks with torchrun, which starts `programs`; they take the jobs one after the other."""
    plan = folder / f"jobs-{number}.json"
    plan.write_text(json.dumps(jobs))
    launcher = [programs.python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    done = subprocess.run(
        [*launcher, "--no-python", programs.python, __file__, str(plan)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for warning in ("`broadcast_buffers` is deprecated", "Grad strides do not match"):
        assert warning not in done.stderr  # a user cannot do anything about it


def main(jobs: Path) -> None:
    dist.init_process_group("gloo")
    for job in json.loads(jobs.read_text()):
        _run(job)
    dist.barrier()
    dist.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # as medclip.cli.train does: torch's threads sometimes abort a process that ends in the usual way


def _run(job: dict[str, Any]) -> None:
    if "losses" in job:
        for name, row in import_name(job["losses"]).items():
            LOSSES[name] = row
    stop = job.get("stop")
    writer = checkpoint.HuggingFaceStorageWriter
    write = writer.write_data

    def full_disk(*args: Any, **kwargs: Any) -> Any:
        if os.environ["RANK"] == "1":
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    out = Path(job["out"])
    try:
        if job.get("full_disk"):
            writer.write_data = full_disk
        if job.get("beside_open_clip"):
            both = train_both(job["recipe"], job.get("overrides", []), out)
            if both is not None:
                (out / "beside.json").write_text(json.dumps(both._asdict()))
            return
        asked = job.get("stop_rank", int(os.environ["RANK"])) == int(os.environ["RANK"])
        with Collectives() if job.get("count") else nullcontext() as counted:
            run_recipe(job["recipe"], job.get("overrides", ()), out, stop=lambda step: asked and step == stop)
        if counted is not None and os.environ["RANK"] == "0":
            (out / "collectives.json").write_text(json.dumps(counted.counts))
    except MedclipError as e:
        (out / f"error-{os.environ['RANK']}.json").write_text(json.dumps([str(e.reason), str(e)]))
    finally:
        writer.write_data = write


if __name__ == "__main__":
    main(Path(sys.argv[1]))
