"""What is known of one breast on a mammogram, as a value: the source of its report.

The words are those of BI-RADS (5th edition). Nothing is filled in: what a table does not state is empty here, and no
sentence speaks of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.text.vocabulary.load import load_task

FINDINGS_TASK = "mammography_findings"
MASS, CALCIFICATION, LYMPH_NODE = "mass", "calcification", "lymph_node"
ASYMMETRIES = ("asymmetry", "focal_asymmetry", "global_asymmetry")
SIDES: Mapping[str, str] = {"L": "left", "R": "right"}
COMPOSITIONS: Mapping[str, str] = {
    "A": "almost_entirely_fatty",
    "B": "scattered_fibroglandular",
    "C": "heterogeneously_dense",
    "D": "extremely_dense",
}
QUADRANTS = (
    "upper outer", "upper inner", "lower outer", "lower inner", "upper", "lower", "outer", "inner", "central",
    "subareolar", "axillary tail", "axilla",
)  # fmt: skip
DEPTHS = ("anterior", "middle", "posterior")
SHAPES = ("oval", "round", "lobulated", "irregular")
MARGINS = ("circumscribed", "obscured", "microlobulated", "indistinct", "ill-defined", "spiculated")
MASS_DENSITIES = ("high density", "equal density", "low density", "fat-containing")
BENIGN_FORMS = (
    "skin", "vascular", "coarse", "popcorn-like", "large rod-like", "round", "rim", "eggshell", "lucent-centred",
    "dystrophic", "milk of calcium", "suture", "oil cyst",
)  # fmt: skip
"""Calcifications that BI-RADS calls typically benign."""
SUSPICIOUS_FORMS = (
    "amorphous", "coarse heterogeneous", "fine pleomorphic", "pleomorphic", "fine linear", "fine linear branching",
)  # fmt: skip
FORMS = (*BENIGN_FORMS, "punctate", *SUSPICIOUS_FORMS)
DISTRIBUTIONS = ("diffuse", "regional", "grouped", "linear", "segmental")
PATHOLOGIES = ("normal", "benign", "malignant")


@cache
def finding_kinds() -> tuple[str, ...]:
    """Return the kinds of findings there are, in the order of the task."""
    return tuple(c.name for c in load_task(FINDINGS_TASK).classes)


@dataclass(frozen=True)
class BreastFinding:
    """One finding. Empty is not known."""

    kind: str
    """A class of the task `mammography_findings`."""
    quadrant: str = ""
    """One of `QUADRANTS`."""
    depth: str = ""
    shape: str = ""
    """Of a mass, as `margins`, `density` and `size_mm`."""
    margins: tuple[str, ...] = ()
    density: str = ""
    size_mm: float | None = None
    forms: tuple[str, ...] = ()
    """Of calcifications: their morphology, several where the reader named several."""
    distribution: str = ""
    suspicious: bool | None = None
    """Of calcifications and lymph nodes: whether the reader took them for suspicious."""

    def __post_init__(self) -> None:
        closed: Sequence[tuple[str, Sequence[str], Sequence[str]]] = (
            ("type", (self.kind,), finding_kinds()),
            ("quadrant", (self.quadrant,), QUADRANTS),
            ("depth", (self.depth,), DEPTHS),
            ("shape", (self.shape,), SHAPES),
            ("margin", self.margins, MARGINS),
            ("density of a mass", (self.density,), MASS_DENSITIES),
            ("morphology", self.forms, FORMS),
            ("distribution", (self.distribution,), DISTRIBUTIONS),
        )
        for name, values, known in closed:
            for value in values:
                if value and value not in known:
                    raise MedclipError(
                        Reason.TABLE_INVALID,
                        f"the {name} {value!r} of a finding is not known.",
                        hint=did_you_mean(value, known, "It has"),
                    )
        if self.size_mm is not None and not (math.isfinite(self.size_mm) and 0 < self.size_mm <= 300):
            raise MedclipError(
                Reason.TABLE_INVALID, f"a finding of {self.size_mm:g} mm cannot be.", hint="Use millimetres, 1 to 300."
            )


@dataclass(frozen=True)
class BreastRecord:
    """What is known of one breast, or of one image of it. Empty is not known."""

    side: str = ""
    """"L" or "R"."""
    view: str = ""
    """CC, MLO, ..."""
    view_kind: str = "standard"
    composition: str = ""
    """A class of the task `breast_composition`."""
    birads: int | None = None
    findings: tuple[BreastFinding, ...] = ()
    absent: tuple[str, ...] = ()
    """Kinds of findings that were looked for and are not there."""
    pathology: str = ""
    """normal, benign or malignant: by biopsy or follow-up, of the worst lesion."""
    implant: bool | None = None

    def __post_init__(self) -> None:
        both = {f.kind for f in self.findings} & set(self.absent)
        if both:
            raise MedclipError(
                Reason.TABLE_INVALID, f"{sorted(both)[0]} is said to be there and not to be there, of one breast."
            )

    @property
    def is_clear(self) -> bool:
        """Whether every kind of finding was looked for, and none is there."""
        return not self.findings and set(self.absent) == set(finding_kinds())

    @property
    def deniable(self) -> tuple[str, ...]:
        """Kinds that a sentence may deny. None of a clear breast, of which one sentence says it all; and no asymmetry
        beside one of another kind, which readers would take for a contradiction.
        """
        if self.is_clear:
            return ()
        present = {f.kind for f in self.findings}
        left_out = set(ASYMMETRIES) if present & set(ASYMMETRIES) else set()
        return tuple(kind for kind in self.absent if kind not in left_out)


def record_of(values: Mapping[str, Any], side: str = "") -> BreastRecord:
    """Read a record in the form of JSON: density A to D, birads, findings with a type, cancer 0 or 1, implant.

    Args:
        values: `density`, `birads`, `findings` (a list of mappings with `type`, and where known `side`, `quadrant`,
            `depth`, `shape`, `margin`, `density`, `size_mm`, `morphology`, `distribution`), `absent`, `cancer`,
            `pathology`, `implant`, `side`, `view`, `view_kind`; all optional. A list of findings is taken for complete:
            kinds that it does not name are absent, unless `absent` is stated. Without one nothing is said.
        side: Of the breast, where `values` have none. Findings that name another side are left out.

    Raises:
        MedclipError: TABLE_INVALID for a word that is not of the closed lists.

    Example:
        >>> record_of({"density": "B", "findings": [{"type": "mass", "side": "L"}]}, "L").findings[0].kind
        'mass'
    """
    side = _side(values.get("side")) or side
    stated = values.get("findings")
    findings = () if stated is None else tuple(_finding(f) for f in stated if _side(f.get("side")) in ("", side))
    absent = tuple(_kind(str(kind)) for kind in values.get("absent", () if stated is None else finding_kinds()))
    cancer = values.get("cancer")
    pathology = values.get("pathology") or ("malignant" if cancer not in (None, "") and int(cancer) else "")
    birads, implant = values.get("birads"), values.get("implant")
    return BreastRecord(
        side=side,
        view=str(values.get("view") or ""),
        view_kind=str(values.get("view_kind") or "standard"),
        composition=COMPOSITIONS.get(str(values.get("density") or "").upper(), ""),
        birads=None if birads in (None, "") else int(birads),
        findings=findings,
        absent=tuple(kind for kind in absent if kind not in {f.kind for f in findings}),
        pathology=str(pathology),
        implant=None if implant in (None, "") else bool(int(implant)),
    )


def _finding(values: Mapping[str, Any]) -> BreastFinding:
    forms = _words(values.get("morphology"))
    suspicious = values.get("suspicious")
    if suspicious is None and forms:
        suspicious = suspicion_of(forms)
    depth = str(values.get("depth") or "").lower()
    size = values.get("size_mm")
    return BreastFinding(
        kind=_kind(str(values.get("type", ""))),
        quadrant=str(values.get("quadrant") or "").lower(),
        depth="middle" if depth == "mid" else depth,
        shape=str(values.get("shape") or "").lower(),
        margins=_words(values.get("margin")),
        density=str(values.get("density") or "").lower(),
        size_mm=None if size in (None, "") else float(size),
        forms=forms,
        distribution=str(values.get("distribution") or "").lower(),
        suspicious=None if suspicious is None else bool(suspicious),
    )


def suspicion_of(forms: Sequence[str]) -> bool | None:
    """Whether BI-RADS takes calcifications of these forms for suspicious; None where it depends ("punctate")."""
    if any(form in SUSPICIOUS_FORMS for form in forms):
        return True
    return False if forms and all(form in BENIGN_FORMS for form in forms) else None


def _kind(text: str) -> str:
    return "_".join(text.lower().split())


def _side(value: object) -> str:
    return {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}.get(str(value or "").upper(), "")


def _words(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    return tuple(str(v).lower() for v in values if v)
