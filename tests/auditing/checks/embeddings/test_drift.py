"""Drift between sites and months: planted changes are found, chance is not, dates are read."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from scipy.linalg import sqrtm

from medclip.auditing.checks.embeddings import drift
from medclip.auditing.checks.embeddings.drift import drift_between, drift_months, months_of
from tests.kits.audit_embeddings import attribute, named, noise, of_patients, people

PATIENTS = people(80, seed=3)
SITES = attribute((np.arange(80) % 3)[PATIENTS], ("north", "south", "west"), "site")
NAMES = ("maximum mean discrepancy", "Fréchet distance", "domain classifier AUROC")


def test_a_site_that_differs_is_found_by_all_three() -> None:
    vectors = noise(len(PATIENTS), 12)
    vectors[SITES.codes_N == 1, 3] += 0.6
    rows = drift_between(vectors, PATIENTS, SITES, num_permutations=49)
    for name in NAMES:
        assert named(rows, f"south against others: {name}")["p"] == 0.02
        assert "by chance" in named(rows, f"south against others: {name}")["note"]
    assert len(rows) == 9
    assert {r["what"] for r in rows} == {"drift"}


def test_on_patients_who_differ_from_each_other_p_is_spread_evenly() -> None:
    two = attribute((np.arange(80) % 2)[PATIENTS], ("a", "b"), "site")
    ps = []
    for seed in range(16):
        rows = drift_between(
            of_patients(PATIENTS, 1.5, dims=6, seed=seed), PATIENTS, two, num_permutations=39, seed=seed
        )
        assert [r["name"] for r in rows] == [f"a against b: {n}" for n in NAMES]  # not the other way round as well
        ps.append([r["p"] for r in rows])
    assert (np.mean(np.array(ps) <= 0.05, axis=0) <= 0.2).all()
    assert (np.abs(np.mean(ps, axis=0) - 0.5) < 0.25).all()


def test_a_month_that_differs_is_found_against_the_first_ones() -> None:
    months = (np.arange(80) % 5)[PATIENTS]
    vectors = noise(len(PATIENTS), 8)
    vectors[months == 4, 0] += 0.8
    dates = [f"2021{m + 1:02d}07" for m in months]
    dates[0] = "sometime"
    rows = drift_months(vectors, PATIENTS, dates, num_permutations=49)
    assert {r["name"].split(":")[0] for r in rows} == {
        "2021-04 against reference",
        "2021-05 against reference",
        "left out",
    }
    assert named(rows, "2021-05 against reference: domain classifier AUROC")["p"] == 0.02
    assert named(rows, "2021-04 against reference: Fréchet distance")["p"] > 0.02
    assert named(rows, "left out")["note"].endswith("not stated.")
    rows = drift_months(vectors, PATIENTS, dates, reference=("2021-05",), num_permutations=9)
    assert {r["name"].split(" ")[0] for r in rows} == {"2021-01", "2021-02", "2021-03", "2021-04", "left"}


def test_too_few_patients_are_named_and_left_out() -> None:
    small = attribute(np.where(PATIENTS < 5, 1, 0), ("big", "tiny"), "site")
    rows = drift_between(noise(len(PATIENTS)), PATIENTS, small)
    assert len(rows) == 1
    assert "tiny" in rows[0]["note"]
    assert rows[0]["note"].startswith("Not measured")
    assert drift_months(noise(len(PATIENTS)), PATIENTS, [None] * len(PATIENTS))[0]["note"].startswith("Not measured")
    rows = drift_between(noise(len(PATIENTS)), PATIENTS, SITES, reference=("nowhere",))
    assert rows[0]["note"].startswith("Not measured")


def test_discrepancy_is_the_unbiased_estimate() -> None:
    values = noise(12, 3)
    inside = np.arange(12) < 5
    found = drift._discrepancy(values)(inside[None])[0]
    squares = ((values[:, None] - values[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squares / np.median(squares[np.triu_indices(12, 1)]))
    a, b, c = kernel[:5, :5], kernel[5:, 5:], kernel[:5, 5:]
    expected = (a.sum() - 5) / 20 + (b.sum() - 7) / 42 - 2 * c.mean()
    assert found == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_is_that_of_two_normal_laws() -> None:
    values = noise(60, 4).astype(float)
    inside = np.arange(60) < 25
    values[inside] += 0.3
    found = drift._frechet(values)(inside[None])[0]
    a, b = np.cov(values[inside].T), np.cov(values[~inside].T)
    gap = values[inside].mean(axis=0) - values[~inside].mean(axis=0)
    assert found == pytest.approx(gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real), rel=1e-6)
    assert np.isnan(drift._frechet(values)((np.arange(60) < 1)[None])[0])


@pytest.mark.parametrize(
    ("value", "month"),
    [
        ("2021-03-05", "2021-03"),
        ("2021-03", "2021-03"),
        ("2021-03-05T10:11:12", "2021-03"),
        ("20210305", "2021-03"),
        ("202103", "2021-03"),
        ("20210305101112.000000", "2021-03"),
        (datetime.date(2021, 3, 5), "2021-03"),
        (datetime.datetime(2021, 3, 5, 8), "2021-03"),
        ("2021-13-05", ""),
        ("20210231", ""),
        ("05.03.2021", ""),
        ("", ""),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_dates_are_read_as_iso_or_dicom(value: object, month: str) -> None:
    assert months_of([value]) == [month]
