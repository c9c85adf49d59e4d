"""Kill a run anywhere and go on: the same samples, and bit for bit the same losses and weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from medclip.training.log import read_log
from medclip.training.loop import run_recipe
from medclip.training.recipe.file import load_recipe
from medclip.training.trainer import Trainer
from tests.kits.loaded_python import Programs
from tests.kits.size import sized
from tests.kits.training import batches_of, masked_recipe


def _losses(out: Path) -> list[tuple[int, float]]:
    return [(e["step"], e["loss"]) for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


def _killed(python: str, recipe: dict[str, Any], out: Path, step: int) -> None:
    """Run the command in a process of its own and kill -9 it once the log shows the step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    command = [python, "-m", "medclip.cli.main", "pretrain", str(file), "--out", str(out), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if any(e.get("step", 0) >= step for e in read_log(out / "log.jsonl")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), said.decode()[-2000:]


def _compare(python: str, recipe: dict[str, Any], tmp_path: Path, kills: list[int]) -> None:
    straight = run_recipe(recipe, out=tmp_path / "straight")
    for number, step in enumerate(kills):
        out = tmp_path / f"killed-{number}"
        _killed(python, recipe, out, step)
        resumed = run_recipe(recipe, out=out)
        assert _losses(out) == _losses(tmp_path / "straight")
        assert straight.pack is not None
        assert resumed.pack is not None
        ends = [sorted((o / "checkpoints").iterdir())[-1] for o in (tmp_path / "straight", out)]
        found = [load_file(next(end.glob("*.safetensors"))) for end in ends]  # float32: the pack's weights are halved
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
        for name in ("model.safetensors", "card.json"):
            assert (straight.pack / name).read_bytes() == (resumed.pack / name).read_bytes()


@pytest.mark.slow
def test_a_process_killed_at_random_places_goes_on_bit_for_bit(
    recipe: dict[str, Any], programs: Programs, tmp_path: Path
) -> None:
    recipe["train"] |= {"epochs": 10, "checkpoint_every": 4}
    chance = random.Random(1)
    _compare(programs.python, recipe, tmp_path, [chance.randrange(1, 30) for _ in range(sized(20, least=3))])


@pytest.mark.slow
def test_a_killed_masked_autoencoder_goes_on_bit_for_bit(shards: Path, programs: Programs, tmp_path: Path) -> None:
    recipe = masked_recipe(shards)
    recipe["objective"]["masked"]["foreground"] = True
    recipe["train"] |= {"epochs": 10, "checkpoint_every": 4}
    _compare(programs.python, recipe, tmp_path, [14, 3][: sized(2)])


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (3, 6)])
def test_the_samples_of_an_epoch_do_not_depend_on_the_ranks_that_read_them(
    recipe: dict[str, Any], tmp_path: Path, sizes: tuple[int, int]
) -> None:
    """Stop after the first step of the second epoch with one number of ranks and go on with the other."""
    whole = Counter(_keys(recipe, tmp_path, 1, 3, 6))
    before, after = sizes
    assert Counter(_keys(recipe, tmp_path, before, 3, 4) + _keys(recipe, tmp_path, after, 4, 6)) == whole
    assert set(whole.values()) == {1}


def _keys(recipe: dict[str, Any], folder: Path, ranks: int, first: int, last: int) -> list[str]:
    plan = load_recipe(recipe)
    trainer = Trainer(plan, folder)
    found = []
    for rank in range(ranks):
        share = batches_of(
            trainer.reader, batch_size=plan.train.batch_size, preprocess=trainer.preprocess, seed=plan.seed,
            augment=plan.augment,
            rank=rank, world_size=ranks,
        )  # fmt: skip
        found += [key for batch in share.training(first, last) for key in batch.keys]
    return found
