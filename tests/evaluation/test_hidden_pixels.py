"""The error of hidden pixels on held-out images: of the right weights, with the right mask, over patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medclip.errors import MedclipError
from medclip.evaluation.hidden_pixels import (
    HIDDEN_PIXELS,
    MASKED_ERROR,
    MASKED_GAIN,
    mean_over_patients,
    measure_hidden,
)
from medclip.models.packs.pack import load_model
from medclip.shards.reading.samples import ShardReader
from medclip.training.batches.samples import Drawing
from medclip.training.loop import run_recipe
from medclip.training.recipe.objective import Masked
from medclip.training.steps.masked_pixels import MaskedPart
from tests.kits.training import make_shards, masked_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with twelve test images, two of each patient, and a masked run on them."""
    folder = tmp_path_factory.mktemp("hidden")
    make_shards(folder, num_test=12)
    run_recipe(masked_recipe(folder / "s"), out=folder / "run")
    return folder


def _measured(folder: Path, limit: int | None = None, seen: frozenset[str] = frozenset()) -> tuple[float, dict]:
    model = load_model(folder / "run" / "pack")
    settings = Masked(weight=1, ratio=0.75, decoder="dec128d2")
    part = MaskedPart(model.clip, 32, settings, model.preprocess.std)
    part.load_state_dict(load_file(folder / "run" / "masked.safetensors"))
    drawing = Drawing(model.preprocess, 3, None, 0.3, 0.5, words=False)
    with ShardReader([str(folder / "s")], "test") as reader:
        figures = measure_hidden(model, part.eval(), reader, drawing, seen=seen, limit=limit)
    node = figures.figures[HIDDEN_PIXELS][MASKED_ERROR]
    gain = figures.figures[HIDDEN_PIXELS][MASKED_GAIN]
    return node["value"], {**node, "notes": figures.notes, "patients": figures.num_patients, "gain": gain}


def test_the_error_lies_in_its_interval_and_beside_that_of_a_guess_without_a_model(run: Path) -> None:
    value, node = _measured(run)
    assert node["low"] < value < node["high"]
    assert (node["num_images"], node["patients"]) == (12, 6)
    assert node["chance"] > 0
    assert any("without a model" in note for note in node["notes"])
    assert _measured(run) == (value, node)


def test_the_gain_is_that_of_both_errors_on_the_same_patients(run: Path) -> None:
    value, node = _measured(run)
    gain = node["gain"]
    assert gain["value"] == pytest.approx(1 - value / node["chance"], rel=2e-3)
    assert gain["low"] < gain["value"] < gain["high"]
    assert gain["chance"] == 0


def test_the_gain_does_not_waver_with_how_hard_the_images_are() -> None:
    naive_N = np.random.default_rng(0).uniform(0.1, 3, 40)
    error_N = 0.9 * naive_N
    gain = mean_over_patients(naive_N - error_N, naive_N, list(range(40)), 500)
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    alone = mean_over_patients(error_N, np.ones(40), list(range(40)), 500)
    assert alone.high > naive_N.mean()  # of the error alone one could not say that it is the smaller one


def test_other_weights_have_another_error(run: Path) -> None:
    value, _ = _measured(run)
    path = run / "run" / "masked.safetensors"
    weights = path.read_bytes()
    try:
        from safetensors.torch import save_file

        save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}, path)
        assert _measured(run)[0] != pytest.approx(value, rel=0.01)
    finally:
        path.write_bytes(weights)


def test_patients_of_training_are_left_out_and_nothing_left_is_said(run: Path) -> None:
    with ShardReader([str(run / "s")], "test") as reader:
        patients = [row["patient"] for row in reader.provenance()]
    _, node = _measured(run, seen=frozenset(patients[:1]))
    assert (node["num_images"], node["patients"]) == (10, 5)
    with pytest.raises(MedclipError, match="all images of the split"):
        _measured(run, seen=frozenset(patients))


def test_the_interval_is_that_of_means_of_patients() -> None:
    rng = np.random.default_rng(0)
    patient_P = rng.normal(1, 0.2, 40)
    whose = np.repeat(np.arange(40), 3)
    values_N = np.repeat(patient_P, 3)  # all images of a patient alike: 40 values, and not 120
    estimate = mean_over_patients(values_N * 7, np.full(120, 7.0), whose.tolist(), 2000)
    half = 2.02 * patient_P.std(ddof=1) / np.sqrt(40)
    assert estimate.value == pytest.approx(patient_P.mean())
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.1)
    assert not mean_over_patients(values_N[:3], np.ones(3), [0, 0, 0], 100).has_interval
    assert mean_over_patients(np.array([1.0, 9.0]), np.array([1.0, 3.0]), [0, 1], 100).value == 2.5
