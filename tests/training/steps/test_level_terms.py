"""The loss `levels` through the one trainer: it learns in chunks too, its crops lie in the image, its part stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medclip.errors import MedclipError, Reason
from medclip.text.captions.record import MAX_REGIONS, CaptionRecord
from medclip.training.batches.sample_texts import ROLES
from medclip.training.recipe.schema import load_recipe
from medclip.training.recipe.text_losses import Levels
from medclip.training.steps.level_terms import LevelViews, cut_out, pool_regions
from medclip.training.trainer import Trainer
from tests.kits.level_shards import level_texts
from tests.kits.training import make_shards
from tests.training.steps.test_text_terms import first_losses


@pytest.fixture(scope="session")
def levelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("levels"), columns=level_texts)


@pytest.fixture
def plan(recipe: dict[str, Any], levelled: Path) -> dict[str, Any]:
    recipe["data"] |= {"shards": str(levelled)}
    recipe["model"]["image_tower"] = "test_vit"
    recipe["augment"] = {"flip": 0, "crop_scale": [1.0, 1.0], "rotate_deg": 0, "brightness": 0, "contrast": 0}
    recipe["model"]["size_px"] = 64
    recipe["objective"] = {"contrastive": 0, "losses": {"levels": {}}}
    return recipe


@pytest.mark.parametrize("weights", [{}, {"regions": 0, "attributes": 0}])
def test_chunks_change_nothing_and_what_reads_regions_stays_behind(
    plan: dict[str, Any], tmp_path: Path, weights: dict[str, float]
) -> None:
    plan["objective"]["losses"]["levels"] |= weights
    whole = first_losses(plan, tmp_path / "whole")
    assert first_losses(plan, tmp_path / "chunks", "train.micro_batch=4") == pytest.approx(whole, rel=1e-4)
    names = [name for path in (tmp_path / "whole" / "pack").glob("*.safetensors") for name in load_file(path)]
    assert names
    assert not [name for name in names if "levels" in name]


def nothing_named(num: int) -> torch.Tensor:
    return torch.full((num, MAX_REGIONS, 4), torch.nan)


def test_a_local_view_is_a_part_of_the_image_of_the_area_that_is_asked() -> None:
    views = LevelViews(4, 8, Levels(local_crop=(0.6, 0.8)))
    ramp = torch.linspace(0, 1, 32).expand(64, 3, 32, 32)
    box = views.place_local(torch.rand(64, 4, generator=torch.Generator().manual_seed(0)), nothing_named(64))
    size = box[:, 2:] - box[:, :2]
    area = size.prod(1)
    assert float(box.min()) >= 0
    assert float(box.max()) <= 1 + 1e-6
    assert 0.6 - 1e-5 <= float(area.min()) < 0.65
    assert 0.75 < float(area.max()) <= 0.8 + 1e-5
    torch.testing.assert_close(cut_out(ramp, box)[:, 0, 0].mean(1), box[:, [0, 2]].mean(1), atol=0.02, rtol=0)


def test_a_local_view_contains_every_region_that_is_named() -> None:
    views = LevelViews(4, 8, Levels(local_crop=(0.1, 0.2)))
    drawn = torch.Generator().manual_seed(0)
    low = torch.rand(64, MAX_REGIONS, 2, generator=drawn)
    high = low + (1 - low) * torch.rand(64, MAX_REGIONS, 2, generator=drawn)
    regions = torch.cat([low, high], 2)
    regions[:, 2:] = torch.nan
    box = views.place_local(torch.rand(64, 4, generator=drawn), regions)
    assert bool((box[:, :2] <= low[:, :2].amin(1) + 1e-6).all())
    assert bool((box[:, 2:] >= high[:, :2].amax(1) - 1e-6).all())
    assert float(box.min()) >= 0
    assert float(box.max()) <= 1 + 1e-6


def test_a_view_of_all_is_the_image_and_its_cells_lie_side_by_side() -> None:
    views = LevelViews(4, 8, Levels(local_crop=(1.0, 1.0), grid=2))
    images = torch.rand(2, 3, 16, 16)
    box = views.place_local(torch.rand(2, 4), nothing_named(2))
    torch.testing.assert_close(cut_out(images, box), images, atol=1e-5, rtol=0)
    places = views.places(box, nothing_named(2))[0]
    expected = [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    torch.testing.assert_close(places[:4], torch.tensor(expected), atol=1e-5, rtol=0)
    assert bool(places[4:].isnan().all())


def test_regions_that_are_named_stand_in_the_place_of_the_grid() -> None:
    regions = nothing_named(2)
    regions[0, 0] = torch.tensor([0.25, 0.25, 0.5, 0.75])
    places = LevelViews(4, 8, Levels()).places(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), regions)
    torch.testing.assert_close(places[0], regions[0], equal_nan=True)
    assert int((~places[1, :, 0].isnan()).sum()) == 9


def test_a_region_is_the_mean_of_the_cells_it_covers_by_hand() -> None:
    cells = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    regions = torch.tensor([[[0.5, 0.5, 1, 1], [0.25, 0, 0.75, 0.5], [0.375, 0, 0.75, 1]]])
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    pooled = pool_regions(cells, regions, whole)[0, :, 0]
    torch.testing.assert_close(pooled, torch.tensor([4.0, 1.5, (1 * 1 + 2 * 2) / 3 + 1]))
    right_half = torch.tensor([[0.5, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(pool_regions(cells, regions[:, :1], right_half)[0, :, 0], torch.tensor([3.5]))


def test_a_summary_has_no_advice() -> None:
    report = "FINDINGS: The heart is large.\nIMPRESSION: Left effusion. Chest CT is recommended."
    assert ROLES["summary"].texts(CaptionRecord(None, report=report)) == ("Left effusion.",)
    assert ROLES["summary"].texts(CaptionRecord(None, texts=("Please correlate clinically.",))) == ()
    assert ROLES["attributes"].texts(CaptionRecord(None, tags=("left effusion", "large heart"))) == (
        "left effusion; large heart",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["objective.losses={levels: {share: 0.95}}"], "a share of 0.95"),
        (["model.size_px=32"], "a grid of 3 x 3 regions does not fit"),
        (["model.size_px=64", "model.native_aspect=true"], "the recipe has model.native_aspect"),
        (["objective.losses={levels: {regions: 0.7, attributes: 0.7}}"], "weigh more than 1 together"),
        (["objective.losses={levels: {local_crop: [0.9, 0.2]}}"], "local_crop is two shares"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    plan: dict[str, Any], tmp_path: Path, changes: list[str], words: str
) -> None:
    with pytest.raises(MedclipError, match=words) as refused:
        Trainer(load_recipe(plan, changes), tmp_path)
    assert refused.value.reason is Reason.RECIPE_INVALID
