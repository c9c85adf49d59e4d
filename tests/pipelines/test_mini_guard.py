"""The stage that fits the open-set guard of medclip-mini: with what is foreign to the pack, and where nothing is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"
SEEN = (("nih_cxr", "xray"), ("covid_cxr", "xray"), ("medpix2", "ct"), ("brain_mri", "mri"), ("vqa_rad", "mri"))


@pytest.fixture
def guard_stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return load_stage(FOLDER, "guard")


def images_of(guard_stage: Any, *more: tuple[str, str]) -> Any:
    """Return 60 images of each set and kind, each kind in a direction of its own; half of the patients are trained on.

    What is not among `SEEN` was not trained on. Fifteen jaws lie where nothing else does.
    """
    rng = np.random.default_rng(0)
    sets = [*SEEN, *more]
    kinds = [*dict.fromkeys(kind for _, kind in sets), "panoramic"]
    rows, features = [], []
    for source, kind in [*sets, ("drawn", "panoramic")]:
        for n in range(15 if source == "drawn" else 60):
            vector = np.eye(len(kinds) + 2)[kinds.index(kind)] + rng.normal(0, 0.05, len(kinds) + 2)
            features.append(vector / np.linalg.norm(vector))
            rows.append((f"{source}{n}", source, kind, f"{source}:{n // 2}", (source, kind) in SEEN and n < 30, False))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return guard_stage.Images(*columns, np.array(features, np.float32))


def guesses_of(guard_stage: Any, images: Any) -> Any:
    """Return the guess that each image is of its own modality, or else a radiograph."""
    own = np.where(np.isin(images.kind, ["xray", "ct", "mri"]), images.kind, "xray")
    return guard_stage.Guesses(own, np.ones(len(own), bool))


def test_a_pack_to_which_no_kind_is_foreign_gets_a_guard_and_figures(guard_stage: Any) -> None:
    images = images_of(guard_stage)
    guard = guard_stage.fitted(images, ["ct", "mri", "xray"])
    assert guard.others == ()
    figures = guard_stage.measure(images, guesses_of(guard_stage, images), guard)
    assert figures["sets"]["nih_cxr, xray"]["accepted"]["value"] > 0.9
    assert figures["kinds_left_out"] == {}
    assert set(figures["sources_left_out"]) == {"xray, nih_cxr", "xray, covid_cxr", "mri, brain_mri", "mri, vqa_rad"}
    assert all("auroc" not in figure for figure in figures["sources_left_out"].values())
    assert figures["header_says_cr"] == {"panoramic": {"images": 15, "typical": 0}}


def test_what_is_foreign_is_refused_also_where_the_guard_was_not_fitted_to_it(guard_stage: Any) -> None:
    images = images_of(guard_stage, ("isic2017", "dermatology"))
    guard = guard_stage.fitted(images, ["ct", "mri", "xray"])
    assert guard.others == ("dermatology",)
    figures = guard_stage.measure(images, guesses_of(guard_stage, images), guard)
    assert figures["sets"]["isic2017, dermatology"]["accepted"]["value"] == 0
    left_out = figures["kinds_left_out"]["dermatology"]
    assert left_out["accepted"]["value"] == 0
    assert left_out["auroc"]["value"] == 1
    assert figures["sources_left_out"]["xray, nih_cxr"]["auroc"]["value"] == 1


def test_a_guess_is_sure_only_where_its_colours_go_with_the_modality(
    guard_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    names = ("dermatology", "fundus", "xray")
    likely = np.repeat(np.eye(3) * 0.9 + 0.03, 2, axis=0)
    monkeypatch.setattr(guard_stage, "class_vectors", lambda *args: None)
    monkeypatch.setattr(guard_stage, "score_features", lambda *args: (None, likely))
    entry = SimpleNamespace(classes=names, calibration=None)
    model = SimpleNamespace(card=SimpleNamespace(tasks={"modality": entry}), logit_scale=1)
    images = SimpleNamespace(features=np.eye(6), coloured=np.array([True, False] * 3))
    guesses = guard_stage.guesses_of(model, images)
    assert guesses.modality.tolist() == [name for name in names for _ in range(2)]
    assert guesses.is_sure.tolist() == [True, False, True, True, False, True]
