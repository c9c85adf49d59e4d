"""What intervals resample, whose images are unseen, and what position alone learns from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medclip.adaptation.maps.decoders import position_margin
from medclip.evaluation.dense.measure import Towers, _answers, _figures, mean_over_runs
from medclip.evaluation.dense.towers import PACK, POSITION
from medclip.statistics.resampling.resampled import interval_of
from medclip.statistics.resampling.weights import draw_weights


def test_intervals_resample_patients_and_not_images() -> None:
    dice_N, widths = np.repeat(np.linspace(0, 1, 8), 6), []
    for patients_N in (np.arange(48), np.repeat(np.arange(8), 6)):
        weights_PB = draw_weights(int(patients_N.max()) + 1, 400, seed=0)
        figure: Any = interval_of(mean_over_runs([dice_N], patients_N, weights_PB))
        widths.append(figure.high - figure.low)
    assert widths[1] > 1.8 * widths[0]


def test_another_image_of_a_patient_who_was_trained_on_is_not_unseen() -> None:
    patients_N, seen_N = np.array([0, 0, 1, 1, 2, 2]), np.array([True, False, False, False, False, False])
    dice_N = np.array([1.0, 0.9, 0.2, 0.2, 0.4, 0.4])
    scores = {(name, 1.0, 0): np.stack([dice_N, dice_N]) for name in (PACK, POSITION)}
    models: Any = {PACK: None}
    towers = Towers(models, {}, frozenset())
    cells, _ = _figures(towers, scores, {(1.0, 0): np.arange(3)}, patients_N, seen_N, 50)
    assert cells[0].unseen is not None
    assert cells[0].unseen.value == pytest.approx(0.3)


def test_position_alone_learns_from_the_chosen_images() -> None:
    labels = np.zeros((6, 8, 8), np.uint8)
    labels[:3, :4], labels[3:, 4:] = 1, 1
    of: Any = SimpleNamespace(labels=labels)
    answers = _answers(of, POSITION, np.array([2, 0]), np.array([3, 4, 5]), 0)
    assert len(answers) == 3
    np.testing.assert_array_equal(answers[0], position_margin(labels[[0, 2]]))
    assert (answers[0][:4] > 0).all()
