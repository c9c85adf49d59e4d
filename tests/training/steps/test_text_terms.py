"""Losses that read texts beside captions, through the one trainer: each learns what its texts say, in chunks too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import medclip
from medclip.errors import MedclipError, Reason
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.pairs import Pairs, keys_of
from medclip.text.captions.record import CaptionRecord
from medclip.training.batches.sample_texts import DrawnRole
from medclip.training.ranks import World
from medclip.training.recipe.schema import load_recipe
from medclip.training.recipe.text_losses import LongCaptions, Softened, Tags
from medclip.training.steps.inputs import Inputs, RoleInputs
from medclip.training.steps.loss_terms import Step
from medclip.training.steps.text_terms import GrowingShare, contrasted_with_long, tagged
from medclip.training.steps.towers import TowerOutputs
from medclip.training.trainer import Trainer
from tests.kits.training import make_shards


def texts_of(number: int) -> dict[str, str]:
    """Of four images one has nothing beside its labels."""
    if number % 4 == 3:
        return {}
    shown, other = ("bright disc", "dark film") if number % 2 else ("dark film", "bright disc")
    tags = {"tags": f"{shown}\nfilm"} | ({"absent_tags": other} if number % 4 else {})
    return {"negatives": f"a {other}\nno {shown}", "long_captions": f"film {number} of a chest with a {shown}", **tags}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("better"), columns=texts_of)


@pytest.fixture
def plan(recipe: dict[str, Any], spoken: Path) -> dict[str, Any]:
    """Six steps, images as they are."""
    recipe["data"] |= {"shards": str(spoken)}
    recipe["augment"] = {"flip": 0, "crop_scale": [1.0, 1.0], "rotate_deg": 0, "brightness": 0, "contrast": 0}
    return recipe


def losses(folder: Path) -> list[float]:
    events = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["kind"] == "step"]


def first_losses(plan: dict[str, Any], out: Path, *changes: str) -> list[float]:
    """Losses of two steps."""
    medclip.pretrain(plan, overrides=["train.max_steps=2", *changes], out=out)
    return losses(out)


@pytest.mark.parametrize("form", ["pairwise", "row"])
def test_images_are_told_from_false_texts(plan: dict[str, Any], tmp_path: Path, form: str) -> None:
    plan["objective"] = {"losses": {"hard_negatives": {"form": form}}}
    plan["data"] |= {"num_negatives": 2}
    whole = first_losses(plan, tmp_path / "whole")
    assert first_losses(plan, tmp_path / "chunks", "train.micro_batch=4") == pytest.approx(whole, rel=1e-4)
    del plan["data"]["num_negatives"]
    plain = first_losses(plan | {"objective": {}}, tmp_path / "plain")
    assert whole[0] > plain[0] + 0.3


WORDS = ["Bright disc", "dark film", "pneumonia"]


@pytest.mark.parametrize("name", ["tags", "tags_softmax"])
def test_tags_are_learned_without_words_by_a_layer_that_stays_behind(
    plan: dict[str, Any], tmp_path: Path, name: str
) -> None:
    plan["objective"] = {"contrastive": 0, "losses": {name: {"weight": 2}}}
    plan["data"] |= {"tags": WORDS}
    del plan["text"]
    plan["model"] = {"image_tower": "test_vit", "size_px": 32, "image_weights": None}
    whole = first_losses(plan, tmp_path / "whole")
    assert whole[0] == pytest.approx(2 * math.log(2 if name == "tags" else 3), rel=0.5)
    assert first_losses(plan, tmp_path / "chunks", "train.micro_batch=4") == pytest.approx(whole, rel=1e-4)
    assert not [
        n for path in (tmp_path / "whole" / "pack").glob("*.safetensors") for n in load_file(path) if "tags" in n
    ]


def test_what_is_neither_stated_nor_denied_is_not_known() -> None:
    labels = {"chest_xray_findings": {"pneumonia": 0, "effusion": 1}}
    roles = [DrawnRole(name, 4, ("Bright disc", "dark film", "pneumonia", "hernia")) for name in ("tags", "absent")]

    def drawn(**facts: Any) -> list[list[bool]]:
        texts = [role.draw(CaptionRecord(None, **facts), None) for role in roles]
        return [[bool(text) for text in of] for of in texts]

    assert drawn(tags=("bright disc",), absent_tags=("Dark film",), labels=labels) == [
        [True, False, False, False],
        [False, True, True, False],
    ]
    masks = {"tags": [[True, False, False, True]], "absent": [[False, True, False, True]]}
    there = torch.tensor([True])
    texts = {role: RoleInputs(torch.tensor(mask), there, torch.zeros(1, 4, 0), 0) for role, mask in masks.items()}
    inputs = Inputs(torch.zeros(1, 0), torch.zeros(1, 0), 0, texts=texts)
    logits = torch.tensor([[1.0, 2.0, 30.0, 40.0]], requires_grad=True)
    outputs = TowerOutputs(*[torch.zeros(1, 0)] * 5, extra={"tags": logits})
    step: Any = Step(None, None, World(torch.device("cpu")), inputs, outputs)  # type: ignore[arg-type]
    ((weight, loss),) = tagged(step, Tags(weight=3), None)
    assert weight == 3
    assert loss.item() == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2, rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.ne(0).tolist() == [[True, True, False, False]]  # what is both is not known either


def test_images_are_contrasted_with_long_texts_alone_or_beside_captions(plan: dict[str, Any], tmp_path: Path) -> None:
    plan["objective"] = {"losses": {"long_captions": {"weight": 2}}}
    both = first_losses(plan, tmp_path / "both")
    assert first_losses(plan, tmp_path / "chunks", "train.micro_batch=4") == pytest.approx(both, rel=1e-4)
    plan["objective"] = {"losses": {"long_captions": {"weight": 1}}}  # a plain run's tokenizer learns fewer texts
    once = first_losses(plan, tmp_path / "once")
    alone = first_losses(plan, tmp_path / "alone", "objective.contrastive=0")
    assert both[0] - once[0] == pytest.approx(alone[0], rel=1e-4)
    assert alone[0] > 0.5


def test_a_long_text_is_held_against_those_of_others_that_have_one() -> None:
    """Of six images the last has none; those of one study are left out, and of equal texts either may be the own."""
    torch.manual_seed(0)
    image, long = (nn.functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    long[1] = long[0]
    long.requires_grad_()
    has = torch.tensor([True] * 5 + [False])
    study, same = keys_of(["", "", "s", "s", "", ""]), keys_of(["a", "a", "b", "c", "d", ""])
    none = torch.zeros(6, 0)
    texts = {"long": RoleInputs(has[:, None], has, torch.zeros(6, 1, 0), 0)}
    inputs = Inputs(none, none, 0, Pairs(positive_BK=study), texts=texts)
    outputs = TowerOutputs(image, none, none, none, none, texts={"long": long[:, None]})
    model: Any = nn.Module()
    model.logit_scale = torch.tensor(5.0).log()
    step: Any = Step(None, model, World(torch.device("cpu")), inputs, outputs)  # type: ignore[arg-type]
    ((weight, loss),) = contrasted_with_long(step, LongCaptions(weight=3), None)
    assert weight == 3
    expected = clip_loss(image[:5], long[:5], 5.0, Pairs(positive_BK=same[:5], ignored_BK=study[:5]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert long.grad is not None
    assert long.grad.ne(0).any(1).tolist() == [True] * 5 + [False]


def test_partners_are_told_apart_in_one_batch_and_in_chunks(plan: dict[str, Any], tmp_path: Path) -> None:
    """Of 20 images six are halves of pairs, with captions of their own."""
    names = lambda n: {"edit_pairs": f"p{n // 2}", "caption": f"a film {n}"} if n < 6 else {}  # noqa: E731
    plan["data"] |= {"shards": str(make_shards(tmp_path / "paired", columns=names))}
    plan["objective"] = {"contrastive": 0, "losses": {"edit_pairs": {"weight": 2}}}
    steps = "train.max_steps=4"
    medclip.pretrain(plan, overrides=[steps], out=tmp_path / "whole")
    medclip.pretrain(plan, overrides=[steps, "train.micro_batch=4"], out=tmp_path / "chunks")
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "chunks") == pytest.approx(whole, rel=1e-4)
    assert max(whole) > 0.5, "no partner came"


def test_tags_that_are_never_denied_are_refused(plan: dict[str, Any], tmp_path: Path) -> None:
    plan["objective"] = {"losses": {"tags": {}}}
    with pytest.raises(MedclipError, match="reads texts of the role 'absent'") as refused:
        medclip.pretrain(plan, overrides=["data.tags=[film]"], out=tmp_path / "run")
    assert "absent_tags" in str(refused.value.hint)


def test_samples_of_several_images_are_refused(plan: dict[str, Any], tmp_path: Path) -> None:
    plan["objective"] = {"losses": {"hard_negatives": {}}, "two_views": {}}
    with pytest.raises(
        MedclipError, match=r"losses\.hard_negatives compares .* does not go with .*two_views"
    ) as refused:
        medclip.pretrain(plan, out=tmp_path / "run")
    assert refused.value.reason is Reason.RECIPE_INVALID


def test_the_share_of_others_grows_to_that_of_the_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    options = ["objective.contrastive=0", "objective.losses={softened: {share: 0.5}}"]
    trainer = Trainer(load_recipe(recipe, options), tmp_path)
    (loss,) = (one for one in trainer.losses if one.name == "softened")
    shares = [loss.state.at(step) for step in range(trainer.total_steps)]
    assert shares == pytest.approx([0.1 * step for step in range(6)])
    result = trainer.run(lambda step: False)
    assert result.pack is not None
    constant = Softened(share=0.5, schedule="constant")
    assert GrowingShare(constant, 6).at(0) == 0.5
