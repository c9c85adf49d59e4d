"""The verb `search`: find studies in a folder of embeddings, or patches of slides, by words, by example, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Ranked
from medclip.api.groups.reading import AnyModality, Limits
from medclip.api.groups.running import Overwriting, Recipe, ReportPaths, Told, settings_of
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.options import argument, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.embeddings.embedded_unit import Level
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model
    from medclip.retrieval.hits import Hit, SearchResult
    from medclip.slides.slide_store import SlideStore


@options
class SearchOptions(Told, Limits, Recipe, Ranked, AnyModality, ReportPaths, Overwriting):
    """What `search` is asked."""

    embeddings: str | Path | Embeddings | SlideStore = argument(
        "Folder that medclip embed or medclip slides embed wrote. In Python also what is opened "
        "(`medclip.runs.open_embeddings`, `medclip.slides.open_store`), which keeps what it has read.",
        kind=Path,
        place=True,
        present="folder",
    )
    words: str | Sequence[str] = argument(
        "What to look for. Several texts, or parts of one between bars, are ways to say the same thing, and their "
        "vectors are averaged.",
        default=(),
    )
    against: str | Sequence[str] = option(
        "What not to look for: its cosine is taken from the score.",
        default=(),
        form="TEXT",
        often=True,
        heading="What is looked for",
    )
    model: str | Path | Model | None = option(
        "Name or folder of the pack that the embeddings are of. In Python also that pack loaded. Default: found by its "
        "name.",
        default=None,
        form="PACK",
        kind=str,
        often=True,
        place=True,
    )
    where: str | Sequence[str] | Mapping[str, Any] = option(
        "Condition on a column or header value, such as modality=ct; also != < <= > >=. Several equalities of one "
        "column hold where any does; columns hold together. Of slides the columns are those of slides.parquet. In "
        'Python also a mapping such as {"modality": ["ct", "mri"]}.',
        default=(),
        form="COLUMN=VALUE",
        kind=str,
        often=True,
        heading="Where",
    )
    level: str | None = option(
        "What is ranked: study, unit (a file, or what is read together) or view; of slides patch. Default: study.",
        default=None,
        often=True,
        heading="Where",
    )
    other_patients: bool = option("Leave out everything of the example's patient.", default=False, heading="Where")
    include_example: bool = option("Rank the example itself, too.", default=False, heading="Where")
    index: str = option(
        "What vectors are compared through: exact, each of them; or faiss (the extra `search`), an approximate index "
        "beside them for many millions. A note has the recall that was measured when it was made.",
        default="exact",
        choices=("exact", "faiss"),
        heading="Where",
    )
    html: str | Path | None = option(
        "Page of the hits to write, with small images.",
        default=None,
        form="FILE",
        often=True,
        of_call=True,
        place=True,
        heading="Output",
    )
    images: str | Path | None = option(
        "Folder that the slides lie in, for small images of their patches.",
        default=None,
        form="DIR",
        often=True,
        place=True,
        heading="Output",
    )


@verb(SearchOptions)
def search(options: SearchOptions) -> SearchResult:
    """Find studies in a folder of embeddings, or patches in one of slides, by words, by example, or both.

    The search is exact, and reads no image but an example that is not in the folder. The first search of a level writes
    its vectors once more, in a form that can be mapped, into the folder `search` of the embeddings.

    Returns:
        The hits, in their order: `.hits`, `.to_pandas()`, `.write(path)`, and small images in a notebook. Where the
        model was never taught what the words say, or not on such images, or that holds within its source only, a hit
        has the `caution` that `medclip.score` gives such an answer, and is grey.

    Raises:
        MedclipError: WRONG_USE for another pack than that of the embeddings, words for an image-only one, an unknown
            column or level; NOTHING_TO_DO where no vector is left to look at; OUTPUT_IN_USE; those of
            `open_embeddings`.

    Example:
        >>> import medclip
        >>> medclip.search("embeddings", "pleural effusion", where="modality=xray", num_hits=20)  # doctest: +SKIP
    """
    from medclip.retrieval.hits import claim_hits, write_hits
    from medclip.retrieval.question import read_question
    from medclip.retrieval.searchable import check_faiss

    claim_hits(options.out, options.html, overwrite=options.overwrite)
    question = read_question(options.words, options.against, options.like)
    if options.index == "faiss":
        check_faiss()
    result = _searched(options, question)
    if options.out is not None:
        write_hits(Path(options.out), result.table)
    if options.html is not None:
        from medclip.reports.search import write_search_page

        write_search_page(result, Path(options.html))
    return result


def _searched(options: SearchOptions, question: Any) -> SearchResult:
    """Return the hits of a question, with what is known against them."""
    from medclip.embeddings.open_embeddings import Embeddings, open_embeddings
    from medclip.models.packs.card import read_card
    from medclip.retrieval.folder_search import run_search
    from medclip.retrieval.question import SLIDE_COLUMNS, Search, loader, pack_of, read_conditions
    from medclip.retrieval.slide_patches import run_patch_search
    from medclip.runs.outputs.score_run import not_learned
    from medclip.scoring.cautions import answer_cautions, asked_words, beside_stranger, place_notes
    from medclip.slides.slide_store import SlideStore, is_slide_store, open_slide_store

    folder, has_words = options.embeddings, bool(question.words or question.without)
    of_slides = isinstance(folder, SlideStore) or (not isinstance(folder, Embeddings) and is_slide_store(folder))
    asked = Search(
        tuple(read_conditions(options.where, SLIDE_COLUMNS) if of_slides else read_conditions(options.where)),
        options.num_hits,
        options.other_patients,
        options.include_example,
        "faiss" if options.index == "faiss" else "exact",
        None if options.modality is None else str(options.modality),
        options.report_paths,
        settings_of(options),
    )
    if of_slides:
        assert not isinstance(folder, Embeddings)
        if options.level not in (None, "patch", "patches"):
            raise MedclipError(Reason.WRONG_USE, f"{options.level!r} cannot be ranked: of slides patches are.")
        embeddings = open_slide_store(folder)
        load = loader(embeddings, options.model, has_words=has_words)
        images = None if options.images is None else Path(options.images)
        result = run_patch_search(embeddings, question, load, asked, images=images, progress=options.progress)
    else:
        assert not isinstance(folder, SlideStore)
        if options.images is not None:
            raise MedclipError(Reason.WRONG_USE, "only patches of slides are read again.", hint="Leave --images away.")
        level, embeddings = read_level(options.level or "study"), open_embeddings(folder)
        load = loader(embeddings, options.model, has_words=has_words)
        result = run_search(embeddings, question, load, asked, level=level, progress=options.progress)
    if not has_words:
        return result
    pack = pack_of(embeddings, options.model)
    card, words = read_card(pack), asked_words(question.words, question.without)
    cautions, kinds = answer_cautions(card, [words], pack, load().tokenizer), _kinds(embeddings, result.hits)
    (name,) = words.names

    def caution(hit: Hit) -> str | None:
        kind, is_stranger = kinds[hit.row]
        text = cautions.get((hit.modality, kind, words.task.name, name))
        return beside_stranger(text, hit.modality) if is_stranger else text

    hits = tuple(replace(hit, caution=caution(hit)) for hit in result.hits)
    measured = {hit.modality for hit in hits if hit.caution and not not_learned(hit.caution)}
    notes = (*_unlearned(hits), *(place_notes(card, [words], measured) if measured else ()))
    return replace(result, hits=hits, notes=(*notes, *result.notes))


def _kinds(embeddings: Embeddings | SlideStore, hits: Sequence[Hit]) -> dict[int, tuple[str, bool]]:
    """Return of each row among the hits what it is (an image, a volume, a slide), and whether it is a stranger."""
    from medclip.sample import Kind
    from medclip.slides.slide_store import SlideStore

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
    from medclip.runs.outputs.score_run import NOT_LEARNED, not_learned
    from medclip.sample import spoken
    from medclip.wording import count, list_of

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
    from medclip.embeddings.embedded_unit import LEVELS
    from medclip.retrieval.hits import NOUNS

    for name in LEVELS:
        if level in (name, NOUNS[name]):
            return name
    raise MedclipError(
        Reason.WRONG_USE,
        f"{level!r} cannot be ranked.",
        hint=did_you_mean(level, [NOUNS[name] for name in LEVELS], "Levels are"),
    )
