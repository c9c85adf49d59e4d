"""Rates, areas and means of them with their resamples: the one rule for their intervals and differences.

    one = share(0.9, drawn_B, cases=40, patients=20)        # a rate: 36 of 40 images of 20 patients
    both = mean([of_this_class, of_that_class])             # balanced accuracy, macro AUROC
    interval_of(both), difference(both, of_another_model)

A share has Wilson's interval at the effective sample size of its mended variance (`standard_errors`), with Student's t.
A mean of shares has the same form: its variance is that of its resamples, with what the floors add to each share
divided by their number squared, and Satterthwaite's degrees of freedom. Differences are value ± t · SE, paired, since
both have the same resamples of patients.

Where a figure is itself a mean over draws of shots and initialisations, their variances of the mean are added, with
their own degrees of freedom: other shots would have given another model, and other patients another test.

References: those of `standard_errors` and `intervals`; Satterthwaite, Biometrics Bulletin 2 (1946) 110-114; Owen, The
pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007) 386-411 (two ways in which a mean varies).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.estimate import LEVEL, Difference, Estimate
from medclip.statistics.resampling.intervals import share_interval
from medclip.statistics.resampling.standard_errors import MOST_UNDEFINED, mended

Floats = NDArray[np.float64]
_ALIKE = 1e-12
"""A standard error below this is none: all resamples are alike."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """A figure between 0 (or `least`) and 1 with what its interval is made of."""

    value: float
    drawn_B: Floats
    """The figure in each resample of patients. Where it is not defined in some, the others are spread by as much."""
    bootstrap: float
    """Variance over patients, times c/(c − 1); NaN where there is no interval."""
    lift: float
    """What the floor adds to it."""
    df: float
    """Degrees of freedom of the variance over patients."""
    runs_SI: Floats | None = None
    """The figure of each draw of shots and initialisation, where the value is a mean over them."""
    least: float = 0.0
    """Lowest value that there can be: −1 for a coefficient of correlation or agreement."""

    @property
    def variance(self) -> float:
        """Over patients, after all mends."""
        return self.bootstrap + self.lift


def share(
    value: float, drawn_B: Floats, *, cases: float, patients: float, pairs: tuple[float, float] | None = None
) -> Resampled:
    """Take a rate, or an area under the ROC curve, with its resamples.

    Args:
        value: Figure of the sample itself.
        drawn_B: Figure of each resample of patients; NaN where not defined.
        cases: Rows in the denominator; of the scarcer kind for an area.
        patients: Effective number of patients who can move the figure (`standard_errors.effective_patients`).
        pairs: Positives and negatives, for an area; None for a rate.
    """
    sides = None if pairs is None else (np.array([pairs[0]]), np.array([pairs[1]]))
    errors = mended(np.array([value]), drawn_B[None], np.array([cases]), np.array([patients]), sides, share=True)
    variance, bootstrap = float(errors.variance_G[0]), float(errors.bootstrap_G[0])
    return Resampled(value, _spread(drawn_B), bootstrap, variance - bootstrap, float(errors.df_G[0]))


def bounded(
    value: float, drawn_B: Floats, *, patients: float, least: float = 0.0, runs_SI: Floats | None = None
) -> Resampled:
    """Take a figure that is no share of answers, with its resamples: a mean of Dice, or kappa and Spearman's rho.

    A rate's floor is that of answers which are 0 or 1; values in between vary less, and have none.

    Args:
        value: Figure of the sample itself.
        drawn_B: Figure of each resample of patients; NaN where not defined.
        patients: Effective number of patients, as of `share`.
        least: Lowest value that there can be, as in `Resampled`; the highest is 1.
        runs_SI: Figure of each draw of shots and initialisation, as in `Resampled`.
    """
    nothing = np.zeros(1)
    errors = mended(np.array([value]), drawn_B[None], nothing, np.array([patients]), share=False)
    variance, df = float(errors.variance_G[0]), float(errors.df_G[0])
    return Resampled(value, _spread(drawn_B), variance, 0.0, df, runs_SI, least)


def combination(
    value: float,
    drawn_B: Floats,
    parts: Sequence[Resampled],
    slopes: Sequence[float],
    *,
    runs_SI: Floats | None = None,
    same_patients: bool = False,
) -> Resampled:
    """Take a figure that is made of others, to first order with these slopes.

    Args:
        value: The figure.
        drawn_B: Figure of each resample, from the `drawn_B` of the parts.
        parts: Figures that the new one is made of.
        slopes: Slope of the figure in each of the parts.
        runs_SI: Figure of each draw of shots and initialisation, as in `Resampled`.
        same_patients: Whether the parts are of the same patients, so that together they know no more of a variance
            than one of them, and the mean of equal figures keeps their interval; otherwise of others, as the classes of
            a task are.
    """
    variances = np.square(slopes) * [part.variance for part in parts]
    dfs = np.array([part.df for part in parts])
    df = float(dfs.min()) if same_patients else _satterthwaite(variances, dfs)
    lifts = np.array([part.lift for part in parts])
    if same_patients and min(slopes) > 0:  # the floors of a sum rise together, those of a difference do not
        lift = float((np.asarray(slopes) * np.sqrt(lifts)).sum() ** 2)
    else:
        lift = float((np.square(slopes) * lifts).sum())
    has_variance = not np.isnan(variances).any() and len(drawn_B) > 1
    bootstrap = float(drawn_B.var(ddof=1) * (df + 1) / df) if has_variance else float("nan")
    return Resampled(value, drawn_B, bootstrap, lift, df, runs_SI, min(part.least for part in parts))


def mean(parts: Sequence[Resampled], runs_SI: Floats | None = None, *, same_patients: bool = False) -> Resampled:
    """Take the mean of figures of the same resamples; arguments as in `combination`."""
    if len(parts) == 1:
        return replace(parts[0], runs_SI=runs_SI)
    value, drawn_B = float(np.mean([p.value for p in parts])), np.mean([p.drawn_B for p in parts], axis=0)
    slopes = [1 / len(parts)] * len(parts)
    return combination(value, drawn_B, parts, slopes, runs_SI=runs_SI, same_patients=same_patients)


def interval_of(figure: Resampled, *, level: float = LEVEL) -> Estimate:
    """Compute the interval of a figure: Wilson's of its place between the lowest value that there can be and 1.

    Returns:
        Without ends where its variance is not known, and where no resample and no run differs.
    """
    variance, df = _total(figure)
    if np.isnan(figure.value) or not variance > _ALIKE**2:
        return Estimate(figure.value)
    width = 1.0 - figure.least
    place_1, df_1 = np.array([(figure.value - figure.least) / width]), np.array([df])
    variance_1, lift = np.array([variance / width**2]), figure.lift / width**2
    low, high = share_interval(place_1, variance_1, variance_1 - lift, df_1, level)
    return Estimate(figure.value, *(figure.least + width * float(end[0]) for end in (low, high)))


def difference(one: Resampled, other: Resampled) -> Difference:
    """Compare two figures of the same resamples of patients: the other minus the first."""
    runs_SI = None
    if one.runs_SI is not None and other.runs_SI is not None:
        runs_SI = other.runs_SI - one.runs_SI
    drawn_B = other.drawn_B - one.drawn_B
    apart = combination(other.value - one.value, drawn_B, [one, other], [-1, 1], runs_SI=runs_SI, same_patients=True)
    variance, df = _total(apart)
    most = 1.0 - apart.least
    return _tested(apart.value, variance, df, len(drawn_B), bounds=(-most, most))


def change(
    value: float,
    drawn_B: Floats,
    patients: float,
    *,
    least: float = 0.0,
    added: float = 0.0,
    lifted: float = 0.0,
) -> Difference:
    """Compute interval and test of a difference, or of a mean that would be 0 if nothing was there.

    Args:
        value: Figure of the sample itself.
        drawn_B: Figure of each resample; NaN where not defined.
        patients: Number of patients who can move the figure, c: the bootstrap's variance is multiplied by c/(c − 1),
            and t has c − 1 degrees of freedom.
        least: Variance that is taken where the bootstrap's is smaller: with few events it is too small by chance.
        added: Variance that floors add.
        lifted: Variance that is added for the test alone (`standard_errors.variance_if`).

    Returns:
        No interval and no test where more than a tenth of the resamples is undefined, or there are fewer than two
        patients or resamples. Where all resamples are alike there is no interval; a change, if it is one, has then the
        least p that counting can give.
    """
    values = drawn_B[~np.isnan(drawn_B)]
    if np.isnan(value + added) or len(values) < max(2, (1 - MOST_UNDEFINED) * len(drawn_B)) or patients < 2:
        return Difference(value, degrees_of_freedom=patients - 1)
    variance = max(float(values.var(ddof=1)) * patients / (patients - 1) + added, least)
    return _tested(value, variance, patients - 1, len(drawn_B), lifted=lifted)


def _tested(
    value: float,
    variance: float,
    df: float,
    num_resamples: int,
    *,
    lifted: float = 0.0,
    bounds: tuple[float, float] | None = None,
) -> Difference:
    """Turn a value and its variance into interval and two-sided test by Student's t."""
    from scipy.special import stdtr, stdtrit

    if np.isnan(value + variance):
        return Difference(value, degrees_of_freedom=df)
    error = float(np.sqrt(variance))
    if error < _ALIKE:
        p = 1.0 if abs(value) < _ALIKE else 2 / (1 + num_resamples)
        return Difference(value, standard_error=error, degrees_of_freedom=df, p=p)
    half = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    low, high = value - half, value + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    p = float(2 * stdtr(df, -abs(value) / np.sqrt(variance + lifted)))
    return Difference(value, low, high, error, df, p)


def _total(figure: Resampled) -> tuple[float, float]:
    """Variance over patients, shots and initialisations, and its degrees of freedom."""
    variances, dfs = [figure.variance], [figure.df]
    if figure.runs_SI is not None:
        for means in (figure.runs_SI.mean(axis=1), figure.runs_SI.mean(axis=0)):
            if len(means) > 1:
                variances.append(float(means.var(ddof=1)) / len(means))
                dfs.append(len(means) - 1.0)
    return float(np.sum(variances)), _satterthwaite(np.array(variances), np.array(dfs))


def _satterthwaite(variances: Floats, dfs: Floats) -> float:
    spread = float((variances**2 / dfs).sum())
    return float(variances.sum()) ** 2 / spread if spread > 0 else float(dfs.min())


def _spread(drawn_B: Floats) -> Floats:
    """Fill undefined resamples with the mean, and spread the others so that the variance stays."""
    known_B = ~np.isnan(drawn_B)
    if known_B.all() or not known_B.any():
        return drawn_B
    centre = float(drawn_B[known_B].mean())
    return np.where(known_B, centre + (drawn_B - centre) / np.sqrt(known_B.mean()), centre)
