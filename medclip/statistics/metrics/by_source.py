"""What a score gets within the sources of images and across them, and what the source alone would get.

Where one source sends mostly the ill and another mostly the healthy, a score that knows the source looks like one that
knows the disease. So four figures stand beside the pooled one, all of them areas under the ROC curve:

- within: pairs of a positive and a negative of the same source, of which the source tells nothing;
- across: pairs of two sources, and each direction by itself (positives of one against negatives of another), since a
  score that goes by the source wins all of one direction and loses the other;
- alone: what a score would get that is the share of positives of the image's source, learned on other patients (five
  folds; pairs within a fold, since shares of different folds differ by whom they leave out).

Of a task with several classes each figure is the mean over its classes, class against rest; a direction is over classes
that both sources have, since of a class of one source alone the source tells it, too.

From them follows what may be said (`BySource.verdict`). A task holds across sources where it is above chance within
each of them that has both sides, and in the direction that is hard: positives of the source that scores lower against
negatives of the one that scores higher. It is not enough to be above chance in the easy one, which the source alone
would win, nor within all of them together, where a large source hides a small one.

Reference: Zech et al., Variable generalization performance of a deep learning model to detect pneumonia in chest
radiographs, PLoS Medicine 15 (2018) e1002683; Borkan et al., WWW companion (2019) 491-500 (pairs across groups).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.estimate import LEVEL, NUM_RESAMPLES, Estimate
from medclip.statistics.metrics.classification import FEWEST, numbered, ranked_scores
from medclip.statistics.metrics.ranks import auroc, resampled_auroc
from medclip.statistics.resampling.resampled import Resampled, interval_of, mean, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.weights import draw_weights

WITHIN_SOURCES = "within sources"
"""What the figure within all sources together is called."""
HOLDS, WITHIN_ONLY, NOT_TESTABLE = "holds across sources", "within its source only", "not testable across sources"
"""Values of `BySource.verdict`."""
CHANCE = 0.5
FOLDS = 5
DECIMALS = 4
MOST_DIRECTIONS = 6
"""Those of three sources; of more a card has the lowest."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve between some positives and some negatives."""

    estimate: Estimate
    num_positive: int
    """Rows; of several classes all rows that are of any of them."""
    num_negative: int
    num_patients: int

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.estimate.has_interval and self.estimate.low > CHANCE

    def figure(self, *, knows_patients: bool = True) -> dict[str, Any]:
        """Return it as cards have figures: rounded, without ends where there is no interval, and without a number of
        patients where rows are grouped by something else.
        """
        ends = ("value", "low", "high") if self.estimate.has_interval else ("value",)
        values: dict[str, Any] = {name: round(getattr(self.estimate, name), DECIMALS) for name in ends}
        counts = {"num_positive": self.num_positive, "num_negative": self.num_negative}
        return values | {"chance": CHANCE} | counts | {"num_patients": self.num_patients if knows_patients else None}


@dataclass(frozen=True)
class BySource:
    """A score by the sources of its images; None stands where one side has too few patients."""

    sources: tuple[str, ...]
    """Those that have rows, by name."""
    pooled: Area | None
    within: Area | None
    of_source: Mapping[str, Area]
    """Of each source that has both sides."""
    across: Area | None
    directions: Mapping[tuple[str, str], Area]
    """By the source of the positives and that of the negatives."""
    alone: Area | None
    """None where there is one source."""
    higher: Mapping[tuple[str, str], float]
    """How often a row of the second source scores above one of the first with the same truth, negatives where both have
    some, positives otherwise: above one half, positives of the first against negatives of the second are the hard
    direction."""

    @property
    def verdict(self) -> str:
        """What may be said of the task; where no source has both sides, source and finding cannot be told apart."""
        pairs = [pair for pair in combinations(self.sources, 2) if self._directions_of(pair)]
        if not pairs or self.within is None:
            return NOT_TESTABLE
        holds_inside = all(area.above_chance for area in (self.within, *self.of_source.values()))
        return HOLDS if holds_inside and all(map(self._holds_between, pairs)) else WITHIN_ONLY

    def _shown_directions(self) -> Iterator[tuple[str, tuple[str, str], Area]]:
        """Yield name, sources and area of each direction; of many the lowest alone."""
        many = len(self.directions) > MOST_DIRECTIONS
        listed = sorted(self.directions.items(), key=lambda item: item[1].estimate.value if many else 0.0)
        for (a, b), area in listed[: 1 if many else None]:
            lead = f"lowest of {len(self.directions)} directions: " if many else ""
            yield f"{lead}positives of {a}, negatives of {b}", (a, b), area

    @property
    def held_in(self) -> tuple[str, ...]:
        """Sources within which the whole interval lies above chance; all where it cannot be tested across them."""
        if self.verdict == NOT_TESTABLE:
            return self.sources
        return tuple(name for name, area in self.of_source.items() if area.above_chance)

    def _directions_of(self, pair: tuple[str, str]) -> list[tuple[str, str]]:
        return [direction for direction in (pair, (pair[1], pair[0])) if direction in self.directions]

    def _holds_between(self, pair: tuple[str, str]) -> bool:
        directions = self._directions_of(pair)
        is_hard = [len(directions) > 1 or self.higher.get(direction, 0.0) >= CHANCE for direction in directions]
        return all(self.directions[direction].above_chance for direction in directions) and any(is_hard)

    def figures(self, unknown: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        """Return the areas as cards have figures, by what they are of; of many directions the lowest alone.

        Args:
            unknown: Sources of which nobody knows whose images they are: what was taken for patients are groups of
                images, and figures that are of them say no number of patients.
        """
        areas: dict[str, tuple[Area | None, tuple[str, ...]]] = {"pooled": (self.pooled, self.sources)}
        if len(self.sources) > 1:
            every = ((WITHIN_SOURCES, self.within), ("across sources", self.across), ("source alone", self.alone))
            areas |= {name: (area, self.sources) for name, area in every}
            areas |= {f"within {name}": (area, (name,)) for name, area in self.of_source.items()}
            areas |= {name: (area, of) for name, of, area in self._shown_directions()}
        return {
            name: area.figure(knows_patients=not set(of) & set(unknown))
            for name, (area, of) in areas.items()
            if area is not None
        }


def by_source(
    labels_N: NDArray[np.integer],
    scores_NC: NDArray[np.floating],
    sources: Sequence[str],
    patients: Sequence[Hashable],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> BySource:
    """Measure a score within sources and across them.

    Args:
        labels_N: Class indices; of a finding 1 where it is there and 0 where not.
        scores_NC: A score for each class; [N] for a finding, higher where it is there.
        sources: Source of each row.
        patients: Patient of each row; patients are resampled, and each side of a figure needs three.
        num_resamples: Number of resamples of patients.
        seed: Seed of the draw of patients and of the folds.
        level: Coverage of the intervals.

    Example:
        >>> truth = np.array([0, 1] * 20)
        >>> site = ["north"] * 20 + ["south"] * 20
        >>> rng = np.random.default_rng(0)
        >>> by_source(truth, truth + rng.normal(0, 0.2, 40), site, range(40)).verdict
        'holds across sources'
        >>> by_source(truth, np.repeat([0, 1], 20) + 0.1 * truth, site, range(40)).verdict
        'within its source only'
    """
    scores = np.asarray(scores_NC, np.float64)
    labels, names = np.asarray(labels_N), np.asarray(sources, object)
    if scores.ndim == 1:
        rankings = [(labels == 1, scores)]
    elif scores.shape[1] == 2:
        rankings = [(labels == 1, scores[:, 1] - scores[:, 0])]
    else:
        logs = ranked_scores(scores, False)
        rankings = [(labels == c, logs[:, c]) for c in range(scores.shape[1])]
    who_N = numbered(patients)
    weights_PB = draw_weights(int(who_N.max()) + 1, num_resamples, seed=seed) if len(who_N) else np.zeros((0, 0))
    return _Rows(rankings, names, who_N, weights_PB, seed, level).measured()


def source_shares(positive_N: Bools, known_N: Bools, codes_N: NDArray[Any], fold_N: NDArray[np.integer]) -> Floats:
    """Return the share of positives of each row's source among the rows of other folds: a score of the source alone.

    Args:
        positive_N: Whether each row is a positive.
        known_N: Whether each row has a truth and a source; the shares of the others are NaN.
        codes_N: Source of each row.
        fold_N: Fold of each row, by its patient.

    Returns:
        [N]; the share over all sources where other folds have no row of the source.
    """
    shares_N = np.full(len(known_N), np.nan)
    for fold in np.unique(fold_N):
        others_N = known_N & (fold_N != fold)
        middle = float(positive_N[others_N].mean()) if others_N.any() else 0.0
        for code in dict.fromkeys(codes_N[known_N].tolist()):
            inside_N = codes_N == code
            learned = positive_N[others_N & inside_N]
            shares_N[known_N & inside_N & (fold_N == fold)] = learned.mean() if len(learned) else middle
    return shares_N


def joined(point_S: Floats, drawn_SB: Floats, pairs_SB: Floats) -> tuple[float, Floats]:
    """Average areas by their numbers of pairs.

    Args:
        point_S: Area of each group; NaN where it has no pairs.
        drawn_SB: Area of each group in each resample.
        pairs_SB: Pairs in the sample, then in each resample, [S, 1 + B].

    Returns:
        The area of all pairs, and in each resample; NaN without any.

    Example:
        >>> joined(np.array([0.8, 0.6]), np.zeros((2, 0)), np.array([[30.0], [10.0]]))[0]
        0.75
    """
    areas_SB = np.nan_to_num(np.concatenate([point_S[:, None], drawn_SB], axis=1))
    total_B = pairs_SB.sum(axis=0)
    joined_B = np.divide(
        (areas_SB * pairs_SB).sum(axis=0), total_B, out=np.full(len(total_B), np.nan), where=total_B > 0
    )
    return float(joined_B[0]), joined_B[1:]


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a task with one ranking for each class."""

    rankings: Sequence[tuple[Bools, Floats]]
    """Which rows are positives, and their scores."""
    names_N: NDArray[Any]
    who_N: NDArray[np.int64]
    weights_PB: NDArray[Any]
    seed: int
    level: float

    def measured(self) -> BySource:
        """Measure everything."""
        sources = tuple(sorted(set(self.names_N.tolist())))
        inside = {name: self.names_N == name for name in sources}
        everybody = np.ones(len(self.who_N), bool)
        pairs = list(permutations(sources, 2))
        directions = self._directions(pairs, inside)
        of_source = {name: self._area([(rows, rows)]) for name, rows in inside.items()}
        several = len(sources) > 1
        return BySource(
            sources=sources,
            pooled=self._area([(everybody, everybody)]),
            within=self._area([(rows, rows) for rows in inside.values()]),
            of_source={name: area for name, area in of_source.items() if area is not None},
            across=self._area([(inside[a], inside[b]) for a, b in pairs]),
            directions=directions,
            alone=self._alone() if several else None,
            higher={pair: h for pair in pairs if (h := self._higher(inside[pair[0]], inside[pair[1]])) is not None},
        )

    def _area(self, sides: Sequence[tuple[Bools, Bools]]) -> Area | None:
        """Return the mean over classes of the area of all pairs of some groups, each of positives and negatives."""
        return self._mean([(positive_N, score_N, sides) for positive_N, score_N in self.rankings])

    def _directions(self, pairs: Sequence[tuple[str, str]], inside: Mapping[str, Bools]) -> dict[tuple[str, str], Area]:
        areas = {(a, b): self._direction(inside[a], inside[b]) for a, b in pairs}
        measured = {pair: area for pair, area in areas.items() if area is not None}
        if len(self.rankings) == 1:
            return measured
        # Which one is hard, nothing tells.
        return {(a, b): area for (a, b), area in measured.items() if (b, a) in measured}

    def _direction(self, one: Bools, other: Bools) -> Area | None:
        """Return the area of positives of one source against negatives of another; of several classes, common ones."""
        rankings = self.rankings
        if len(rankings) > 1:
            counts = [[len(np.unique(self.who_N[rows & side])) for side in (one, other)] for rows, _ in rankings]
            rankings = [ranking for ranking, both in zip(rankings, counts, strict=True) if min(both) >= FEWEST]
        return self._mean([(positive_N, score_N, [(one, other)]) for positive_N, score_N in rankings])

    def _alone(self) -> Area | None:
        num_patients = len(self.weights_PB)
        fold_N = (np.random.default_rng(self.seed).permutation(num_patients) % FOLDS)[self.who_N]
        sides = [(fold_N == fold, fold_N == fold) for fold in range(FOLDS)]
        known_N = np.ones(len(fold_N), bool)
        shares = [source_shares(positive_N, known_N, self.names_N, fold_N) for positive_N, _ in self.rankings]
        return self._mean(
            [(positive_N, share_N, sides) for (positive_N, _), share_N in zip(self.rankings, shares, strict=True)]
        )

    def _mean(self, rankings: Sequence[tuple[Bools, Floats, Sequence[tuple[Bools, Bools]]]]) -> Area | None:
        parts, positive_N, negative_N = [], np.zeros(len(self.who_N), bool), np.zeros(len(self.who_N), bool)
        for is_positive_N, score_N, sides in rankings:
            contests = [(is_positive_N & one, ~is_positive_N & other) for one, other in sides]
            contests = [(p, n) for p, n in contests if p.any() and n.any()]
            positives = np.any([p for p, _ in contests], axis=0) if contests else np.zeros(len(score_N), bool)
            negatives = np.any([n for _, n in contests], axis=0) if contests else np.zeros(len(score_N), bool)
            if min(len(np.unique(self.who_N[rows])) for rows in (positives, negatives)) < FEWEST:
                continue
            parts.append(self._joined(score_N, contests, positives, negatives))
            positive_N, negative_N = positive_N | positives, negative_N | negatives
        if not parts:
            return None
        num_patients = len(np.unique(self.who_N[positive_N | negative_N]))
        estimate = interval_of(mean(parts), level=self.level)
        return Area(estimate, int(positive_N.sum()), int(negative_N.sum()), num_patients)

    def _joined(
        self, score_N: Floats, contests: Sequence[tuple[Bools, Bools]], positives: Bools, negatives: Bools
    ) -> Resampled:
        each, pairs = [], []
        once_P1 = np.ones((len(self.weights_PB), 1))
        weights = np.concatenate([once_P1, self.weights_PB], axis=1, dtype=np.float64)
        for p, n in contests:
            rows = np.flatnonzero(p | n)
            each.append(resampled_auroc(score_N[rows], p[rows], self.who_N[rows], self.weights_PB))
            pairs.append(self._counted(p, weights) * self._counted(n, weights))
        points, drawn = np.array([point for point, _ in each]), np.stack([drawn_B for _, drawn_B in each])
        value, drawn_B = joined(points, drawn, np.stack(pairs))
        sizes = float(positives.sum()), float(negatives.sum())
        patients = min(effective_patients(self.who_N[positives]), effective_patients(self.who_N[negatives]))
        return share(value, drawn_B, cases=min(sizes), patients=patients, pairs=sizes)

    def _counted(self, rows_N: Bools, weights_PB: Floats) -> Floats:
        """Count some rows in each resample."""
        return np.bincount(self.who_N[rows_N], minlength=len(weights_PB)).astype(np.float64) @ weights_PB

    def _higher(self, one: Bools, other: Bools) -> float | None:
        """Compute how often the other source scores above the first at equal truth, of a single ranking."""
        if len(self.rankings) > 1:
            return None
        positive_N, score_N = self.rankings[0]
        for alike_N in (~positive_N, positive_N):
            rows = np.flatnonzero(alike_N & (one | other))
            if (alike_N & one).any() and (alike_N & other).any():
                return float(auroc(score_N[rows], other[rows]))
        return None
