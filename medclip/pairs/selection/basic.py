"""`basic`: pairs whose caption says something and whose image can be seen; nothing is learned, and no model is asked.

`reference: true` is the basic filter of DataComp (Gadre et al. 2023, section 3.2 and its code): English, more than two
words and five letters, a shorter side of 200 px and more, sides of at most 3 to 1. The medical rule differs: stored
images that were made smaller are not small, a volume counts by its slices, localizers and images with burned-in letters
go, a caption that only names the modality says nothing, and no language is a fault.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Table
from medclip.modalities import MODALITIES
from medclip.pairs.pile import Pile
from medclip.pairs.selection.steps import Context, FilterSettings, Verdict
from medclip.wording import count

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

REFERENCE_SIDE_PX, MEDICAL_SIDE_PX = 200, 128
_BATCH_ROWS = 1 << 16
LONG_WORDS = 512
"""More than a text tower reads: 77 tokens are CLIP's, 512 those of BERT and long texts, and a word is one or more."""
_LONGEST_NAME = 8
"""Words of the longest caption that may be a modality's name and nothing else."""
_PLAIN = re.compile(
    r"an?|the|of|from|and|with|this|is|images?|photo(?:graph)?s?|fig(?:ure)?|scans?|slices?|views?|films?|study|medical|"
    r"clinical|imaging|shows|showing"
)
"""Words that say nothing beside the name of a modality."""
_WORD = re.compile(r"[^\W_]+(?:&[^\W_]+)?")
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of scripts without blanks between words; each counts as a word."""
_ENGLISH = frozenset("the of and with in no is are there shows from to at by for left right".split())  # noqa: SIM905
_OTHER = frozenset(  # German, French, Spanish, Italian, Portuguese, Swedish, Dutch
    "der die das den dem und mit ohne kein keine keinen eine einer ist im von bei auf nicht links rechts le la les "  # noqa: SIM905
    "des du et avec sans est une aux dans par sur pas pour el los las y con sin en un una por para il lo gli e di del "
    "della senza o os do da com sem och ej med inga av een het van geen".split()
)
"""Small words, by which a language is told."""
_NOT_LATIN = re.compile(r"[^\W\d_\u0041-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")


class BasicSettings(FilterSettings):
    """What `basic` is asked."""

    reference: bool = False
    """Follow DataComp to the bit."""
    more_words_than: int = Field(default=2, ge=0)
    max_words: int | None = Field(default=None, ge=1)
    """Of a caption; None asks nothing. Not of the reference, which has no such rule."""
    more_letters_than: int = Field(default=5, ge=0)
    min_side_px: int | None = Field(default=None, ge=0)
    """Of the shorter side; 128, and 200 for the reference, where None. 0 asks nothing."""
    max_aspect: float = Field(default=3.0, ge=1)
    """Longer side by shorter."""
    min_slices: int = Field(default=8, ge=1)
    """Of a volume, whose sides are not looked at."""

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.max_words is None:
            return self
        if self.reference:
            raise ValueError("the reference has no `max_words`; leave one of them out.")
        if self.max_words <= self.more_words_than:
            raise ValueError(
                f"no caption has at most {self.max_words} words (`max_words`) and more than {self.more_words_than} "
                "(`more_words_than`)."
            )
        return self

    @property
    def side_px(self) -> int:
        """Least shorter side."""
        default = REFERENCE_SIDE_PX if self.reference else MEDICAL_SIDE_PX
        return default if self.min_side_px is None else self.min_side_px


def basic(pile: Pile, rows_M: NDArray[np.int64], settings: BasicSettings, context: Context, number: int) -> Verdict:
    """Keep pairs whose caption and image are more than nothing.

    Sides are those of the columns width and height; where a table has none, images are opened, of the pairs alone that
    passed the other rules.

    Returns:
        Verdict whose value is that of the first rule that a pair fails: words, letters, px of the shorter side, longer
        side by shorter, slices, and 1 of a rule that counts nothing; the words of a pair that fails none.
    """
    rules, words_M, letters_M = _caption_rules(pile, rows_M, settings)
    is_english_M = rules.pop("another language")
    notes: list[str] = []
    if settings.reference:
        rules["another language"] = ~is_english_M
    elif num := int((~is_english_M).sum()):
        notes.append(f"{count(num, 'caption')} may be in another language than English; they are kept.")
    if not settings.reference:
        rules |= _header_rules(pile, rows_M)
    is_open_M = ~np.logical_or.reduce(list(rules.values()))
    sizes = _sizes(pile, rows_M, is_open_M, context)
    rules |= _size_rules(pile, settings, *sizes)
    fails_M = np.logical_or.reduce(list(rules.values()))
    num_without = int((np.isnan(sizes[0]) & is_open_M & ~fails_M).sum())
    if num_without:
        notes.append(f"{count(num_without, 'pair')} without an image; sides were not asked of them.")
    if num := int((words_M[~fails_M] > LONG_WORDS).sum()):
        notes.append(
            f"{count(num, 'caption')} of more than {LONG_WORDS} words kept; a text tower reads fewer tokens than that "
            "(CLIP's 77), and is not shown what stands behind them. Medical rules drop such captions with `max_words`."
        )
    facts = {
        "fails": {name: int(mask.sum()) for name, mask in rules.items()},
        "not_english": int((~is_english_M).sum()),
    }
    width_M, height_M, slices_M, _ = sizes
    shorter_M = np.minimum(width_M, height_M)
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect_M = np.maximum(width_M, height_M) / shorter_M
    measured = {"few words": words_M, "many words": words_M, "modality alone": words_M, "few letters": letters_M}
    measured |= {"small": shorter_M, "long": aspect_M, "few slices": slices_M}
    masks = [*rules.values(), ~fails_M]
    values = [*(measured.get(name, 1.0) for name in rules), words_M]
    return Verdict(~fails_M, np.select(masks, values, np.nan), facts=facts, notes=tuple(notes))


def _caption_rules(
    pile: Pile, rows_M: NDArray[np.int64], settings: BasicSettings
) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.int32], NDArray[np.int32]]:
    """Return which captions fail each rule, their words and their letters; under "another language" which do not, as
    far as it can be seen.
    """
    limit = settings.max_words
    of_words = ("few words",) if limit is None else ("few words", "many words")
    names = (*of_words, "few letters", "modality alone", "another language")
    rules = {name: np.zeros(len(rows_M), bool) for name in names}
    words_M, letters_M = np.zeros(len(rows_M), np.int32), np.zeros(len(rows_M), np.int32)
    language = Table(pile.table, "the pile").find("language", "lang")
    for start in range(0, len(rows_M), _BATCH_ROWS):
        rows = rows_M[start : start + _BATCH_ROWS]
        texts = pile.words(rows)
        named = [None] * len(rows) if language is None else pile.cells(language, rows)
        part = slice(start, start + len(rows))
        num_words = [len(text.split()) if settings.reference else _num_words(text) for text in texts]
        words_M[part], letters_M[part] = num_words, list(map(len, texts))
        rules["few words"][part] = words_M[part] <= settings.more_words_than
        if limit is not None:
            rules["many words"][part] = words_M[part] > limit
        rules["few letters"][part] = letters_M[part] <= settings.more_letters_than
        if not settings.reference:
            rules["modality alone"][part] = [
                num <= _LONGEST_NAME and is_modality_alone(text) for text, num in zip(texts, num_words, strict=True)
            ]
        rules["another language"][part] = [
            _names_english(cell) if cell else settings.reference or is_english(text)
            for cell, text in zip(named, texts, strict=True)
        ]
    return rules, words_M, letters_M


def _num_words(text: str) -> int:
    return len(text.split()) + (0 if text.isascii() else len(_IDEOGRAPH.findall(text)))


def is_modality_alone(text: str) -> bool:
    """Return whether a caption names a modality and says nothing else."""
    words = _WORD.findall(text.casefold())
    names = _modality_words()
    return any(word in names for word in words) and all(word in names or _PLAIN.fullmatch(word) for word in words)


@cache
def _modality_words() -> frozenset[str]:
    """Return the words by which modalities are called."""
    spellings = (
        spelling
        for name, facts in MODALITIES.items()
        for spelling in (name, facts.title, *facts.spellings, *facts.dicom_codes)
        if name != "other"
    )
    return frozenset(word for spelling in spellings for word in _WORD.findall(spelling.casefold())) | {
        "x",
        "ray",
        "rays",
    }


def _names_english(cell: str) -> bool:
    return str(cell).casefold().partition("-")[0].partition("_")[0] in ("en", "eng", "english")


def is_english(text: str) -> bool:
    """Return whether nothing speaks against English: neither its letters nor its small words."""
    if not text.isascii() and len(_NOT_LATIN.findall(text)) * 4 > len(_LETTER.findall(text)):
        return False
    words = set(text.lower().split())
    return len(words & _OTHER) <= len(words & _ENGLISH)


def _header_rules(pile: Pile, rows_M: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Return which images a header speaks against, where the pile has its facts."""
    table, rules = Table(pile.table, "the pile"), {}
    burned_in = table.find("burned_in", "BurnedInAnnotation")
    if burned_in is not None:
        cells = pile.cells(burned_in, rows_M)
        rules["burned-in letters"] = np.array([str(cell).strip().casefold() in ("true", "yes") for cell in cells], bool)
    image_type = table.find("ImageType")
    if image_type is not None:
        cells = pile.cells(image_type, rows_M)
        rules["localizer"] = np.array(["LOCALIZER" in str(cell).upper() for cell in cells], bool)
    return rules


_Sizes = tuple["NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.bool_]"]


def _sizes(pile: Pile, rows_M: NDArray[np.int64], is_open_M: NDArray[np.bool_], context: Context) -> _Sizes:
    """Return widths, heights, slices (NaN where there are none) and which images cannot be read."""
    table = Table(pile.table, "the pile")
    width_M, height_M, slices_M = (
        np.full(len(rows_M), np.nan) if column is None else table.numbers(column)[rows_M]
        for column in (table.find("width"), table.find("height"), table.find("num_slices"))
    )
    is_broken_M = np.zeros(len(rows_M), bool)
    unknown = np.flatnonzero(is_open_M & (np.isnan(width_M) | np.isnan(height_M)) & np.isnan(slices_M))
    if len(unknown):
        context.progress.stage("Images", len(unknown))
    for place, image in zip(unknown, pile.looks(rows_M[unknown].tolist()) if len(unknown) else (), strict=True):
        context.progress.step()
        if isinstance(image, MedclipError):
            is_broken_M[place] = image.reason is not Reason.NO_PIXELS
        elif isinstance(image, np.ndarray):  # a record has no sides
            height_M[place], width_M[place] = image.shape[:2]
    return width_M, height_M, slices_M, is_broken_M


def _size_rules(
    pile: Pile,
    settings: BasicSettings,
    width_M: NDArray[np.float64],
    height_M: NDArray[np.float64],
    slices_M: NDArray[np.float64],
    is_broken_M: NDArray[np.bool_],
) -> dict[str, NDArray[np.bool_]]:
    """Return which images fail each rule of their sides. What is not known fails none."""
    shorter_M, longer_M = np.minimum(width_M, height_M), np.maximum(width_M, height_M)
    is_small_M = shorter_M < settings.side_px
    is_long_M = longer_M / np.where(shorter_M > 0, shorter_M, np.nan) > settings.max_aspect
    if settings.reference:
        return {"small": is_small_M, "long": is_long_M, "unreadable": is_broken_M}
    is_volume_M = ~np.isnan(slices_M)
    if pile.max_side is not None:
        is_small_M &= longer_M < pile.max_side  # others were made smaller, and nobody knows from what
    return {
        "small": is_small_M & ~is_volume_M,
        "long": is_long_M & ~is_volume_M,
        "few slices": slices_M < settings.min_slices,
        "unreadable": is_broken_M,
    }
