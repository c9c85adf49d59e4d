"""A small run of benchmarks/audit_power.py: the test of a gap keeps its level, and a small group does not drown it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.audit_power import LEVEL, METRICS, SETTINGS, broken, family, findings
from tests.kits.size import is_nightly, sized

SIMULATIONS, FOUND = sized(80, least=20), sized(30, least=12)


def setting_of(name: str, sizes: tuple[int, ...]):
    return next(s for s in SETTINGS if (s.name, s.sizes) == (name, sizes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [("alike", (400, 40)), ("alike, view of an image", (500, 300, 40)), ("shifted scores", (600, 600, 40))],
)
def test_the_test_of_a_gap_errs_no_more_often_than_it_says(name: str, sizes: tuple[int, ...]):
    setting = setting_of(name, sizes)
    counted = findings(setting, SIMULATIONS, 199, seed=0)
    assert broken(setting, counted) == []
    limit = LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / SIMULATIONS)
    for metric in METRICS:
        assert setting.differs(metric) or np.mean(counted[metric, "maxT"]) <= limit


@pytest.mark.slow
def test_a_group_of_forty_beside_groups_of_a_thousand_does_not_drown_a_gap():
    setting = setting_of("AUROC .12 lower in a large group", (1000, 1000, 40))
    counted = findings(setting, FOUND, 199, seed=0)
    assert broken(setting, counted) == []
    assert np.mean(counted["auroc", "maxT"]) >= (0.95 if is_nightly() else 0.95 - 3 * np.sqrt(0.95 * 0.05 / FOUND))
    assert np.mean(counted["tpr", "maxT"]) > np.mean(counted["tpr", "max − min"]) + 0.2


@pytest.mark.slow
def test_the_family_of_findings_errs_no_more_often_than_it_says_and_finds_more_than_holms_method():
    num = sized(60, least=12)
    errors, found = family(0.0, num, seed=0), family(0.08, num, seed=1000)
    assert np.mean(errors["step-down, anything"]) <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / num)
    assert np.mean(found["step-down, the group"]) >= np.mean(found["Holm, the group"])
    assert not np.any(np.greater(found["Holm, AUROC of the group"], found["raw test"]))
