"""The metrics of the audit, one row each: words, direction, function, interval, and where the audit shows it.

A metric that is a row here is computed, gets its intervals, is shown, and can be required: no other file must name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.lazy import Table
from medclip.statistics.cohort import Rows
from medclip.statistics.metrics.calibration import Fitted
from medclip.statistics.metrics.concordance import Concordance
from medclip.statistics.metrics.ranks import Area, adjusted
from medclip.statistics.metrics.rates import Averaged, Counted, mass_bins, ratio, width_bins
from medclip.statistics.resampling.sums import Block

Array = NDArray[np.float64]
What = Literal["discrimination", "threshold", "calibration", "count", "survival"]
Interval = Literal["share", "mean", "symmetric", "logarithm", "distance", "average precision"]
Error = Literal["missed", "false alarm"]


@dataclass(frozen=True, eq=False)
class Counts:
    """What there is in each cell, [G]: rows, and the effective numbers of patients who have them."""

    rows_G: Array
    positives_G: Array
    negatives_G: Array
    called_share_G: Array
    """Rows that are called positive; NaN where it was not measured."""
    patients_G: Array
    positive_patients_G: Array
    negative_patients_G: Array
    no_finding: bool
    """Whether a positive means a healthy patient."""


class Cases(NamedTuple):
    """What a metric is a share of in each cell, [G]."""

    rows_G: Array
    """Rows in its denominator; of the scarcer kind for an area."""
    patients_G: Array
    """Effective number of patients who can move it."""
    pairs: tuple[Array, Array] | None = None
    """Positives and negatives, for an area."""


def of_rows(counts: Counts) -> Cases:
    """Count all rows."""
    return Cases(counts.rows_G, counts.patients_G)


def of_positives(counts: Counts) -> Cases:
    """Count the positives."""
    return Cases(counts.positives_G, counts.positive_patients_G)


def of_negatives(counts: Counts) -> Cases:
    """Count the negatives."""
    return Cases(counts.negatives_G, counts.negative_patients_G)


def of_scarcer(counts: Counts) -> Cases:
    """Count the scarcer of positives and negatives."""
    patients_G = np.minimum(counts.positive_patients_G, counts.negative_patients_G)
    return Cases(np.minimum(counts.positives_G, counts.negatives_G), patients_G)


def of_called(counts: Counts, *, positive: bool = True) -> Cases:
    """Count the rows that are called positive, or negative."""
    cases_G = counts.rows_G * (counts.called_share_G if positive else 1 - counts.called_share_G)
    return Cases(cases_G, np.fmin(counts.patients_G, cases_G))


def of_positives_and_called(counts: Counts) -> Cases:
    """Count the mean of positives and rows that are called positive, what F1 is a share of."""
    return Cases((counts.positives_G + counts.rows_G * counts.called_share_G) / 2, counts.positive_patients_G)


def of_ill(counts: Counts) -> Cases:
    """Count the ill."""
    return of_negatives(counts) if counts.no_finding else of_positives(counts)


def of_healthy(counts: Counts) -> Cases:
    """Count the healthy."""
    return of_positives(counts) if counts.no_finding else of_negatives(counts)


def of_pairs(counts: Counts, *, outside: Literal["positives", "negatives"] | None = None) -> Cases:
    """Count what an area is of; of a cross-group one a side is everybody outside the group."""

    def sides(positives_G: Array, negatives_G: Array) -> tuple[Array, Array]:
        pair = (positives_G.copy(), negatives_G.copy())
        if outside is not None:  # everybody, cell 0, has nobody outside
            outside_G = pair[0 if outside == "positives" else 1]
            outside_G[1:] = outside_G[0] - outside_G[1:]
        return pair

    pairs = sides(counts.positives_G, counts.negatives_G)
    return Cases(np.minimum(*pairs), np.minimum(*sides(counts.positive_patients_G, counts.negative_patients_G)), pairs)


@dataclass(frozen=True)
class Own:
    """A metric that is computed by itself."""

    prepare: Callable[[Rows], Callable[[Block], Array]]
    """Takes the rows once; what it returns computes the metric for resamples, [G, columns of the block]."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """All that is said about one metric."""

    title: str
    """Full name."""
    head: str = ""
    """Short name, of a column; empty: the full name."""
    in_words: str = ""
    """Name in a sentence; empty: the short name."""
    aliases: tuple[str, ...] = ()
    """Other names under which it can be required."""
    what: What
    needs_probability: bool = False
    better: Literal["high", "low"] | None
    """Which direction is good; None where neither is (prevalence) or a value in the middle is (slope 1)."""
    formula: str
    """Plain text; w are weights, s scores, y truths, t the threshold; sums run over the rows of the cell."""
    reference: str
    values: Counted | Averaged | Area | Fitted | Own
    """How it is computed, for the sample and for resamples."""
    interval: Interval = "symmetric"
    """`share`: Wilson's, with the floor of a rate or an area; `mean`: Wilson's, without; `symmetric`: value ± t · SE;
    `logarithm`: the same of the logarithm; `distance`: of what chance alone makes larger; `average precision`: that of
    the AUPRC that an adjusted one stands for."""
    cases: Callable[[Counts], Cases] = of_rows
    reveals: Literal["rows", "pairs", "nothing"] = "rows"
    """What its digits would give away, so that they are rounded: counts of rows, of pairs, or none."""
    errors: tuple[Error, Error] | None = None
    """The error that it counts: of a disease, and of a label that means healthy."""
    main: bool = False
    """Whether it is drawn, and stands first."""
    repeats: bool = False
    """Whether another metric says the same on the page of a label."""
    on_card: bool = False
    """Whether the applied model card has it of everybody."""
    compared: Literal["groups", "models"] | None = None
    """Whether two models are compared in it; `groups`: and each group with everybody else."""
    gap: Literal["tested", "shown"] | None = None
    """Whether its gap between groups is in the audit, and tested by permutation. Only of a measure given the outcome:
    shuffling keeps each patient's outcome, so where groups differ in prevalence it says nothing of predictive values,
    selection rates and calibration (in simulations these came out "above chance" in 17 to 29 %; cross-group AUROCs in
    9 of 100)."""
    worst_gap: bool = False
    """Whether the distance of the worst group from everybody is in the audit, too."""
    gap_as: tuple[str, str] | None = None
    """The metrics whose gap its own is: of a disease, and of a label that means healthy."""
    stress: Literal["tested", "shown"] | None = None
    """Whether it is measured on stressed images, and its mean change tested."""
    yearly: bool = False
    """Whether it is measured of risks by year."""

    @property
    def needs_threshold(self) -> bool:
        """Whether it counts what is called positive."""
        return self.what == "threshold"


_ALTMAN = "Altman and Bland, BMJ 308:1552 (1994)"
_ALTMAN_PV = "Altman and Bland, BMJ 309:102 (1994)"
_DIXON = "Borkan et al., Nuanced metrics for measuring unintended bias, WWW Companion (2019)"
_SEYYED = "Seyyed-Kalantari et al., Nature Medicine 27:2176-2182 (2021)"
_COX = (
    "Cox, Biometrika 45:562-565 (1958); resamples by one step from the fit, with Chebyshev's correction: "
    "Moulton and Zeger, Comput. Stat. Data Anal. 11:53-63 (1991)"
)
_MISSED: tuple[Error, Error] = ("missed", "false alarm")
_ALARMS: tuple[Error, Error] = ("false alarm", "missed")
_rate = partial(Metric, what="threshold", interval="share")
"""A share of rows at a threshold."""
_area = partial(Metric, what="discrimination", better="high", interval="share", reveals="pairs")
"""How well scores put rows in order."""
_calibration = partial(Metric, what="calibration", needs_probability=True, better=None, reveals="nothing", on_card=True)
"""Whether probabilities mean what they say: sums of scores, which nobody has who has the export."""
_TPR = Counted(lambda o: ratio(o.tp, o.positives))
_FPR = Counted(lambda o: ratio(o.fp, o.negatives))
_FNR = Counted(lambda o: ratio(o.fn, o.positives))


def _one_bin(rows: Rows) -> NDArray[np.int64]:
    return np.zeros(len(rows.score_n), np.int64)


_ROWS: dict[str, Metric] = {
    "prevalence": _rate(
        title="prevalence",
        formula="positives / n",
        values=Counted(lambda o: ratio(o.positives, o.rows)),
        what="count",
        better=None,
        reference="proportion",
    ),
    "auroc": _area(
        title="AUROC",
        formula="P(score of a positive > score of a negative) + 1/2 P(equal)",
        values=Area(lambda areas: areas.auroc_b),
        aliases=("auc",),
        reference="Hanley and McNeil, Radiology 143:29-36 (1982)",
        cases=of_pairs,
        main=True,
        on_card=True,
        compared="groups",
        gap="tested",
        worst_gap=True,
        stress="tested",
    ),
    # Varies about as a rate of positives does (Boyd, Eng and Page, ECML PKDD 2013).
    "auprc": _area(
        title="AUPRC (average precision)",
        formula="sum over thresholds of (recall step) x precision; no interpolation",
        values=Area(lambda areas: areas.auprc_b, steps=True),
        head="AUPRC",
        reference="Davis and Goadrich, ICML (2006)",
        cases=of_positives,
        on_card=True,
    ),
    "auprc_adjusted": _area(
        title="AUPRC, adjusted for prevalence",
        formula="1 - ln(average precision) / ln(prevalence): 0 at chance, 1 when perfect",
        values=Area(adjusted, steps=True),
        head="AUPRC adjusted for prevalence",
        reference="spec core/cxr_fairness; compare Boyd et al., Unachievable region in precision-recall space, "
        "ICML (2012)",
        interval="average precision",
        cases=of_scarcer,
        gap="shown",
    ),
    "tpr": _rate(
        title="sensitivity (TPR)",
        formula="TP / (TP + FN)",
        values=_TPR,
        head="TPR",
        in_words="sensitivity (TPR)",
        aliases=("sensitivity", "recall", "true positive rate"),
        better="high",
        reference=_ALTMAN,
        cases=of_positives,
        errors=_MISSED,
        main=True,
        on_card=True,
        compared="groups",
        gap="tested",
        worst_gap=True,
        stress="tested",
    ),
    "fpr": _rate(
        title="false positive rate (FPR)",
        formula="FP / (FP + TN)",
        values=_FPR,
        head="FPR",
        in_words="false positive rate (FPR)",
        aliases=("false positive rate",),
        better="low",
        reference=_ALTMAN,
        cases=of_negatives,
        errors=_ALARMS,
        main=True,
        on_card=True,
        compared="groups",
        gap="tested",
        worst_gap=True,
        stress="shown",
    ),
    "fnr": _rate(
        title="false negative rate (FNR)",
        formula="FN / (TP + FN)",
        values=_FNR,
        head="FNR",
        better="low",
        reference=_ALTMAN,
        cases=of_positives,
        errors=_MISSED,
        repeats=True,
    ),
    "tnr": _rate(
        title="specificity (TNR)",
        formula="TN / (FP + TN)",
        values=Counted(lambda o: ratio(o.tn, o.negatives)),
        head="TNR",
        in_words="specificity (TNR)",
        aliases=("specificity",),
        better="high",
        reference=_ALTMAN,
        cases=of_negatives,
        errors=_ALARMS,
        repeats=True,
    ),
    "ppv": _rate(
        title="positive predictive value (PPV)",
        formula="TP / (TP + FP)",
        values=Counted(lambda o: ratio(o.tp, o.tp + o.fp)),
        head="PPV",
        in_words="positive predictive value (PPV)",
        aliases=("precision",),
        better="high",
        reference=_ALTMAN_PV,
        cases=of_called,
        on_card=True,
        compared="groups",
        gap="shown",
    ),
    "npv": _rate(
        title="negative predictive value (NPV)",
        formula="TN / (TN + FN)",
        values=Counted(lambda o: ratio(o.tn, o.tn + o.fn)),
        head="NPV",
        in_words="negative predictive value (NPV)",
        better="high",
        reference=_ALTMAN_PV,
        cases=partial(of_called, positive=False),
        on_card=True,
    ),
    "selection_rate": _rate(
        title="selection rate",
        formula="(TP + FP) / n",
        values=Counted(lambda o: ratio(o.tp + o.fp, o.rows)),
        better=None,
        reference="Hardt, Price and Srebro, Equality of opportunity in supervised learning, NeurIPS (2016)",
        compared="groups",
        gap="shown",
    ),
    "accuracy": _rate(
        title="accuracy",
        formula="(TP + TN) / n",
        values=Counted(lambda o: ratio(o.tp + o.tn, o.rows)),
        better="high",
        reference="proportion",
    ),
    # The share of hits among (positives + called)/2.
    "f1": _rate(
        title="F1",
        formula="2 TP / (2 TP + FP + FN)",
        values=Counted(lambda o: ratio(2 * o.tp, 2 * o.tp + o.fp + o.fn)),
        better="high",
        reference="van Rijsbergen, Information Retrieval (1979)",
        cases=of_positives_and_called,
    ),
    "calibration_in_the_large": _calibration(
        title="calibration in the large",
        formula="a of logit P(y = 1) = a + logit(s): 0 is right, below 0 the probabilities are too high",
        values=Fitted("in the large"),
        reference="Van Calster et al., BMC Med. 17:230 (2019); resamples by one corrected step, as the slope's",
        cases=of_scarcer,
        gap="shown",
        stress="shown",
    ),
    "observed_expected": _calibration(
        title="observed/expected",
        formula="sum w y / sum w s: 1 is right, below 1 the probabilities are too high",
        values=Averaged(lambda rows: (_one_bin(rows), rows.score_n), lambda sums, o: ratio(o.positives, sums)),
        reference="Riley et al., BMJ 353:i3140 (2016)",
        interval="logarithm",
        cases=of_scarcer,
        reveals="rows",
        yearly=True,
    ),
    "calibration_slope": _calibration(
        title="calibration slope",
        formula="b of logit P(y = 1) = a + b logit(s): 1 is right, below 1 the probabilities are too extreme; without "
        "rows whose s is 0 or 1, which have no logit",
        values=Fitted("slope"),
        reference=_COX,
        cases=of_scarcer,
        yearly=True,
    ),
    "calibration_intercept": _calibration(
        title="calibration intercept",
        formula="a of logit P(y = 1) = a + b logit(s), without rows whose s is 0 or 1",
        values=Fitted("intercept"),
        reference=_COX,
        cases=of_scarcer,
    ),
    "brier": _calibration(
        title="Brier score",
        formula="sum w (s - y)^2 / sum w",
        values=Averaged(lambda rows: (_one_bin(rows), (rows.score_n - rows.truth_n) ** 2)),
        better="low",
        reference="Brier, Mon. Weather Rev. 78:1-3 (1950)",
        interval="mean",
        cases=of_scarcer,
        compared="models",
        gap="shown",
        stress="shown",
        yearly=True,
    ),
    "ece": _calibration(
        title="expected calibration error (15 bins of equal width)",
        formula="sum over bins of |sum w (s - y)| / sum w; bins are closed on the right; corrected for what chance "
        "adds: sqrt(2 value^2 - mean of resample^2)",
        values=Averaged(lambda rows: (width_bins(rows.score_n), rows.score_n - rows.truth_n)),
        head="ECE",
        better="low",
        reference="Naeini, Cooper and Hauskrecht, AAAI (2015)",
        interval="distance",
        on_card=False,
    ),
    "ece_mass": _calibration(
        title="expected calibration error (15 bins of equal mass)",
        formula="as ece, with the edges at the fifteenths of all scores of the sample, the same for each group",
        values=Averaged(lambda rows: (mass_bins(rows.score_n), rows.score_n - rows.truth_n)),
        head="ECE, equal-mass bins",
        better="low",
        reference="Nixon et al., Measuring calibration in deep learning, CVPR Workshops (2019)",
        interval="distance",
        on_card=False,
    ),
    "underdiagnosis": _rate(
        title="underdiagnosis",
        formula="FNR of a disease; FPR of a 'no finding' label: ill, and called healthy",
        values=Counted(lambda o: (_FPR if o.no_finding else _FNR).of(o)),
        better="low",
        reference=_SEYYED,
        cases=of_ill,
        errors=("missed", "missed"),
        repeats=True,
        gap_as=("tpr", "fpr"),
    ),
    "overdiagnosis": _rate(
        title="overdiagnosis",
        formula="FPR of a disease; FNR of a 'no finding' label: healthy, and called ill",
        values=Counted(lambda o: (_FNR if o.no_finding else _FPR).of(o)),
        better="low",
        reference=_SEYYED,
        cases=of_healthy,
        errors=("false alarm", "false alarm"),
        repeats=True,
        gap_as=("fpr", "tpr"),
    ),
    "auroc_bpsn": _area(
        title="AUROC, background positive against subgroup negative",
        formula="P(score of a positive outside the group > score of a negative of the group) + 1/2 P(equal)",
        values=Area(lambda areas: areas.auroc_b, outside="positives"),
        head="AUROC, others’ positives, group’s negatives",
        reference=_DIXON,
        cases=partial(of_pairs, outside="positives"),
    ),
    "auroc_bnsp": _area(
        title="AUROC, background negative against subgroup positive",
        formula="P(score of a positive of the group > score of a negative outside the group) + 1/2 P(equal)",
        values=Area(lambda areas: areas.auroc_b, outside="negatives"),
        head="AUROC, group’s positives, others’ negatives",
        reference=_DIXON,
        cases=partial(of_pairs, outside="negatives"),
    ),
    "net_benefit": _rate(
        title="net benefit",
        formula="TP / n - FP / n x t / (1 - t)",
        values=Counted(lambda o: ratio(o.tp - o.fp * o.odds, o.rows)),
        needs_probability=True,
        better="high",
        reference="Vickers and Elkin, Med. Decis. Making 26:565-574 (2006)",
        interval="symmetric",
    ),
    "c_index": Metric(
        title="concordance (c-index)",
        head="c-index",
        what="survival",
        better="high",
        formula="P(the score is higher for who had the event first) + 1/2 P(equal), over pairs whose order is known",
        reference="Harrell, Lee and Mark, Stat. Med. 15:361-387 (1996)",
        values=Own(Concordance),
        interval="mean",
        cases=of_scarcer,
        reveals="pairs",
        main=True,
        on_card=True,
        compared="groups",
        gap="tested",
    ),
}
METRICS = Table("medclip.metrics", _ROWS)
"""Every metric of the audit by its name, in the order of its tables."""
_AREAS_FIRST = ("discrimination", "survival", "threshold", "calibration", "count")
_RATES_FIRST = ("threshold", "discrimination", "survival", "calibration", "count")


def names_of(is_wanted: Callable[[Metric], object], *, rates_first: bool = False) -> tuple[str, ...]:
    """Return the names of some metrics, areas or rates first; within them, what has a better side first."""
    kinds = _RATES_FIRST if rates_first else _AREAS_FIRST
    names = (name for name, metric in METRICS.items() if is_wanted(metric))
    return tuple(sorted(names, key=lambda name: (kinds.index(METRICS[name].what), METRICS[name].better is None)))
