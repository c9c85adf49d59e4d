"""CHECKS: what an audit asks beside the figures of groups: needs, function, tables and words of each check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from medclip.lazy import Table, import_name

if TYPE_CHECKING:
    from medclip.auditing.checks.evidence import Evidence

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CheckRows:
    """What a check returns."""

    tables: Mapping[str, Sequence[Row]]
    """Rows by the name of their table. The name of the model is added where the table has a column for it."""
    notes: Sequence[str] = ()
    """Sentences on what was left out, mended or assumed."""
    named: Sequence[Row] = ()
    """Images behind the rows (check, key, file, other, how), which `leaked_rows.csv` lists and nothing else."""
    images: Sequence[Row] = ()
    """Small images (label, attribute, group, kind, score, image) that stand on the page and nowhere else."""


@dataclass(frozen=True)
class Words:
    """What the page and the summary write about a check whose section they do not have themselves."""

    heading: str
    question: str
    """Sentence that stands first in the section."""
    nothing: str
    """Sentence for rows without a finding: what that does not show."""
    findings: Callable[[Mapping[str, Sequence[Row]]], Iterable[str]] | None = None
    """Function of the rows by table that returns a sentence for each finding, the worst first. The first of them leads
    the page where nothing does more harm."""
    harm: str = "OTHER"
    """Name of a `medclip.reports.audit.findings.Harm`, which places the findings among the others."""


@dataclass(frozen=True)
class Check:
    """One check."""

    run: Callable[[Evidence], CheckRows] | str
    """Function of the evidence, or "module:function", which is imported when the check is made."""
    needs: tuple[str, ...] = ()
    """Attributes of `Evidence` without which it is not made, asked in this order: "is_first" (the audited model and
    not those that it is compared with), "pack", "vectors_ND", ..."""
    options: tuple[str, ...] = ()
    """Attributes of `MeasureOptions`, one of which has to be set; none: it is always made."""
    columns: tuple[str, ...] = ()
    """Columns of the label table that it reads (`cohort.columns`); without one of them it is not made."""
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Tables that it adds to those of `medclip.auditing.result.COLUMNS`: columns, with the names of their Arrow types
    (string, double, int64). A column `low` and `high` is the interval of `value`."""
    words: Words | None = None
    """Words of its section; None for a check that has one on the page."""

    def is_asked(self, options: Any) -> bool:
        """Whether the options of the audit ask for it."""
        return not self.options or any(attrgetter(name)(options) for name in self.options)

    def is_possible(self, evidence: Evidence) -> bool:
        """Whether all that it needs is there."""
        values = (getattr(evidence, name) for name in self.needs)
        return set(self.columns) <= set(evidence.cohort.columns) and all(
            value is not None and value is not False for value in values
        )

    def rows(self, evidence: Evidence) -> CheckRows:
        """Make the check."""
        function = import_name(self.run) if isinstance(self.run, str) else self.run
        return function(evidence)


CHECKS: Table[Check] = Table(
    "medclip.checks",
    {
        "sources": Check("medclip.auditing.checks.shortcuts.sources:check_sources"),
        "shortcuts": Check(
            "medclip.auditing.checks.shortcuts.run:check_shortcuts", options=("shortcuts.devices", "shortcuts.reweight")
        ),
        "stress": Check(
            "medclip.auditing.checks.stress.run:check_stress", needs=("is_first", "pack"), options=("stress",)
        ),
        "worst errors": Check(
            "medclip.auditing.checks.worst_errors:check_worst_errors",
            needs=("is_first",),
            options=("image_checks.show_images",),
        ),
        "leakage": Check("medclip.auditing.checks.leakage.checks:check_leakage", needs=("is_first",)),
        "embeddings": Check(
            "medclip.auditing.checks.embeddings.probe:check_embeddings", needs=("is_first", "vectors_ND")
        ),
        "re-identification": Check(
            "medclip.auditing.checks.embeddings.trained_attacker:check_reidentification",
            needs=("is_first", "vectors_ND"),
        ),
        "drift": Check(
            "medclip.auditing.checks.embeddings.drift:check_drift",
            needs=("is_first", "vectors_ND"),
            options=("image_checks.sites", "image_checks.date"),
        ),
    },
)
