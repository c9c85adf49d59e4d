"""The verb `search`: find studies in a folder of embeddings, or patches of slides, by words, by example, or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, overload

from medclip.embeddings.embedded_unit import LEVELS, Level
from medclip.embeddings.open_embeddings import Embeddings, open_embeddings
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.packs.card import read_card
from medclip.models.packs.pack import find_pack
from medclip.models.packs.words import no_words, understands_words
from medclip.progress import Progress
from medclip.retrieval.approximate import Engine, check_faiss
from medclip.retrieval.captions import CaptionRanking, rank_captions, read_captions
from medclip.retrieval.example import Example, Load, read_examples
from medclip.retrieval.pack_of import pack_of
from medclip.retrieval.question import read_question
from medclip.retrieval.result import NOUNS, Hit, SearchResult
from medclip.retrieval.search import run_search
from medclip.retrieval.slide_patches import run_patch_search
from medclip.retrieval.where import SLIDE_COLUMNS, Where, read_conditions
from medclip.runs.outputs.score_run import NOT_LEARNED, not_learned
from medclip.sample import Kind, Modality, spoken
from medclip.scoring.cautions import answer_cautions, asked_words, beside_stranger
from medclip.scoring.unlearned import place_notes
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.slides.store.slide_store import SlideStore, is_slide_store, open_slide_store
from medclip.text.vocabulary.own_words import Words
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from medclip.models.model import Model


@overload
def search(
    folder: str | Path | Embeddings | SlideStore,
    words: Words = (),
    *,
    like: Example | Sequence[Example] | None = None,
    not_: Words = (),
    where: Where = (),
    top: int = 50,
    level: str | None = None,
    model: str | Path | Model | None = None,
    modality: Modality | str | None = None,
    other_patients: bool = False,
    include_example: bool = False,
    engine: str = "exact",
    images: str | Path | None = None,
    report_paths: bool = False,
    captions: None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> SearchResult: ...


@overload
def search(
    folder: str | Path | Embeddings | None = None,
    *,
    captions: Any,
    like: Example | Sequence[Example],
    top: int = 50,
    model: str | Path | Model | None = None,
    modality: Modality | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> CaptionRanking: ...


def search(
    folder: str | Path | Embeddings | SlideStore | None = None,
    words: Words = (),
    *,
    like: Example | Sequence[Example] | None = None,
    not_: Words = (),
    where: Where = (),
    top: int = 50,
    level: str | None = None,
    model: str | Path | Model | None = None,
    modality: Modality | str | None = None,
    other_patients: bool = False,
    include_example: bool = False,
    engine: str = "exact",
    images: str | Path | None = None,
    report_paths: bool = False,
    captions: Any = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> SearchResult | CaptionRanking:
    """Find studies in a folder of embeddings, or patches in one of slides, by words, by example, or both.

    The search is exact, and reads no image but an example that is not in the folder. The first search of a level writes
    its vectors once more, in a form that can be mapped, into the folder `search` of the embeddings.

    Args:
        folder: What `medclip embed` or `medclip slides embed` wrote; what is opened (`medclip.runs.open_embeddings`,
            `medclip.slides.open_store`) keeps what it has read for the next question.
        words: What to look for; several texts, or parts of one between bars, are ways to say the same thing, and their
            vectors are averaged.
        like: A file, or the number of one in the folder; or several, whose vectors are averaged. One that is in the
            folder (by the hash of its bytes) is not read again. A patch of a slide is "KEY@TOP,LEFT", its corner in
            µm, as `PatchHit.name` has it.
        not_: What not to look for: its cosine is taken from the score.
        where: Conditions such as "modality=ct" or "age_years>=60", or a mapping such as {"modality": ["ct", "mri"]}.
            Several equalities of one column hold where any does; columns hold together. Of slides the columns are
            those of slides.parquet.
        top: How many hits.
        level: What is ranked: "study" (None), "unit" (a file, or what is read together) or "view"; of slides "patch".
        model: The pack that the embeddings are of, or that pack loaded; where None the pack is found by its name.
        modality: Of an example that is not in the folder and whose header does not say.
        other_patients: Leave out everything of an example's patient.
        include_example: Rank the example itself, too.
        engine: "exact", or "faiss" (the extra `search`): an approximate index beside the vectors, for many millions of
            them; a note has the recall that was measured when it was made.
        images: Folder of the slides that were embedded, for small images of the patches.
        report_paths: Name files by their paths, which may identify patients; by default by their numbers.
        captions: Rank these sentences for an image (`like`) in the place of studies: a list, a text file with one a
            line, or a table with a column `caption`. The folder may then be left out; the pack is then medclip-mini,
            unless another is named.
        settings: Limits for reading an example.
        progress: Told of vectors that are prepared.

    Returns:
        The hits, in their order: `.hits`, `.to_pandas()`, `.write(path)`, and small images in a notebook. Where the
        model was never taught what the words say, or not on such images, or that holds within its source only, a hit
        has the `caution` that `medclip.score` gives such an answer, and is grey.

    Raises:
        MedclipError: WRONG_USE for another pack than that of the embeddings, words for an image-only one, an unknown
            column or level; NOTHING_TO_DO where no vector is left to look at; those of `open_embeddings`.

    Example:
        >>> import medclip
        >>> medclip.search("embeddings", "pleural effusion", where="modality=xray", top=20)  # doctest: +SKIP
    """
    if top < 1:
        raise MedclipError(Reason.WRONG_USE, f"{top} hits were asked for; at least 1 can be.", hint="Leave it at 50.")
    if captions is not None:
        if not like or words or not_ or where:
            raise MedclipError(
                Reason.WRONG_USE,
                "captions are ranked for an image, and by nothing else.",
                hint="Name the image: --captions TABLE --like FILE.",
            )
        texts = read_captions(captions)
        if folder is not None and _is_of_slides(folder):
            raise MedclipError(Reason.WRONG_USE, "captions are ranked for an image; leave the slides out.")
        opened = None if folder is None or isinstance(folder, SlideStore) else open_embeddings(folder)
        return rank_captions(
            texts,
            read_examples(like),
            _loader(opened, model, has_words=True),
            embeddings=opened,
            top=top,
            modality=None if modality is None else str(modality),
            settings=settings,
            progress=progress,
        )
    question = read_question(words, not_, like)
    if folder is None:
        raise MedclipError(
            Reason.WRONG_USE, "no folder of embeddings is named.", hint="Make one with medclip embed, and name it."
        )
    has_words = bool(question.words or question.without)
    options: dict[str, Any] = {
        "top": top,
        "other_patients": other_patients,
        "include_example": include_example,
        "engine": read_engine(engine),
        "modality": None if modality is None else str(modality),
        "report_paths": report_paths,
        "settings": settings,
        "progress": progress,
    }
    if isinstance(folder, SlideStore) or _is_of_slides(folder):
        assert not isinstance(folder, Embeddings)
        conditions = read_conditions(where, SLIDE_COLUMNS)
        if level not in (None, "patch", "patches"):
            raise MedclipError(Reason.WRONG_USE, f"{level!r} cannot be ranked: of slides patches are.")
        embeddings = open_slide_store(folder)
        load = _loader(embeddings, model, has_words=has_words)
        options["images"] = None if images is None else Path(images)
        result = run_patch_search(embeddings, question, load, conditions=conditions, **options)
    else:
        conditions = read_conditions(where)
        if images is not None:
            raise MedclipError(Reason.WRONG_USE, "only patches of slides are read again.", hint="Leave --images away.")
        ranked, embeddings = read_level(level or "study"), open_embeddings(folder)
        load = _loader(embeddings, model, has_words=has_words)
        result = run_search(embeddings, question, load, conditions=conditions, level=ranked, **options)
    if not has_words:
        return result
    pack = pack_of(embeddings, model)
    card, asked = read_card(pack), asked_words(question.words, question.without)
    cautions, kinds = answer_cautions(card, [asked], pack, load().tokenizer), _kinds(embeddings, result.hits)
    (name,) = asked.names

    def caution(hit: Hit) -> str | None:
        kind, is_stranger = kinds[hit.row]
        text = cautions.get((hit.modality, kind, asked.task.name, name))
        return beside_stranger(text, hit.modality) if is_stranger else text

    hits = tuple(replace(hit, caution=caution(hit)) for hit in result.hits)
    measured = {hit.modality for hit in hits if hit.caution and not not_learned(hit.caution)}
    notes = (*_unlearned(hits), *(place_notes(card, [asked], measured) if measured else ()))
    return replace(result, hits=hits, notes=(*notes, *result.notes))


def _kinds(embeddings: Embeddings | SlideStore, hits: Sequence[Hit]) -> dict[int, tuple[str, bool]]:
    """Return of each row among the hits what it is (an image, a volume, a slide), and whether it is a stranger."""
    rows = sorted({hit.row for hit in hits})
    if isinstance(embeddings, SlideStore):
        return dict.fromkeys(rows, (Kind.SLIDE, False))
    units = embeddings.columns("units", ["row", "kind", "stranger"], rows)
    row, kind, is_stranger = (column.to_pylist() for column in units.columns)
    return dict(zip(row, zip(kind, is_stranger, strict=True), strict=True))


def _unlearned(hits: Sequence[Hit]) -> Iterator[str]:
    """Yield what of an answer the pack was never taught: by reason, of how many hits and of which modalities.

    Reasons that end with the hit's own modality ("not for CT") are one reason.
    """
    alike: dict[tuple[str, bool], list[str]] = {}
    for hit in hits:
        if reason := not_learned(hit.caution):
            modality = spoken(hit.modality)
            is_own = reason.endswith(f" {modality}")
            alike.setdefault((reason.removesuffix(modality) if is_own else reason, is_own), []).append(modality)
    for (reason, is_own), modalities in alike.items():
        of = list(dict.fromkeys(modalities))
        sentence = f"{reason}{of[0] if len(of) == 1 else 'these'}" if is_own else reason
        who = (
            "" if len(modalities) == len(hits) and not is_own else f"{count(len(modalities), 'hit')} of {list_of(of)}: "
        )
        yield f"{NOT_LEARNED}{who}{sentence}."


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
        Reason.WRONG_USE,
        f"{level!r} cannot be ranked.",
        hint=did_you_mean(level, [NOUNS[name] for name in LEVELS], "Levels are"),
    )


def read_engine(engine: str) -> Engine:
    """Return an engine of its name.

    Raises:
        MedclipError: WRONG_USE for an unknown one; MISSING_CODEC where its library is not installed.
    """
    for name in get_args(Engine):
        if engine == name:
            if name == "faiss":
                check_faiss()
            return name
    raise MedclipError(
        Reason.WRONG_USE, f"there is no engine {engine!r}.", hint=did_you_mean(engine, get_args(Engine), "Engines are")
    )


def _is_of_slides(folder: str | Path | Embeddings | SlideStore) -> bool:
    return isinstance(folder, SlideStore) or (not isinstance(folder, Embeddings) and is_slide_store(folder))


def _loader(embeddings: Embeddings | SlideStore | None, model: str | Path | Model | None, *, has_words: bool) -> Load:
    """Check at once, without torch, whether a pack is the right one, and return what loads it when it is needed."""
    pack = None
    if embeddings is None:
        pack = find_pack(DEFAULT_MODEL if model is None else model)
    elif has_words or model is not None:
        pack = pack_of(embeddings, model)
    if has_words and pack is not None and not understands_words(pack):
        raise no_words(read_card(pack).name, ", which words need")

    @cache
    def load() -> Model:
        from medclip.models.model import Model
        from medclip.models.packs.pack import load_model

        if isinstance(model, Model):
            return model
        if pack is None:
            assert embeddings is not None
            return load_model(pack_of(embeddings, None))
        return load_model(pack)

    return load
