"""Balancing a pile over concepts: MetaCLIP's numbers, and the medical way of counting."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.pairs.selection import balance as module
from medclip.pairs.selection.balance import (
    BalanceSettings,
    Mentions,
    balance,
    concept_mentions,
    entry_counts,
    gini,
    keep_probabilities,
    kept_by_pairs,
    once_a_patient,
    probabilities,
    t_of_share,
    tail_share,
    units_of,
)
from medclip.pairs.selection.run_steps import read_steps, run_steps
from medclip.text.checks.matching import match_texts
from medclip.text.checks.metadata import medical_metadata, plain_metadata
from tests.kits.piles import context, pile_of, pile_of_texts


@pytest.mark.golden
@pytest.mark.parametrize("t", [5, 12])
def test_counts_probabilities_and_kept_texts_are_those_of_the_published_code(golden: Path, t: int) -> None:
    g = np.load(golden / "metaclip_balance.npz")
    metadata = plain_metadata(g["metadata"].tolist(), "golden")
    index_M2 = match_texts(g["texts"].tolist(), metadata).index_M2
    counts_E = entry_counts(index_M2, len(metadata))
    assert np.array_equal(counts_E, g["entry_count"])
    p_E = probabilities(counts_E, t)
    assert np.array_equal(p_E, g[f"entry_prob_t{t}"])
    assert tail_share(counts_E, t) == g[f"tail_fraction_t{t}"]
    num = len(g["texts"])
    assert np.array_equal(np.flatnonzero(kept_by_pairs(index_M2, p_E, g[f"u_t{t}"], num)), g[f"kept_text_ids_t{t}"])
    assert np.allclose(keep_probabilities(index_M2, p_E, num), g[f"keep_prob_t{t}"], rtol=0, atol=1e-12)


@pytest.mark.golden
def test_t_is_that_of_the_published_code_for_a_share(golden: Path) -> None:
    g = np.load(golden / "metaclip_balance.npz")
    assert t_of_share(g["entry_count"], 0.1) == g["p_to_t_0.1"]
    assert t_of_share(g["entry_count"], 0.3) == g["p_to_t_0.3"]


@pytest.mark.golden
def test_the_published_walk_with_early_exit_is_the_rule_of_pairs(golden: Path) -> None:
    g = np.load(golden / "metaclip_balance.npz")
    index_M2, p_E = g["inverted_index"], g["entry_prob_t5"]
    draws, u_M, passed = iter(g["seq_draws_t5"]), np.ones(len(g["inverted_index"])), set()
    for m, (entry, text) in enumerate(index_M2):
        if text not in passed:  # later entries of a text that passed are not drawn, and change nothing
            u_M[m] = next(draws)
            passed |= {text} if u_M[m] < p_E[entry] else set()
    assert np.array_equal(np.flatnonzero(kept_by_pairs(index_M2, p_E, u_M, len(g["texts"]))), g["seq_kept_t5"])


@pytest.mark.golden
@pytest.mark.parametrize("rule", ["pair", "text"])
def test_the_step_keeps_every_text_with_an_entry_where_t_is_infinite(golden: Path, tmp_path: Path, rule: str) -> None:
    g = np.load(golden / "metaclip_balance.npz")
    (tmp_path / "entries.txt").write_text("\n".join(g["metadata"].tolist()))
    settings = BalanceSettings(metadata="entries.txt", t=math.inf, rule=rule, reference=True)  # pyright: ignore
    verdict = balance(*pile_of_texts(g["texts"].tolist()), settings, context(tmp_path), 0)
    assert np.array_equal(np.flatnonzero(verdict.kept_M), g["keep_inf"])


@pytest.mark.golden
def test_the_step_in_its_reference_mode_keeps_what_its_draws_say(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = np.load(golden / "metaclip_balance.npz")
    (tmp_path / "entries.txt").write_text("\n".join(g["metadata"].tolist()))
    settings = BalanceSettings(metadata="entries.txt", t=5, rule="pair", reference=True)
    shared = context(tmp_path)
    monkeypatch.setattr(type(shared), "rng", lambda *_: Stored(g["u_t5"]))
    verdict = balance(*pile_of_texts(g["texts"].tolist(), patients=["same"] * len(g["texts"])), settings, shared, 0)
    assert np.array_equal(np.flatnonzero(verdict.kept_M), g["kept_text_ids_t5"])
    assert np.allclose(verdict.value_M, g["keep_prob_t5"], rtol=0, atol=1e-12)
    assert verdict.facts["tail_share"] == g["tail_fraction_t5"]


class Stored:
    """Hands out draws that were stored."""

    def __init__(self, draws: Any) -> None:
        self.draws = draws

    def random(self, num: int) -> Any:
        assert num == len(self.draws)
        return self.draws


def test_the_hand_check_of_the_specification() -> None:
    p_E = probabilities(np.array([10, 2, 10], np.uint64), 4)
    assert p_E.tolist() == [0.4, 1.0, 0.4]
    index_M2 = np.array([[0, 0], [0, 1], [1, 1], [0, 2], [2, 2]])
    assert keep_probabilities(index_M2, p_E, 4) == pytest.approx([0.4, 1.0, 0.64, 0.0])


@given(st.lists(st.integers(0, 40), min_size=2, max_size=12), st.integers(1, 50))
def test_probabilities_fall_with_counts_and_shares_rise_with_t(counts: list[int], t: int) -> None:
    counts_E = np.sort(np.array(counts, np.uint64))
    p_E = probabilities(counts_E, t)
    assert (np.diff(p_E) <= 0).all()
    assert (p_E[counts_E <= t] == 1).all()
    assert ((p_E > 0) & (p_E <= 1)).all()
    assert tail_share(counts_E, t) <= tail_share(counts_E, t + 1)
    assert tail_share(counts_E, int(counts_E.min())) == 0


@pytest.mark.parametrize("rule", ["pair", "text"])
def test_kept_texts_are_in_the_mean_as_many_as_expected(rule: str) -> None:
    rng = np.random.default_rng(0)
    index_M2 = np.array([(e, n) for n in range(60) for e in range(5) if rng.random() < 0.8 / (e + 1)])
    counts_E = entry_counts(index_M2, 5)
    p_E = probabilities(counts_E, 12)
    keep_N = keep_probabilities(index_M2, p_E, 60)
    draws = 2000
    if rule == "pair":
        kept = [kept_by_pairs(index_M2, p_E, u_M, 60).sum() for u_M in rng.random((draws, len(index_M2)))]
    else:
        kept = (rng.random((draws, 60)) <= keep_N).sum(axis=1)
    sigma = math.sqrt(float((keep_N * (1 - keep_N)).sum()) / draws)
    assert abs(np.mean(kept) - keep_N.sum()) < 3 * sigma
    of_head_N = np.bincount(index_M2[index_M2[:, 0] == 0, 1], minlength=60) > 0
    assert keep_N[of_head_N].sum() >= 12


def test_what_the_user_says_is_balanced_by_patient_and_polarity(tmp_path: Path) -> None:
    texts = ["No pneumothorax."] * 40 + ["Pneumothorax."] * 3 + ["A rocket."] * 2
    settings = BalanceSettings(t=4)
    verdict = balance(*pile_of_texts(texts), settings, context(tmp_path), 0)
    assert verdict.value_M.tolist() == pytest.approx([0.1] * 40 + [1.0] * 3 + [0.0] * 2)
    assert verdict.kept_M[40:].tolist() == [True] * 3 + [False] * 2
    assert 0 < verdict.kept_M[:40].sum() < 15
    assert verdict.facts["without_concept"] == 2
    assert "2 pairs of 45 name no concept" in verdict.notes[0]
    top = verdict.facts["histogram"]["top"]
    assert [(bar["concept"], bar["before"]) for bar in top] == [("no Pneumothorax", 40), ("Pneumothorax", 3)]
    assert top[0]["after"] == verdict.kept_M[:40].sum()


def test_synonyms_do_not_multiply_the_share_of_a_concept(tmp_path: Path) -> None:
    texts = ["Pleural effusion, pleural fluid, effusion."] * 40
    verdict = balance(*pile_of_texts(texts), BalanceSettings(t=4), context(tmp_path), 0)
    assert verdict.value_M == pytest.approx(np.full(40, 0.1))


def test_a_patient_fills_no_rare_concept_with_follow_ups(tmp_path: Path) -> None:
    texts = [f"Pneumothorax, film {n}." for n in range(5)] + ["Pneumothorax.", "Pneumothorax."]
    patients = ["a"] * 5 + ["b", "b"]
    verdict = balance(*pile_of_texts(texts, patients=patients), BalanceSettings(t=20), context(tmp_path), 0)
    # Two images of one text are of one study; without a patient each row is one of its own.
    assert verdict.kept_M.tolist() == [True, *[False] * 4, True, True]
    assert verdict.facts["repeats_of_a_patient"] == 4
    assert verdict.facts["histogram"]["top"][0]["before"] == 2
    alone = balance(*pile_of_texts(texts), BalanceSettings(t=20), context(tmp_path), 0)
    assert alone.kept_M.all()


def test_follow_ups_do_not_make_a_concept_frequent(tmp_path: Path) -> None:
    texts = [f"Pneumothorax, film {n}." for n in range(9)] + ["Pneumothorax."]
    verdict = balance(*pile_of_texts(texts, ["a"] * 9 + ["b"]), BalanceSettings(t=2), context(tmp_path), 0)
    assert verdict.value_M.tolist() == [1.0, *[0.0] * 8, 1.0]


def test_a_patient_carries_a_concept_and_later_its_denial(tmp_path: Path) -> None:
    pile, rows_M = pile_of_texts(["Pneumothorax.", "No pneumothorax.", "Pneumothorax again."], ["a"] * 3)
    verdict = balance(pile, rows_M, BalanceSettings(t=20), context(tmp_path), 0)
    assert verdict.kept_M.tolist() == [True, True, False]


def test_a_text_that_affirms_and_denies_a_concept_does_both(tmp_path: Path) -> None:
    pile, rows_M = pile_of_texts(["Effusion on the left. No effusion on the right."])
    split = balance(pile, rows_M, BalanceSettings(t=9), context(tmp_path), 0)
    top = split.facts["histogram"]["top"]
    assert [bar["concept"] for bar in top] == ["Pleural effusion", "no Pleural effusion"]
    affirmed = balance(pile, rows_M, BalanceSettings(t=9, polarity="affirmed"), context(tmp_path), 0)
    assert affirmed.kept_M.all()


def test_a_denied_concept_is_of_no_other_text(tmp_path: Path) -> None:
    pile, rows_M = pile_of_texts(["No effusion.", "A rocket."])
    verdict = balance(pile, rows_M, BalanceSettings(t=9, polarity="affirmed"), context(tmp_path), 0)
    assert not verdict.kept_M.any()


def test_synonyms_in_a_text_are_one_mention() -> None:
    metadata = medical_metadata([("Lung", ["lung", "lungs"])], "mine")
    matches = match_texts(["Lung and lungs.", "No lung."], metadata, polarity=True)
    assert concept_mentions([matches], metadata, "all").index_M2.tolist() == [[0, 0], [0, 1]]
    assert concept_mentions([matches], metadata, "split").index_M2.tolist() == [[0, 0], [1, 1]]


def test_facts_count_pairs_and_not_texts(tmp_path: Path) -> None:
    texts = ["Effusion."] * 2 + ["Effusion again."] * 3 + ["A rocket."] * 2
    verdict = balance(*pile_of_texts(texts, ["a"] * 7), BalanceSettings(t=20), context(tmp_path), 0)
    counts = {name: verdict.facts[name] for name in ("expected", "repeats_of_a_patient", "without_concept")}
    assert counts == {"expected": 2.0, "repeats_of_a_patient": 3, "without_concept": 2}
    assert "2 pairs of 7 name no concept" in verdict.notes[0]


@pytest.mark.parametrize(("share", "t"), [(0.06, 10), (0.9, 30)])
def test_the_reference_chooses_t_of_entries_that_are_named(tmp_path: Path, share: float, t: int) -> None:
    (tmp_path / "entries.txt").write_text("heart\nlung\nspleen\n")
    settings = BalanceSettings(metadata="entries.txt", tail_share=share, reference=True)
    verdict = balance(*pile_of_texts(["heart"] * 30 + ["lung"] * 10), settings, context(tmp_path), 0)
    assert verdict.facts["t"] == t


def test_denied_concepts_are_left_out_or_not_told_apart_where_that_is_asked(tmp_path: Path) -> None:
    pile, rows_M = pile_of_texts(["No effusion.", "Effusion."])
    of = {p: balance(pile, rows_M, BalanceSettings(t=9, polarity=p), context(tmp_path), 0) for p in ("affirmed", "all")}
    assert of["affirmed"].kept_M.tolist() == [False, True]
    assert of["all"].facts["histogram"]["top"] == [{"concept": "Pleural effusion", "before": 2, "after": 2}]


def test_a_t_above_all_counts_thins_nothing_and_says_so(tmp_path: Path) -> None:
    verdict = balance(*pile_of_texts(["Effusion."] * 7), BalanceSettings(t=1000), context(tmp_path), 0)
    assert verdict.kept_M.all()
    assert verdict.notes == ("No concept is named more often than t allows (at most 7 times): nothing is thinned.",)


@pytest.mark.parametrize("texts", [[], ["A rocket."], [""]])
def test_a_pile_that_names_nothing_is_dropped_without_an_error(tmp_path: Path, texts: list[str]) -> None:
    for reference in (False, True):
        verdict = balance(*pile_of_texts(texts), BalanceSettings(reference=reference), context(tmp_path), 0)
        assert not verdict.kept_M.any()
        assert verdict.kept_M.shape == verdict.value_M.shape == (len(texts),)


def test_rows_that_earlier_steps_dropped_are_not_counted(tmp_path: Path) -> None:
    pile, _ = pile_of_texts(["Effusion."] * 10)
    verdict = balance(pile, np.array([1, 4]), BalanceSettings(t=1), context(tmp_path), 0)
    assert verdict.value_M.tolist() == [0.5, 0.5]


def test_the_same_seed_and_place_draw_the_same(tmp_path: Path) -> None:
    pile, rows_M = pile_of_texts(["Effusion."] * 200)
    runs = [balance(pile, rows_M, BalanceSettings(t=100), context(tmp_path), step).kept_M for step in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_a_chosen_t_is_no_lower_than_twenty(tmp_path: Path) -> None:
    texts = ["Effusion."] * 60 + ["Pneumothorax."] * 3
    verdict = balance(*pile_of_texts(texts), BalanceSettings(), context(tmp_path), 0)
    assert verdict.facts["t"] == module.LEAST_T


def test_gini_of_a_thinned_zipf_sample_is_lower(tmp_path: Path) -> None:
    names = ["Effusion", "Pneumothorax", "Cardiomegaly", "Fracture", "Glioma"]
    texts = [f"{name}." for i, name in enumerate(names) for _ in range(240 // (i + 1))]
    facts = balance(*pile_of_texts(texts), BalanceSettings(t=40), context(tmp_path), 0).facts["histogram"]
    assert facts["gini_after"] < facts["gini_before"]
    assert gini(np.array([1, 1, 1])) == 0


@given(st.lists(st.tuples(st.sampled_from(["", "P1", "P2", "P3"]), st.sampled_from(["a", "b", "c"])), max_size=20))
def test_images_of_one_patient_and_text_are_one_unit_in_the_order_of_their_first(
    cells: list[tuple[str, str]],
) -> None:
    patients, texts = ([cell[n] for cell in cells] for n in (0, 1))
    pile, rows_M = pile_of_texts(texts, patients) if cells else pile_of_texts([])
    number: dict[tuple[str | int, str], int] = {}
    wanted = [number.setdefault((patient or i, text), len(number)) for i, (patient, text) in enumerate(cells)]
    unit_M, unit_texts, patient_U = units_of(pile, rows_M)
    assert unit_M.tolist() == wanted
    assert unit_texts[0 : len(unit_texts)] == [text for _, text in number]
    of_patients = [patient for patient, _ in number]
    assert [(a == b) for a in patient_U for b in patient_U] == [(a == b) for a in of_patients for b in of_patients]


def test_mentions_are_counted_alike_in_blocks_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    index_M2 = np.random.default_rng(0).integers(0, 7, (50, 2))
    p_E = np.linspace(0.1, 1, 7)
    at_once = entry_counts(index_M2, 7), keep_probabilities(index_M2, p_E, 7)
    monkeypatch.setattr(module, "_MENTIONS_AT_ONCE", 8)
    np.testing.assert_array_equal(at_once[0], entry_counts(index_M2, 7))
    np.testing.assert_array_equal(at_once[1], keep_probabilities(index_M2, p_E, 7))
    assert at_once[0].sum() == 50


@given(
    patients=st.lists(st.integers(-3, 3), min_size=1, max_size=20),
    mentions=st.sets(st.tuples(st.integers(0, 19), st.integers(0, 4))),
)
def test_patients_that_are_taken_a_few_at_a_time_carry_what_they_carry_at_once(
    patients: list[int], mentions: set[tuple[int, int]]
) -> None:
    rows = sorted((text, concept) for text, concept in mentions if text < len(patients))
    index_M2 = np.array([(concept, text) for text, concept in rows], np.int32).reshape(-1, 2)
    carried: dict[tuple[int, int], list[int]] = {}
    for text, concept in rows:
        carried.setdefault((patients[text], concept), [concept, text])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MENTIONS_AT_ONCE", 3)
        num_N = np.bincount(index_M2[:, 1], minlength=len(patients)).astype(np.int32)
        every = Mentions(index_M2[:, 0].copy(), num_N, tuple("abcde"))
        parts = [np.add(index, [0, part.start]) for part, index in every.blocks()]
        assert np.concatenate(parts).tolist() == index_M2.tolist()
        kept = once_a_patient(every, np.array(patients))
    assert sorted(kept.index_M2.tolist()) == sorted(carried.values())


def test_a_count_and_a_share_of_the_tail_are_not_taken_together() -> None:
    with pytest.raises(MedclipError, match="t or a tail_share, one of them"):
        read_steps({"steps": [{"balance": {"t": 2, "tail_share": 0.06}}]})


@pytest.mark.parametrize("step", ["text", "balance", "rebalance"])
def test_entries_that_are_not_looked_for_are_said(step: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a\nx\neffusion\nleft\n")
    (tmp_path / "select.yaml").write_text(f"steps:\n  - {step}: {{metadata: mine.txt}}\n")
    pile = pile_of({"text": ["An effusion.", "Small effusion."]})
    report = run_steps(pile, read_steps(tmp_path / "select.yaml"))
    said = "3 of 4 entries of mine.txt are not looked for: shorter than 3 letters 2, stop words 1."
    assert f"{step}: {said}" in report.notes
    assert not any("looked for" in note for note in run_steps(pile, read_steps({"steps": [step]})).notes)
