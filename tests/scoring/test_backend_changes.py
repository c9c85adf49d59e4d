"""What a back-end changes is counted in probabilities, decisions and ranks, and each may break its bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medclip.models.backends.known import BACKENDS
from medclip.sample import Modality
from medclip.scoring.backend_changes import Answer, compare_answers, directions_of

FLOAT, INT8 = BACKENDS["onnx"], BACKENDS["onnx-int8"]


def finding(*values: float) -> list[Answer]:
    return [Answer("findings", ("pneumonia",), False, np.array(values)[:, None])]


def test_equal_answers_hold_every_bound():
    change = compare_answers(finding(0.1, 0.6), finding(0.1, 0.6))
    assert (change.largest, change.decisions, change.ranks) == (0.0, 0, 0)
    assert not change.refused(FLOAT)
    assert not change.refused(INT8)


def test_a_larger_change_than_the_bound_is_refused_with_the_figure_and_its_place():
    change = compare_answers(finding(0.1, 0.6), finding(0.105, 0.6))
    assert change.largest == pytest.approx(0.005)
    assert change.refused(FLOAT) == "a probability changed by 0.005 in findings:pneumonia, 0.001 allowed"
    assert not change.refused(INT8)


def test_a_decision_that_changes_is_refused_of_int8_within_its_bound():
    change = compare_answers(finding(0.1, 0.498), finding(0.1, 0.502))
    assert change.decisions == 1
    assert change.refused(INT8) == "1 decision changed"


def test_images_that_change_their_order_are_refused_of_int8_unless_they_were_as_good_as_equal():
    swapped = compare_answers(finding(0.100, 0.104, 0.9), finding(0.104, 0.100, 0.9))
    assert swapped.ranks == 1
    assert swapped.refused(INT8) == "1 pair of images changed the order"
    for before, after in (((0.1000, 0.1009), (0.1029, 0.1000)), ((0.100, 0.103), (0.1005, 0.1000))):
        assert compare_answers(finding(*before), finding(*after)).ranks == 0


def test_the_answer_of_a_choice_is_its_likeliest_class():
    def view(*rows: Any) -> list[Answer]:
        return [Answer("view", ("ap", "pa"), True, np.array(rows, dtype=float))]

    assert compare_answers(view((0.501, 0.499)), view((0.499, 0.501))).decisions == 1
    assert compare_answers(view((0.3, 0.7)), view((0.305, 0.695))).decisions == 0


def test_what_is_no_number_is_refused():
    assert compare_answers(finding(0.1, 0.6), finding(0.1, float("nan"))).refused(INT8) == (
        "findings:pneumonia is no number"
    )


class LinearScorer:
    """Logits are f W + b."""

    def __init__(self, weights_DC: np.ndarray) -> None:
        self.weights_DC = weights_DC

    def logits(self, features_ND: np.ndarray, asked: Any, modality: Modality) -> np.ndarray:
        return features_ND @ self.weights_DC + 0.25


class AboutXrays:
    def fits_modality(self, modality: Modality) -> bool:
        return modality is Modality.XRAY


def test_the_direction_of_an_image_is_that_of_its_likeliest_answer():
    weights_DC = np.array([[1.0, -1.0], [0.0, 2.0], [3.0, 1.0]], np.float32)
    features_ND = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    scorer: Any = LinearScorer(weights_DC)
    asked: Any = AboutXrays()
    modalities = [Modality.XRAY, Modality.XRAY, Modality.FUNDUS]
    directions_ND = directions_of(scorer, [asked], features_ND, modalities)
    np.testing.assert_allclose(directions_ND, [[1, -1, 1], [-1, 1, -1], [0, 0, 0]])
    one_class: Any = LinearScorer(weights_DC[:, :1])
    np.testing.assert_allclose(directions_of(one_class, [asked], features_ND, modalities)[0], [1, 0, 3])
