"""The variance of an AUROC without resampling, and tests of two of them (DeLong; Obuchowski for clustered images).

With m positives X and n negatives Y, ψ(x, y) = 1 if x > y, ½ if they tie, 0 otherwise: placements V10_i = mean over j
of ψ(X_i, Y_j) and V01_j = mean over i of ψ(X_i, Y_j); Var(AUROC) = S10/m + S01/n with sample variances S (n − 1
below). Placements come from mid-ranks, so the cost is that of sorting.

DeLong takes every row for independent: with several images of one patient its intervals are too narrow. Obuchowski's
form sums placements within patients first and adds the covariance of a patient's positives and negatives.

References: DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837-845; Sun & Xu, IEEE Signal Process. Lett. 21
(2014) 1389-1393 (mid-ranks); Obuchowski, Biometrics 53 (1997) 567-578 (clusters).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Two AUROCs compared."""

    value: float
    """First minus second."""
    variance: float
    """Of the difference."""
    z: float
    """NaN where the variance is 0."""
    p: float
    """Two-sided; 1 where the two are alike in every respect, NaN where they differ with variance 0."""
    log10_p: float
    """Of p; finite also where p is too small for a float."""


@dataclass(frozen=True, eq=False)
class Areas:
    """K AUROCs on the same rows."""

    auroc_K: _Floats
    covariance_KK: _Floats
    """NaN where there are fewer than two positives or negatives."""


def auroc_variance(truth_N: ArrayLike, *scores: ArrayLike, patients_N: ArrayLike | None = None) -> Areas:
    """Return the AUROC of each score with their covariance matrix.

    Args:
        truth_N: Truths, 1 or 0, [N].
        scores: K arrays of scores [N], higher for positives; ties count half.
        patients_N: Patient of each row, [N]; given, patients may have several images (Obuchowski). Left out, rows count
            as independent; with one image for each patient both are nearly the same (equal as N grows).

    Returns:
        NaN throughout where one class is missing; NaN covariances where fewer than two rows (patients) have a positive,
        or a negative.

    Raises:
        MedclipError: WRONG_USE for truths other than 0 and 1, NaN scores, unequal lengths or no score.
    """
    positive_N, scores_KN = _checked(truth_N, scores)
    num_scores, m, n = len(scores_KN), int(positive_N.sum()), int((~positive_N).sum())
    unknown_KK = np.full((num_scores, num_scores), np.nan)
    patients = None if patients_N is None else np.unique(np.asarray(patients_N), return_inverse=True)[1]
    if patients is not None and len(patients) != len(positive_N):
        raise MedclipError(Reason.WRONG_USE, f"{len(positive_N)} truths and {len(patients)} patients.")
    if m == 0 or n == 0:
        return Areas(np.full(num_scores, np.nan), unknown_KK)
    v10_Km, v01_Kn = _placements(positive_N, scores_KN)
    auroc_K = v10_Km.mean(axis=1)
    if patients is None:
        if min(m, n) < 2:
            return Areas(auroc_K, unknown_KK)
        return Areas(auroc_K, np.atleast_2d(np.cov(v10_Km)) / m + np.atleast_2d(np.cov(v01_Kn)) / n)
    above_KP, m_P = _patient_sums(v10_Km - auroc_K[:, None], patients[positive_N], patients.max() + 1)
    below_KP, n_P = _patient_sums(v01_Kn - auroc_K[:, None], patients[~positive_N], patients.max() + 1)
    with_positive, with_negative, num = int((m_P > 0).sum()), int((n_P > 0).sum()), int(patients.max()) + 1
    if min(with_positive, with_negative) < 2:
        return Areas(auroc_K, unknown_KK)
    s10_KK = above_KP @ above_KP.T * with_positive / ((with_positive - 1) * m)
    s01_KK = below_KP @ below_KP.T * with_negative / ((with_negative - 1) * n)
    s11_KK = above_KP @ below_KP.T * num / (num - 1)
    return Areas(auroc_K, s10_KK / m + s01_KK / n + (s11_KK + s11_KK.T) / (m * n))


def interval(auroc: float, variance: float, *, level: float = 0.95, scale: str = "logit") -> tuple[float, float]:
    """Return the interval of an AUROC from its variance.

    Args:
        auroc: The AUROC.
        variance: Variance of the AUROC.
        level: Coverage of the interval.
        scale: Scale of the interval: "logit" (logit A ± z · SE / (A (1 − A)), stays within 0 to 1) or "wald" (A ± z ·
            SE).

    Returns:
        (NaN, NaN) where the variance is not known, or the AUROC is 0 or 1 (its variance is then 0 whatever the truth).

    Raises:
        MedclipError: WRONG_USE for another scale.
    """
    from scipy.special import expit, logit
    from scipy.stats import norm

    if scale not in ("logit", "wald"):
        raise MedclipError(Reason.WRONG_USE, f"there is no scale {scale!r}; it is logit or wald.")
    if not (variance > 0 and 0 < auroc < 1):
        return float("nan"), float("nan")
    half = float(norm.ppf((1 + level) / 2)) * float(np.sqrt(variance))
    if scale == "wald":
        return auroc - half, auroc + half
    half /= auroc * (1 - auroc)
    return float(expit(logit(auroc) - half)), float(expit(logit(auroc) + half))


def paired(
    truth_N: ArrayLike, score_N: ArrayLike, other_N: ArrayLike, patients_N: ArrayLike | None = None
) -> Comparison:
    """Compare two scores of the same rows.

    Args:
        truth_N: Truths, 1 or 0, [N].
        score_N: Scores of one model, [N].
        other_N: Scores of the other model, [N].
        patients_N: Patient of each row, [N]; given, patients may have several images (Obuchowski). Left out, rows count
            as independent.

    Returns:
        z = (A − B) / √(V_A + V_B − 2 V_AB).
    """
    areas = auroc_variance(truth_N, score_N, other_N, patients_N=patients_N)
    v = areas.covariance_KK
    return _compared(float(areas.auroc_K[0] - areas.auroc_K[1]), float(v[0, 0] + v[1, 1] - 2 * v[0, 1]))


def unpaired(
    truth_N: ArrayLike, score_N: ArrayLike, patients_N: ArrayLike, first_N: ArrayLike, second_N: ArrayLike
) -> Comparison:
    """Compare the AUROC of two groups that share no patient.

    Args:
        truth_N: Truths, 1 or 0, [N].
        score_N: Scores, [N].
        patients_N: Patient of each row, [N]. Where one has several rows, variances are Obuchowski's.
        first_N: Whether each row is in the first group, [N].
        second_N: Whether each row is in the second group, [N].

    Returns:
        z = (A − B) / √(V_A + V_B).

    Raises:
        MedclipError: PATIENT_OVERLAP when a patient is in both groups: their AUROCs are then not independent;
            WRONG_USE as `auroc_variance`.
    """
    truth, score, patients = np.asarray(truth_N), np.asarray(score_N), np.asarray(patients_N)
    first, second = np.asarray(first_N, bool), np.asarray(second_N, bool)
    shared = len(np.intersect1d(patients[first], patients[second]))
    if shared:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"{shared} patients are in both groups, so that DeLong's unpaired test does not hold.",
            hint="Compare the groups by the patient bootstrap (medclip.auditing.groups.differences.against).",
        )
    several = len(np.unique(patients[first | second])) < int((first | second).sum())
    areas = [
        auroc_variance(truth[rows], score[rows], patients_N=patients[rows] if several else None)
        for rows in (first, second)
    ]
    difference = float(areas[0].auroc_K[0] - areas[1].auroc_K[0])
    return _compared(difference, float(areas[0].covariance_KK[0, 0] + areas[1].covariance_KK[0, 0]))


def _checked(truth_N: ArrayLike, scores: tuple[ArrayLike, ...]) -> tuple[NDArray[np.bool_], _Floats]:
    truth = np.asarray(truth_N, np.float64)
    arrays = [np.asarray(s, np.float64) for s in scores]
    if not arrays or any(a.shape != truth.shape for a in arrays):
        raise MedclipError(Reason.WRONG_USE, "DeLong needs one score or more, each as long as the truth.")
    if not np.isin(truth, (0, 1)).all() or any(np.isnan(a).any() for a in arrays):
        raise MedclipError(Reason.WRONG_USE, "DeLong needs truths of 0 and 1 and a score for each row.")
    return truth == 1, np.stack(arrays)


def _placements(positive_N: NDArray[np.bool_], scores_KN: _Floats) -> tuple[_Floats, _Floats]:
    """Placements of positives among negatives [K, m] and of negatives among positives [K, n], from mid-ranks."""
    from scipy.stats import rankdata

    m, n = int(positive_N.sum()), int((~positive_N).sum())
    all_KN = rankdata(scores_KN, axis=1)
    own_Km, own_Kn = rankdata(scores_KN[:, positive_N], axis=1), rankdata(scores_KN[:, ~positive_N], axis=1)
    above_Km, below_Kn = all_KN[:, positive_N] - own_Km, all_KN[:, ~positive_N] - own_Kn
    return np.asarray(above_Km / n, np.float64), np.asarray(1 - below_Kn / m, np.float64)


def _patient_sums(values_KR: _Floats, patients_R: NDArray[np.int64], num: int) -> tuple[_Floats, _Floats]:
    sums = np.stack([np.bincount(patients_R, weights=row, minlength=num) for row in values_KR])
    return np.asarray(sums, np.float64), np.bincount(patients_R, minlength=num).astype(np.float64)


def _compared(difference: float, variance: float) -> Comparison:
    from scipy.stats import norm

    if not variance > 0:
        alike = difference == 0 and variance == 0
        p = 1.0 if alike else float("nan")
        return Comparison(difference, variance, float("nan"), p, 0.0 if alike else float("nan"))
    z = difference / float(np.sqrt(variance))
    log10_p = float((np.log(2) + norm.logsf(abs(z))) / np.log(10))
    return Comparison(difference, variance, z, float(2 * norm.sf(abs(z))), log10_p)
