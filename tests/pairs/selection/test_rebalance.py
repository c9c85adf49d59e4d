"""Thinning a pile in several views: ADR's numbers, and the medical way of counting."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.pairs.selection.rebalance import (
    RebalanceSettings,
    draw,
    entity_counts,
    keep_probability,
    pairs_of,
    probabilities,
    questions_of,
    rebalance,
    threshold,
    tokens_of,
)
from tests.kits.piles import context, pile_of_texts

VIEWS = {"token": "token", "object": "object", "co_occurrence": "co_occurrence", "what_word": "what"}


def _instances(g: Any) -> list[dict[str, list[str]]]:
    """Return the golden instances; pairs of objects are made here."""

    def cells(name: str) -> list[list[str]]:
        return [[e for e in cell.split("|") if e] for cell in g[f"item_{name}"].tolist()]

    objects = cells("objects")
    return [
        {"token": token, "object": entities, "co_occurrence": pairs_of(entities), "what_word": what}
        for token, entities, what in zip(cells("tokens"), objects, cells("what"), strict=True)
    ]


@pytest.mark.golden
def test_counts_and_probabilities_are_those_of_the_reference(golden: Path) -> None:
    g = np.load(golden / "adr_rebalance.npz")
    instances = _instances(g)
    for view, tau in zip(VIEWS, g["thresholds"].tolist(), strict=True):
        counts = entity_counts(instances, view)
        assert dict(counts) == dict(zip(g[f"{view}_names"].tolist(), g[f"{view}_counts"].tolist(), strict=True)), view
        p = probabilities(counts, tau)
        assert [p[name] for name in g[f"{view}_names"].tolist()] == pytest.approx(g[f"{view}_prob"], abs=1e-15)


@pytest.mark.golden
@pytest.mark.parametrize(("pass_num", "alpha"), [(0, 1.0), (1, 0.9)])
def test_stored_draws_give_the_kept_list_and_are_used_up(golden: Path, pass_num: int, alpha: float) -> None:
    g = np.load(golden / "adr_rebalance.npz")
    instances = _instances(g)
    taus = dict(zip(VIEWS, g["thresholds"].tolist(), strict=True))
    p_of = {view: probabilities(entity_counts(instances, view), tau) for view, tau in taus.items()}
    draws = iter(g[f"draws_pass{pass_num}_alpha{alpha}"].tolist())
    kept_N = draw(instances, p_of, pass_num=pass_num, alpha=alpha, uniform=lambda: next(draws))
    assert np.flatnonzero(kept_N).tolist() == g[f"kept_pass{pass_num}_alpha{alpha}"].tolist()
    assert next(draws, None) is None


def test_the_hand_check_of_the_specification() -> None:
    p_of = {"token": probabilities({"opacity": 40}, 10), "object": probabilities({"stent": 5}, 10)}
    instance = {"token": ["opacity"], "object": ["stent"]}
    expected = {(0, 1.0): 1.0, (1, 1.0): 0.25, (0, 0.8): 0.8, (1, 0.8): 0.2}
    for (pass_num, alpha), probability in expected.items():
        assert keep_probability(instance, p_of, pass_num=pass_num, alpha=alpha) == pytest.approx(probability)


def test_simulated_shares_are_those_of_the_closed_form() -> None:
    p_of = {"object": {"a": 0.3, "b": 0.6}, "co_occurrence": {"a,b": 0.5}, "token": {"x": 0.2}}
    instance = {"object": ["a", "b"], "co_occurrence": ["a,b"], "token": []}
    rng, num = np.random.default_rng(0), 20_000
    rule = {"pass_num": 1, "alpha": 0.9, "empty_passes": 0.5}
    expected = keep_probability(instance, p_of, **rule)
    kept = draw([instance] * num, p_of, uniform=rng.random, **rule).mean()
    assert abs(kept - expected) < 3 * (expected * (1 - expected) / num) ** 0.5


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20))
def test_thresholds_fall_as_more_is_covered(counts: list[int]) -> None:
    named = {str(i): n for i, n in enumerate(counts)}
    taus = [threshold(named, share) for share in (0.1, 0.5, 0.9, 1.0)]
    assert all(one >= other for one, other in pairwise(taus))
    assert taus[-1] == min(counts)


def test_words_and_questions_are_read_of_a_text() -> None:
    assert tokens_of("The left lung, and the left rib") == ["left", "lung", "left", "rib"]
    assert questions_of("How many masses can be seen?") == ["how many"]
    assert questions_of("What is the location of the mass?") == ["where"]
    assert questions_of("Chest film. Is the heart enlarged?") == ["is there"]
    assert questions_of("There are many masses.") == []


REPORTS = [*["Cardiomegaly. No pleural effusion."] * 30, "Pneumothorax and atelectasis with a pleural effusion."]


def test_a_rare_pair_is_likelier_kept_than_frequent_ones(tmp_path: Path) -> None:
    few: Any = {"object": 3, "co_occurrence": 3, "token": 3}
    verdict = rebalance(*pile_of_texts(REPORTS), RebalanceSettings(thresholds=few), context(tmp_path), 0)
    assert verdict.value_M is not None
    assert verdict.value_M[-1] > 2 * verdict.value_M[0]
    assert verdict.facts["views"]["object"]["instances_without"] == 0


def test_pairs_of_one_patient_stay_or_go_together(tmp_path: Path) -> None:
    patients = [f"p{n // 4}" for n in range(len(REPORTS))]
    verdict = rebalance(*pile_of_texts(REPORTS, patients), RebalanceSettings(coverage=0.5), context(tmp_path), 0)
    kept = [set(verdict.kept_M[start : start + 4].tolist()) for start in range(0, len(REPORTS), 4)]
    assert all(len(of_patient) == 1 for of_patient in kept)
    assert verdict.facts["instances"] == len(kept)


def test_nothing_is_kept_at_alpha_zero_and_all_at_endless_thresholds(tmp_path: Path) -> None:
    pile, rows = pile_of_texts(REPORTS)
    assert not rebalance(pile, rows, RebalanceSettings(alpha=0), context(tmp_path), 0).kept_M.any()
    endless: Any = {"object": 1e9, "token": 1e9}
    settings = RebalanceSettings(views=("object", "token"), thresholds=endless)
    assert rebalance(pile, rows, settings, context(tmp_path), 0).kept_M.all()


def test_views_that_cannot_be_enough_are_said(tmp_path: Path) -> None:
    verdict = rebalance(*pile_of_texts(REPORTS), RebalanceSettings(pass_num=3), context(tmp_path), 0)
    assert not verdict.kept_M.any()
    assert any("Nothing can pass" in note for note in verdict.notes)


def test_the_tail_weighs_more_afterwards(tmp_path: Path) -> None:
    sides = ["Cardiomegaly.", "Pleural effusion.", "Pneumothorax.", "Atelectasis.", "Nodule."]
    texts = [text for n, text in enumerate(sides) for _ in range(240 // (n + 1) ** 2)]
    settings = RebalanceSettings(views=("object",), pass_num=0, coverage=0.9)
    verdict = rebalance(*pile_of_texts(texts), settings, context(tmp_path), 0)
    facts = verdict.facts["views"]["object"]
    assert facts["gini_after"] < facts["gini_before"]
