"""The verb `medclip.audit` takes the options of its command."""

from __future__ import annotations

import pytest

import medclip
from medclip.auditing.options import AuditOptions
from medclip.errors import MedclipError, Reason
from tests.kits.audit_tables import audit_table


def test_every_option_of_the_command_is_an_argument_of_the_verb():
    table = audit_table(150, splits=True)
    named = medclip.audit(
        table, by=["sex"], where={"split": "test"}, choose_where={"split": "val"}, num_resamples=200, permutations=200
    )
    assert named.rows("thresholds")
    assert named.tables()["metrics"].num_rows
    everybody = medclip.audit(table, by=["sex"], threshold=0.5, num_resamples=200, permutations=200)
    assert [row["n"] for row in named.metrics] != [row["n"] for row in everybody.metrics]


def test_a_mistyped_option_is_refused_with_the_one_that_was_meant():
    with pytest.raises(MedclipError, match="num_resamples") as caught:
        medclip.audit(audit_table(40), by=["sex"], num_resample=200)
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_options_by_name_and_as_values_are_not_mixed():
    with pytest.raises(MedclipError, match="seed beside reading or options"):
        medclip.audit(audit_table(40), by=["sex"], seed=1, options=AuditOptions(num_resamples=200))
