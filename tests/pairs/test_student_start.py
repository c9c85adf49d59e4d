"""What a student begins with: its teacher's words, and its teacher's tower where that is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medclip.models.interchange.load_start import load_start
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import load_model
from medclip.pairs.student_start import write_start
from medclip.training.loop import run_recipe
from tests.kits.training import make_shards, tiny_recipe


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    films = make_shards(tmp_path_factory.mktemp("films"))
    pack = run_recipe(tiny_recipe(films), ["train.max_steps=2"], out=tmp_path_factory.mktemp("teacher") / "run").pack
    assert pack is not None
    return pack


def test_a_student_with_its_teachers_tower_begins_with_it_at_another_size(teacher: Path, tmp_path: Path) -> None:
    config = read_config(teacher)["model_cfg"]["vision_cfg"]
    write_start(load_model(teacher), tmp_path / "start", tower=config["timm_model_name"], size_px=48)
    begun, old = (load_start(place).model.state_dict() for place in (tmp_path / "start", teacher))
    assert [name for name in old if not torch.equal(begun[name], old[name])] == []
    assert read_config(tmp_path / "start")["model_cfg"]["vision_cfg"]["image_size"] == 48


def test_a_student_may_have_a_tower_of_open_clips(teacher: Path, tmp_path: Path) -> None:
    write_start(load_model(teacher), tmp_path / "start", tower="MobileCLIP2-S0", size_px=64)
    student = load_start(tmp_path / "start").model.eval()
    dim = read_config(teacher)["model_cfg"]["embed_dim"]
    assert student.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, dim)  # type: ignore[operator]
