"""Views of one object in training: which are hard, what is refused, chunks and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from medclip.errors import MedclipError, Reason
from medclip.objectives.views import view_centre
from medclip.training.loop import run_recipe
from medclip.training.recipe.schema import load_recipe
from medclip.training.recipe.view_losses import Views
from medclip.training.result import read_log
from medclip.training.steps.view_centres import ViewCentres
from medclip.training.trainer import Trainer
from tests.kits.loaded_python import Programs
from tests.kits.rank_run import run_ranks
from tests.kits.training import make_shards, tiny_recipe

VIEWS = "objective.losses={views: {object: patient, hard: 1}}"


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of which each patient of the training split has four."""
    return make_shards(tmp_path_factory.mktemp("views"), columns=lambda i: {"patient": f"p{i // 4}"})


def _losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_log(out / "log.jsonl") if row["kind"] == "step"]


def _trainer(shards: Path, out: Path, *views: str) -> Trainer:
    return Trainer(load_recipe(tiny_recipe(shards), list(views)), out / "run")


def _state(trainer: Trainer) -> ViewCentres:
    return next(one.state for one in trainer.losses if one.name == "views")


def test_centres_are_of_the_features_at_the_start_of_the_epoch(patients: Path, tmp_path: Path) -> None:
    trainer = _trainer(patients, tmp_path, VIEWS)
    views = _state(trainer)
    feature_ND = trainer._encode(views.samples)
    views.before_epoch(0)
    torch.testing.assert_close(views.centre_OD[0], view_centre(feature_ND[:4]))
    assert views.hard_N.view(-1, 4).sum(dim=1).tolist() == [1] * 5
    views.centre_OD.zero_()
    views.before_epoch(0)  # a run that goes on in the middle of the epoch
    assert not views.centre_OD.any()
    views.before_epoch(1)
    assert views.centre_OD.any()


def test_an_image_that_cannot_be_read_is_neither_of_the_centre_nor_hard() -> None:
    feature_ND = normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    feature_ND[2] = 0
    views = ViewCentres(Views(object=("patient",), hard=3), [[0, 1, 2, 3]], list("abcd"), 6)
    views.encode_with(lambda samples: feature_ND[list(samples)])
    views.before_epoch(0)
    torch.testing.assert_close(views.centre_OD[0], view_centre(feature_ND[[0, 1, 3]]))
    assert views.hard_N.tolist() == [True, True, False, True]


def test_labels_that_differ_make_two_objects(patients: Path, tmp_path: Path) -> None:
    both = "objective.losses={views: {object: patient, label: chest_xray_findings}}"
    assert len(_state(_trainer(patients, tmp_path, both)).centre_OD) == 10


@pytest.mark.parametrize(
    ("views", "reason", "message"),
    [
        ("{object: patien}", Reason.RECIPE_INVALID, "samples have no column 'patien'"),
        ("{object: key}", Reason.NOTHING_TO_DO, "by key each object has one view only"),
        ("{object: patient, hard: 5}", Reason.RECIPE_INVALID, "hard is 5, and no object has more than 4 views"),
        ("{object: patient, hard: .inf}", Reason.RECIPE_INVALID, r"views\.hard"),
        ("{object: laterality}", Reason.NOTHING_TO_DO, "no sample says its laterality"),
        (
            "{object: patient, label: others}",
            Reason.NOTHING_TO_DO,
            "no sample says its patient and a label of 'others'",
        ),
        ("{object: patient, hard: 1.5}", Reason.RECIPE_INVALID, "a share below 1, or a whole number of images"),
        ("{object: patient, every: 0}", Reason.RECIPE_INVALID, "number of steps from 1 on"),
    ],
)
def test_what_cannot_be_drawn_together_is_refused_in_a_sentence(
    patients: Path, tmp_path: Path, views: str, reason: Reason, message: str
) -> None:
    with pytest.raises(MedclipError, match=message) as refused:
        _trainer(patients, tmp_path, f"objective.losses={{views: {views}}}")
    assert refused.value.reason is reason


def test_chunks_give_the_loss_of_the_whole_batch_and_the_pack_has_no_centres(patients: Path, tmp_path: Path) -> None:
    recipe: dict[str, Any] = tiny_recipe(patients)
    whole = run_recipe(recipe, [VIEWS], out=tmp_path / "whole")
    run_recipe(recipe, [VIEWS, "train.micro_batch=2"], out=tmp_path / "chunks")
    run_recipe(recipe, out=tmp_path / "words")
    np.testing.assert_allclose(_losses(tmp_path / "chunks"), _losses(tmp_path / "whole"), rtol=1e-3)
    assert _losses(tmp_path / "whole")[0] > _losses(tmp_path / "words")[0]
    assert whole.pack is not None
    names = {name for file in whole.pack.glob("**/*.safetensors") for name in load_file(file)}
    assert names
    assert not [name for name in names if "centre" in name or "hard" in name]


@pytest.mark.slow
def test_two_ranks_draw_views_together_as_one_process_does(patients: Path, tmp_path: Path, programs: Programs) -> None:
    recipe = tiny_recipe(patients)
    run_recipe(recipe, [VIEWS], out=tmp_path / "one")
    ways = {"ddp": [VIEWS, "train.micro_batch=2"], "fsdp": [VIEWS, "train.parallel=fsdp"]}
    run_ranks(
        2, [{"recipe": recipe, "out": str(tmp_path / w), "overrides": c} for w, c in ways.items()], tmp_path, programs
    )
    for way in ways:
        assert _losses(tmp_path / way) == pytest.approx(_losses(tmp_path / "one"), rel=1e-3)
