"""The tower learns under the probe of places: masks move as images do, and the pack holds the tower that learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import medclip
from medclip.adaptation.maps.learn import MapRun
from medclip.adaptation.maps.tuned_tower import NAME, move_mask
from medclip.adaptation.pack.adapted_model import Adapted
from medclip.errors import MedclipError, Reason
from medclip.imaging.masks import OUTSIDE
from medclip.models.packs.pack import load_model
from medclip.training.batches.augment import Change, apply_change
from tests.kits.masks import write_rows, write_squares
from tests.kits.scoring import every_way, make_pack

TUNED: dict[str, Any] = {
    **{"map": "mask", "label": "square", "workers": 1, "method": NAME, "shots": 6, "test_share": 0.5},
    "overrides": ["steps=6", "lr=0.001"],
}
STILL = Change(zoom=1.0, shift=(0.0, 0.0), rotate_deg=0.0, gain=1.0, gamma=1.0, flip=False)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    return write_rows(folder / "table.csv", write_squares(folder, 24, per_patient=2))


@pytest.fixture(scope="module")
def run(pack: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> MapRun:
    run = medclip.adapt(table, model=pack, out=tmp_path_factory.mktemp("out") / "squares", **TUNED)
    assert isinstance(run, MapRun)
    return run


@settings(deadline=None)
@given(
    zoom=st.floats(0.5, 1),
    shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    rotate_deg=st.floats(-20, 20),
    flip=st.booleans(),
    gain=st.floats(0.5, 1.5),
)
def test_a_mask_lies_where_its_image_does_after_any_change(
    zoom: float, shift: tuple[float, float], rotate_deg: float, flip: bool, gain: float
) -> None:
    labels = np.zeros((48, 48), np.uint8)
    labels[10:30, 20:34] = 1
    image = np.repeat((labels * np.uint8(255))[:, :, None], 3, axis=2)
    change = replace(STILL, zoom=zoom, shift=shift, rotate_deg=rotate_deg, flip=flip, gain=gain)
    moved = move_mask(labels, change)
    changed = apply_change(image, replace(change, gain=1.0), 48)[:, :, 0] > 127
    assert np.array_equal(moved == 1, changed & (moved != OUTSIDE))


def test_what_is_turned_in_from_outside_shows_no_image() -> None:
    labels = np.ones((64, 64), np.uint8)
    moved = move_mask(labels, replace(STILL, rotate_deg=20.0))
    assert moved[0, 0] == moved[-1, -1] == OUTSIDE
    assert (moved[16:48, 16:48] == 1).all()
    assert np.array_equal(move_mask(labels, STILL), labels)


def test_the_tower_learns_and_the_text_tower_stays(run: MapRun, pack: Path) -> None:
    fitted, base = run.adapted.fitted, dict(run.adapted.model.clip.named_parameters())
    assert fitted.clip is not None
    moved = {name for name, value in fitted.clip.named_parameters() if not torch.equal(value, base[name])}
    assert moved
    assert moved == set(fitted.delta)
    assert all(name.startswith("visual.") for name in moved)
    buffers = dict(run.adapted.model.clip.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in fitted.clip.named_buffers())


def test_masks_of_the_pack_are_those_that_were_measured(run: MapRun, table: Path, tmp_path: Path) -> None:
    assert run.folder is not None
    card = json.loads((run.folder / "card.json").read_text())
    assert card["adapted"]["changed_towers"] is True
    assert set(card["tasks"]) == {"square"}
    tuned, one = load_model(run.folder), run.tested[0]
    rows = table.read_text().splitlines()[1:]
    path = table.parent / rows[one.number - 1].split(",")[0]
    scored = medclip.score([path], model=tuned, task="square", modality="dermatology", out=tmp_path, workers=1)
    assert one.image.shown is not None
    expected = one.image.shown.to_mask(one.margin_hw)
    assert scored.maps.to_pandas()["area_px"].tolist() == [int(expected.sum())]


def test_a_checkpoint_gives_the_same_tower_back(pack: Path, table: Path, run: MapRun, tmp_path: Path) -> None:
    run.adapted.save(tmp_path / "learned")
    again = Adapted.load(tmp_path / "learned", pack)
    ours, theirs = (one.fitted.clip for one in (run.adapted, again))
    assert ours is not None
    assert theirs is not None
    theirs_by_name = dict(theirs.named_parameters())
    assert all(torch.equal(value, theirs_by_name[name]) for name, value in ours.named_parameters())


def test_an_equal_call_gives_equal_bytes(pack: Path, table: Path, run: MapRun, tmp_path: Path) -> None:
    again = medclip.adapt(table, model=pack, out=tmp_path / "again", **TUNED)
    assert again.folder is not None
    assert run.folder is not None
    for path in sorted(run.folder.iterdir()):
        assert path.read_bytes() == (again.folder / path.name).read_bytes(), path.name


def test_squares_are_told_better_once_the_tower_has_learned(pack: Path, table: Path) -> None:
    probe = medclip.adapt(table, model=pack, **(TUNED | {"method": "map-probe", "overrides": ["steps=60"]}))
    tuned = medclip.adapt(table, model=pack, **(TUNED | {"overrides": ["steps=60", "lr=0.001"]}))
    assert tuned.measured.figures["dice"].value > probe.measured.figures["dice"].value


@pytest.mark.parametrize("changes", [["steps=0"], ["lr=0"], ["crop=0"], ["crop=1.5"]])
def test_settings_that_cannot_be_are_refused(pack: Path, table: Path, changes: list[str]) -> None:
    with pytest.raises(MedclipError, match="cannot learn with") as caught:
        medclip.adapt(table, model=pack, **(TUNED | {"overrides": changes}))
    assert caught.value.reason is Reason.WRONG_USE
