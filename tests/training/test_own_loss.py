"""The table of losses: a loss that the library does not have is one row, and a recipe names it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

import medclip
from medclip import lazy
from medclip.errors import MedclipError, Reason
from medclip.training.batches.loader import Batch
from medclip.training.loop import run_recipe
from medclip.training.losses import LOSSES, Loss
from medclip.training.recipe.schema import load_recipe
from medclip.training.recipe.section import Section
from medclip.training.steps.loss_terms import Start, Step, begin_losses
from medclip.training.steps.towers import Seen, Towers, pooled_dim


class Brightness(Section):
    """The settings of a loss of this test: a linear map of the pooled feature learns how bright an image is."""

    weight: float = Field(default=1.0, gt=0)
    offset: float = 0.0


class Gauge(nn.Module):
    """What learns for it, and is told of epochs and steps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.line = nn.Linear(dim, 1)
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.epochs: list[int] = []

    def before_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def after_step(self, towers: Towers, step: int, counts: Tensor) -> None:
        self.num_steps += counts


GAUGES: list[Gauge] = []


def begin(start: Start, settings: Brightness) -> Gauge:
    GAUGES.append(Gauge(pooled_dim(start.model.visual, start.dim)))
    return GAUGES[-1]


def look(gauge: Gauge, seen: Seen) -> Tensor:
    return gauge.line(seen.pooled_BD.float())


def prepare(gauge: Gauge, batch: Batch, step: int) -> Mapping[str, Tensor]:
    return {"mean": torch.from_numpy(batch.images).float().flatten(1).mean(1) / 255}


def terms(step: Step, settings: Brightness, gauge: Gauge) -> Iterator[tuple[float, Tensor]]:
    wanted_B = step.of_images(step.inputs.extra["brightness"]["mean"]) + settings.offset
    summed = (step.outputs.extra["brightness"][:, 0] - wanted_B).square().sum()
    yield settings.weight, summed / len(step.inputs)


ROW = Loss(terms, section=Brightness, adds_up=True, begin=begin, look=look, prepare=prepare)


@pytest.fixture
def bright(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of single steps with that loss beside the words."""
    monkeypatch.setitem(LOSSES, "brightness", ROW)
    GAUGES.clear()
    recipe["augment"] = {"flip": 0, "crop_scale": [1.0, 1.0], "rotate_deg": 0, "brightness": 0, "contrast": 0}
    return recipe | {"objective": {"losses": {"brightness": {"weight": 2}}}}


def losses(folder: Path) -> list[float]:
    events = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["kind"] == "step"]


def test_a_loss_of_ones_own_learns_is_told_of_steps_goes_on_and_stays_behind(
    bright: dict[str, Any], tmp_path: Path
) -> None:
    run = medclip.pretrain(bright, out=tmp_path / "run")
    assert run.pack is not None
    (gauge,) = GAUGES
    assert (gauge.epochs, int(gauge.num_steps)) == ([0, 1], 6)
    assert not any("brightness" in name for name in load_file(next(run.pack.glob("*.safetensors"))))
    last = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    kept = [name for path in last.glob("*.safetensors") for name in load_file(path)]
    assert {"model.brightness.line.weight", "model.brightness.num_steps"} <= {*kept}
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())["objective"]["losses"]
    assert written == {"brightness": {"weight": 2.0}}

    medclip.pretrain(bright, overrides=["objective.losses={}"], out=tmp_path / "words")
    assert losses(tmp_path / "run")[0] > losses(tmp_path / "words")[0]

    stopped = {**bright, "train": {**bright["train"], "checkpoint_every": 1}}
    stops = iter([False] * 3 + [True] * 9)
    run_recipe(stopped, out=tmp_path / "again", stop=lambda step: next(stops))
    assert len(losses(tmp_path / "again")) < 6
    medclip.pretrain(stopped, out=tmp_path / "again")
    assert losses(tmp_path / "again") == losses(tmp_path / "run")


@pytest.mark.parametrize("alone", [False, True])
def test_chunks_give_the_loss_of_the_whole_batch(bright: dict[str, Any], tmp_path: Path, alone: bool) -> None:
    if alone:
        bright["objective"] |= {"contrastive": 0}
        bright["model"] = {"image_tower": "test_efficientnet", "size_px": 32, "image_weights": None}
        del bright["text"]
    for name, changes in (("whole", []), ("chunks", ["train.micro_batch=4"])):
        medclip.pretrain(bright, overrides=["train.max_steps=2", *changes], out=tmp_path / name)
    assert losses(tmp_path / "chunks") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_what_a_recipe_says_of_it_is_checked_by_its_section(bright: dict[str, Any]) -> None:
    for named, said in (
        (
            {"brightness": {"wieght": 1}},
            r"objective\.losses\.brightness\.wieght: is not a key of the loss brightness\. Did you mean 'weight'\?",
        ),
        ({"brightness": {"weight": -1}}, r"objective\.losses\.brightness\.weight: is -1, and must be more than 0"),
        ({"brightnes": {}}, r"no loss 'brightnes'\. Did you mean 'brightness'\? Losses that .* are: .*brightness.*\.$"),
        ({"masked": {}}, "the loss masked has a place of its own"),
    ):
        with pytest.raises(MedclipError, match=said) as refused:
            load_recipe(bright | {"objective": {"losses": named}})
        assert refused.value.reason is Reason.RECIPE_INVALID


def test_another_package_may_bring_a_loss(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lazy, "_entries", lambda group: {"brightness": f"{__name__}:ROW"} if group == "medclip.losses" else {}
    )
    read = load_recipe(recipe | {"objective": {"losses": {"brightness": {}}}})
    assert read.objective.losses == {"brightness": Brightness()}


def test_a_recipe_without_further_losses_has_the_digest_that_it_always_had(recipe: dict[str, Any]) -> None:
    assert "objective.losses" not in load_recipe(recipe).decisive()


def test_losses_are_added_in_the_order_of_the_table(recipe: dict[str, Any]) -> None:
    plain = load_recipe(recipe)
    start = Start(plain, None, 8, None, torch.device("cpu"))
    assert [one.name for one in begin_losses(start)] == ["contrastive"]
    assert list(LOSSES) == [
        "contrastive",
        "image_anchor",
        "token_anchor",
        "unimodal",
        "text_teacher",
        "keep",
        "masked",
        "supervised",
        "softened",
        "hard_negatives",
        "tags",
        "tags_softmax",
        "long_captions",
        "distilled_captions",
        "distilled_long",
        "edit_pairs",
        "token_alignment",
        "masked_words",
        "distill",
        "levels",
        "views",
    ]
