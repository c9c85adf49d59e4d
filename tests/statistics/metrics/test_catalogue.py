"""A metric that is a row of the table is in every part of an audit, without a change of anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, mean_absolute_error

import medclip
from medclip.errors import MedclipError
from medclip.statistics.metrics import catalogue
from medclip.statistics.metrics.catalogue import METRICS, Metric, of_positives_and_called
from medclip.statistics.metrics.rates import Averaged, Counted, ratio
from tests.kits.audit_tables import audit_table

JACCARD = Metric(
    title="Jaccard index (critical success index)",
    head="Jaccard",
    in_words="the Jaccard index",
    aliases=("critical success index",),
    what="threshold",
    better="high",
    formula="TP / (TP + FP + FN)",
    reference="Jaccard, Bull. Soc. Vaud. Sci. Nat. 37:547-579 (1901)",
    values=Counted(lambda o: ratio(o.tp, o.tp + o.fp + o.fn)),
    interval="share",
    cases=of_positives_and_called,
    main=True,
    on_card=True,
    compared="groups",
    gap="tested",
    worst_gap=True,
)
ABSOLUTE = Metric(
    title="mean absolute error",
    what="calibration",
    needs_probability=True,
    better="low",
    formula="sum w |s - y| / sum w",
    reference="none",
    values=Averaged(lambda rows: (np.zeros(len(rows.score_n), np.int64), np.abs(rows.score_n - rows.truth_n))),
    interval="mean",
    reveals="nothing",
    compared="models",
    gap="shown",
)


@pytest.fixture
def rows_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "jaccard", JACCARD)
    monkeypatch.setitem(METRICS, "absolute_error", ABSOLUTE)


@pytest.mark.usefixtures("rows_added")
def test_a_metric_that_a_test_adds_is_measured_compared_tested_required_and_written(tmp_path: Path):
    table = audit_table(200, gap=0.9)
    second = table.assign(flu_score=(table.flu_score + 0.5 * table.flu) / 1.5)
    result = medclip.audit(
        table,
        by=["sex"],
        name="m",
        compare={"second": second},
        threshold=0.5,
        require=["critical success index >= 0.1 in each sex", "jaccard gap<=0.9 in sex", "absolute_error<=0.9"],
        primary=["jaccard in sex"],
        num_resamples=100,
        num_permutations=100,
        out=tmp_path / "audit",
    )

    def of(name: str, **wanted: object) -> list[Any]:
        return [r for r in result.rows(name) if all(r.get(k) == v for k, v in wanted.items())]

    expected = {
        "jaccard": lambda own: jaccard_score(own.flu, own.flu_score >= 0.5),
        "absolute_error": lambda own: mean_absolute_error(own.flu, own.flu_score),
    }
    for metric, measure in expected.items():
        for group in "FM":
            (row,) = of("metrics", model="m", metric=metric, attribute="sex", group=group)
            assert row["value"] == pytest.approx(measure(table[table.sex == group]), abs=1e-12)
            assert 0 <= row["low"] < row["value"] < row["high"] <= 1
            (row,) = of("models", metric=metric, group=group)
            assert row["value"] == pytest.approx(
                measure(second[second.sex == group]) - measure(table[table.sex == group]), abs=1e-12
            )
            assert 0 <= row["p"] <= 1
    (row,) = of("differences", model="m", metric="jaccard", group="F")
    assert row["high"] < 0
    assert row["p_holm"] < 0.05
    assert not of("differences", metric="absolute_error")
    (gap,) = of("gaps", model="m", gap="jaccard_max_min")
    assert (gap["worst_group"], gap["family"]) == ("F", "primary gaps, m")
    assert gap["p"] < 0.05
    (gap,) = of("gaps", model="m", gap="absolute_error_max_min")
    assert gap["worst_group"] == "F"
    assert "p" not in gap
    assert of("gaps", model="m", gap="jaccard_worst_overall")
    verdicts = {r["requirement"]: r["verdict"] for r in of("requirements", part="requirement", model="m")}
    assert set(verdicts.values()) == {"met"}
    assert len(verdicts) == 3
    page = (tmp_path / "audit" / "report.html").read_text()
    for words in ("Jaccard, highest − lowest", "The Jaccard index:", "Bull. Soc. Vaud.", "Mean absolute error"):
        assert words in page


@pytest.mark.usefixtures("rows_added")
def test_what_is_said_against_a_requirement_follows_from_the_row():
    table = audit_table(40)
    with pytest.raises(MedclipError, match="sign of a worse Jaccard index"):
        medclip.audit(table, by=["sex"], require=["jaccard<=0.5"])
    with pytest.raises(MedclipError, match="between 0 and 1"):
        medclip.audit(table, by=["sex"], require=["jaccard>=5"])
    with pytest.raises(MedclipError, match="'absolute_error' is not tested"):
        medclip.audit(table, by=["sex"], primary=["absolute_error in sex"])


def test_every_row_says_what_tables_and_pages_ask_of_it():
    for name, metric in METRICS.items():
        assert metric.title, name
        assert metric.formula, name
        assert metric.reference, name
        if metric.gap_as is not None:
            assert set(metric.gap_as) <= set(METRICS), name
        if metric.gap == "tested":
            assert metric.what in ("discrimination", "survival", "threshold"), name
    aliases = [alias for metric in METRICS.values() for alias in metric.aliases]
    assert len({*aliases, *METRICS}) == len(aliases) + len(METRICS)


def test_names_are_listed_by_kind_and_what_has_a_better_side_first():
    assert catalogue.names_of(lambda m: m.main) == ("auroc", "c_index", "tpr", "fpr")
    assert catalogue.names_of(lambda m: m.main, rates_first=True) == ("tpr", "fpr", "auroc", "c_index")
    shown = ("ppv", "selection_rate", "auprc_adjusted", "brier", "calibration_in_the_large")
    assert catalogue.names_of(lambda m: m.gap == "shown", rates_first=True) == shown
