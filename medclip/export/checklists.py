"""Reporting checklists filled with what an audit knows: TRIPOD+AI and CLAIM, as Markdown.

Every item of the published list is there by its number, in words of our own, with what this run knows of it or "not
known to this run". What is not known is for the authors: how the model was made, why, and with whom.

References: Collins et al., TRIPOD+AI statement, BMJ 385 (2024) e078378 (27 items); Mongan, Moy & Kahn, Checklist for
Artificial Intelligence in Medical Imaging (CLAIM), Radiology: Artificial Intelligence 2 (2020) e200029 (42 items).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medclip.auditing.result import AuditResult
from medclip.wording import in_markdown, list_of

NOT_KNOWN = "not known to this run"


@dataclass(frozen=True)
class Item:
    """One item of a checklist."""

    number: str
    text: str
    facts: tuple[str, ...] = ()
    """Names of facts of a run (`facts`) that answer it, as far as they do."""


TRIPOD_AI: tuple[Item, ...] = (
    Item("1", "Title: a prediction model is developed or evaluated, for whom, for which outcome", ("title",)),
    Item("2", "Abstract, by the list for abstracts", ("abstract",)),
    Item("3a", "Health context, why the model is made or evaluated, models that there are"),
    Item("3b", "For whom it is meant, what it is for in their care, who uses it"),
    Item("3c", "Known inequalities of health between groups", ("groups",)),
    Item("4", "Objectives: development, evaluation or both", ("question", "primary")),
    Item("5a", "Sources of the data, why these, how representative they are", ("sources", "representative")),
    Item("5b", "Dates of the data and of follow-up"),
    Item("6a", "Setting: kind of care, number and place of centres"),
    Item("6b", "Who was eligible", ("selected",)),
    Item("6c", "Treatments that were given, and how they were dealt with"),
    Item("7", "Preparation of the data and checks of quality, alike for all groups or not", ("missing",)),
    Item("8a", "Outcome: definition, time horizon, how it was assessed, alike for all groups or not", ("outcome",)),
    Item("8b", "Who assessed the outcome, where that takes judgement"),
    Item("8c", "Whether those who assessed the outcome knew the predictors"),
    Item("9a", "D: why these predictors were considered"),
    Item("9b", "Predictors: definition, when and how they were measured"),
    Item("9c", "Who assessed the predictors, where that takes judgement"),
    Item("10", "How the sample size came about, and whether it suffices", ("size", "unseen")),
    Item("11", "Missing data: how they were dealt with, what was left out", ("missing",)),
    Item("12a", "How the data were used: for development, for evaluation, how divided", ("thresholds", "leakage")),
    Item("12b", "D: how predictors entered the analysis"),
    Item("12c", "D: kind of model, why, how it was built, tuned and validated within"),
    Item("12d", "How differences between clusters (hospitals, countries) were handled", ("shortcuts",)),
    Item("12e", "Measures of performance, plots, comparison of models", ("measures", "intervals")),
    Item("12f", "Updating of the model after evaluation"),
    Item("12g", "Evaluation: how predictions were computed (formula, code, interface)"),
    Item("13", "Class imbalance: methods, and recalibration after them"),
    Item("14", "Fairness: what was done about it, and why", ("groups", "found")),
    Item("15", "Output of the model; thresholds and how they came about", ("output", "thresholds")),
    Item("16", "Differences between the data of development and of evaluation", ("leakage",)),
    Item("17", "Ethical approval, consent or its waiver"),
    Item("18a", "Funding, role of the funders"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "Where the protocol is found", ("primary",)),
    Item("18d", "Registration"),
    Item("18e", "Availability of the data"),
    Item("18f", "Availability of the code", ("software", "recorded")),
    Item("19", "Involvement of patients and the public"),
    Item("20a", "Flow of participants, with and without the outcome, follow-up", ("flow",)),
    Item("20b", "Characteristics of participants, by group and source, with missing values", ("size", "groups")),
    Item("20c", "Evaluation: comparison with the data of development"),
    Item("21", "Numbers of participants and of outcomes in each analysis", ("size",)),
    Item("22", "D: the whole model, so that others can use it"),
    Item("23a", "Performance with intervals, for key groups too", ("overall", "found")),
    Item("23b", "Performance in different clusters, if examined", ("shortcuts",)),
    Item("24", "Results of updating"),
    Item("25", "Interpretation, fairness included", ("found",)),
    Item("26", "Limitations", ("limits", "unseen")),
    Item("27a", "What to do with inputs of poor quality or none", ("missing",)),
    Item("27b", "What users have to do and to know"),
    Item("27c", "Next steps of research; whether it holds elsewhere"),
)

CLAIM: tuple[Item, ...] = (
    Item("1", "Title or abstract says that AI is used, and which kind", ("title",)),
    Item("2", "Structured summary: design, methods, results, conclusions", ("abstract",)),
    Item("3", "Background, intended use and clinical role"),
    Item("4", "Objectives and hypotheses", ("question", "primary")),
    Item("5", "Prospective or retrospective"),
    Item("6", "Goal of the study", ("question",)),
    Item("7", "Sources of the data", ("sources",)),
    Item("8", "Eligibility: how, where and when participants were found", ("selected",)),
    Item("9", "Preprocessing of the data"),
    Item("10", "Subsets of the data that were selected", ("selected",)),
    Item("11", "Definitions of data elements", ("outcome",)),
    Item("12", "De-identification"),
    Item("13", "Missing data", ("missing",)),
    Item("14", "Reference standard: definition", ("outcome",)),
    Item("15", "Reference standard: why this one"),
    Item("16", "Reference standard: who annotated, and how they were prepared"),
    Item("17", "Tools of annotation"),
    Item("18", "Variability between and within raters"),
    Item("19", "Sample size that was intended, and how it came about", ("unseen",)),
    Item("20", "How data were assigned to partitions", ("thresholds",)),
    Item("21", "Level at which partitions are disjoint (image, study, patient, institution)", ("leakage",)),
    Item("22", "The model in detail: inputs, outputs, layers", ("output",)),
    Item("23", "Software libraries", ("software",)),
    Item("24", "How parameters were initialised"),
    Item("25", "Training: augmentation, hyper-parameters, number of models"),
    Item("26", "How the final model was selected"),
    Item("27", "Ensembling"),
    Item("28", "Measures of performance", ("measures",)),
    Item("29", "Measures of significance and uncertainty", ("intervals",)),
    Item("30", "Robustness and sensitivity analyses", ("shortcuts",)),
    Item("31", "Explainability, and how it was validated"),
    Item("32", "Validation on external data"),
    Item("33", "Flow of participants or cases", ("flow",)),
    Item("34", "Characteristics of the cases in each partition", ("size", "groups", "representative")),
    Item("35", "Performance on all partitions", ("overall", "models")),
    Item("36", "Accuracy and its precision (intervals)", ("overall",)),
    Item("37", "Analysis of cases that went wrong", ("found",)),
    Item("38", "Limitations: bias, uncertainty, generalisability", ("limits", "unseen")),
    Item("39", "What it means for practice"),
    Item("40", "Registration"),
    Item("41", "Where the protocol, the data and the code are found", ("recorded",)),
    Item("42", "Funding, role of the funders"),
)


def tripod_checklist(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> str:
    """Fill TRIPOD+AI: Markdown, a table with number, item, and what this run knows."""
    source = "Collins et al., BMJ 385 (2024) e078378. Items in words of our own; D: development."
    return _filled("TRIPOD+AI", source, TRIPOD_AI, result, sentences)


def claim_checklist(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> str:
    """Fill CLAIM, likewise."""
    source = "Mongan, Moy and Kahn, Radiology: Artificial Intelligence 2 (2020) e200029. Items in words of our own."
    return _filled("CLAIM", source, CLAIM, result, sentences)


def _filled(
    title: str, source: str, items: Sequence[Item], result: AuditResult, sentences: Mapping[str, Sequence[str]]
) -> str:
    fact_of = facts(result, sentences)
    answers = [" ".join(text for name in item.facts if (text := fact_of.get(name))) for item in items]
    num_answered = sum(bool(answer) for answer in answers)
    version = result.provenance.get("version", "")
    about = (
        f"Filled from an audit of {_names(result)} by medclip {version}. It knows something of {num_answered} of "
        f"{len(items)} items; the others are for the authors. An entry is a beginning, not a finished report."
    )
    lines = [f"# {title}", "", in_markdown(about, one_line=True), "", f"Source: {source}", ""]
    lines += ["| item | what is asked | what this run knows |", "| --- | --- | --- |"]
    lines += [
        f"| {item.number} | {item.text} | {in_markdown(answer, one_line=True) if answer else NOT_KNOWN} |"
        for item, answer in zip(items, answers, strict=True)
    ]
    return "\n".join(lines) + "\n"


def facts(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return what the run knows, by the names that items ask for; what it does not know is not there."""
    about, settings = result.provenance, result.settings

    def under(*heads: str) -> str:
        return " ".join(sentence for head in heads for sentence in sentences.get(head, ()))

    inputs = [f"{one.get('for')} {one.get('name')}" for one in about.get("inputs") or ()]
    software = about.get("software") or {"medclip": about.get("version")}
    texts = {
        "title": f"An evaluation (audit) of {_names(result)} by patient group." if result.model_names else "",
        "abstract": under("What was found"),
        "question": str(about.get("question") or ""),
        "primary": list_of(_declared(result)),
        "sources": f"Tables: {list_of(inputs)}." if inputs else "",
        "representative": under("Representativeness"),
        "selected": _selection(about.get("recipe") or {}),
        "size": under("Size"),
        "flow": under("Never scored", "Size"),
        "missing": under("Never scored") + "".join(f" {note}" for note in result.notes if "Left out" in note),
        "groups": f"Groups by {list_of(list(result.attributes))}." if result.attributes else "",
        "outcome": f"Labels as the table states them: {list_of(list(result.labels))}." if result.labels else "",
        "output": _output(result),
        "measures": _measures(result),
        "intervals": _intervals(settings),
        "overall": under("Overall", "Ordered classes", "Risk by year"),
        "found": under("What was found"),
        "unseen": under("What could not have been seen", "Groups that are not shown"),
        "thresholds": under("Thresholds"),
        "leakage": under("Leakage"),
        "shortcuts": under("Sources", "Shortcuts"),
        "limits": under("Limits"),
        "software": f"{list_of([f'{name} {version}' for name, version in software.items() if version])}.",
        "recorded": "Command, options, versions, names and SHA-256 of the inputs stand in audit.json beside this file.",
        "models": under("Models compared"),
    }
    return {name: text.strip() for name, text in texts.items() if text.strip(" .")}


def _names(result: AuditResult) -> str:
    return list_of(list(result.model_names)) or "scores"


def _declared(result: AuditResult) -> list[str]:
    heads = [str(row.get("requirement")) for row in result.requirements if row.get("part") == "requirement"]
    texts = [f"required beforehand: {text}" for text in dict.fromkeys(heads)]
    tested = [r for r in result.gaps if str(r.get("family")).startswith("primary") and not r.get("same_as")]
    primary = dict.fromkeys(
        f"{str(row.get('gap')).removesuffix('_max_min')} gap of {row.get('label')} by {row.get('attribute')}"
        for row in tested
    )
    return texts + [f"primary hypothesis: {text}" for text in primary]


def _selection(recipe: Mapping[str, object]) -> str:
    parts = [f"{name.replace('_', ' ')} {recipe[name]}" for name in ("where", "score_where") if recipe.get(name)]
    return f"Rows were selected by {list_of(parts)}." if parts else ""


def _output(result: AuditResult) -> str:
    parts = [f"a score for each of {list_of(list(result.labels))}"] if result.labels else []
    if result.ordinal:
        parts.append(f"a class of {list_of(list(dict.fromkeys(str(row.get('label')) for row in result.ordinal)))}")
    return f"The model gives {list_of(parts)}." if parts else ""


def _measures(result: AuditResult) -> str:
    names = list(dict.fromkeys(str(row.get("metric")).replace("_", " ") for row in (*result.metrics, *result.ordinal)))
    return f"Measured: {list_of(names)}." if names else ""


def _intervals(settings: Mapping[str, object]) -> str:
    if not settings.get("replicates"):
        return ""
    return (
        f"95 % intervals from {settings['replicates']} resamples of patients; gaps tested by "
        f"{settings.get('permutations')} shuffles of groups; p adjusted by Holm, and by Benjamini and Hochberg."
    )
