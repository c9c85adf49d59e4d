"""What is printed of a heat map whose checks do not speak for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medclip.explaining.explanation import Curve, Explanation, HeatMap, Randomised, Sensitivity
from medclip.imaging.geometry import placement
from medclip.reports.explain import sentences, warnings

RISING, FALLING = (0.0, 0.9, 1.0), (1.0, 0.1, 0.0)
GOOD = tuple(
    Curve(order, RISING if order == "map" else (0.0, 0.5, 1.0), FALLING if order == "map" else (1.0, 0.5, 0.0))
    for order in ("map", "random", "centre")
)


PASSED = "  Checks passed: least related question, random weights, insertion and deletion."


def heat(**values: Any) -> HeatMap:
    grid = np.eye(4, dtype=np.float32)
    facts = {"name": "mass", "against": "no mass", "title": "mass against no mass", "task": "prompt", "score": 1.0}
    rest = {
        "scores": (1.0,),
        "grids": (grid,),
        "empty": ("",),
        "padding": (0.0,),
        "method": "m",
        "layer": "l",
        "top": 0,
    }
    return HeatMap(**{**facts, **rest, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"sensitivity": Sensitivity("fatty_glandular", "breast_density", 0.9)},
            "the map of “fatty glandular” (breast density), the least related question, is almost the same",
        ),
        ({"randomised": (Randomised("a", 0.1), Randomised("b", 0.5))}, "when all weights are random"),
        ({"curves": (GOOD[0], Curve("random", RISING, (1.0, 0.05, 0.0)), GOOD[2])}, "not follow the map better than a"),
        ({"curves": (GOOD[0], GOOD[1], Curve("centre", RISING, FALLING))}, "going from the middle outwards"),
        ({"padding": (0.1,)}, "10 % of the map lies on padding"),
    ],
)
def test_each_check_that_fails_is_one_sentence(values: dict[str, Any], message: str) -> None:
    (warning,) = warnings(heat(**values))
    assert message in warning


def test_a_map_that_stands_its_checks_has_no_warning() -> None:
    sensitivity = Sensitivity("edema", "chest_xray_findings", 0.89)
    fine = heat(curves=GOOD, randomised=(Randomised("a", 0.9), Randomised("b", 0.49)), sensitivity=sensitivity)
    assert list(warnings(fine)) == []
    unit = Explanation(1, "film.png", maps=(fine,), labels=("",), placements=(placement(8, 8, 8, "longest"),))
    assert list(sentences(unit)) == ["mass against no mass: score 1.00, 73 %; m at l", PASSED]
    grey = replace(unit, maps=(replace(fine, caution="within its source only (a)"),))
    assert list(sentences(grey)) == [
        "mass against no mass: score 1.00, 73 % · within its source only (a); m at l",
        PASSED,
    ]
    figures = ({"metric": "auroc", "in_words": "AUROC 0.98 (0.84 to 1.00) on unseen images"},)
    known = replace(unit, maps=(replace(fine, figures=figures),))
    assert next(sentences(known)) == (
        "mass against no mass: score 1.00, 73 % · AUROC 0.98 (0.84 to 1.00) on unseen images; m at l"
    )


def test_every_check_has_a_verdict_in_words_and_json_has_it_too() -> None:
    failing = heat(curves=(GOOD[0], GOOD[1], Curve("centre", RISING, FALLING)), randomised=(Randomised("a", 0.2),))
    verdicts = {one.check: (one.passed, one.sentence) for one in failing.verdicts}
    assert verdicts["random weights"] == (
        True,
        "The map changes with the weights: with all of them random its correlation is 0.20, below 0.5.",
    )
    assert verdicts["insertion and deletion"][0] is False
    assert "least related question" not in verdicts
    assert failing.facts()["verdicts"][1]["sentence"] == verdicts["insertion and deletion"][1]
    assert list(warnings(failing)) == [verdicts["insertion and deletion"][1]]
