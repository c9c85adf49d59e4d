"""Texts that are false of an image by exactly one change: the editor of hard negatives, by rule.

A change is one of presence, device, side, place, severity and count. A sentence of a report is exchanged or one word of
it swapped, and the new text is kept only where it speaks of the same findings, one of which has the other polarity, or
where one known finding has another side, place, size or number. Sentences are those that people wrote, or those of the
vocabulary, so that an edited text is as grammatical as the others; `medclip.pairs.words.reports.balanced_edits`
chooses among the changes so that no word betrays them.

Follows the rule edits of HQ-CLIP's texts as our specification states them; the paper's own come from a language model
and are not public.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from medclip.pairs.words.reports.report_cleaning import entities, phrases_of
from medclip.text.captions.record import labelled
from medclip.text.checks.negation import denied
from medclip.text.free_text import sentences
from medclip.text.mentions import asserted, is_all_clear, mentioned
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import spoken_labels
from medclip.wording import capital

if TYPE_CHECKING:
    from numpy.random import Generator

KINDS = ("presence", "device", "side", "location", "severity", "count")
LEAST_RATIO, MOST_RATIO = 0.7, 1.4
"""Words of an edited text for each of the true one: else a model learns the length."""
MOST_WORDS = 14
"""A sentence that is exchanged for another is no longer: a long one says more than one thing."""
Labels = Mapping[str, "str | Mapping[str, int]"]


@dataclass(frozen=True)
class Edit:
    """One change of a text."""

    kind: str
    """One of `KINDS`."""
    entity: str
    """Finding, device, or class of a task that is said otherwise."""
    before: str
    """Value that is true of the image: "present", "absent", "left", "mild", or a class."""
    after: str
    start: int
    """First letter of what is replaced."""
    end: int
    """Letter behind it."""
    old: str
    """What stood there."""
    new: str = ""
    """What stands there instead; "" for an exchange of presence whose sentence another text lends."""
    left_over: str = ""
    """Of a list of denials, the sentence that remains without this one."""
    lends: str = ""
    """Sentence that says no more than the true value, which another text may borrow."""

    def written(self, text: str, new: str | None = None) -> tuple[str, int, int]:
        """Write the edited text, with where the change starts and ends in it."""
        words = self.new if new is None else new
        part = f"{self.left_over} {words}" if self.left_over else words
        start = self.start + (len(self.left_over) + 1 if self.left_over else 0)
        return text[: self.start] + part + text[self.end :], start, self.start + len(part)


DEVICES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(rf"\b(?:{words})\b", re.I)
    for name, words in {
        "pacemaker": r"pace ?makers?|icd|cardiac device|aicd",
        "central_line": r"central (?:venous )?(?:line|catheter)s?|picc(?: line)?|port-?a-?cath|mediport|venous catheter"
        r"|dialysis catheter|chest port",
        "endotracheal_tube": r"endotracheal tubes?|et tube|ett|tracheostomy(?: tube)?",
        "enteric_tube": r"(?:naso|oro)gastric tubes?|enteric tubes?|feeding tubes?|ng tube",
        "chest_tube": r"chest tubes?|pleural (?:drain|catheter)s?|pigtail catheter",
        "sternotomy_wires": r"sternotomy(?: wires)?|sternal wires",
        "clips": r"(?:surgical )?clips",
    }.items()
}
"""Devices by the words that name them."""
_SIDES = (("left", "right"),)
_PLACES = (
    ("upper", "lower"),
    ("apical", "basilar"),
    ("apex", "base"),
    ("central", "peripheral"),
    ("medial", "lateral"),
    ("inner", "outer"),
    ("superior", "inferior"),
    ("anterior", "posterior"),
)
_SEVERITIES = (
    ("mild", "moderate"),
    ("moderate", "severe"),
    ("mildly", "severely"),
    ("small", "large"),
    ("small", "moderate"),
    ("tiny", "large"),
    ("minimal", "severe"),
)
_COUNTS = (("two", "three"), ("three", "four"), ("2", "3"), ("3", "4"))
SWAPS: Mapping[str, Sequence[tuple[str, str]]] = {
    "side": _SIDES,
    "location": _PLACES,
    "severity": _SEVERITIES,
    "count": _COUNTS,
}
"""Pairs of words, either of which becomes the other."""
_BOTH = re.compile(r"\b(?:bilateral\w*|both|left and right|right and left)\b", re.I)
_LIST = re.compile(
    r"^(?P<no>(?:there (?:is|are) )?(?:no|negative for|without)"
    r"(?: (?:definite|focal|evidence of|signs? of|large|acute))*)"
    r" (?P<items>[^.;:]+?)(?P<end>(?: (?:is|are) (?:seen|identified|present|noted|evident))?\.)$",
    re.I,
)
_NOTHING_ACUTE = re.compile(r"\bno acute\b.*\b(?:disease|process|abnormalit(?:y|ies)|findings?|changes?)\b")
_JOINTS = re.compile(r"\s*(?:,\s*(?:or|and|nor)\s+|,\s*|\s+(?:or|nor|and)\s+)\s*")


def edits_of(text: str, modality: str = "") -> tuple[Edit, ...]:
    """List the changes that a text can have, in its order.

    Args:
        text: A text that is true of its image, of whole sentences.
        modality: Modality of the image, which says whose findings are known; all are where it is "".
    """
    findings = entities(text, modality)
    spans = list(_spans(text))
    edits: list[Edit] = []
    for start, end in spans:
        sentence = text[start:end]
        elsewhere = [text[a:b] for a, b in spans if a != start]
        edits += _presences(sentence, start, elsewhere, findings, modality)
        edits += _swaps(sentence, start, elsewhere, modality)
    return tuple(edits)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for sentence in sentences(text, min_words=1):
        start = text.find(sentence, at)
        if start >= 0:
            at = start + len(sentence)
            yield start, at


@lru_cache(maxsize=65536)
def _devices(sentence: str) -> Mapping[str, bool]:
    lowered = sentence.lower()
    return {
        name: not denied(lowered[: match.start()], lowered[match.end() :])
        for name, pattern in DEVICES.items()
        if (match := pattern.search(lowered)) is not None
    }


def _presences(
    sentence: str, start: int, elsewhere: Sequence[str], findings: Mapping[str, bool], modality: str
) -> Iterator[Edit]:
    """Yield the exchanges of a sentence that speaks of one thing, which no other sentence speaks of; of denials in a
    list that of each.
    """
    named, devices = entities(sentence, modality), _devices(sentence)
    if named and not any(named.values()) and any(map(_clears_the_image, elsewhere)):
        return  # "Effusion. No acute abnormality." would contradict itself, and not the image alone.
    end = start + len(sentence)
    if len(sentence.split()) <= MOST_WORDS and len(named) + len(devices) == 1 and not is_all_clear(sentence):
        ((name, affirmed),) = (*named.items(), *devices.items())
        repeated = any(name in entities(s, modality) or name in _devices(s) for s in elsewhere)
        if not repeated:
            kind, values = "presence" if named else "device", ("present", "absent")
            before, after = values if affirmed else values[::-1]
            yield Edit(kind, name, before, after, start, end, sentence, lends=sentence)
    elif len(named) > 1 and not devices and not any(named.values()) and (match := _LIST.match(sentence)):
        items = _JOINTS.split(match["items"])
        for number, item in enumerate(items):
            (*only,) = entities(f"No {item}.", modality)
            rest = items[:number] + items[number + 1 :]
            if len(only) != 1 or any(only[0] in entities(s, modality) for s in elsewhere):
                continue
            remaining = f"{match['no']} {_joined(rest)}{match['end']}"
            alone = f"{match['no']} {item}{match['end']}"
            expected = {name: value for name, value in named.items() if name != only[0]}
            if entities(remaining, modality) == expected and entities(alone, modality) == {only[0]: False}:
                yield Edit(
                    "presence", only[0], "absent", "present", start, end, sentence, left_over=remaining, lends=alone
                )


def _clears_the_image(sentence: str) -> bool:
    """Return whether a sentence says that nothing is wrong; that one part is within normal limits does not."""
    words = sentence.lower().replace("within normal limits", "").replace(",", "")
    return is_all_clear(words) or _NOTHING_ACUTE.search(words) is not None


def _joined(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"


def _swaps(sentence: str, start: int, elsewhere: Sequence[str], modality: str) -> Iterator[Edit]:
    """Yield the changes of one word of a sentence that affirms one known finding or device, which no other names."""
    affirmed = [n for n, value in (*entities(sentence, modality).items(), *_devices(sentence).items()) if value]
    if len(affirmed) != 1 or any(affirmed[0] in (*entities(s, modality), *_devices(s)) for s in elsewhere):
        return  # The other sentence would still say what is true.
    for kind, pairs in SWAPS.items():
        if kind == "side" and _BOTH.search(sentence):
            continue
        for pair in pairs:
            for before, after in (pair, pair[::-1]):
                matches = list(re.finditer(rf"\b{before}\b(?!\.\d)(?<!\d\.\d)", sentence, re.I))
                if len(matches) != 1 or re.search(rf"\b{after}\b", sentence, re.I):
                    continue
                (match,) = matches
                if kind == "count" and not re.match(r" (?:\w+ ){0,2}\w+s\b", sentence[match.end() :]):
                    continue
                new = capital(after) if match[0][0].isupper() else after
                at = start + match.start()
                yield Edit(kind, affirmed[0], before, after, at, at + len(match[0]), match[0], new)


def fault_of(text: str, negative: str, edit: Edit, modality: str = "") -> str | None:
    """Return why an edited text is no hard negative; None where it is one.

    The reasons: `unchanged`, `length` (outside `LEAST_RATIO` to `MOST_RATIO` words for each), `unknown_entity`, and
    `not_one_change` where not exactly one finding has another polarity, or more than that word.
    """
    if " ".join(negative.split()) == " ".join(text.split()):
        return "unchanged"
    ratio = len(negative.split()) / max(len(text.split()), 1)
    if not LEAST_RATIO <= ratio <= MOST_RATIO:
        return "length"
    before, after = ({**entities(t, modality), **devices_of(t)} for t in (text, negative))
    if edit.entity not in before:
        return "unknown_entity"
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    expected = {edit.entity} if edit.kind in ("presence", "device") else set[str]()
    if changed != expected or (expected and after.get(edit.entity) is not (edit.after == "present")):
        return "not_one_change"
    return None


def devices_of(text: str) -> dict[str, bool]:
    """Return the devices that a text names, and whether a sentence affirms them."""
    answers: dict[str, bool] = {}
    for sentence in sentences(text, min_words=1):
        for name, affirmed in _devices(sentence).items():
            answers[name] = answers.get(name, False) or affirmed
    return answers


def text_of_labels(labels: Labels, rng: Generator) -> tuple[str, tuple[Edit, ...]]:
    """Write what labels say in plain sentences, and list the changes of it that contradict exactly one label.

    Args:
        labels: Labels of an image by task, as `CaptionRecord.labels`.
        rng: Source of chance of the wordings and of the order.

    Returns:
        The text, "" where the labels have no words, and its changes, each with its new words.
    """
    parts: list[tuple[str, str, str, str, str]] = []
    for task_name, label in spoken_labels(labels).items():
        task = load_task(task_name)
        if isinstance(label, str):
            others = [c for c in task.classes if c.name != label]
            if others and task.class_named(label).prompts:
                other = others[int(rng.integers(len(others)))]
                old, new = (_sentence(c.prompts[0]) for c in (task.class_named(label), other))
                parts.append((label, label, other.name, old, new))
            continue
        for value in (1, 0):
            for c in labelled(task, label, value):
                pairs = _phrases(task_name, c.name)
                if not pairs:
                    continue
                pair = pairs[int(rng.integers(len(pairs)))]
                old, new = pair if value else pair[::-1]
                before, after = ("present", "absent") if value else ("absent", "present")
                parts.append((c.name, before, after, old, new))
    order = [parts[int(i)] for i in rng.permutation(len(parts))]
    text, edits, at = " ".join(part[3] for part in order), [], 0
    for name, before, after, old, new in order:
        edit = Edit("presence", name, before, after, at, at + len(old), old, new)
        if num_contradicted(edit.written(text)[0], labels) == 1:
            edits.append(edit)
        at += len(old) + 1
    return text, tuple(edits)


def _sentence(prompt: str) -> str:
    return capital(prompt if prompt[-1] in ".!?" else f"{prompt}.")


@lru_cache(maxsize=4096)
def _phrases(task_name: str, name: str) -> tuple[tuple[str, str], ...]:
    """Return pairs of sentences that affirm and deny one class of a task, and speak of no other class of it."""
    modality = next((str(m) for m in load_task(task_name).modalities), "")
    pairs = zip(phrases_of(name, True, modality), phrases_of(name, False, modality), strict=True)
    return tuple(pair for pair in pairs if all(mentioned(task_name, sentence) == {name} for sentence in pair))


def num_contradicted(text: str, labels: Labels) -> int:
    """Count the labels that a text contradicts: classes affirmed that are absent, or denied that are present.

    Example:
        >>> num_contradicted("Effusion. No pneumothorax.", {"chest_xray_findings": {"effusion": 0, "pneumothorax": 0}})
        1
    """
    contradicted = 0
    for task_name, label in spoken_labels(labels).items():
        if isinstance(label, str):
            task = load_task(task_name)
            classes = {_sentence(c.prompts[0]): c.name for c in task.classes if c.prompts}
            stated = {classes[s] for s in classes if s.lower() in text.lower()}
            contradicted += bool(stated) and label not in stated
            continue
        answers: dict[str, bool] = {}
        for sentence in sentences(text, min_words=1):
            for name, affirmed in asserted(task_name, sentence).items():
                answers[name] = answers.get(name, False) or affirmed
        contradicted += sum(name in label and affirmed != bool(label[name]) for name, affirmed in answers.items())
    return contradicted
