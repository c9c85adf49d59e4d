"""Check a caption that somebody else wrote against the record: it may say what is in it, and nothing else.

The vocabulary is closed. A caption may consist of wordings of its record and of neutral words; any other word is a
problem, and so are words that hedge. What the record says in the very words of the vocabularies is marked first, and
what is left over is judged. It is strict: many a good sentence is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from medclip.text.captions.record import (
    VIEW_TASK,
    CaptionRecord,
    image_names,
    labelled,
    modality_names,
    person_phrases,
    side_phrases,
    speaking_only_of,
    view_names,
    without_outcomes,
)
from medclip.text.checks.closed_words import (
    DENIALS,
    DENIED,
    FACTS,
    HEDGES,
    NEUTRAL,
    PUNCTUATION,
    REPORTING,
    TURN,
    also_said_of,
    any_modality_words,
    modality_words,
)
from medclip.text.checks.negation import denied
from medclip.text.mentions import NONE, all_absent, asserted
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.prompts import without_article

IMAGE, PRESENT, ALL_CLEAR, ABSENT = "I", "P", "D", "N"
"""Capital letters that stand for a wording in a lower-case caption: of image or person, of a thing that is there,
of a whole denial, and of a thing that is not there and has yet to be denied."""
_NO_SUCH = re.compile(r"(?:no|without|free of) (?:(?:evidence|signs?) of )?", re.I)
_OF_THE_IMAGE = (VIEW_TASK, "modality")


@dataclass(frozen=True)
class Known:
    """Wordings of a record, in lower case."""

    kinds: Mapping[str, str]
    """Wording to its letter."""

    @property
    def stated(self) -> frozenset[str]:
        """What may stand in a caption as it is: the wordings, with a "no" before what is absent."""
        return frozenset(f"no {w}" if kind == ABSENT else w for w, kind in self.kinds.items())

    def mark(self, caption: str) -> str:
        """Replace each wording by a letter, the longest first.

        Args:
            caption: The caption in lower case, with single spaces.
        """
        pattern, kind_of = _spans_pattern(tuple(sorted(self.kinds.items(), key=lambda k: (-len(k[0]), k))))
        return pattern.sub(lambda m: kind_of[m.lastgroup or ""], caption)


def known_spans(record: CaptionRecord) -> Known:
    """Gather every wording that is true of an image, and the names of what it is labelled not to have."""
    kinds: dict[str, str] = {}
    for kind, wording in _wordings(record):
        for w in (wording.lower(), without_article(wording).lower()):
            kinds.setdefault(w, kind)
    return Known(kinds)


def _wordings(record: CaptionRecord) -> Iterator[tuple[str, str]]:
    yield from ((IMAGE, w) for w in _of_the_image(record))
    for name, label in record.labels.items():
        if name in _OF_THE_IMAGE:
            continue
        task = load_task(name)
        if isinstance(label, str):
            c = task.class_named(label)
            kind = ALL_CLEAR if label.startswith(NONE) else PRESENT
            yield from ((kind, w) for w in (*c.prompts, c.title, *c.stems))
            continue
        if task.denies_all(label):
            yield from ((ALL_CLEAR, w) for w in task.none_prompts)
        for c in labelled(task, label, 0):
            yield from ((ABSENT, w) for w in speaking_only_of(task, c, label, 0, (*c.nouns, c.title, *c.stems)))
            yield from (_denial(w) for w in speaking_only_of(task, c, label, 0, c.negative_prompts))
        for c in labelled(task, label, 1):
            yield from (
                (PRESENT, w) for w in speaking_only_of(task, c, label, 1, (*c.prompts, *c.nouns, c.title, *c.stems))
            )


def _denial(wording: str) -> tuple[str, str]:
    """Take the "no" off a denial, so that a list may begin with it: "no effusion or mass"."""
    of_one = _NO_SUCH.match(wording)
    return (ABSENT, wording[of_one.end() :]) if of_one and "," not in wording else (ALL_CLEAR, wording)


def _of_the_image(record: CaptionRecord) -> Iterator[str]:
    sides = side_phrases(record.modality or "", record.laterality)
    people = person_phrases(record.age_years, record.sex)
    views = view_names(record)
    yield from (*image_names(record), *modality_names(record.modality), *views, *sides, *people)
    for kinds, phrases in ((("view",), views), (("side",), sides), (("age", "sex"), people)):
        phrase_text = " ".join(phrases).lower()
        yield from (m[0] for kind in kinds for m in FACTS[kind].finditer(phrase_text))
    yield from REPORTING
    of_modality = modality_words().get(record.modality) if record.modality else None
    if of_modality:
        phrase_text = " ".join([*image_names(record), *modality_names(record.modality)]).lower()
        yield from (m[0] for m in of_modality.finditer(phrase_text))
    for name in image_names(record):  # "chest", "brain": the part of the body may be named alone
        yield from (w for w in any_modality_words().sub(" ", name.lower()).split() if w not in NEUTRAL)
    for name in ("modality", *record.labels):
        for template in load_task(name).templates:
            yield from (p for piece in template.split("{}") if " " in (p := piece.strip(" :,")))


@lru_cache(maxsize=1024)
def _spans_pattern(kinds: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], Mapping[str, str]]:
    spelt = [f"(?P<k{i}>{_spelt(wording)})" for i, (wording, _) in enumerate(kinds)]
    pattern = re.compile(r"(?<![\w-])(?:" + "|".join(spelt) + r")(?:e?s)?(?![\w-])")
    return pattern, {f"k{i}": kind for i, (_, kind) in enumerate(kinds)}


def _spelt(wording: str) -> str:
    """Match a wording with a hyphen or a space, in British or American spelling."""
    joined = r"[\s-]".join(re.escape(w) for w in re.split(r"[\s-]", wording))
    return joined.replace("tumour", "tumou?r").replace("colour", "colou?r")


_STEMS = (
    "abnormal|abscess|adenopath|airspace|aneurysm|angina|anomal|aort|arrhythm|artefact|arthrit|artifact|asbesto"
    "|ascites|asthma|atroph|biops|bleed|blunt|blur|bowel gas|bronchiect|bullae|bullous|calcif|cancer|catheter|cavit"
    "|clip|clot|compress|congest|cough|crowd|cyst|defect|deform|degenerat|deminerali|demyelin|density|deviat|device"
    "|diabet|dilat|disease|dislocat|disorder|displac|dissect|distort|drain|drusen|dysplas|dyspn|ectasi|effus|elevat"
    "|embol|empyema|engorg|enlarg|eventrat|exud|fever|fibrill|fistul|flattened|fluid|foreign body|fractur|free air"
    "|gangren|glauco|goit|granulom|haem|haz|hemat|hemorrh|hernia|hydroceph|hyperexpan|hyperplas|hypertens|hypoinfl"
    "|icter|implant|infarct|infect|inflam|inflated|injur|interstit|intraperiton|ischaem|ischem|lead|lesion|leuk|line"
    "|lucen|lymph|macul|malign|marking|metasta|microaneur|midline|murmur|myop|naev|necro|neoplas|nevus|obstruct"
    "|occlus|opacit|osteo|pacemaker|pain|parkinson|pectus|perforat|plaque|pneumoperiton|polyp|post-?operat|prominen"
    "|prosthe|ptosis|pulmonary vascul|radiodens|radiolucen|reticul|retinopath|ruptur|sarcoid|scar|scolio|screw"
    "|septic|shadow|shunt|silicosis|smok|spur|stenos|stent|sternotomy|stone|stroke|subdiaphrag|surg|swell|symptom"
    "|syndrome|tear|thicken|thromb|torn|tortuous|trauma|tube|tubercul|tumo|ulcer|valve|varic|volume|wedg|widen|wire"
    "|wound"
)
_ENDINGS = (
    "itis|omas?|omata|osis|oses|opath(?:y|ies)|ectas[ei]s|ectasia|megaly|rrhages?|plasia|a?emia|algia|trophy|thorax"
    "|ectomy|ostomy|plegia|penia|cele|lithiasis|malacia|sclerosis|stenosis|edema"
)
_NO_FINDING = frozenset(
    {"diagnosis", "diagnoses", "hemithorax", "prognosis", "prognoses", "osmosis", "aroma", "thorax"}
)


@cache
def _pattern() -> re.Pattern[str]:
    classes = "|".join(re.escape(s.lower()) for t in task_names() for c in load_task(t).classes for s in c.stems)
    return re.compile(rf"\b(?:(?P<stem>{_STEMS}|{classes})\w*|(?P<word>\w{{2,}}(?:{_ENDINGS})))\b")


@lru_cache(maxsize=16384)
def claims(text: str) -> frozenset[tuple[str, bool]]:
    """Return the findings a text speaks of: the beginning of the word (or the word), and whether it is affirmed.

    Example:
        >>> sorted(claims("A rib fracture, no haemothorax."))
        [('fractur', True), ('haem', False)]
    """
    lowered = text.lower()
    findings: set[tuple[str, bool]] = set()
    for match in _pattern().finditer(lowered):
        term = match["stem"] or match["word"].removesuffix("s")
        if match[0] not in _NO_FINDING:
            findings.add((term, not denied(lowered[: match.start()], lowered[match.end() :])))
    return frozenset(findings)


MAX_WORDS = 60
_NORMAL = re.compile(
    r"\b(?:normal\w*|negative|not remarkable|unremarkable|healthy|clear|intact|nothing"
    r"|no (?:acute |significant |other |further )*"
    r"(?:abnormal\w+|diseases?|patholog\w+|findings?|process(?:es)?|problems?)|disease-free|well)\b"
)
_TOKEN = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|\S")
_MARKS = frozenset("IPDN")


def check_caption(caption: str, record: CaptionRecord) -> tuple[str, ...]:
    """Return what a caption states that its record does not.

    Args:
        caption: One caption, in English.
        record: Record of the image. Only its labels, modality, view, side, age and sex count, not its texts.

    Returns:
        Problems, each as `kind: what was found`; empty when the caption may be used. Kinds: `form`, `finding` (stated
        and not labelled present, denied and not labelled absent, not labelled at all), `hedge`, `unclear`, `normal`,
        `modality`, `view`, `age`, `sex`, `side`, `place`, `degree`, `count`, `measurement`, `date`, `number`,
        `history` (other examinations), `talk`, `person`, `unknown word`. A word may be found by several.

    Raises:
        MedclipError: NO_TASK or TABLE_INVALID when the record names an unknown task or class.

    Example:
        >>> from medclip.sample import Modality
        >>> record = CaptionRecord(Modality.FUNDUS, labels={"fundus_cataract": {"cataract": 0}})
        >>> check_caption("Fundus photograph without cataract.", record)
        ()
        >>> check_caption("A fundus photograph with a cataract.", record)[0]
        "finding: 'cataract' is stated, the record denies it"
    """
    form = _form(caption)
    if form:
        return (f"form: {form}",)
    record = without_outcomes(record)
    lowered = " ".join(caption.lower().split())
    spans = known_spans(record)
    remaining = spans.mark(lowered)
    nothing_there = all_absent(record.labels)
    if nothing_there:
        remaining = _NORMAL.sub(ALL_CLEAR, remaining)
    problems = [
        *_findings(lowered, remaining, record, spans.stated),
        *_hedged(remaining),
        *_unclear(remaining),
        *_modality(remaining, record),
    ]
    if not nothing_there and (match := _NORMAL.search(remaining)):
        problems.append(f"normal: {match[0]!r} says more than the record")
    problems += [f"{kind}: {m[0]!r} is not in the record" for kind, p in FACTS.items() for m in p.finditer(remaining)]
    problems += _unknown(remaining)
    return tuple(dict.fromkeys(problems))


def _form(caption: str) -> str | None:
    words = caption.split()
    if not words:
        return "the caption is empty"
    if len(words) > MAX_WORDS:
        return f"the caption has {len(words)} words, more than {MAX_WORDS}"
    if any(c.isalpha() and ord(c) > 0x24F and c != "µ" for c in caption):
        return "the caption is not in Latin letters, and cannot be checked"
    return None


def _findings(lowered: str, remaining: str, record: CaptionRecord, span_kinds: frozenset[str]) -> Iterator[str]:
    """Yield what is spoken of and not in the record.

    Args:
        lowered: The caption.
        remaining: The caption without what the record says in its own words: those may hold the words of a task that
            the record does not speak of ("a mass with calcifications" of the kind of lesion and of the findings).
        record: Record of the image.
        span_kinds: Wordings that are true.
    """
    spoken_of = set(record.labels)
    spoken_of |= {t for t in task_names() if record.modality in load_task(t).modalities}
    for name in sorted(spoken_of):
        label = record.labels.get(name, {})
        for cls, affirmed in asserted(name, lowered if name in record.labels else remaining).items():
            value = label == cls if isinstance(label, str) else label.get(cls)
            if value is None:
                yield f"finding: {cls!r} is spoken of, nobody labelled it"
            elif affirmed != bool(value):
                spoken = "stated, the record denies it" if affirmed else "denied, the record states it"
                yield f"finding: {cls!r} is {spoken}"
    allowed = _claims_of(span_kinds)
    class_stems = {s.lower() for t in spoken_of for c in load_task(t).classes for s in c.stems}
    for term, affirmed in sorted(claims(lowered) - allowed):
        if not any(term.startswith(s) or (s.startswith(term) and " " not in s) for s in class_stems):
            yield f"finding: {term!r} is {'stated' if affirmed else 'denied'}, the record does not speak of it"


@lru_cache(maxsize=1024)
def _claims_of(span_kinds: frozenset[str]) -> frozenset[tuple[str, bool]]:
    return frozenset(c for wording in span_kinds for c in claims(wording))


def _hedged(remaining: str) -> Iterator[str]:
    for match in HEDGES.finditer(remaining):
        yield f"hedge: {match[0]!r} leaves open, or denies in a roundabout way"


def _unclear(remaining: str) -> Iterator[str]:
    """Yield denials that are not of the plain forms, and things that no denial stands at."""
    if not _MARKS & set(remaining):
        yield "unclear: nothing that the record says is said"
    for clause in re.split(r"[.;:!?]", remaining):
        plain = DENIED.sub(ALL_CLEAR, clause)
        for match in DENIALS.finditer(plain):
            yield f"unclear: what {match[0]!r} denies is not in the record"
        if "N" in plain:
            yield "unclear: a finding that is labelled absent is named and not denied"
        if re.search(r"\bor\b", plain):
            yield "unclear: 'or' stands between things that are not denied"
        for between in re.findall(r"D([^DP]*)(?=P)", plain):
            if not TURN.search(between):
                yield "unclear: is what follows a denial denied too?"


def _modality(remaining: str, record: CaptionRecord) -> Iterator[str]:
    allowed = set() if record.modality is None else {record.modality, *also_said_of(record.modality)}
    for modality, pattern in modality_words().items():
        if modality not in allowed and (match := pattern.search(remaining)):
            yield f"modality: {match[0]!r} is not what the record says"


def _unknown(remaining: str) -> Iterator[str]:
    """Yield words that are neither the record's nor neutral; denials and "or" are judged by `_unclear`."""
    for word in _TOKEN.findall(remaining):
        is_neutral = word in NEUTRAL or word in PUNCTUATION or word in _MARKS
        if not (is_neutral or word == "or" or DENIALS.fullmatch(word)):
            yield f"unknown word: {word!r}"
