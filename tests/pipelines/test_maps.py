"""pipelines/maps: every arm learns squares, results are kept, and the table pairs arms over the seeds that all have."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medclip.evaluation.dense.masked_set import find_masks
from medclip.evaluation.dense.towers import IMAGENET, PACK, RANDOM
from medclip.evaluation.zero_shot.suite import MasksFile
from medclip.models.packs.pack import load_model
from tests.kits.masks import write_rows, write_squares
from tests.kits.scoring import every_way, make_pack
from tests.kits.stages import load_stage

MAPS = Path(__file__).parents[2] / "pipelines" / "maps"


@pytest.fixture(scope="module")
def stage() -> ModuleType:
    return load_stage(MAPS, "measure")


@pytest.fixture(scope="module")
def learned(stage: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The results of all arms, of one seed and of a second one in which the U-Net is missing."""
    folder = tmp_path_factory.mktemp("maps")
    write_rows(folder / "squares" / "labels.csv", write_squares(folder / "squares", 18))
    part = MasksFile(id="squares", group="skin", modality="dermatology", mask="square")
    masked = find_masks(folder, part, b"k" * 32)
    assert masked is not None
    model = load_model(make_pack(folder / "tiny", adapters=every_way()))
    learning = stage.Learning(masked, {PACK: model, IMAGENET: model, RANDOM: model}, folder / "encoded")
    tuned = stage.fit_map_tuned
    stage.UNET_STEPS, stage.fit_map_tuned = 40, lambda *args, seed: tuned(*args, seed=seed, steps=5)
    (folder / "run").mkdir()
    stage.measured(learning, folder / "run", list(stage.ARMS), (1.0,), (0,))
    stage.measured(learning, folder / "run", [arm for arm in stage.ARMS if arm != "unet"], (1.0,), (1,))
    return folder / "run", learning.test.tolist()


def test_every_arm_is_measured_on_the_images_held_out(stage: ModuleType, learned: tuple[Path, list[str]]) -> None:
    run, test = learned
    for arm in stage.ARMS:
        figures = json.loads(stage.cell(run, "squares", arm, 1.0, 0).read_text())
        assert figures["row"] == test
        assert len(figures["dice"]) == len(figures["patient"]) == 6
    dice = {arm: np.mean(json.loads(stage.cell(run, "squares", arm, 1.0, 0).read_text())["dice"]) for arm in stage.ARMS}
    assert dice["unet"] > dice["position"] + 0.1
    assert dice["probe"] > dice["position"]
    assert dice["tuned_imagenet"] == dice["tuned"]  # of one and the same start


def test_the_table_compares_the_seeds_that_all_arms_have(stage: ModuleType, learned: tuple[Path, list[str]]) -> None:
    rows = [row.split(" | ") for row in stage.table(learned[0], ["squares"], (1.0,)).splitlines()[2:]]
    assert [row[2] for row in rows] == list(stage.ARMS.values())
    assert {row[3] for row in rows} == {"1"}
    assert [row[5].strip(" |") == "" for row in rows] == [arm == stage.TUNED for arm in stage.ARMS]


def test_what_is_there_is_not_learned_again(stage: ModuleType, learned: tuple[Path, list[str]]) -> None:
    stage.measured(_Held(), learned[0], list(stage.ARMS), (1.0,), (0,))


class _Held:
    """A set of which every result is there: nothing of it but its name is looked at."""

    class masked:
        class part:
            id = "squares"

    test = np.zeros(0)
