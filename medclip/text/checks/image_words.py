"""Do words name an image and nothing else: "a brain MRI", "the lungs", "a fundus photograph"?"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from medclip.text.checks.fact_words import BODY_REGIONS, modality_words
from medclip.text.vocabulary.load import MODALITY_TASK, load_task

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
    r"\b(?:images?|imaging|pictures?|photographs?|photos?|photography|scans?|slices?|sections?|views?|films?|frames?"
    r"|sheets?|recordings?|traces?|(?:(?:12|twelve)[- ])?leads?|examinations?|cross-sectional|axial|coronal|sagittal"
    r"|radiolog(?:y|ical)|medical|breasts?|retinas?|retinal|eyes?|skin|tissue|organs?|cavity|system|structures?)\b"
)
"""Words that may stand in the name of an image and are no finding: the organs are those of one modality."""


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
        pairs.update((MODALITY_TASK, str(name)) for name, words in modality_words().items() if words.search(bare))
        pairs.update((REGION_TASK, name) for name, words in BODY_REGIONS.items() if words.search(bare))
        for name, wording in _image_wordings():
            if place := re.search(rf"\b{re.escape(wording)}\b", bare):
                pairs.add((MODALITY_TASK, name))
                bare = f"{bare[: place.start()]} {bare[place.end() :]}"
        for words in (*modality_words().values(), *BODY_REGIONS.values(), _IMAGES):
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
