"""Which class of a study is drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from medclip.reports.score.heat_maps import _chosen


def row(task: str, class_: str, kind: str, probability: float) -> Any:
    return SimpleNamespace(task=task, class_=class_, kind=kind, probability=probability)


SCORES = [
    row("view", "pa", "multiclass", 0.9),
    row("view", "ap", "multiclass", 0.1),
    row("findings", "mass", "multilabel", 0.2),
    row("findings", "tube", "multilabel", 0.3),
]


@pytest.mark.parametrize(
    ("scores", "named", "class_"),
    [
        (SCORES, "top", "tube"),
        (SCORES[:2], "top", "pa"),
        (SCORES, "view", "pa"),
        (SCORES, "view:ap", "ap"),
        (SCORES, "findings:mass", "mass"),
        (SCORES[:2], "findings", None),
    ],
)
def test_a_finding_goes_before_a_choice_unless_one_is_named(scores: Any, named: str, class_: str | None) -> None:
    chosen = _chosen(scores, named)
    assert (chosen and chosen.class_) == class_
