"""Whether words alone tell false texts from true ones: if they do, hard negatives teach no image.

A classifier that sees the text only (TF-IDF of word n-grams, logistic regression; scikit-learn) is asked about texts of
patients that it was not taught with. Chance is 50 %; above 60 % (`MOST`) a loss of hard negatives is solved by reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medclip.statistics.metrics.classification import HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import interval_of
from medclip.statistics.resampling.weights import draw_weights

MOST = 0.6
FOLDS = 5
FEWEST_PATIENTS = 20
"""Below which the classifier learns nothing that could be measured."""
_MOST_PAIRS = 20_000
"""Pairs that are learned from; more are drawn."""
_RESAMPLES = 1000
_WORD = r"[^\s.,;:]+"


@dataclass(frozen=True)
class TextOnlyCheck:
    """How well words alone tell the false texts."""

    accuracy: float
    low: float | None
    """End of the 95 % interval by patient; None where there is none."""
    high: float | None
    num_pairs: int
    num_patients: int

    @property
    def passes(self) -> bool:
        """Whether the accuracy is at most `MOST`."""
        return self.accuracy <= MOST

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {**vars(self), "most": MOST, "passes": self.passes}


def check_texts_alone(
    positives: Sequence[str], negatives: Sequence[str], patients: Sequence[str], *, seed: int = 0
) -> TextOnlyCheck | None:
    """Ask a classifier of words which text of each pair is false.

    Args:
        positives: True text of each of N pairs.
        negatives: False text of each.
        patients: Patient of each; a fold holds all pairs of its patients.
        seed: Seed of the folds.

    Returns:
        The accuracy over both texts of every pair, with its interval by patient; None for fewer than `FEWEST_PATIENTS`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline

    rows = list(range(len(positives)))
    if len(rows) > _MOST_PAIRS:
        rows = sorted(np.random.default_rng(seed).permutation(len(rows))[:_MOST_PAIRS].tolist())
    groups = numbered([patients[i] for i in rows])
    num_patients = int(groups.max()) + 1 if len(groups) else 0
    if num_patients < FEWEST_PATIENTS:
        return None
    texts = np.array([positives[i] for i in rows] + [negatives[i] for i in rows], object)
    truth_N = np.repeat([1, 0], len(rows))
    groups_N = np.concatenate([groups, groups])
    logits_N2 = np.zeros((len(texts), 2))
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(texts, truth_N, groups_N):
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, min_df=2, token_pattern=_WORD),
            LogisticRegression(max_iter=1000),
        )
        model.fit(texts[train], truth_N[train])
        logits_N2[test, 1] = model.decision_function(texts[test])
    held_out = HeldOut(truth_N, groups_N, 2)
    weights_PB = draw_weights(num_patients, _RESAMPLES, seed=seed)
    accuracy = interval_of(figures(logits_N2[None], held_out, weights_PB, ("accuracy",))["accuracy"])
    ends = [None if end is None or np.isnan(end) else float(end) for end in (accuracy.low, accuracy.high)]
    return TextOnlyCheck(float(accuracy.value), *ends, num_pairs=len(rows), num_patients=num_patients)
