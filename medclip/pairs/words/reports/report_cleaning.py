"""Reports without what no single image supports: gaps of de-identification, earlier studies, names, talk, dates.

What a sentence says of findings stays: a clause that speaks of an earlier study is cut out, and where that would lose a
finding, the sentence is written anew of the vocabulary's words ("Resolved effusion." is "No pleural effusion."). A
sentence that has neither clause nor finding goes. Word lists, no model. Follows the cleaning step of captions in "CLIP
with Quality Captions" as our specification states it; no code of the paper is public.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from medclip.sample import Modality
from medclip.text.free_text import BODY, KINDS, LIST_MARK, aside, sentences, split_report
from medclip.text.mentions import asserted
from medclip.text.vocabulary.load import load_task, spoken_names
from medclip.text.vocabulary.prompts import without_article
from medclip.wording import capital


@lru_cache(maxsize=64)
def tasks_of(modality: str) -> tuple[str, ...]:
    """List the multi-label tasks whose findings reports of a modality speak of; of all where none is known."""
    tasks = (load_task(name) for name in spoken_names())
    return tuple(
        task.name
        for task in tasks
        if task.rules.independent and (not modality or not task.modalities or Modality(modality) in task.modalities)
    )


@lru_cache(maxsize=65536)
def entities(text: str, modality: str = "") -> Mapping[str, bool]:
    """Return the findings that a text speaks of, by name: True where any sentence affirms it, False where denied.

    Example:
        >>> entities("Small effusion. No pneumothorax.", "xray")
        {'effusion': True, 'pneumothorax': False}
    """
    answers: dict[str, bool] = {}
    for sentence in sentences(text, min_words=1):
        for task in tasks_of(modality):
            for name, affirmed in asserted(task, sentence).items():
                answers[name] = answers.get(name, False) or affirmed
    return answers


def tags_of(text: str, modality: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the findings that a text affirms and those that it denies, each sorted by name.

    Example:
        >>> tags_of("Small effusion. No pneumothorax.", "xray")
        (('effusion',), ('pneumothorax',))
    """
    answers = entities(text, modality)
    affirmed, denied = (tuple(sorted(n for n, value in answers.items() if value is side)) for side in (True, False))
    return affirmed, denied


def phrase_of(name: str, affirmed: bool, modality: str = "") -> str | None:
    """Return a sentence of the vocabulary that says a finding is there, or is not, and speaks of nothing else."""
    return next(iter(phrases_of(name, affirmed, modality)), None)


@lru_cache(maxsize=4096)
def phrases_of(name: str, affirmed: bool, modality: str = "") -> tuple[str, ...]:
    """Return all such sentences: one a noun of the finding, the same nouns on either side."""
    nouns = [
        without_article(noun)
        for task in tasks_of(modality)
        for c in load_task(task).classes
        if c.name == name
        for noun in c.nouns
    ]
    pairs = [(f"{capital(noun)}.", f"No {noun}.") for noun in dict.fromkeys(nouns)]
    fit = [p for p in pairs if entities(p[0], modality) == {name: True} and entities(p[1], modality) == {name: False}]
    return tuple(present if affirmed else absent for present, absent in fit)


_PRIOR = r"(?:(?:the |a |an )?(?:prior|previous|earlier|old|last|most recent)s?(?: \w+){0,3})"
_SINCE = (
    r"(?:(?:as |when )?compared (?:to|with)|in comparison (?:to|with)|in (?:the )?interval|since|from"
    r"|relative to|as on|as of)"
)
_SAME = r"(?:(?:grossly|essentially|relatively|overall) )?(?:unchanged|stable)"
_CUTS: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern, re.I), new)
    for pattern, new in (
        (r"[,:]? ?[(\[]?(?:see )?(?:https?://|www\.)(?:[^\s()\[\]]*[^\s()\[\].,;:])?[)\]]?", ""),
        (r",? ?(?:in|over) (?:the )?interval\b", ""),
        (r",? ?(?:or|and) (?:significant )?(?:interval )?change(?=[.,;]|$)", ""),
        (rf"\b{_SAME} and (?=[a-z])", ""),
        (rf" and {_SAME}\b(?! (?:compared|since|from))", ""),
        (
            rf",? ?(?:which (?:is|are|has|have) )?(?:again )?(?:grossly |essentially |overall |relatively )?"
            rf"(?:un)?changed,? (?:{_SINCE}) [^,.;]*",
            "",
        ),
        (
            r",? ?(?:not (?:significantly |substantially )?changed|without (?:significant )?(?:interval )?change"
            r"|with no (?:significant )?(?:interval )?change)(?: (?:since|from|compared (?:to|with)) [^,.;]*)?",
            "",
        ),
        (r",? ?(?:as |when )?(?:compared|in comparison) (?:to|with) [^,.;]*", ""),
        (rf",? ?(?:since|from) {_PRIOR}", ""),
        (
            r",? ?(?:which (?:is|are) )?(?:grossly |essentially |overall |relatively )?(?:unchanged|stable)"
            r"(?=[.,;]|$)",
            "",
        ),
        (
            r"(?:^|(?<=, ))(?:there(?:'s| is| are| has been|'s been) )?(?:a |an )?(?:interval|new)"
            r" (?:development|appearance) of (?:a |an )?",
            "",
        ),
        (
            r"^(?:there (?:is|are) )?(?:an? )?interval (?:increase|worsening|progression|decrease|improvement)"
            r" (?:in|of) ",
            "",
        ),
        (r"\b(?:is|are) (?:again|once again) (?:seen|noted|demonstrated|identified|present)\b", "is present"),
        (r"\b(?:again|once again),? (?:seen|noted|demonstrated|identified) (?:is|are) ", ""),
        (r"\b(?:remains|has remained) (?=\w)", "is "),
        (r"\b(?:remain|have remained) (?=\w)", "are "),
        (r"\b(?:again|once again|currently|now|interval|newly|previously (?:seen|noted|described))\b,? ?", ""),
        (
            r"\b(?:grossly |essentially |relatively |overall )?(?:unchanged|stable|persistent|persisting|new"
            r"|improved|improving|worsening|worsened|progressive|increasing|decreasing) (?=[a-z])",
            "",
        ),
    )
)
_FRAGMENT = re.compile(
    r"^(?:which|that|and|but|or|of|in|is|are|was|were)\b|\b(?:is|are|was|were)(?: in (?:appearance|size|number|extent"
    r"|contour|configuration|position|severity)(?: and \w+)?)?(?=[.,;]|$)"
    r"|\bthere (?!(?:is|are|was|were|has|have|may|appears?)\b)"
    # A word that leans on one that is gone: "consistent with effusion", "greatest on the left", "is and normal".
    r"|^(?:if|given|considering|although|though|with|without|most(?:ly)? (?!of\b)|more|greate(?:r|st)|located"
    r"|favou?ring|may|might|could|(?:possibly )?due|possibly (?:due|related|within)|(?:most )?(?:consistent|compatible)"
    r"|suggestive|cleared|increased size"
    r"|suggesting|as|for|to|by|because|while|however|appearing|redemonstrat\w+|on|following|this (?:has|may|is|appears)"
    r"|(?:slight|decrease|increase|change|chronic|left|right) (?:of|and|are|greater|worse)|these|they"
    r"|several of which)\b"
    r"|\b(?:is|are|was|were|and|a|an|the|or) (?:and|with|given|which|or|a the|the is|reflect|in which)\b"
    r"|\b(?:appears?|appearing|likewise|largely)(?=[.,;]|$)|\b(?:there is|there are|there is an?|is|are) appearing\b"
    r"|\b(?:there (?:is|are)|with|an?) (?:mild|moderate|slight|age-indeterminate)(?=[.,;]|$)|\bsimilar\b"
    # What is no state of one image: put in, taken out, grown.
    r"|\b(?:placement|removal|exchange|redemonstrated) ?(?:of)?\b|\b(?:has|have) (?:been|become|developed)\b"
    r"|\b(?:(?:in|de)creased|larger|smaller|reduction) in (?:size|extent|number)\b|\b(?:in|de)creased(?=[.,;]|$)",
    re.I,
)
"""What a cut has left is no sentence: "The silhouette is in appearance." (of "stable in appearance")"""
_ATTRIBUTE = re.compile(
    r"^(?:chronic )?(?:appearance|position(?:ing)?|size|aeration|number|extent|degree|configuration|location)"
    r" (?:of|and|an?|with)\b(?!.*\b(?:is|are|appears?)\b)",
    re.I,
)
"""Of what nothing is said any more: "Position of the catheter." (of "Stable position of the catheter.")"""
_PLAIN = re.compile(
    r"(?:[\s,/]|\b(?:and|the|of|in|both|or|a|heart|cardiac|size|cardio|mediastin(?:um|al)|cardiomediastinal|hil(?:ar|um|a)"
    r"|contours?|silhouettes?|borders?|lungs?|pulmonary|vascul(?:ature|arity)|venous|volumes?|aeration|central|airways?"
    r"|chest|thora(?:x|cic)|bony|osseous|skeletal|structures?|soft|tissues?|dis[ck]|spaces?|alignment|superior|upper|lower"
    r"|right|left|bilateral(?:ly)?|appearance|configuration|diaphragms?|hemidiaphragms?|abdomen|abdominal|pelvis|spine"
    r"|visualized|trachea|bones?|ribs?|ventricle|atrium)\b)+",
    re.I,
)
"""Parts of the body, and nothing of them: as in "Normal heart size, hilar contours." (of "stable hilar contours")"""
_STATES = re.compile(r"^(?:no|there)\b|\b(?:is|are)\b", re.I)
_PARENTHESES = re.compile(r"\s*[(\[][^)\]]*[)\]]")
_CLAUSE = re.compile(r"\s*[,;]\s*(?!\d)")
_SHORT_FINDING = re.compile(r"[A-Za-z]{4,}")
KEPT = ("technique", "person")
"""Kinds of asides that are no fault where the sentence speaks of findings: "in this patient", "lateral view"."""
_NAMES = re.compile(r"\b(?:dr|drs|prof|physician|radiologist)\b\.?", re.I)


@dataclass(frozen=True)
class CleanReport:
    """A report as it may stand beside its image."""

    findings: str
    impression: str
    changes: Mapping[str, int] = field(default_factory=dict)
    """Sentences that were cut, written anew or dropped, by kind of what they held: "comparison_cut"."""

    @property
    def text(self) -> str:
        """Impression and findings, each sentence once."""
        once: dict[str, str] = {}
        for sentence in (*sentences(self.findings, min_words=1), *sentences(self.impression, min_words=1)):
            once.setdefault(sentence.lower(), sentence)
        return " ".join(once.values())


def clean_report(report: str, modality: str = "") -> CleanReport:
    """Clean the findings and the impression of a report.

    Args:
        report: The report as it was written; one without headings counts as findings.
        modality: Modality of the image, which says whose findings are kept; all are where it is "".

    Returns:
        Both sections, blank where there is none or nothing is left of it. No sentence holds a placeholder, a name, a
        date or a word of earlier studies, and every finding keeps its polarity.

    Example:
        >>> clean_report("Unchanged cardiomegaly compared with prior.").text
        'Cardiomegaly.'
    """
    sections = split_report(report)
    changes: dict[str, int] = {}
    findings = sections.get("findings", "" if "impression" in sections else sections.get(BODY, ""))
    parts = [" ".join(_cleaned(part, modality, changes)) for part in (findings, sections.get("impression", ""))]
    return CleanReport(parts[0], parts[1], dict(sorted(changes.items())))


def _cleaned(section: str, modality: str, changes: dict[str, int]) -> Iterator[str]:
    text = re.sub(r"\.(?:\s*\.)+", ".", section)
    text = re.sub(r"(?<=[a-z)])\.(?=[A-Z][a-z])", ". ", text)  # "apex.There"
    text = re.sub(r"\bx-X{3,}", "x-ray", text)  # the one word whose other half is still there
    for line in text.split("\n"):
        for sentence in sentences(LIST_MARK.sub("", line), min_words=1):
            bare = LIST_MARK.sub("", sentence).strip()
            if not _SHORT_FINDING.search(bare):
                continue
            kind = _kind(bare, modality)
            if kind is None:
                yield capital(re.sub(r";$", ".", bare))  # where a rest goes, no semicolon binds
                continue
            clean, how = clean_sentence(bare, modality)
            changes[f"{kind}_{how}"] = changes.get(f"{kind}_{how}", 0) + 1
            if clean:
                yield clean


def _kind(sentence: str, modality: str) -> str | None:
    """Return what a sentence holds that cannot stay; technique and persons may where it speaks of findings."""
    kind = aside(sentence)
    if kind in KEPT and entities(sentence, modality) and not _NAMES.search(sentence):
        lowered = sentence.lower()
        return next((k for k, pattern in KINDS.items() if k not in KEPT and pattern.search(lowered)), None)
    return kind


@lru_cache(maxsize=16384)
def clean_sentence(sentence: str, modality: str = "") -> tuple[str, str]:
    """Take out of one sentence what it may not hold.

    Args:
        sentence: One sentence.
        modality: Modality of the image, or "".

    Returns:
        The rest, or sentences of the vocabulary, that speak of the same findings with the same polarity; "" where
        nothing can stay. And how that was done: cut, written_anew or dropped.
    """
    wanted = entities(sentence, modality)
    for attempt in _attempts(sentence):
        tidy = _tidy(attempt)
        stays = bool(tidy) and (bool(wanted) or len(tidy.split()) > 2) and _kind(tidy, modality) is None
        if stays and not _is_fragment(tidy) and entities(tidy, modality) == wanted:
            return tidy, "cut"
    phrases = [phrase_of(name, affirmed, modality) for name, affirmed in wanted.items()]
    if None in phrases or not phrases or _hides_polarity(sentence, modality):
        return "", "dropped"
    return " ".join(p for p in phrases if p), "written_anew"


def _attempts(sentence: str) -> Iterator[str]:
    """Yield the sentence with less and less: cut phrases, no parentheses, only the clauses that may stay."""
    cut = sentence
    for pattern, new in _CUTS:
        cut = pattern.sub(new, cut)
    yield cut
    bare = _PARENTHESES.sub("", cut)
    yield bare
    clauses = _CLAUSE.split(bare.rstrip("."))
    staying = [clause for clause in clauses if aside(clause) is None]
    while staying and _PLAIN.fullmatch(staying[-1]):
        staying.pop()
    if staying[:1] == clauses[:1] or any(map(_STATES.search, staying[:1])):  # else its subject may be gone
        yield ", ".join(staying)


def _is_fragment(tidy: str) -> bool:
    """Return whether a cut has left what is no statement."""
    last = _CLAUSE.split(tidy.rstrip("."))[-1]
    return bool(_FRAGMENT.search(tidy) or _ATTRIBUTE.search(tidy) or _PLAIN.fullmatch(last))


def _tidy(text: str) -> str:
    words = " ".join(text.split()).strip(" ,;:-")
    words = re.sub(r"\s+([,.;])", r"\1", words)
    words = re.sub(r"(?:,\s*)?\b(?:and|or|with|but|in|of|the|a|an)[.\s]*$", "", words).strip(" ,;")
    words = re.sub(r"[,;]+(?=\.)", "", words)
    if not re.search(r"[A-Za-z]{3}", words) or re.search(r"\b(?:is|are)[.\s]*$", words):  # "The contours are."
        return ""
    return capital(words if words[-1] in ".!?" else f"{words}.")


def _hides_polarity(sentence: str, modality: str) -> bool:
    """Return whether a word that was taken out of the sentence may have been the "no" of what it seems to affirm."""
    return KINDS["placeholder"].search(sentence.lower()) is not None and True in entities(sentence, modality).values()
