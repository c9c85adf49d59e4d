"""What must stand beside an answer to a person's own words: what the card says of the classes that they name.

Another wording of a finding is no other finding: where the figure of "pneumonia" holds within its source only, nobody
knows better of "signs of pneumonia".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from medclip.models.packs.card_sources import caution_of
from medclip.text.checks.fact_words import ALSO_SAID_OF, BODY_REGIONS, MODALITIES
from medclip.text.free_text.mentions import mentioned
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, spoken_names
from medclip.text.vocabulary.own_words import Prompt
from medclip.wording import list_of

_MOST_SHOWN = 6
"""Classes that are named of those that are not answered."""
Pair = tuple[str, str]
"""A task and a class of it."""
REGION_TASK = "body_region"
IMAGE_TASKS = (MODALITY_TASK, REGION_TASK)
"""Tasks about what an image is of, not about what is found in it."""
_QUALIFIERS = re.compile(
    r"\b(?:an?|the|one|of|in|on|from|by|with|and|or|this|is|shows?|showing|colou?r|digital|plain|conventional|printed"
    r"|clinical|human|patients?'?s?|woman'?s?|man'?s?|person'?s?)\b"
)
_IMAGES = re.compile(
    r"\b(?:images?|imaging|photographs?|photos?|photography|scans?|slices?|sections?|views?|films?|frames?"
    r"|sheets?|recordings?|traces?|(?:(?:12|twelve)[- ])?leads?|examinations?|cross-sectional|axial|coronal|sagittal"
    r"|radiolog(?:y|ical)|medical|breasts?|retinas?|retinal|eyes?|skin|tissue|organs?|cavity|system|structures?)\b"
)
"""Words that may stand in the name of an image and are no finding: the organs are those of one modality."""


def vocabulary_classes(texts: Iterable[str]) -> frozenset[Pair]:
    """Return the classes of the vocabulary that texts speak of, affirmed or denied; modalities are none."""
    known = [name for name in spoken_names() if name != MODALITY_TASK]
    return frozenset((task, name) for task in known for text in texts for name in mentioned(task, text))


def image_classes(texts: Collection[str]) -> frozenset[Pair]:
    """Return the modalities and body regions that texts name, where they name nothing beside them.

    Of "a chest X-ray with an enlarged heart" the figure of the modality says nothing: so it names none.

    Example:
        >>> sorted(image_classes(["a brain MRI"]))
        [('body_region', 'head'), ('modality', 'mri')]
        >>> image_classes(["a spaceship"]), image_classes(["a brain MRI with a glioma"])
        (frozenset(), frozenset())
    """
    pairs: set[Pair] = set()
    for text in texts:
        bare = _bare(text)
        pairs.update((MODALITY_TASK, str(name)) for name, words in MODALITIES.items() if words.search(bare))
        pairs.update((REGION_TASK, name) for name, words in BODY_REGIONS.items() if words.search(bare))
        for name, wording in _image_wordings():
            if place := re.search(rf"\b{re.escape(wording)}\b", bare):
                pairs.add((MODALITY_TASK, name))
                bare = f"{bare[: place.start()]} {bare[place.end() :]}"
        for words in (*MODALITIES.values(), *BODY_REGIONS.values(), _IMAGES):
            bare = words.sub(" ", bare)
        if re.search(r"\w", bare):
            return frozenset()
    return frozenset(pairs)


def _bare(text: str) -> str:
    """Return a text in lower case without words such as "a", "of the" and "colour"."""
    return " ".join(_QUALIFIERS.sub(" ", text.lower()).split())


@cache
def _image_wordings() -> tuple[Pair, ...]:
    """Return modalities with the ways to say them that are two words or more, the longest first."""
    wordings = [(c.name, _bare(text)) for c in load_task(MODALITY_TASK).classes for text in c.prompts]
    return tuple(sorted((one for one in wordings if " " in one[1]), key=lambda one: (-len(one[1]), one)))


def card_classes(texts: Collection[str], listed: Mapping[str, Collection[str]]) -> tuple[Pair, ...]:
    """Return the classes of a card that texts name, by the words of the vocabulary or by their own names.

    A modality or a body region is one only of texts that name nothing else, as `image_classes`; where a finding is said
    of a modality, it is none of tasks about others: "a malignant mass on ultrasound" is not a mammogram's.

    Args:
        texts: Ways to say a prompt.
        listed: Classes of the card's tasks.

    Example:
        >>> card_classes(["signs of pneumonia"], {"chest_xray_findings": ["effusion", "pneumonia"]})
        (('chest_xray_findings', 'pneumonia'),)
        >>> card_classes(["a brain MRI"], {"modality": ["ct", "mri"]})
        (('modality', 'mri'),)
    """
    named, text = vocabulary_classes(texts), " | ".join(texts).lower()
    pairs = [(task, name) for task, names in listed.items() for name in names]
    findings = [pair for pair in pairs if pair[0] not in IMAGE_TASKS and _may_be_of(pair[0], text)]
    of_findings = tuple(pair for pair in findings if pair in named or _pattern(*pair).search(text))
    if of_findings or named:
        return of_findings
    of_image = image_classes(texts)
    return tuple(pair for pair in pairs if pair in of_image)


def _may_be_of(task: str, text: str) -> bool:
    """Return whether a text may speak of images that a task is about: it names their modality, or none."""
    about = load_task(task).modalities if task in spoken_names() else ()
    spoken_of = {str(name) for name, words in MODALITIES.items() if words.search(text)}
    fitting = {*about, *(other for name in about for other in ALSO_SAID_OF.get(name, ()))}
    return not about or not spoken_of or bool(spoken_of & {str(name) for name in fitting})


@lru_cache(maxsize=4096)
def _pattern(task: str, name: str) -> re.Pattern[str]:
    """Return what finds the printed name of a class."""
    return re.compile(rf"\b{re.escape(title_of(task, name).lower())}\b")


def title_of(task: str, name: str) -> str:
    """Return the printed name of a class: the vocabulary's, or its key with blanks."""
    titles = {c.name: c.title for c in load_task(task).classes} if task in spoken_names() else {}
    return titles.get(name, name.replace("_", " "))


def unanswered(task: str, classes: Collection[str]) -> str:
    """Write which classes of the vocabulary a card does not list of a task that it lists; blank where it has all.

    Args:
        task: Name of the task.
        classes: Those of the card.

    Example:
        >>> unanswered("ecg_superclass", ["norm", "sttc", "cd"])
        'not answered: myocardial infarction, hypertrophy'
    """
    names = [c.name for c in load_task(task).classes] if task in spoken_names() else []
    lacking = [printed_in_sentence(task, name) for name in names if name not in classes]
    if not lacking or len(lacking) == len(names):
        return ""
    shown, more = lacking[:_MOST_SHOWN], len(lacking) - _MOST_SHOWN
    return f"not answered: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"


def printed_in_sentence(task: str, name: str) -> str:
    """Return the printed name of a class as it stands within a sentence: abbreviations stay as they are.

    Example:
        >>> printed_in_sentence("ecg_superclass", "hyp"), printed_in_sentence("modality", "xray")
        ('hypertrophy', 'X-ray')
    """
    title = title_of(task, name)
    return title if title[1:2] in ("", "-") or title[1:2].isupper() else title[:1].lower() + title[1:]


def card_cautions(card: Any) -> dict[str, dict[str, str]]:
    """Return what a card says must stand beside answers, by task and class; only where something must."""
    by_task = {
        task: {name: caution for name in entry.classes if (caution := caution_of(entry.sources, name))}
        for task, entry in card.tasks.items()
    }
    return {task: cautions for task, cautions in by_task.items() if cautions}


def prompt_cautions(prompts: Iterable[Prompt], cautions: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return what must stand beside the answers to prompts, by their names; only where something must.

    Args:
        prompts: As asked; what they are compared with is not looked at.
        cautions: As `card_cautions` returns them.

    Example:
        >>> from medclip.text.vocabulary.own_words import read_prompts
        >>> of_card = {"chest_xray_findings": {"pneumonia": "within its source only (nih_cxr)"}}
        >>> prompt_cautions(read_prompts(["signs of pneumonia", "a glioma"]), of_card)
        {'signs of pneumonia': 'within its source only (nih_cxr)'}
    """
    beside = {}
    for prompt in prompts:
        named = card_classes(prompt.texts, cautions)
        if different := list(dict.fromkeys(cautions[task][name] for task, name in named)):
            beside[prompt.name] = list_of(different, last="and")
    return beside
