"""How the audit was made, what it cannot tell, and where it comes from.

Formulas and references of all that is on the page; command, date, inputs and what was asked, with their hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from medclip.auditing.groups.gaps import gap_info, gap_names
from medclip.auditing.option_groups import DEFAULTS
from medclip.auditing.result import AuditResult
from medclip.reports.audit.names import alpha, gap_head, metric_head, plain
from medclip.reports.audit.summary import power
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.statistics.metrics.catalogue import METRICS
from medclip.wording import NONE, capital, list_of, number


class Step(NamedTuple):
    """One paragraph of the methods."""

    head: str
    text: str
    reference: str = ""


_PAIRED, _THRESHOLDS, _STRESS = "Two models", "Thresholds", "The stress test"
LIMITS = (
    "That the scores are safe, or do equally well for everybody. A gap that was not found may be there; tables "
    "say how large one had to be to be seen.",
    "Anything about groups that the table does not name, that are too small to be shown, or whose attribute is blank.",
    "Whether the truth itself is equally good for all groups. Labels taken from reports carry the habits of those who "
    "wrote them; a disease that is missed more often in one group is missing from its labels too.",
    "Why a gap is there. Age, view, scanner, stage of disease and prevalence go together; a gap by one may be due to "
    "another.",
    "How the scores do in another hospital, on other machines, or next year.",
    "Whether equal error rates, equal calibration and equal selection are right here. Where prevalence differs, they "
    "cannot all hold at once; which one matters is for people to decide.",
    "What happens when somebody acts on the scores. Nobody was treated on the basis of what is audited here.",
)
"""What this audit cannot tell you."""


NO_HASH = "0" * 64
"""Stands for the hash of the page until the page is there."""
_SHOWN_BEFORE = frozenset(
    {"date", "auditor", "question", "command", "software", "inputs", "recipe", "recipe_file", "declared", "version"}
)
_ASKED = {
    "Filters": ("where", "score_where", "choose_where"),
    "Joined by": ("level", "key", "match", "repeat_labels", "patient", "rows_are_patients"),
    "What labels mean": ("uncertain", "blank", "no_finding", "value"),
    "Groups": ("age_bins", "age_unit", "bins", "all_pairs"),
    "Thresholds": ("threshold", "thresholds", "choose_on", "choose_labels", "policy"),
}


def steps(result: AuditResult) -> tuple[Step, ...]:
    """Return how the numbers were made, by what was asked for."""
    replicates = _times(result.settings.get("replicates", result.provenance.get("replicates")))
    permutations = _times(result.settings.get("permutations"))
    steps_taken = (
        Step(
            "Patients are the unit.",
            f"Patients are drawn anew {replicates}, each with all rows or with none, so ten images of one person are "
            "not taken for ten people. With few patients the standard error and its quantile are widened.",
            "Field and Welsh, J. R. Stat. Soc. B 69:369-390 (2007)",
        ),
        Step(
            "Intervals",
            "are 95 % intervals: for rates, AUROC, AUPRC and Brier score Wilson’s, at the effective number of patients "
            "that the resamples show; for calibration in the large, slope and net benefit value ± t × standard error, "
            "for observed/expected that of its logarithm; for gaps from the intervals of the groups, simultaneous over "
            "them, for ratios from those of their rates. Where a measure is "
            "not defined in more than a tenth of the resamples, no interval is given.",
            "Wilson, J. Am. Stat. Assoc. 22:209-212 (1927); Korn and Graubard, Surv. Methodol. 24:193-201 (1998); "
            "Romano and Wolf, Econometrica 73:1237-1282 (2005); Donner and Zou, Stat. Methods Med. Res. 21:347-359 "
            "(2012)",
        ),
        Step(
            "Gaps and chance.",
            "The highest of several groups is above the lowest also where all are alike, so the interval of such a gap "
            f"is no test. Instead, patients swap their groups up to {permutations}, among those with alike outcomes "
            "and numbers of rows (rows of one patient, where the attribute varies within patients): what comes out is "
            "what chance alone gives; its mean and 95th percentile stand beside each gap. The test is of the group "
            "that stands out most from the others, in its own standard error, so that a small group hides nothing: p = "
            "(1 + number at least as large) / (1 + number of swaps). Measures that move with "
            "prevalence (predictive values, selection rate, calibration) differ for that reason alone, so their gaps "
            "are not tested; each group against the others is.",
            "Westfall and Young, Resampling-Based Multiple Testing (1993); Phipson and Smyth, Stat. Appl. "
            "Genet. Mol. Biol. 9:39 (2010)",
        ),
        Step(
            "Calibration errors",
            "(ECE) are means of distances, which cannot be negative: a small group has a large one by chance alone. "
            "What chance adds is taken off, as far as the resamples show it, and the interval begins at 0 where chance "
            "explains all of it; in groups of few patients the value is still too large. Calibration in the large (0 "
            "is right), observed/expected (1) and the slope (1) have no such bias, and say in which direction.",
            "Kumar, Liang and Ma, NeurIPS (2019); Van Calster et al., BMC Med. 17:230 (2019)",
        ),
        Step(
            "Groups against the others",
            "are compared by the difference over its standard error (Student’s t), from the same resamples; where the "
            "test and the interval disagree, the test, which is the more careful one, decides.",
            "Efron and Tibshirani, An Introduction to the Bootstrap (1993)",
        ),
        Step(
            "Many tests.",
            "p-values are adjusted over their family, which the tables name, twice: Holm holds the chance of any false "
            f"finding at {alpha(result):g}; Benjamini and Hochberg hold the share of false findings among all. Raw and "
            "adjusted values are both in the tables; the words of this page go by Holm.",
            "Holm, Scand. J. Stat. 6:65-70 (1979); Benjamini and Hochberg, J. R. Stat. Soc. B 57:289-300 (1995)",
        ),
        Step(
            "Smallest gap that could be seen",
            f"with a power of {power(result)}: for a gap how far the group that the test sees best has to be from the "
            "others, (95th percentile of the statistic by chance + z) × standard error, for one test alone, so that "
            "after adjusting it is larger still; for a group against "
            "the others (quantile of the adjusted level + quantile of the power) × standard error.",
            "Cohen, Statistical Power Analysis for the Behavioral Sciences (1988)",
        ),
        Step(
            _PAIRED,
            "are compared on the same patients and the same resamples, so what both find hard drops out; for AUROC "
            "over everybody the test of DeLong is given as well, in its form for several rows of a patient.",
            "DeLong, DeLong and Clarke-Pearson, Biometrics 44:837-845 (1988); Obuchowski, Biometrics 53:567-578 (1997)",
        ),
        Step(
            _THRESHOLDS,
            "stand in a table with the policy and the patients that they were chosen by; patients of the audit are "
            "refused for it. One threshold serves all groups.",
            "Wynants et al., BMC Medicine 17:192 (2019)",
        ),
        Step(
            _STRESS,
            "scores the same images in forms that are not as they were. Corruptions are MedMNIST-C’s, drawn from the "
            "hash of each file and applied at 224 px to what the adapter made of it; changes are from clean images of "
            "the same size, on the same patients and resamples. Tested are mean changes over all corruptions: of "
            "everybody, and of each group against the others. Prompts in context follow PerceptionCLIP; cells are "
            "spoilt by Gaussian noise, one of 49 at a time.",
            "Di Salvo et al., arXiv 2406.17536 (2024); An et al., ICLR (2024); Gu, Tresp and Qin, ECCV (2022); Ming et "
            "al., NeurIPS (2022)",
        ),
        Step(
            "Small groups",
            "are not shown where rows, positives, negatives or patients are fewer than the minimum, since their "
            "figures mean little and may point at a person; other counts may then be rounded, so that nobody can work "
            "them out. A dagger (†) marks groups with few positives.",
        ),
    )
    needs = {_PAIRED: result.models, _THRESHOLDS: result.thresholds, _STRESS: result.stress}
    return tuple(step for step in steps_taken if needs.get(step.head, True))


def _times(value: Any) -> str:
    return "many times" if value is None else f"{number(value)} times"


def formulas(result: AuditResult) -> tuple[Grid, ...]:
    """Return the formula and the reference of every measure and gap of the audit."""
    metrics = [m for m in METRICS if any(row.get("metric") == m for row in (*result.metrics, *result.models))]
    gaps = [name for name in gap_names() if any(row.get("gap") == name for row in result.gaps)]
    heads = ("Name", "Formula", "Reference")
    measures = tuple(
        Tr(capital(metric_head(name)), (prose(METRICS[name].formula), prose(METRICS[name].reference)))
        for name in metrics
    )
    lines: dict[str, tuple[str, str]] = {}
    for name in gaps:
        head, formula = _kind_of_gap(name)
        info = gap_info(name)
        lines.setdefault(head, (formula, "of the measure") if formula else (info.formula, info.reference))
    differences = tuple(Tr(capital(head), tuple(map(prose, cells))) for head, cells in lines.items())
    return (Grid("Measures", heads, measures), Grid("Gaps", heads, differences))


_KINDS_OF_GAP = {
    "_max_min": ("a measure m, highest − lowest", "max m_a − min m_a"),
    "_worst_overall": ("a measure m, worst − everybody", "the largest m_a − m, or m − min m_a where high is good"),
}


def _kind_of_gap(name: str) -> tuple[str, str]:
    """Name a gap for the formulas, with that of its kind: those that differ by their measure stand there once."""
    return next((kind for ending, kind in _KINDS_OF_GAP.items() if name.endswith(ending)), (gap_head(name), ""))


def origin(result: AuditResult) -> Iterator[tuple[str, str]]:
    """Yield what was asked by whom and when, and the settings."""
    about = result.provenance
    for head in ("question", "auditor", "date", "command"):
        if about.get(head):
            yield head.capitalize(), str(about[head])
    if about.get("software"):
        yield "Software", ", ".join(f"{name} {text}" for name, text in about["software"].items() if text)
    yield from _declared(about)
    recipe = about.get("recipe")
    if isinstance(recipe, Mapping):
        for head, names in _ASKED.items():
            yield head, ", ".join(_option(name, recipe) for name in names if _option(name, recipe)) or "none named"
    rest = {name: value for name, value in about.items() if name not in _SHOWN_BEFORE}
    yield from _flat({**result.settings, **rest})


def inputs(result: AuditResult) -> Grid:
    """List the files that were read, with size and SHA-256."""
    lines = tuple(
        Tr(
            plain(row.get("name")),
            (
                prose(plain(str(row.get("for")).partition(":")[0])),
                Td(number(row.get("size"))),
                prose(str(row.get("sha256") or NONE)),
            ),
        )
        for row in result.provenance.get("inputs") or ()
    )
    return Grid("What was read", ("File", "As", "Bytes", "SHA-256"), lines, dense=True)


def hashes(result: AuditResult) -> tuple[tuple[str, str], ...]:
    """Return the SHA-256 that stand beside the signatures; that of the page has a line of its own."""
    sealed = result.sealed
    return (("Tables", sealed["tables"]), ("What was asked", sealed["recipe"])) if sealed else ()


def _declared(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    declared, file = about.get("declared"), about.get("recipe_file")
    if not file:
        return
    name = f", by {declared['by']}" if declared and declared.get("by") else ""
    when = f"declared on {declared['date']}{name}" if declared and declared.get("date") else "without a date"
    keys = file.get("overridden") or []
    changed = f"; changed when it was run: {list_of([plain(key) for key in keys])}" if keys else ""
    yield "Recipe", f"{file.get('name')}, {when}{changed}; SHA-256 {file.get('sha256')}"


def _option(name: str, recipe: Mapping[str, Any]) -> str:
    """Write an option with its value, also where it is the default; blank where it is none."""
    value = recipe.get(name, DEFAULTS.get(name))
    if value in (None, False, [], ()):
        return ""
    text = " and ".join(map(str, value)) if isinstance(value, list) else str(value)
    return plain(name) if value is True else f"{plain(name)} {text}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Write nested settings as lines."""
    for key, value in values.items():
        name = f"{before}{plain(key)}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            listed = isinstance(value, (list, tuple))
            text = ", ".join(map(str, value)) if listed else "not set" if value is None else str(value)
            yield name, text or "none"
