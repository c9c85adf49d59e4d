"""A finding: one thing that an audit is sure of, with the harm it does. Every part of the page makes its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Harm(IntEnum):
    """What a finding does to patients; the first of these stands first on the page."""

    LEAKED = 0
    """Training and audit share something that they must not, so that no other figure holds for new patients."""
    DECLARED = 1
    """What was required before the data were seen is not met."""
    MISSED = 2
    """The ill are called healthy more often in a group."""
    REVERSED = 3
    """The ill get the lower scores."""
    FALSE_ALARM = 4
    """The healthy are called ill more often in a group."""
    RANKING = 5
    """The ill and the healthy are told apart less well in a group."""
    FRAGILE = 6
    """Images that are not as they should be cost answers, or cost a group more."""
    SHORTCUT = 7
    """The score follows a site, a device or a view."""
    CALIBRATION = 8
    """The score means another probability in a group."""
    UNSCORED = 9
    """More patients of a group have no score at all."""
    OTHER = 10

    @property
    def head(self) -> str:
        """The words by which findings of this kind are counted."""
        return _HEADS[self]


_HEADS = {
    Harm.LEAKED: "leakage",
    Harm.DECLARED: "not as required beforehand",
    Harm.MISSED: "missed disease",
    Harm.REVERSED: "reversed scores",
    Harm.FALSE_ALARM: "false alarms",
    Harm.RANKING: "ranking (AUROC)",
    Harm.FRAGILE: "under stress",
    Harm.SHORTCUT: "shortcuts",
    Harm.CALIBRATION: "calibration",
    Harm.UNSCORED: "missing scores",
    Harm.OTHER: "others",
}


BETTER = "groups that fare better"


@dataclass(frozen=True)
class Finding:
    """One finding of the summary; `findings(result)` of a part of the page returns a list of these."""

    harm: Harm
    sentence: str
    """Everything of it: who, how large, on how many patients, how sure. It ends with a full stop."""
    size: float
    """Distance from no harm: of one kind the largest comes first. Below 0 for the other side of a difference (a group
    that fares better than all others), which comes behind every harm."""
    what: str = ""
    """In the table of findings: the measure and where it was found. Blank: the sentence fills the row."""
    value: str = ""
    """The group's value, and that of those it is compared with."""
    difference: str = ""
    """With its interval."""
    counts: str = ""
    """What it rests on."""
    p: str = ""
    """By itself, and adjusted."""

    @property
    def fares_better(self) -> bool:
        """Whether it is the other side of a harm: a group that fares better than all others."""
        return self.size < 0

    @property
    def head(self) -> str:
        """The words by which findings like this are counted, and which stand above them."""
        return BETTER if self.fares_better else self.harm.head


def by_harm(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Order findings: the worst harm first, and of one harm the largest; behind all of them the groups that fare better
    than all others, so that they take no harm's place on the first pages.
    """
    return tuple(sorted(findings, key=lambda finding: (finding.fares_better, finding.harm, -finding.size)))
