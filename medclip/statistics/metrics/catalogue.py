"""The metrics of the audit: what each is, in words and as a formula, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

What = Literal["discrimination", "threshold", "calibration", "count", "survival"]


@dataclass(frozen=True)
class MetricInfo:
    """One metric, as the report explains it."""

    title: str
    what: What
    needs_threshold: bool
    needs_probability: bool
    better: Literal["high", "low"] | None
    """Which direction is good; None where neither is (prevalence) or a value in the middle is (slope 1)."""
    formula: str
    """Plain text; w are weights, s scores, y truths, t the threshold; sums run over the rows of the cell."""
    reference: str


_HANLEY = "Hanley and McNeil, Radiology 143:29-36 (1982)"
_DIXON = "Borkan et al., Nuanced metrics for measuring unintended bias, WWW Companion (2019)"
_ALTMAN = "Altman and Bland, BMJ 308:1552 (1994)"
_ALTMAN_PV = "Altman and Bland, BMJ 309:102 (1994)"
_HARDT = "Hardt, Price and Srebro, Equality of opportunity in supervised learning, NeurIPS (2016)"
_SEYYED = "Seyyed-Kalantari et al., Nature Medicine 27:2176-2182 (2021)"
_COX = (
    "Cox, Biometrika 45:562-565 (1958); resamples by one step from the fit, with Chebyshev's correction: "
    "Moulton and Zeger, Comput. Stat. Data Anal. 11:53-63 (1991)"
)
_LARGE = "Van Calster et al., BMC Med. 17:230 (2019); resamples by one corrected step, as the slope's"
_NAEINI = "Naeini, Cooper and Hauskrecht, AAAI (2015)"


def _rate(title: str, better: Literal["high", "low"] | None, formula: str, reference: str) -> MetricInfo:
    return MetricInfo(title, "threshold", True, False, better, formula, reference)


METRICS: dict[str, MetricInfo] = {
    "prevalence": MetricInfo("prevalence", "count", False, False, None, "positives / n", "proportion"),
    "auroc": MetricInfo(
        "AUROC",
        "discrimination",
        False,
        False,
        "high",
        "P(score of a positive > score of a negative) + 1/2 P(equal)",
        _HANLEY,
    ),
    "auprc": MetricInfo(
        "AUPRC (average precision)",
        "discrimination",
        False,
        False,
        "high",
        "sum over thresholds of (recall step) x precision; no interpolation",
        "Davis and Goadrich, ICML (2006)",
    ),
    "auprc_adjusted": MetricInfo(
        "AUPRC, adjusted for prevalence",
        "discrimination",
        False,
        False,
        "high",
        "1 - ln(average precision) / ln(prevalence): 0 at chance, 1 when perfect",
        "spec core/cxr_fairness; compare Boyd et al., Unachievable region in precision-recall space, ICML (2012)",
    ),
    "tpr": _rate("sensitivity (TPR)", "high", "TP / (TP + FN)", _ALTMAN),
    "fpr": _rate("false positive rate (FPR)", "low", "FP / (FP + TN)", _ALTMAN),
    "fnr": _rate("false negative rate (FNR)", "low", "FN / (TP + FN)", _ALTMAN),
    "tnr": _rate("specificity (TNR)", "high", "TN / (FP + TN)", _ALTMAN),
    "ppv": _rate("positive predictive value (PPV)", "high", "TP / (TP + FP)", _ALTMAN_PV),
    "npv": _rate("negative predictive value (NPV)", "high", "TN / (TN + FN)", _ALTMAN_PV),
    "selection_rate": _rate("selection rate", None, "(TP + FP) / n", _HARDT),
    "accuracy": _rate("accuracy", "high", "(TP + TN) / n", "proportion"),
    "f1": _rate("F1", "high", "2 TP / (2 TP + FP + FN)", "van Rijsbergen, Information Retrieval (1979)"),
    "calibration_in_the_large": MetricInfo(
        "calibration in the large",
        "calibration",
        False,
        True,
        None,
        "a of logit P(y = 1) = a + logit(s): 0 is right, below 0 the probabilities are too high",
        _LARGE,
    ),
    "observed_expected": MetricInfo(
        "observed/expected",
        "calibration",
        False,
        True,
        None,
        "sum w y / sum w s: 1 is right, below 1 the probabilities are too high",
        "Riley et al., BMJ 353:i3140 (2016)",
    ),
    "calibration_slope": MetricInfo(
        "calibration slope",
        "calibration",
        False,
        True,
        None,
        "b of logit P(y = 1) = a + b logit(s): 1 is right, below 1 the probabilities are too extreme",
        _COX,
    ),
    "calibration_intercept": MetricInfo(
        "calibration intercept", "calibration", False, True, None, "a of logit P(y = 1) = a + b logit(s)", _COX
    ),
    "brier": MetricInfo(
        "Brier score",
        "calibration",
        False,
        True,
        "low",
        "sum w (s - y)^2 / sum w",
        "Brier, Mon. Weather Rev. 78:1-3 (1950)",
    ),
    "ece": MetricInfo(
        "expected calibration error (15 bins of equal width)",
        "calibration",
        False,
        True,
        "low",
        "sum over bins of |sum w (s - y)| / sum w; bins are closed on the right; corrected for what chance adds: "
        "sqrt(2 value^2 - mean of resample^2)",
        _NAEINI,
    ),
    "ece_mass": MetricInfo(
        "expected calibration error (15 bins of equal mass)",
        "calibration",
        False,
        True,
        "low",
        "as ece, with the edges at the fifteenths of all scores of the sample, the same for each group",
        "Nixon et al., Measuring calibration in deep learning, CVPR Workshops (2019)",
    ),
    "underdiagnosis": _rate(
        "underdiagnosis", "low", "FNR of a disease; FPR of a 'no finding' label: ill, and called healthy", _SEYYED
    ),
    "overdiagnosis": _rate(
        "overdiagnosis", "low", "FPR of a disease; FNR of a 'no finding' label: healthy, and called ill", _SEYYED
    ),
    "auroc_bpsn": MetricInfo(
        "AUROC, background positive against subgroup negative",
        "discrimination",
        False,
        False,
        "high",
        "P(score of a positive outside the group > score of a negative of the group) + 1/2 P(equal)",
        _DIXON,
    ),
    "auroc_bnsp": MetricInfo(
        "AUROC, background negative against subgroup positive",
        "discrimination",
        False,
        False,
        "high",
        "P(score of a positive of the group > score of a negative outside the group) + 1/2 P(equal)",
        _DIXON,
    ),
    "net_benefit": MetricInfo(
        "net benefit",
        "threshold",
        True,
        True,
        "high",
        "TP / n - FP / n x t / (1 - t)",
        "Vickers and Elkin, Med. Decis. Making 26:565-574 (2006)",
    ),
    "c_index": MetricInfo(
        "concordance (c-index)",
        "survival",
        False,
        False,
        "high",
        "P(the score is higher for who had the event first) + 1/2 P(equal), over pairs whose order is known",
        "Harrell, Lee and Mark, Stat. Med. 15:361-387 (1996)",
    ),
}
