"""Where methods differ from their published code is one list, in the code and in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.adaptation.budget import RATES, passes
from medclip.adaptation.deviations import DEVIATIONS, deviations_of
from medclip.adaptation.methods import METHODS, find_method, options_of

PAGE = Path(__file__).parents[2] / "docs/reference/adaptation_methods.md"
COMPARE = Path(__file__).parents[2] / "docs/how-to/compare_methods.md"


@pytest.mark.parametrize("method", METHODS)
def test_the_page_lists_every_difference_of_a_method_and_none_more(method: str):
    (part,) = (p for p in PAGE.read_text(encoding="utf-8").split("\n## ") if f"(`{method}`)" in p.split("\n")[0])
    listed = [line.removeprefix("- ").split(" [`")[0] for line in part.split("\n") if line.startswith("- ")]
    assert listed == [d.text for d in DEVIATIONS.get(method, ())]


def test_a_difference_goes_away_with_a_setting_that_the_method_has():
    for method, deviations in DEVIATIONS.items():
        known = options_of(find_method(method)._function())
        for d in deviations:
            assert set(d.unless) <= {*known, "chosen_on"}
            if d.unless:
                assert d.text not in deviations_of(method, d.unless)
                assert d.text in deviations_of(method, {})


@pytest.mark.parametrize("method", RATES)
def test_every_method_that_learns_step_by_step_tries_three_rates_which_the_docs_name(method: str):
    assert len(set(RATES[method])) == 3
    rates = ", ".join(f"{rate:.5f}".rstrip("0") for rate in RATES[method])
    (row,) = (r for r in COMPARE.read_text(encoding="utf-8").split("\n") if r.startswith("|") and f"`{method}`" in r)
    assert row.endswith(f"| {rates} |")


def test_the_budget_is_the_same_number_of_images_for_all():
    from medclip.adaptation.towers.train_loop import Loop

    for num_units in (1, 8, 31, 32, 33, 48, 64, 160):
        assert Loop(steps=100, lr=0.1).num_images(num_units) <= passes(num_units) * num_units
        assert Loop(steps=100, lr=0.1).num_images(num_units) > (passes(num_units) - 1) * num_units
