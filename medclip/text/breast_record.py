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
from medclip.sample import VIEW_KINDS
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
    "upper outer",
    "upper inner",
    "lower outer",
    "lower inner",
    "upper",
    "lower",
    "outer",
    "inner",
    "central",
    "subareolar",
    "axillary tail",
    "axilla",
)
DEPTHS = ("anterior", "middle", "posterior")
SHAPES = ("oval", "round", "lobulated", "irregular")
MARGINS = ("circumscribed", "obscured", "microlobulated", "indistinct", "ill-defined", "spiculated")
MASS_DENSITIES = ("high density", "equal density", "low density", "fat-containing")
BENIGN_FORMS = (
    "skin",
    "vascular",
    "coarse",
    "popcorn-like",
    "large rod-like",
    "round",
    "rim",
    "eggshell",
    "lucent-centred",
    "dystrophic",
    "milk of calcium",
    "suture",
    "oil cyst",
)
"""Calcifications that BI-RADS calls typically benign."""
SUSPICIOUS_FORMS = (
    "amorphous",
    "coarse heterogeneous",
    "fine pleomorphic",
    "pleomorphic",
    "fine linear",
    "fine linear branching",
)
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
        _check(
            ("type of a finding", (self.kind,), finding_kinds()),
            ("quadrant of a finding", (self.quadrant,), QUADRANTS),
            ("depth of a finding", (self.depth,), DEPTHS),
            ("shape of a finding", (self.shape,), SHAPES),
            ("margin of a finding", self.margins, MARGINS),
            ("density of a mass", (self.density,), MASS_DENSITIES),
            ("morphology of a finding", self.forms, FORMS),
            ("distribution of a finding", (self.distribution,), DISTRIBUTIONS),
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
        _check(
            ("view_kind", (self.view_kind,), VIEW_KINDS),
            ("breast composition", (self.composition,), tuple(COMPOSITIONS.values())),
            ("pathology", (self.pathology,), PATHOLOGIES),
            ("type of a finding", self.absent, finding_kinds()),
        )
        if self.birads is not None and not 0 <= self.birads <= 6:
            raise MedclipError(Reason.TABLE_INVALID, f"BI-RADS {self.birads} is no assessment.", hint="Use 0 to 6.")
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


def _check(*closed: tuple[str, Sequence[str], Sequence[str]]) -> None:
    """Refuse words that are not of closed lists, each with its name, the words and the list."""
    for name, words, allowed in closed:
        for word in words:
            if word and word not in allowed:
                raise MedclipError(
                    Reason.TABLE_INVALID,
                    f"the {name} {word!r} is not known.",
                    hint=did_you_mean(word, allowed, "It has"),
                )


def record_of(values: Mapping[str, Any], side: str = "") -> BreastRecord:
    """Read a record in the form of JSON: density A to D, birads, findings with a type, cancer 0 or 1, implant.

    Args:
        values: `density`, `birads`, `findings` (a list of mappings with `type`, and where known `side`, `quadrant`,
            `depth`, `shape`, `margin`, `density`, `size_mm`, `morphology`, `distribution`), `absent`, `cancer`,
            `pathology`, `implant`, `side`, `view`, `view_kind`; all optional. A list of findings is taken for complete:
            kinds that it does not name are absent, unless `absent` is stated. Without one nothing is said.
        side: Side of the breast, where `values` have none. Findings that name another side are left out; where no side
            is known, so are all that name one, and their kinds are not absent.

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
    # of a breast of unknown side, a finding of one side is neither there nor not there
    open_kinds = {_kind(str(f.get("type", ""))) for f in stated or () if not side and _side(f.get("side"))}
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
        absent=tuple(kind for kind in absent if kind not in {f.kind for f in findings} | open_kinds),
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
        size_mm=None if size in (None, "") else _millimetres(size),
        forms=forms,
        distribution=str(values.get("distribution") or "").lower(),
        suspicious=None if suspicious is None else bool(suspicious),
    )


def suspicion_of(forms: Sequence[str]) -> bool | None:
    """Whether BI-RADS takes calcifications of these forms for suspicious; None where it depends ("punctate")."""
    if any(form in SUSPICIOUS_FORMS for form in forms):
        return True
    return False if forms and all(form in BENIGN_FORMS for form in forms) else None


def _millimetres(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise MedclipError(
            Reason.TABLE_INVALID, "`size_mm` of a finding is no number.", hint="Use millimetres, 1 to 300."
        ) from None


def _kind(text: str) -> str:
    return "_".join(text.lower().split())


def _side(value: object) -> str:
    return {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}.get(str(value or "").upper(), "")


def _words(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    return tuple(str(v).lower() for v in values if v)
