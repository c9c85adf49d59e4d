"""How much the figures of a set hang on its prompts, and whether the text tower hears the word "no".

The k-th wording asks each class in its k-th sentence alone; a class with fewer sentences begins again. The mean over
wordings is the expected figure of somebody who writes one sentence for each class, and the ensemble less that mean,
paired over the same resamples of patients, is what averaging prompts is worth. Least and most were picked by their
figure, so that their own intervals are of those wordings and not of the extremes.

The negation check: cos(g⁺, g⁻) of two classes' vectors above 0.98 means that the text tower hardly tells the sentences
apart; where one side denies the other it ignores "no". Separation is mean(s⁺ − s⁻) over images of the second class less
that over images of the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.zero_shot.figures import metric_names
from medclip.models.prototypes.class_vectors import TextEncoder, encode_prompts
from medclip.sample import Modality
from medclip.statistics.estimate import DECIMALS, Change, Figure
from medclip.statistics.metrics.classification import HeldOut, mean_over_runs, shares_of
from medclip.statistics.resampling.resampled import change, difference, interval_of
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.checks.closed_words import DENIALS
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.own_words import Prompt, opposite, templates_of
from medclip.wording import count, estimate

SAME = 0.98
"""Cosine of two class vectors above which the text tower hardly tells their sentences apart."""


@dataclass(frozen=True)
class OverWordings:
    """One metric over the wordings of a set."""

    ensemble: Figure
    mean: Figure
    """Over wordings."""
    gain: Change
    """Ensemble less mean."""
    least: Figure
    most: Figure
    sd: float
    """Standard deviation over wordings, ddof 1."""
    least_wording: int
    """Number of the wording, from 1."""
    most_wording: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OverWordings:
        """Read back what `dataclasses.asdict` gave."""
        figures = {name: Figure(**values[name]) for name in ("ensemble", "mean", "least", "most")}
        return cls(**{**values, **figures, "gain": Change(**values["gain"])})


@dataclass(frozen=True)
class Sensitivity:
    """What a set's figures owe to its prompts."""

    num_wordings: int
    """1 where every class is said in one sentence: there is nothing to compare then, and no figures."""
    figures: Mapping[str, OverWordings]
    rank_correlation: float | None
    """Spearman's, of a single wording's scores with the ensemble's over the images; mean over wordings and classes."""
    least_rank_correlation: float | None
    """Of the wording that ranks images least alike."""
    separation: Change | None
    """Of two classes; None where there are more, or one has no image."""
    cosine: float
    """Of the two class vectors that are closest to each other."""
    closest: tuple[str, str]
    """Names of these classes."""
    denies: bool
    """The sentences of one of them deny, those of the other do not."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Sensitivity:
        """Read back what `dataclasses.asdict` gave."""
        apart = values["separation"]
        return cls(
            **{
                **values,
                "figures": {name: OverWordings.from_json(figure) for name, figure in values["figures"].items()},
                "separation": None if apart is None else Change(**apart),
                "closest": tuple(values["closest"]),
            }
        )

    def lines(self) -> Iterator[str]:
        """Yield what is printed below the set's own line."""
        if self.num_wordings < 2:
            yield "  prompts: one sentence for each class, so that there is nothing to vary"
        for name, over in self.figures.items():
            yield (
                f"  prompts: {name.replace('_', ' ')} {over.least.value:.3f} to {over.most.value:.3f} over "
                f"{count(self.num_wordings, 'single wording')} (SD {over.sd:.3f}); all together "
                f"{_shown(over.gain, signed=True)} above their mean"
            )
        if self.rank_correlation is not None:
            yield (
                f"  prompts: images are ranked as by all together with rho {self.rank_correlation:.2f} on average, "
                f"{self.least_rank_correlation:.2f} at worst"
            )
        if self.separation is not None:
            apart = _shown(self.separation, signed=True)
            yield f"  classes: images are apart by {apart} in s⁺ − s⁻; cosine of the class vectors {self.cosine:.3f}"
        if self.cosine > SAME:
            one, other = self.closest
            what = "the text tower ignores “no”" if self.denies else "the text tower hardly tells the sentences apart"
            yield f"  WARNING: {one} and {other} have the cosine {self.cosine:.3f}: {what}"


@dataclass(frozen=True)
class Negation:
    """Findings of the vocabulary against "no" before them, in the sentences of their modality; no image is needed."""

    num_findings: int
    mean_cosine: float
    most_cosine: float
    most_finding: str

    @property
    def ignores_no(self) -> bool:
        """Whether findings and their denials are one to the text tower."""
        return self.mean_cosine > SAME

    def line(self) -> str:
        """Write it in a sentence."""
        head = (
            f"Denials: {count(self.num_findings, 'finding')} and “no” before them have cosines of "
            f"{self.mean_cosine:.3f} on average, {self.most_cosine:.3f} at most ({self.most_finding})"
        )
        if self.ignores_no:
            return f"WARNING: {head}: the text tower ignores “no”. Compare with what is there instead of it."
        return f"{head}."


def measure_sensitivity(
    model: TextEncoder,
    names: Sequence[str],
    prompts: Sequence[Sequence[str]],
    features_ND: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    patients: Sequence[int],
    metric: str,
    *,
    num_resamples: int,
) -> Sensitivity:
    """Measure a set once in each of its wordings.

    Args:
        model: Text encoder of the sentences.
        names: Names of the classes.
        prompts: The sentences of each class.
        features_ND: Mean over the views of each image, not normalised.
        labels_N: Class indices.
        patients: Number of each image's patient.
        metric: Metric that stands for the set; accuracy and, of two classes, the area are measured as well.
        num_resamples: Number of resamples of patients.
    """
    features, num = np.asarray(features_ND, np.float64), max(len(sentences) for sentences in prompts)
    ensemble_CD = encode_prompts(model, prompts)
    cosine, pair = _closest(ensemble_CD)
    together_NC = features @ ensemble_CD.T.astype(np.float64)
    single_KNC = np.stack(
        [
            features @ model.encode_text([sentences[k % len(sentences)] for sentences in prompts]).T.astype(np.float64)
            for k in range(num)
        ]
    )
    figures, correlations, separation = {}, np.empty(0), None
    if len(labels_N):
        test = HeldOut(labels_N, np.asarray(patients, np.int64), len(names))
        weights_PB = draw_weights(test.num_patients, num_resamples, seed=0)
        wanted = [m for m in dict.fromkeys((metric, "accuracy", "auroc")) if m in metric_names(len(names))]
        if num > 1:
            figures = _figures(single_KNC, together_NC, test, weights_PB, wanted)
            correlations = _rank_correlations(single_KNC, together_NC)
        separation = _separation(together_NC, test, weights_PB) if len(names) == 2 else None
    return Sensitivity(
        num_wordings=num,
        figures=figures,
        rank_correlation=_rounded(correlations.mean()) if len(correlations) else None,
        least_rank_correlation=_rounded(correlations.min()) if len(correlations) else None,
        separation=separation,
        cosine=_rounded(cosine),
        closest=(names[pair[0]], names[pair[1]]),
        denies=len({any(DENIALS.search(text.lower()) for text in prompts[c]) for c in pair}) == 2,
    )


def measure_negation(model: TextEncoder, modalities: Sequence[Modality]) -> Negation | None:
    """Compare the vocabulary's findings with their denials; None where it has none of these modalities."""
    pairs: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for task in map(load_task, task_names()):
        modality = next((m for m in modalities if m in task.modalities), None)
        if task.rules.independent and modality is not None:
            for finding in task.classes:
                text = finding.prompts[0]
                sides = Prompt(text, (text,), (opposite(text),)).sentences(templates_of(modality))
                pairs[finding.title] = (sides.positive, sides.negative)
    if not pairs:
        return None
    positive, negative = (encode_prompts(model, [sides[k] for sides in pairs.values()]) for k in (0, 1))
    cosines = (positive.astype(np.float64) * negative).sum(axis=1)
    most = int(cosines.argmax())
    return Negation(len(pairs), _rounded(cosines.mean()), _rounded(cosines[most]), list(pairs)[most])


def _figures(
    single_KNC: NDArray[np.float64],
    together_NC: NDArray[np.float64],
    test: HeldOut,
    weights_PB: NDArray[Any],
    metrics: Sequence[str],
) -> dict[str, OverWordings]:
    together, alone = (shares_of(scores, test, weights_PB, metrics) for scores in (together_NC[None], single_KNC))
    figures = {}
    for name in alone:
        ensemble = mean_over_runs(together[name])
        # The wordings are the set's own and no sample of others, so that only patients make the interval.
        mean = replace(mean_over_runs(alone[name], (1, len(single_KNC))), runs_SI=None)
        values_K = np.mean([part.point_R for part in alone[name]], axis=0)
        picked = [int(values_K.argmin()), int(values_K.argmax())]
        least, most = (mean_over_runs(shares_of(single_KNC[[k]], test, weights_PB, [name])[name]) for k in picked)
        rounded = [Figure.of(interval_of(figure)) for figure in (ensemble, mean, least, most)]
        figures[name] = OverWordings(
            ensemble=rounded[0],
            mean=rounded[1],
            gain=Change.of(difference(mean, ensemble)),
            least=rounded[2],
            most=rounded[3],
            sd=_rounded(values_K.std(ddof=1)),
            least_wording=picked[0] + 1,
            most_wording=picked[1] + 1,
        )
    return figures


def _rank_correlations(single_KNC: NDArray[np.float64], together_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate ranks of images, class by class against the mean of the others; [K], without what has no spread."""
    from scipy.stats import rankdata

    def ranks(scores_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        others = scores_NC.sum(axis=1, keepdims=True) - scores_NC
        margins = scores_NC - others / (scores_NC.shape[1] - 1)
        ranked = rankdata(margins.round(9), axis=0)
        return ranked - ranked.mean(axis=0)

    together = ranks(together_NC)
    correlations = []
    for scores_NC in single_KNC:
        one = ranks(scores_NC)
        size = np.sqrt((one**2).sum(axis=0) * (together**2).sum(axis=0))
        if (size > 0).any():
            correlations.append(float(((one * together).sum(axis=0)[size > 0] / size[size > 0]).mean()))
    return np.array(correlations)


def _separation(together_NC: NDArray[np.float64], test: HeldOut, weights_PB: NDArray[Any]) -> Change | None:
    """Compare the mean margin of images of the second class with that of the first; the patients are resampled."""
    margins = together_NC[:, 1] - together_NC[:, 0]
    sides = [np.flatnonzero(test.targets == c) for c in (0, 1)]
    if not all(map(len, sides)):
        return None
    (low, low_B), (high, high_B) = (
        ratios(test.patients[rows], weights_PB, margins[rows][None], np.ones((1, len(rows)))) for rows in sides
    )
    patients = min(effective_patients(test.patients[rows]) for rows in sides)
    return Change.of(change(float(high[0] - low[0]), high_B[0] - low_B[0], patients))


def _closest(vectors_CD: NDArray[np.float32]) -> tuple[float, tuple[int, int]]:
    cosines = vectors_CD.astype(np.float64) @ vectors_CD.T
    return max((float(cosines[a, b]), (a, b)) for a, b in combinations(range(len(vectors_CD)), 2))


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS)


def _shown(change_: Change, *, signed: bool = False) -> str:
    text = estimate(change_.value, change_.low, change_.high)
    return f"+{text}" if signed and change_.value > 0 else text
