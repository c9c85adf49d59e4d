"""`medclip pretrain` as a user starts it with torchrun: one rank measures, after the others have left."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import medclip
from medclip.models.packs.pack import pack_card, verify_pack
from tests.kits.loaded_python import Programs
from tests.kits.training import make_shards, tiny_recipe


@pytest.mark.slow  # starts two ranks
def test_the_first_of_two_ranks_measures_what_one_process_measures(programs: Programs, tmp_path: Path) -> None:
    recipe = tiny_recipe(make_shards(tmp_path / "data", num_test=12))
    recipe["model"] |= {"image_tower": "test_vit"}
    recipe["train"] |= {"max_steps": 2, "ema": 0.0}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    command = ["-m", "medclip.cli.main", "pretrain", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "two")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", programs.python]
    done = subprocess.run(
        [programs.python, *launcher, *command, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    values = json.loads(done.stdout)  # one rank speaks
    verify_pack(tmp_path / "two" / "pack")
    held = pack_card(tmp_path / "two" / "pack").held_out
    assert held is not None
    assert values["test"] == held.rows()
    assert (tmp_path / "two" / "report.html").is_file()
    alone = medclip.pretrain(recipe, out=tmp_path / "one")
    for one, two in zip(alone.test, held.rows(), strict=True):
        assert (one["metric"], one["chance"]) == (two["metric"], two["chance"])
        assert two["value"] == pytest.approx(one["value"], abs=0.2)  # rounding may swap neighbours of a few images
