"""The verb `search`: find studies in a folder of embeddings, by words, by example, or both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.embeddings.embedded_unit import LEVELS, Level
from medclip.embeddings.open_embeddings import Embeddings, open_embeddings
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.packs.words import no_words, understands_words
from medclip.progress import Progress
from medclip.retrieval.pack_of import pack_of
from medclip.retrieval.question import Example, read_question
from medclip.retrieval.result import NOUNS, SearchResult
from medclip.retrieval.search import run_search
from medclip.retrieval.where import Where, read_conditions
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.text.vocabulary.own_words import Words

if TYPE_CHECKING:
    from medclip.models.model import Model


def search(
    folder: str | Path | Embeddings,
    words: Words = (),
    *,
    like: Example | Sequence[Example] | None = None,
    not_: Words = (),
    where: Where = (),
    top: int = 50,
    level: str = "study",
    model: str | Path | Model | None = None,
    modality: Modality | str | None = None,
    other_patients: bool = False,
    include_example: bool = False,
    report_paths: bool = False,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Find studies in a folder of embeddings, by words, by example, or both.

    The search is exact, and reads no image but an example that is not in the folder. The first search of a level writes
    its vectors once more, in a form that can be mapped, into the folder `search` of the embeddings.

    Args:
        folder: What `medclip embed` wrote, or opened embeddings; those keep what they have read for the next question.
        words: What to look for; several texts, or parts of one between bars, are ways to say the same thing, and their
            vectors are averaged.
        like: A file, or the number of one in the folder; or several, whose vectors are averaged. One that is in the
            folder (by the hash of its bytes) is not read again.
        not_: What not to look for: its cosine is taken from the score.
        where: Conditions such as "modality=ct" or "age_years>=60", or a mapping such as {"modality": ["ct", "mri"]}.
            Several equalities of one column hold where any does; columns hold together.
        top: How many hits.
        level: What is ranked: "study", "unit" (a file, or what is read together) or "view".
        model: The pack that the embeddings are of, or that pack loaded; where None the pack is found by its name.
        modality: Of an example that is not in the folder and whose header does not say.
        other_patients: Leave out everything of an example's patient.
        include_example: Rank the example itself, too.
        report_paths: Name files by their paths, which may identify patients; by default by their numbers.
        settings: Limits for reading an example.
        progress: Told of vectors that are prepared.

    Returns:
        The hits, in their order: `.hits`, `.to_pandas()`, `.write(path)`, and small images in a notebook.

    Raises:
        MedclipError: WRONG_USE for another pack than that of the embeddings, words for an image-only one, an unknown
            column or level; NOTHING_TO_DO where no vector is left to look at; those of `open_embeddings`.

    Example:
        >>> import medclip
        >>> medclip.search("embeddings", "pleural effusion", where="modality=xray", top=20)  # doctest: +SKIP
    """
    question = read_question(words, not_, like)
    conditions = read_conditions(where)
    if top < 1:
        raise MedclipError(Reason.WRONG_USE, f"{top} hits were asked for; at least 1 can be.", hint="Leave it at 50.")
    ranked, embeddings = read_level(level), open_embeddings(folder)
    has_words = bool(question.words or question.without)
    pack = pack_of(embeddings, model) if has_words or model is not None else None
    if has_words and pack is not None and not understands_words(pack):
        raise no_words(embeddings.pack.name, ", which a search for words needs")

    def load() -> Model:
        from medclip.models.model import Model
        from medclip.models.packs.pack import load_model

        return model if isinstance(model, Model) else load_model(pack or pack_of(embeddings, None))

    return run_search(
        embeddings,
        question,
        load,
        conditions=conditions,
        level=ranked,
        top=top,
        other_patients=other_patients,
        include_example=include_example,
        modality=None if modality is None else str(modality),
        report_paths=report_paths,
        settings=settings,
        progress=progress,
    )


def read_level(level: str) -> Level:
    """Return the level of its name in the singular or plural.

    Example:
        >>> read_level("study"), read_level("views")
        ('studies', 'views')
    """
    for name in LEVELS:
        if level in (name, NOUNS[name]):
            return name
    raise MedclipError(
        Reason.WRONG_USE, f"{level!r} cannot be ranked.", hint=did_you_mean(level, NOUNS.values(), "Levels are")
    )
