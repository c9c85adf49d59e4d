"""What is looked at beside a question: the least related one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medclip.scoring.targets import Targets
from medclip.text.vocabulary.task_kinds import TASK_KINDS


def task(name: str, kind: str, **directions: tuple[float, float]) -> Any:
    return SimpleNamespace(
        task=SimpleNamespace(name=name, rules=TASK_KINDS[kind]), names=tuple(directions), of=directions
    )


VIEW = task("view", "multiclass", pa=(0.0, 1.0), ap=(0.1, 1.0), lateral=(0.2, 1.0))
ALIKE = task("findings", "multilabel", mass=(1.0, 0.0), nodule=(1.0, 0.1))
OTHERS = task("more", "multilabel", tube=(0.3, 1.0), clip=(0.2, 1.0))


@pytest.mark.parametrize(("others", "name"), [([VIEW, ALIKE, OTHERS], "clip"), ([VIEW, ALIKE], "pa"), ([], None)])
def test_a_finding_at_a_right_angle_goes_before_a_view_and_a_view_before_a_related_finding(
    others: list[Any], name: str | None
) -> None:
    targets: Any = Targets.__new__(Targets)
    targets._others = lambda modality: others
    targets._target = lambda question, modality: SimpleNamespace(
        name=question.class_, direction=lambda feature: np.array(question.asked.of[question.class_])
    )
    asked: Any = SimpleNamespace(name="mass", task="findings", direction=lambda feature: np.array([1.0, 0.0]))
    other = targets.least_related(asked, np.zeros(2, np.float32), None)
    assert (other and other.name) == name
