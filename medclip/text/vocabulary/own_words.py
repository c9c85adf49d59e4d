"""Questions in a person's own words: several ways to say what an image may show, several ways to say its opposite.

Ways to say one thing are parted by a bar, "pneumonia | consolidation of the lung", on the command line and in Python
alike, where a list does as well. A bar stands in no sentence of a report, while a colon does ("chest X-ray: pneumonia")
and an equals sign may; and a prompt that is named twice stays what it was, two questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.sample import Modality, spoken
from medclip.text.checks.closed_words import DENIALS, IMAGE_TASKS, any_modality_words
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.prompts import ClassPrompts, fill, without_article
from medclip.text.vocabulary.task import Task, TaskClass

AD_HOC = "prompt"
"""Name of the task that a person's own sentences make."""
BAR = "|"
OTHERS = "others"
"""In the place of what a prompt is compared with: the other findings that the vocabulary has of the modality."""
_MOST_BARE_WORDS = 3
_PLAIN = ("{}",)

Words = str | Sequence[str]
"""Ways to say one thing: a text, in which bars part them, or several."""
Asked = str | Sequence[Words] | Mapping[str, Words]
"""Prompts, or what they are compared with: one, several in order, or by name."""


@dataclass(frozen=True)
class Prompt:
    """What an image may show, and what it may show instead."""

    name: str
    """The first way to say it, unless a mapping names it."""
    texts: tuple[str, ...]
    """Ways to say that it is there."""
    against: tuple[str, ...]
    """Ways to say the opposite."""

    @property
    def is_bare(self) -> bool:
        """Whether it is but named, in three words or fewer, so that the sentences of its modality say it better.

        A text that names a modality, or has a colon or a comma, is a sentence already.
        """
        texts = [*((t, _MOST_BARE_WORDS) for t in self.texts), *((no, _MOST_BARE_WORDS + 1) for no in self.against)]
        return not any(len(text.split()) > most or _is_sentence(text) for text, most in texts)

    def sentences(self, templates: Sequence[str] = _PLAIN) -> ClassPrompts:
        """Return what is encoded: a bare finding in each template, anything else as it is."""
        fitting = templates if self.is_bare else _PLAIN
        by_template = tuple((fill([t], self.texts), fill([t], self.against)) for t in fitting)
        return ClassPrompts(self.name, fill(fitting, self.texts), fill(fitting, self.against), by_template)

    def of_modality(self, modality: Modality | None) -> Prompt:
        """Return the prompt with the other findings of a modality in the place of `OTHERS`; any other as it is.

        Where the vocabulary has none, or the modality is not known, "no" stands before each way to say it.
        """
        if self.against != (OTHERS,):
            return self
        others = [] if modality is None else other_findings(modality, [self.texts], of_presence=True)
        bare = (text for text in others if len(text.split()) <= _MOST_BARE_WORDS and not _is_sentence(text))
        return replace(self, against=tuple(bare) or tuple(map(opposite, self.texts)))

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        return {"name": self.name, "texts": list(self.texts), "against": list(self.against)}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Prompt:
        """Read back what `to_json` returned."""
        texts, against = (tuple(map(str, _list(values[name]))) for name in ("texts", "against"))
        return cls(str(values["name"]), texts, against)


def _is_sentence(text: str) -> bool:
    return re.search("[:,.]", text) is not None or any_modality_words().search(text.lower()) is not None


def read_prompts(prompts: Asked, against: Asked = ()) -> tuple[Prompt, ...]:
    """Read what a person asks in their own words.

    Args:
        prompts: Texts of what the image may show: one text, several (each a question of its own), or a mapping of names
            to texts. Bars part ways to say the same thing; a list in the place of a text does, too.
        against: The opposite of each, in their order or by name, again with bars; where there is none "no" before each
            way to say it, without its leading article. "others" stands for the other findings of the image's modality.

    Raises:
        MedclipError: WRONG_USE when a prompt is empty, stands twice or equals its opposite, or where there are
            opposites and not one for each prompt.

    Example:
        >>> (prompt,) = read_prompts("pneumonia | a consolidation")
        >>> prompt.texts, prompt.against
        (('pneumonia', 'a consolidation'), ('no pneumonia', 'no consolidation'))
        >>> read_prompts({"fluid": ["pleural effusion"]}, {"fluid": "clear angles"})[0].against
        ('clear angles',)
    """
    questions = dict(_named(prompts))
    if not questions:
        if _several(against):
            raise _wrong("there is something to compare against, but no prompt.", "Add --prompt TEXT.")
        return ()
    if isinstance(against, Mapping):
        strange = [str(name) for name in against if name not in questions]
        if strange:
            named = did_you_mean(strange[0], questions, "Prompts are")
            raise _wrong(f"{strange[0]!r} is compared with something, and is no prompt.", named)
        denied = [_ways(against.get(name, ())) for name in questions]
    else:
        denied = [_ways(words) for words in _several(against)] or [()] * len(questions)
    if len(denied) != len(questions):
        raise _wrong(
            f"prompts and what they are compared with come in pairs: {len(questions)} and {len(denied)} were given.",
            f"Name one --against for each --prompt, in their order, or none. {BAR!r} parts ways to say the same thing.",
        )
    return tuple(_prompt(name, texts, no) for (name, texts), no in zip(questions.items(), denied, strict=True))


def opposite(text: str) -> str:
    """Return what a text is compared with where nothing is named: "no" before it, without its article."""
    return f"no {without_article(text)}"


def ad_hoc_task(prompts: Sequence[Prompt]) -> Task:
    """Return the multi-label task of prompts: one class each, named as the prompt is."""
    return Task(
        name=AD_HOC,
        title=prompts[0].name if len(prompts) == 1 else "In your own words",
        kind="multilabel",
        modalities=(),
        templates=_PLAIN,
        classes=tuple(TaskClass(p.name, p.name, p.texts, p.against, nouns=(p.name,)) for p in prompts),
    )


def templates_of(modality: Modality | None) -> tuple[str, ...]:
    """Return the sentences that a bare finding is put into; the vocabulary names the images of each modality.

    Example:
        >>> templates_of(Modality.XRAY)
        ('{}', 'X-ray image: {}', 'an X-ray image with {}')
    """
    if modality is None:
        return _PLAIN
    names = {c.name: c.prompts[0] for c in load_task("modality").classes}
    image = names.get(str(modality), spoken(modality))
    return (*_PLAIN, f"{without_article(image)}: {{}}", f"{image} with {{}}")


def _named(prompts: Asked) -> Iterator[tuple[str, tuple[str, ...]]]:
    named = prompts.items() if isinstance(prompts, Mapping) else ((None, words) for words in _several(prompts))
    seen: set[str] = set()
    for given, words in named:
        texts = _ways(words)
        name = " ".join(str(given).split()) if given is not None else texts[0] if texts else ""
        if not texts or not all(texts) or not name:
            raise _wrong("the prompt is empty.", "Say what the image may show.")
        if name in seen:
            raise _wrong("a prompt stands twice.", f"Name each once. {BAR!r} parts ways to say the same thing.")
        seen.add(name)
        yield name, texts


def _prompt(name: str, texts: tuple[str, ...], denied: tuple[str, ...]) -> Prompt:
    against = denied if any(denied) else tuple(map(opposite, texts))
    if not all(against):
        raise _wrong("what the prompt is compared with is empty.", f"Leave out the {BAR!r} before or after it.")
    for side in (texts, against):
        if len({text.lower() for text in side}) < len(side):
            raise _wrong(f"the prompt {name!r} is said twice in the same words.", "Name each way to say it once.")
    if {text.lower() for text in texts} & {no.lower() for no in against}:
        raise _wrong("the prompt and what it is compared against are the same sentence.", "")
    return Prompt(name, texts, against)


def _ways(words: Words) -> tuple[str, ...]:
    """Part a text at its bars; white space does not count."""
    texts = [words] if isinstance(words, str) else list(words)
    return tuple(" ".join(part.split()) for text in texts for part in text.split(BAR))


def _several(questions: Asked) -> list[Words]:
    if isinstance(questions, Mapping):
        return list(questions.values())
    return [questions] if isinstance(questions, str) else list(questions)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _wrong(message: str, hint: str) -> MedclipError:
    return MedclipError(Reason.WRONG_USE, message, hint=hint)


def other_findings(modality: Modality, prompts: Sequence[Sequence[str]], *, of_presence: bool) -> list[str]:
    """Return a phrase for each class of the vocabulary's tasks of a modality that shares no word with some prompts.

    Args:
        modality: Modality of the images.
        prompts: Sentences of each class that is asked.
        of_presence: Whether it is asked if something is there: then of the tasks that ask this, too.
    """
    asked = {word for sentences in prompts for text in sentences for word in _content(text)}
    phrases: dict[str, None] = {}
    for task in map(load_task, task_names()):
        is_of_findings = task.rules.independent or (not of_presence and task.name not in IMAGE_TASKS)
        if modality in task.modalities and task.has_words and is_of_findings:
            phrases.update(dict.fromkeys(of_class.prompts[0] for of_class in task.classes))
    return [phrase for phrase in phrases if not asked & _content(phrase) and not DENIALS.search(phrase.lower())]


def _content(text: str) -> set[str]:
    """Return the longer words of a text, in the singular as far as an "s" makes the plural."""
    return {word.removesuffix("s") for word in re.findall(r"[a-z]{4,}", text.lower())} - _OF_SENTENCES


_OF_SENTENCES = {
    word.removesuffix("s") for word in ("image", "with", "chest", "scan", "showing", "photograph", "photo")
}
"""Words of the sentences around a finding."""
