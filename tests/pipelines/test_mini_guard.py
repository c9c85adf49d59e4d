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


def test_nothing_is_held_out_of_a_patient_whom_the_pack_or_the_guard_has_seen(guard_stage: Any) -> None:
    images = images_of(guard_stage, ("isic2017", "dermatology"))
    images.trained[images.files == "nih_cxr1"] = False  # of a patient whose other film was trained on
    held = {*images.files[images.held_out].tolist()}
    assert not held & {"nih_cxr0", "nih_cxr1", "nih_cxr2"}
    assert {f"nih_cxr{n}" for n in range(30, 60)} <= held
    seen = {*images.group[images.trained].tolist(), *images.group[images.fits].tolist()}
    assert not seen & {*images.group[images.held_out].tolist()}
    half = images.fits & (images.source == "isic2017")
    assert 0 < half.sum() < 60
    assert images.held_out[images.source == "isic2017"].sum() == 60 - half.sum()
    assert images.unseen[images.source == "isic2017"].all()


def test_an_image_is_judged_by_limits_that_it_did_not_set(guard_stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of(guard_stage)
    guesses, guard = guesses_of(guard_stage, images), guard_stage.fitted(images, ["ct", "mri", "xray"])
    left_out: list[Any] = []

    def strict(images: Any, modalities: Any, *, without: Any) -> Any:
        left_out.append(without)
        return "strict"

    monkeypatch.setattr(guard_stage, "fitted", strict)
    monkeypatch.setattr(
        guard_stage.Guesses, "accepted", lambda self, guard, features: np.full(len(features), guard != "strict")
    )
    sets_limit = images.held_out & (images.source != "drawn")
    assert (guard_stage.accepted(images, guesses, guard) == ~sets_limit).all()
    assert (np.sum(left_out, axis=0) == sets_limit).all()
    groups = [{*images.group[rows].tolist()} for rows in left_out]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {*images.group[sets_limit].tolist()}


def test_what_was_trained_on_is_no_test_of_a_kind_or_a_source_that_was_left_out(guard_stage: Any) -> None:
    images = images_of(guard_stage, ("isic2017", "dermatology"))
    images.trained[(images.source == "isic2017") & (np.arange(len(images.files)) % 60 < 20)] = True
    guard = guard_stage.fitted(images, ["ct", "mri", "xray"])
    figures = guard_stage.measure(images, guesses_of(guard_stage, images), guard)
    assert figures["kinds_left_out"]["dermatology"]["images"] == images.unseen[images.source == "isic2017"].sum() < 60
    assert figures["sources_left_out"]["xray, nih_cxr"]["images"] == 30
    assert figures["recognised"]["xray"]["value"] == 1


def test_only_where_patients_are_known_are_they_counted_as_such(guard_stage: Any) -> None:
    images = images_of(guard_stage, ("isic2017", "dermatology"))
    guard = guard_stage.fitted(images, ["ct", "mri", "xray"])
    sets = guard_stage.measure(images, guesses_of(guard_stage, images), guard)["sets"]
    assert sets["nih_cxr, xray"]["patients"] == 15
    for name in ("brain_mri, mri", "covid_cxr, xray", "medpix2, ct", "isic2017, dermatology"):
        assert "patients" not in sets[name]
        assert sets[name]["groups"] > 0
    assert sets["nih_cxr, xray"]["accepted_as"] == {"xray": 30}


def test_a_drawn_ecg_counts_as_trained_on_where_its_record_was(
    guard_stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hashlib import sha256
    from types import SimpleNamespace

    examples = Path(__file__).parents[2] / "examples" / "ecg"
    records = sorted(examples.rglob("*.hea"))[:2]
    sheet = tmp_path / "sheet.png"
    guard_stage.render(records[0], sheet, dpi=50)
    rows = [(sheet, guard_stage.DRAWN, "ECG sheet", str(record), record) for record in records]
    monkeypatch.setattr(guard_stage, "listed", lambda *args: iter(rows))
    from medclip.models.packs.pack import load_model

    model = load_model("medclip-mini")
    encode = SimpleNamespace(preprocess=model.preprocess, encode_image=lambda pixels: np.zeros((len(pixels), 4)))
    seen = frozenset({sha256(records[0].read_bytes()).hexdigest()})
    assert guard_stage.read_images(tmp_path, encode, seen).trained.tolist() == [True, False]
