"""The language of what is declared: what it reads, and what it says of what it cannot read."""

from __future__ import annotations

import pytest

from medclip.auditing.declared import Declared, declared, hypothesis, is_primary, requirement
from medclip.errors import MedclipError


@pytest.mark.parametrize(
    ("text", "metric", "at_least", "bound", "label", "attribute", "gap"),
    [
        ("tpr>=0.80 in each sex", "tpr", True, 0.8, None, "sex", False),
        ("auroc >= 0.8 for pneumonia", "auroc", True, 0.8, "pneumonia", None, False),
        ("fpr<=0.1 overall", "fpr", False, 0.1, None, None, False),
        ("tpr gap<=0.05 in sex", "tpr", False, 0.05, None, "sex", True),
        ("Sensitivity ≥ 80 % in each sex*age for Pleural Mass", "tpr", True, 0.8, "Pleural Mass", "sex*age", False),
        ('ppv>=.2 for "Air in pleura" in each view', "ppv", True, 0.2, "Air in pleura", "view", False),
        ("auroc >= .8 overall for flu", "auroc", True, 0.8, "flu", None, False),
        ("brier<=0.2", "brier", False, 0.2, None, None, False),
    ],
)
def test_a_requirement_is_read_in_any_order_of_its_parts(text, metric, at_least, bound, label, attribute, gap):
    one = requirement(text)
    assert (one.metric, one.at_least, one.label, one.attribute, one.gap) == (metric, at_least, label, attribute, gap)
    assert one.bound == pytest.approx(bound)
    assert one.text == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("tpr 0.8", "has no >= or <="),
        ("tpr=0.8", "Write >= (at least)"),
        ("tprr>=0.8", "Did you mean 'tpr'?"),
        ("tpr>=high", "no number behind >="),
        ("tpr>=0.8.3", "no number behind >="),
        ("tpr>=0.8 in sex", "in each sex"),
        ("tpr<=0.8", "higher is better: write >="),
        ("fpr>=0.1", "lower is better: write <="),
        ("tpr>=80", "or 80 %"),
        ("tpr gap>=0.05 in sex", "at most a number above 0"),
        ("tpr gap<=0 in sex", "at most a number above 0"),
        ("tpr gap<=0.05", "names no attribute"),
        ("tpr gap<=0.05 overall", "names no attribute"),
        ("ece<=0.1", "chance alone makes larger"),
        ("tpr>=0.8 everywhere", "ends in 'everywhere'"),
        ("tpr>=0.8 for a for b", "ends in"),
        ("tpr>=0.8 in each sex overall", "ends in"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_remedy(text: str, remedy: str):
    with pytest.raises(MedclipError) as caught:
        requirement(text)
    assert remedy in str(caught.value)
    assert repr(" ".join(text.split())) in str(caught.value)


def test_margins_are_requirements_of_a_gap():
    (one,) = declared(margins={"tpr:sex": "0.05"}).requirements
    assert (one.metric, one.bound, one.attribute, one.gap) == ("tpr", 0.05, "sex", True)
    with pytest.raises(MedclipError, match="names no attribute"):
        declared(margins={"tpr": "0.05"})


def test_a_hypothesis_names_a_gap_of_every_label_or_of_one():
    asked = Declared(primary=(hypothesis("sensitivity for Flu in sex"), hypothesis("auroc in age")))
    assert is_primary(asked, "tpr_max_min", "flu", "Sex")
    assert not is_primary(asked, "tpr_max_min", "cold", "sex")
    assert is_primary(asked, "auroc_max_min", "cold", "age")
    assert not is_primary(asked, "auroc_max_min", "cold", "sex")
    with pytest.raises(MedclipError, match="names no attribute"):
        hypothesis("tpr for flu")


def test_nothing_is_declared_twice_and_a_confidence_is_above_a_half():
    with pytest.raises(MedclipError, match="declared twice"):
        declared(["tpr>=0.8", "tpr>=0.8"])
    with pytest.raises(MedclipError, match=r"between 0\.5 and 1"):
        declared(["tpr>=0.8"], confidence=5)
