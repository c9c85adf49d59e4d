"""Reports of mammograms from records: a template grammar, new wording at each draw and true in every one.

Findings, then the impression: a sentence for the composition, one for each finding of the record, some for findings
that were looked for and are not there, and the assessment. Sentences that a source repeats are said once, in order;
they are shuffled within the findings, and each can stand anywhere. Follows the report generator of MV-MLM and the rules
of Mammo-CLIP's (a sentence a label; a clear breast has no list of negatives) without its faults: the shuffled order is
the one that is used, and no sentence speaks of a side that is not on the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from medclip.pairs.words.breast_phrases import (
    ASSESSMENTS,
    CLEAR,
    DENIALS,
    IMPLANTS,
    OPENERS,
    PATHOLOGY,
    VIEW_KINDS,
    VIEWS,
    denied_nouns,
    noun_phrases,
    places_of,
)
from medclip.text.breast_record import FINDINGS_TASK, SIDES, BreastRecord
from medclip.text.captions.record import weighted
from medclip.text.vocabulary.load import load_task
from medclip.wording import capital, list_of

if TYPE_CHECKING:
    from numpy.random import Generator

MOST_DENIED = 3
"""Findings that one report denies: radiologists do not list all that is not there."""
LISTED_SHARE = 0.4
"""Share of reports that deny several findings in one sentence."""
VIEW_SHARE = 0.3
_TRIES = 40


def draw_report(record: BreastRecord, rng: Generator | None) -> str:
    """Write one report.

    Args:
        record: Record of the breast; nothing else is said.
        rng: The only source of chance; None takes the first wording of everything in the order of the record, and
            denies what reports deny first: the report to evaluate with.

    Returns:
        Sentences; "" for a record that states nothing.

    Example:
        >>> from medclip.text.breast_record import record_of
        >>> mass = {"type": "mass", "quadrant": "upper outer"}
        >>> draw_report(record_of({"birads": 4, "findings": [mass], "absent": []}, "L"), None)
        'There is a mass in the upper outer quadrant of the left breast. BI-RADS 4.'
    """
    findings = [s for s in (_composition(record, rng), _implant(record, rng), *_findings(record, rng)) if s]
    if rng is not None:
        findings = [findings[i] for i in rng.permutation(len(findings))]
    impression = [s for s in (_assessment(record, rng), _pathology(record, rng)) if s]
    if not findings and not impression:
        return ""
    first = _view(record, rng) if rng is not None and rng.random() < VIEW_SHARE else ""
    return " ".join(dict.fromkeys(s for s in (first, *findings, *impression) if s))


def distinct_reports(record: BreastRecord, n: int, rng: Generator) -> tuple[str, ...]:
    """Write `n` different reports of one record, or fewer where its wordings do not give more."""
    reports: dict[str, None] = {}
    for _ in range(n * _TRIES):
        report = draw_report(record, rng)
        if not report:
            break
        reports[report] = None
        if len(reports) == n:
            break
    return tuple(reports)


def clear_sentences(record: BreastRecord) -> Iterator[str]:
    """Yield every sentence that says that nothing is there; of a breast that was not assessed as negative, that nothing
    suspicious is.
    """
    negative = record.birads in (None, 1) and record.pathology in ("", "normal")
    openers = CLEAR if negative else [opener for opener in CLEAR if "suspicious" in opener]
    for opener, place in product(openers, places_of("", "", "", record.side)):
        yield opener.format(p=place)


def composition_sentences(composition: str) -> Iterator[str]:
    """Yield every sentence that says how dense the breast is."""
    yield from (f"{capital(p)}." for p in load_task("breast_composition").class_named(composition).prompts)


def assessment_sentences(birads: int) -> Iterator[str]:
    """Yield every sentence that states a BI-RADS assessment."""
    for prompt, form in product(load_task("breast_birads").class_named(f"birads_{birads}").prompts, ASSESSMENTS):
        text = form.format(prompt if form.endswith(": {}.") else capital(prompt))
        if text.lower().count("assess") < 2:
            yield text


def view_sentences(record: BreastRecord) -> Iterator[str]:
    """Yield every sentence that says what the image is; none where side or view are not known."""
    view, side, image = VIEWS.get(record.view), SIDES.get(record.side), VIEW_KINDS.get(record.view_kind)
    if view is None or side is None or image is None:
        return
    for word in (f"{view} view", f"{record.view} view"):
        yield f"{capital(image)} of the {side} breast, {word}."
        yield (
            f"{capital(side)} breast, {word}, {image}." if image != "mammogram" else f"{capital(side)} breast, {word}."
        )


def _findings(record: BreastRecord, rng: Generator | None) -> Iterator[str]:
    if record.is_clear:
        yield _draw(list(clear_sentences(record)), rng)
        return
    for finding in dict.fromkeys(record.findings):
        noun, opener, place = (
            _draw(options, rng)
            for options in (
                noun_phrases(finding),
                OPENERS,
                places_of(finding.kind, finding.quadrant, finding.depth, record.side),
            )
        )
        yield _sentence(opener, noun, place)
    denied = _denied(record, rng)
    if len(denied) > 1 and rng is not None and rng.random() < LISTED_SHARE:
        # "no x with y or z" may have a z, and "no x of y or z" an x of z
        plain = [
            [noun for noun in denied_nouns(kind) if " with " not in noun and " of " not in noun] for kind in denied
        ]
        nouns = list_of([_draw(options, rng) for options in plain], "or")
        place = _draw(places_of("lymph_node", "", "", record.side), rng)  # one that fits every kind
        yield _sentence(_draw(DENIALS[:5], rng), nouns, place)
        return
    for kind in denied:
        parts = (denied_nouns(kind), DENIALS, places_of(kind, "", "", record.side))
        noun, opener, place = (_draw(options, rng) for options in parts)
        yield _sentence(opener, noun, place)


def _denied(record: BreastRecord, rng: Generator | None) -> list[str]:
    """Choose what is denied: what reports deny most often is the likeliest, and the first without chance."""
    task, deniable = load_task(FINDINGS_TASK), list(record.deniable)
    weights = {kind: task.class_named(kind).denial_weight for kind in deniable}
    if rng is None:
        return sorted(deniable, key=lambda kind: -weights[kind])[:MOST_DENIED]
    most = min(len(deniable), int(rng.integers(MOST_DENIED + 1)) or int(not record.findings))
    return [deniable.pop(weighted(rng, [weights[kind] for kind in deniable])) for _ in range(most)]


def _sentence(opener: str, noun: str, place: str) -> str:
    nouns = noun.replace(", ", " or ").split(" or ")  # the verb is that of the noun beside it
    beside = nouns[0 if "there {is}" in opener.lower() else -1]
    plural = beside.split(" of ")[0].split(" with ")[0].split(" in a ")[0].endswith("calcifications")
    verb = "are" if plural and not opener.startswith("There is no evidence") else "is"
    return opener.format(x=noun, X=capital(noun), p=place, P=capital(place), **{"is": verb})


def _composition(record: BreastRecord, rng: Generator | None) -> str:
    return _draw(list(composition_sentences(record.composition)), rng) if record.composition else ""


def _implant(record: BreastRecord, rng: Generator | None) -> str:
    if not record.implant:
        return ""
    return _draw(IMPLANTS, rng).format(p=_draw(places_of("lymph_node", "", "", record.side), rng))


def _assessment(record: BreastRecord, rng: Generator | None) -> str:
    return "" if record.birads is None else _draw(list(assessment_sentences(record.birads)), rng)


def _pathology(record: BreastRecord, rng: Generator | None) -> str:
    return _draw(PATHOLOGY[record.pathology], rng) if record.pathology else ""


def _view(record: BreastRecord, rng: Generator) -> str:
    sentences = list(view_sentences(record))
    return _draw(sentences, rng) if sentences else ""


def _draw(options: Sequence[str], rng: Generator | None) -> str:
    return options[0] if rng is None else options[int(rng.integers(len(options)))]
