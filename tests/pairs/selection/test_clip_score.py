"""Step `clip_score`: the golden thresholds and kept sets, exact shares, and a real pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from medclip.errors import MedclipError, Reason
from medclip.pairs.pile import Pile, read_pile
from medclip.pairs.selection import clip_score as step
from medclip.pairs.selection.clip_score import ClipScoreSettings, best_share, clip_score, reference_threshold
from medclip.pairs.selection.pack_vectors import PackVectors
from medclip.pairs.selection.steps import Verdict
from medclip.settings import Settings
from tests.kits.image_piles import context_of, pile_of
from tests.kits.leakage import film
from tests.kits.signal_shards import mixed_table


def of_scores(monkeypatch: pytest.MonkeyPatch, scores: Any, pile: Pile, **settings: Any) -> Verdict:
    """Run the step with a pack of these scores."""

    class Pack:
        name, has_text = "made up", True

    monkeypatch.setattr(step, "load_pack", lambda *_: Pack)
    monkeypatch.setattr(step, "pack_facts", lambda pack: {"name": pack.name})
    monkeypatch.setattr(
        step,
        "encode_pile",
        lambda *_: PackVectors(np.zeros((len(pile), 2), np.float32), np.full(len(pile), "", object)),
    )
    monkeypatch.setattr(step, "score_pairs", lambda *_: np.asarray(scores, np.float64))
    return clip_score(pile, np.arange(len(pile)), ClipScoreSettings(**settings), context_of(), 0)


@pytest.mark.golden
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_thresholds_and_kept_sets_are_those_of_the_published_code(
    golden: Path, monkeypatch: pytest.MonkeyPatch, fraction: float
) -> None:
    stored = np.load(golden / "datacomp_filters.npz")
    scores = stored["scores"]
    assert reference_threshold(scores, fraction) == stored[f"threshold_{fraction}"]
    pile = pile_of(text=["words"] * len(scores), modality=["xray", "ct"] * (len(scores) // 2))
    verdict = of_scores(monkeypatch, scores, pile, fraction=fraction, reference=True)
    assert np.flatnonzero(verdict.kept_M).tolist() == np.sort(stored[f"kept_{fraction}"]).tolist()
    exact = of_scores(monkeypatch, scores, pile, fraction=fraction, by="all")
    assert exact.kept_M.sum() == round(200 * fraction)
    assert not (exact.kept_M & ~verdict.kept_M).any()


def test_the_rule_of_the_reference_keeps_one_more_and_all_of_a_share_of_one() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert reference_threshold(scores, 0.4) == 0.7
    assert (scores >= reference_threshold(scores, 1.0)).all()
    assert best_share(scores, list("abcde"), 0.4).sum() == 2
    assert best_share(scores, list("abcde"), 1.0).all()


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=40), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_share_is_part_of_a_larger_one(scores: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    values, keys = np.array(scores), [str(n) for n in range(len(scores))]
    assert not (best_share(values, keys, low) & ~best_share(values, keys, high)).any()
    assert reference_threshold(values, low) >= reference_threshold(values, high)
    chosen = best_share(values, keys, low)
    assert 1 <= chosen.sum() <= max(1, int(np.ceil(len(scores) * low)))
    assert values[chosen].min() >= (values[~chosen].max() if (~chosen).any() else 0)


def test_a_share_is_of_each_modality_and_thresholds_stand_by_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [0.1, 0.2, 0.3, 0.4, 0.8, 0.9, np.nan]
    pile = pile_of(text=["words"] * 7, modality=["ct"] * 4 + ["", "", "ct"])
    by_modality = of_scores(monkeypatch, scores, pile, fraction=0.5)
    assert by_modality.kept_M.tolist() == [False, False, True, True, False, True, False]
    facts = by_modality.facts["modalities"]
    assert {name: (of["pairs"], of["kept"], of["threshold"]) for name, of in facts.items()} == {
        "ct": (5, 2, 0.3),
        "unknown": (2, 1, 0.9),
    }
    assert sum(sum(of["counts"]) for of in facts.values()) == 6
    everything = of_scores(monkeypatch, scores, pile, fraction=0.5, by="all")
    assert everything.kept_M.tolist() == [False, False, False, True, True, True, False]
    above = of_scores(monkeypatch, scores, pile, threshold={"ct": 0.5})
    assert above.kept_M.tolist() == [False] * 4 + [True, True, False]
    assert above.notes == (
        "Caution: no pair of the modality ct stays.",
        "No threshold for unknown: all pairs that have a score stay.",
    )
    assert of_scores(monkeypatch, scores, pile, threshold=0.3).kept_M.tolist() == [False, False] + [True] * 4 + [False]


@pytest.mark.parametrize(
    "settings", [{}, {"fraction": 0.5, "threshold": 0.2}, {"fraction": 0.0}, {"fraction": 1.1}, {"fractions": 0.5}]
)
def test_settings_that_are_no_rule_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClipScoreSettings(**settings)


def test_a_pack_without_words_is_refused_before_an_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pack:
        name, has_text = "images only", False

    monkeypatch.setattr(step, "load_pack", lambda *_: Pack)
    with pytest.raises(MedclipError, match="image only") as refused:
        clip_score(pile_of(text=["x"]), np.arange(1), ClipScoreSettings(fraction=0.5), context_of(), 0)
    assert refused.value.reason is Reason.WRONG_USE


def test_a_real_pack_scores_words_and_what_cannot_be_scored_goes() -> None:
    pixels: NDArray[np.uint8] = film(1, 64, 60)
    texts = ["a chest x-ray", "a chest x-ray\na photograph of a dog", "a photograph of a dog", "", "a chest x-ray"]
    pile = pile_of([pixels] * 4 + [MedclipError(Reason.CORRUPT, "no image.")], text=texts)
    verdict = clip_score(pile, np.array([0, 1, 2, 3, 4]), ClipScoreSettings(fraction=0.34), context_of(), 0)
    assert verdict.value_M is not None
    one, mean, other = verdict.value_M[:3]
    assert mean == pytest.approx((one + other) / 2, abs=1e-6)
    assert np.isnan(verdict.value_M[3:]).all()
    assert not verdict.kept_M[3:].any()
    assert verdict.kept_M.sum() == 2
    assert verdict.facts["pack"]["name"] == "medclip-mini"
    assert len(verdict.facts["pack"]["sha256"]) == 64
    assert verdict.facts["unread"] == {"corrupt": 1}
    assert verdict.facts["without_caption"] == 1


def test_what_a_pack_does_not_take_is_not_judged_and_stays_and_a_note_says_so(tmp_path: Path) -> None:
    pile = read_pile(mixed_table(tmp_path), settings=Settings(workers=1))
    verdict = clip_score(pile, np.arange(5), ClipScoreSettings(threshold=2.0), context_of(), 0)
    assert verdict.value_M is not None
    assert np.isfinite(verdict.value_M).tolist() == [False, True, False, True, False]
    assert verdict.kept_M.tolist() == [True, False, True, False, True]
    assert verdict.notes == (
        "Caution: no pair of the modality xray stays.",
        "3 pairs of ECG records not judged: the pack medclip-mini does not take them. They stay.",
    )
    assert verdict.facts["unread"] == {}


def test_a_threshold_of_a_modality_that_no_pair_has_is_refused_and_one_by_another_name_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pile = pile_of(modality=["xray", "xray", "ct", ""], text=["a film"] * 4)
    with pytest.raises(MedclipError, match="no pair has the modality 'xry'") as refused:
        of_scores(monkeypatch, [0.1, 0.2, 0.1, 0.1], pile, threshold={"xry": 0.15})
    assert refused.value.reason is Reason.RECIPE_INVALID
    assert "xray" in str(refused.value)
    verdict = of_scores(monkeypatch, [0.1, 0.2, 0.1, 0.1], pile, threshold={"X-Ray": 0.15})
    assert verdict.kept_M.tolist() == [False, True, True, True]
    assert "No threshold for ct and unknown: all pairs that have a score stay." in verdict.notes
