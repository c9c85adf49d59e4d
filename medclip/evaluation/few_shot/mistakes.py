"""Which classes a method mixes up, and which test images it gets wrong most often over draws of shots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.few_shot.data import FewShotData
from medclip.evaluation.few_shot.results import Confusion, Mistake
from medclip.evaluation.few_shot.store import Run
from medclip.statistics.metrics.classification import predictions, ranked_scores

MAX_MISTAKES = 12
_NONE = "none of them"


def confusion_of(data: FewShotData, method: str, shots: int, runs: Sequence[Run]) -> Confusion:
    """Count one method's answers over its runs at K shots.

    Args:
        data: Data with the test images.
        method: Label of the method.
        shots: Number of shots, K.
        runs: Runs of the method, all with predictions; at least one.
    """
    logits_RNC = np.stack([run.logits_NC for run in runs if run.logits_NC is not None])
    predicted = predictions(logits_RNC, data.examples.multilabel)
    targets = data.examples.targets[list(data.test)]
    counts = _multilabel_counts(targets, predicted) if data.examples.multilabel else _counts(targets, predicted, data)
    if data.examples.multilabel:
        return Confusion(method, shots, counts, _multilabel_mistakes(data, targets, predicted))
    chances = np.mean([ranked_scores(logits_NC, False) for logits_NC in logits_RNC], axis=0)
    return Confusion(
        method, shots, counts, _mistakes(data, targets, predicted, chances[np.arange(len(targets)), targets])
    )


def _counts(targets: NDArray, said_RN: NDArray, data: FewShotData) -> tuple[tuple[float, ...], ...]:
    num_classes, num_runs = len(data.text.names), len(said_RN)
    pairs = np.bincount((targets * num_classes + said_RN).ravel(), minlength=num_classes**2) / num_runs
    return _rows(pairs.reshape(num_classes, num_classes))


def _multilabel_counts(targets: NDArray, said_RNC: NDArray) -> tuple[tuple[float, ...], ...]:
    present, absent = targets == 1, targets == 0
    parts = (said_RNC & present, ~said_RNC & present, said_RNC & absent, ~said_RNC & absent)
    return _rows(np.stack([p.sum(axis=1).mean(axis=0) for p in parts], axis=1))


def _mistakes(data: FewShotData, targets: NDArray, said_RN: NDArray, chances_N: NDArray) -> tuple[Mistake, ...]:
    """Of images that are wrong equally often, those whose true class was thought least likely come first."""
    wrong_N = (said_RN != targets).sum(axis=0)
    names, mistakes = data.text.names, []
    for n in _most(wrong_N, chances_N):
        common = Counter(said_RN[said_RN[:, n] != targets[n], n].tolist()).most_common(1)[0][0]
        mistakes.append(_mistake(data, n, int(wrong_N[n]), len(said_RN), names[targets[n]], names[common]))
    return tuple(mistakes)


def _multilabel_mistakes(data: FewShotData, targets: NDArray, said_RNC: NDArray) -> tuple[Mistake, ...]:
    """An image counts as wrong in a run where any known class is; the most wrong classes come first."""
    known = ~np.isnan(targets)
    wrong_RNC = (said_RNC != (targets == 1)) & known
    wrong_N, classes_N = wrong_RNC.any(axis=2).sum(axis=0), wrong_RNC.sum(axis=(0, 2))
    mistakes = []
    for n in _most(wrong_N, -classes_N):
        usual_C = (said_RNC[:, n].mean(axis=0) > 0.5) & known[n]
        mistakes.append(
            _mistake(data, n, int(wrong_N[n]), len(said_RNC), _listed(data, targets[n] == 1), _listed(data, usual_C))
        )
    return tuple(mistakes)


def _mistake(data: FewShotData, n: int, wrong: int, runs: int, true: str, predicted: str) -> Mistake:
    row = data.test[n]
    return Mistake(data.unit(row).number, row, wrong, runs, true, predicted)


def _most(wrong_N: NDArray, then_N: NDArray) -> list[int]:
    """Rows that are wrong at all, the most often wrong first, then the lowest of `then_N`."""
    order = np.lexsort((then_N, -wrong_N))[:MAX_MISTAKES]
    return [int(n) for n in order if wrong_N[n] > 0]


def _listed(data: FewShotData, chosen_C: NDArray) -> str:
    return ", ".join(name for name, is_there in zip(data.text.names, chosen_C, strict=True) if is_there) or _NONE


def _rows(values: NDArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(v), 1) for v in row) for row in values)
