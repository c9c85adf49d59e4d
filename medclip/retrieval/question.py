"""What is searched for, as vectors: words in several phrasings, what they must not be like, an example; and where."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.safe_header import ALLOWED
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason, did_you_mean, refuse_missing
from medclip.models.packs.card import read_card
from medclip.models.packs.image_tower import image_tower_digest, pixels_digest
from medclip.models.packs.manifest import file_sha256, pack_digest
from medclip.models.packs.pack import find_pack
from medclip.models.packs.words import no_words, understands_words
from medclip.models.prototypes.class_vectors import encode_phrasings
from medclip.progress import Progress
from medclip.retrieval.searchable import Index, open_searchable
from medclip.runs.rows import ECG_FLAGS
from medclip.sample import modality_of_name
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.slides.slide_store import SLIDES, SlideRow, SlideStore
from medclip.text.checks.prompt_words import prompt_notes
from medclip.text.vocabulary.own_words import BAR, Prompt, Words
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.models.model import Model


Example = str | Path | int
"""A file, or the number of one in the folder that is searched."""
Load = Callable[[], "Model"]
"""Loads the model, which is needed for words and for images that are not in the folder."""


def read_examples(like: Example | Sequence[Example] | None) -> tuple[Example, ...]:
    """Return the examples of a call: none, one or several."""
    return () if like is None else (like,) if isinstance(like, (str, Path, int)) else tuple(like)


def example_vector(
    embeddings: Embeddings | None,
    like: Sequence[Example],
    load: Load,
    *,
    modality: str | None,
    settings: Settings | None,
    progress: Progress,
) -> tuple[NDArray[np.float32], tuple[int | None, ...]]:
    """Return the mean vector of examples, looked up in a folder where they are there and read where they are not.

    Args:
        embeddings: Folder of embeddings; None where there is none.
        like: The examples, at least one.
        load: Function that loads the model, called where one must be read.
        modality: Modality of examples whose header does not say.
        settings: Settings, of which the limits count.
        progress: Progress bar of images that are read.

    Returns:
        float32 [D] of unit norm; of each example the first file of the unit that it is, None where it is none.
    """
    rows = tuple(None if embeddings is None else row_of(embeddings, example) for example in like)
    parts = []
    stored_rows = [row for row in rows if row is not None]
    if embeddings is not None and stored_rows:
        units = open_searchable(embeddings, "units", progress)
        parts.append(units.vectors.rows(np.flatnonzero(np.isin(units.rows, stored_rows))))
    strange = [Path(str(example)) for example, row in zip(like, rows, strict=True) if row is None]
    for path in strange:
        refuse_missing(path)
    return mean_vector(parts, strange, load, modality, settings, progress), rows


def mean_vector(
    parts: list[NDArray[np.float32]],
    strange: Sequence[Path],
    load: Load,
    modality: str | None,
    settings: Settings | None,
    progress: Progress,
) -> NDArray[np.float32]:
    """Return the mean of vectors that are known and of those of files that are read; float32 [D] of unit norm.

    Args:
        parts: Vectors that are known, float32 [n, D] each; at least one, unless there are files.
        strange: Files that are in no folder of vectors.
        load: Function that loads the model, called where there are any.
        modality: Modality of files whose header does not say.
        settings: Settings, of which the limits count.
        progress: Progress bar of images that are read.

    Raises:
        MedclipError: What reading an image raises.
    """
    if strange:
        read = load().embed_images(list(strange), modality=modality, settings=settings, progress=progress)
        parts = [*parts, read]
    mean = np.concatenate(parts).mean(axis=0, dtype=np.float64)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def row_of(embeddings: Embeddings, example: Example) -> int | None:
    """Return the unit of the folder that an example is, by its first file; None where it is none of them.

    A file is known by the hash of its bytes.

    Raises:
        MedclipError: MISSING_FILE for a file that is not there; WRONG_USE for a number that no unit has.
    """
    if isinstance(example, str) and example.isdecimal() and not Path(example).exists():
        example = int(example)
    if isinstance(example, int):
        file = embeddings.columns("files", ["row", "unit", "copy_of"], [example]).to_pylist()
        rows = [row for row in file[0].values() if row is not None] if file else [example]
        if units := set(embeddings.columns("units", ["row"], rows).column(0).to_pylist()):
            return next(row for row in rows if row in units)
        raise MedclipError(
            Reason.WRONG_USE,
            f"no image of these embeddings has the number {example}.",
            where=embeddings.folder,
            hint="Numbers are those of the column `row` of units.parquet.",
        )
    path = Path(example)
    refuse_missing(path)
    if not path.is_file():
        return None
    from pyarrow import compute as pc

    units = embeddings.columns("units", ["row", "sha256"])
    same = units.filter(pc.equal(units.column("sha256"), file_sha256(path)))  # pyright: ignore[reportAttributeAccessIssue]
    return same.column("row")[0].as_py() if same.num_rows else None


def pack_of(embeddings: Embeddings | SlideStore, model: str | Path | Model | None) -> Path:
    """Return the folder of the pack that embeddings are of.

    Args:
        embeddings: The folder, of embeddings or of slides.
        model: The pack that is named, or that pack loaded; where None it is looked for by its name among those that
            came with medclip.

    Raises:
        MedclipError: PACK_NOT_FOUND; WRONG_USE for another pack.
    """
    try:
        pack = find_pack(embeddings.pack.name if model is None else model)
    except MedclipError as error:
        if model is not None:
            raise
        raise MedclipError(
            error.reason,
            f"the pack of these embeddings, {embeddings.pack.name} {embeddings.pack.version}, is not built in.",
            where=embeddings.folder,
            hint="Name its folder with --model.",
        ) from error
    digest = pack_digest(pack)
    if digest != embeddings.pack.digest:  # a pack adapted without changing the image tower has its base's vectors
        tower, preprocessing = image_tower_digest(pack), pixels_digest(pack)
        embeddings.check_pack(digest, image_tower=tower, preprocessing=preprocessing)
    return pack


def loader(embeddings: Embeddings | SlideStore | None, model: str | Path | Model | None, *, has_words: bool) -> Load:
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


COLUMNS = ("row", "study", "patient", "modality", "kind", "laterality", "view", "body_part", "burned_in")
"""Columns of units.parquet that conditions may name."""
HEADERS = tuple(entry.name for entry in ALLOWED if entry.name not in COLUMNS)
"""Header values that they may name."""
SLIDE_COLUMNS = tuple(field.name for field in fields(SlideRow) if field.name not in ("message", "notes"))
"""Columns of slides.parquet that conditions on slides may name."""
_MANY = ("study", "patient", "row", "key", "file", "sha256")
"""Columns whose values may name somebody, or are too many to be listed."""
_CONDITION = re.compile(r"\s*([\w-]+)\s*(!=|>=|<=|=|<|>)\s*(.*?)\s*", re.DOTALL)
Where = str | Sequence[str] | Mapping[str, Any]
"""One condition, several, or a mapping of columns to a value or values."""


@dataclass(frozen=True)
class Condition:
    """What the value of a column must be."""

    column: str
    relation: str
    value: str

    def holds(self, value: Any) -> bool:
        """Whether a value fits: as a number where both are, else as text without case.

        Of a list any member; with != none may be equal. A flag of an ECG fits with its leads and without.
        """
        if isinstance(value, list):
            return (all if self.relation == "!=" else any)(self.holds(one) for one in value)
        written = "" if value is None else str(value).lower()
        wanted = self.value.lower()
        if self.column == ECG_FLAGS and ":" not in wanted:
            written = written.partition(":")[0]
        if self.column == "modality" and (modality := modality_of_name(self.value)) is not None:
            wanted = str(modality)
        a, b = _number(written), _number(wanted)
        if self.relation in ("=", "!="):
            equal = written == wanted or (a is not None and a == b)
            return equal == (self.relation == "=")
        if a is None or b is None:
            return False
        return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[self.relation]

    def __str__(self) -> str:
        return f"{self.column}{self.relation}{self.value}"


def read_conditions(where: Where, columns: Sequence[str] = (*COLUMNS, *HEADERS)) -> tuple[Condition, ...]:
    """Read conditions such as "modality=ct" and "age_years>=60".

    Args:
        where: Texts of a column, one of = != < <= > >=, and a value; in a mapping all are of equality, and a list in
            the place of a value takes any of it.
        columns: Names of columns that may be asked for.

    Raises:
        MedclipError: WRONG_USE for a text that is no condition, and for a column that there is none of.

    Example:
        >>> [str(c) for c in read_conditions({"modality": ["ct", "mri"], "sex": "F"})]
        ['modality=ct', 'modality=mri', 'sex=F']
    """
    if isinstance(where, Mapping):
        pairs = ((name, value if isinstance(value, (list, tuple, set)) else [value]) for name, value in where.items())
        conditions = [Condition(str(name), "=", str(value)) for name, values in pairs for value in values]
    else:
        conditions = [_read(text) for text in ([where] if isinstance(where, str) else where)]
    for condition in conditions:
        if condition.column not in columns:
            raise MedclipError(
                Reason.WRONG_USE,
                f"there is no column {condition.column!r} to choose by.",
                hint=did_you_mean(condition.column, columns, "Columns are"),
            )
    return tuple(conditions)


def rows_where(embeddings: Embeddings, conditions: Sequence[Condition]) -> NDArray[np.int64]:
    """Return the units that all conditions hold for, by the row of their first file.

    Several equalities of one column hold where any of them does.

    Raises:
        MedclipError: NOTHING_TO_DO where none is left, naming the values that there are.
    """
    names = [name for name in COLUMNS if name != "row" and any(c.column == name for c in conditions)]
    if any(c.column in HEADERS for c in conditions):
        names.append("headers")
    table = embeddings.columns("units", ["row", *names])
    rows = table.column("row").to_numpy()
    return rows[_passing(len(rows), conditions, partial(_coded, table), embeddings.folder, "image", "units.parquet")]


def slides_where(store: SlideStore, conditions: Sequence[Condition]) -> NDArray[np.bool_]:
    """Return which rows of a store of slides all conditions hold for; bool [S]. As `rows_where`."""

    def coded(column: str) -> tuple[NDArray[np.int64], list[Any]]:
        return np.arange(len(store.rows)), [getattr(row, column) for row in store.rows]

    return _passing(len(store.rows), conditions, coded, store.folder, "slide", SLIDES)


def _passing(
    num: int,
    conditions: Sequence[Condition],
    coded: Callable[[str], tuple[NDArray[np.int64], list[Any]]],
    folder: Path,
    noun: str,
    table: str,
) -> NDArray[np.bool_]:
    """Return which of the rows of a table conditions hold for; bool [N]."""
    passing = np.ones(num, bool)
    for column in dict.fromkeys(c.column for c in conditions):
        of_column = [c for c in conditions if c.column == column]
        codes, values = coded(column)
        fits = np.array([_fits(value, of_column) for value in values], bool)
        if not fits.any():
            raise _nothing(folder, of_column, values, noun, table)
        passing &= fits[codes]
    if not passing.any():
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"no {noun} of this folder has {list_of([str(c) for c in conditions])}.",
            where=folder,
            hint="Each holds for some, but not all for one.",
        )
    return passing


def _fits(value: Any, conditions: Sequence[Condition]) -> bool:
    equal = [c.holds(value) for c in conditions if c.relation == "="]
    return all(c.holds(value) for c in conditions if c.relation != "=") and (any(equal) or not equal)


def _coded(table: Any, column: str) -> tuple[NDArray[np.int64], list[Any]]:
    """Return the number of each row's value, and the values."""
    name = "headers" if column in HEADERS else column
    coded = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
    values = coded.dictionary.to_pylist()
    if name == "headers":
        values = [json.loads(text).get(column) if text else None for text in values]
    return coded.indices.to_numpy(zero_copy_only=False), values


def _nothing(
    folder: Path, conditions: Sequence[Condition], values: Sequence[Any], noun: str, table: str
) -> MedclipError:
    column = conditions[0].column
    single = (one for value in values for one in (value if isinstance(value, list) else [value]))
    texts = sorted({str(value) for value in single if value not in (None, "")})
    hint = f"The folder states no {column} for any {noun}."
    either = "or" if all(c.relation == "=" for c in conditions) else "and"
    if texts:
        values_hint = did_you_mean(conditions[0].value, texts, f"Values of {column} are")
        hint = values_hint if column not in _MANY else f"See the column {column} of {table}."
    return MedclipError(
        Reason.NOTHING_TO_DO,
        f"no {noun} of this folder has {list_of([str(c) for c in conditions], either)}.",
        where=folder,
        hint=hint,
    )


def _read(text: str) -> Condition:
    read = _CONDITION.fullmatch(text)
    if read is None:
        raise MedclipError(
            Reason.WRONG_USE, f"{text!r} is no condition.", hint="Write a column and its value, such as modality=ct."
        )
    return Condition(*read.groups())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Question:
    """What a person asks."""

    words: tuple[str, ...] = ()
    """Ways to say what is looked for."""
    without: tuple[str, ...] = ()
    """What is not looked for."""
    like: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Search:
    """What is looked at for a question, and how hits are found and named."""

    conditions: tuple[Condition, ...] = ()
    """Which units are looked at, and which studies: those of which one unit fits. Of slides which slides."""
    num_hits: int = 50
    other_patients: bool = False
    """Leave out what is of an example's patient; an example that is not in the folder has none."""
    include_example: bool = False
    """Rank the example itself, too."""
    index: Index = "exact"
    modality: str | None = None
    """Of examples that are not in the folder and whose header does not say."""
    report_paths: bool = False
    """Name files by their paths."""
    settings: Settings | None = None
    """Limits, for reading an example and patches."""


@dataclass(frozen=True, eq=False)
class QuestionVectors:
    """A question in the embedding space; what it does not have is None."""

    words: NDArray[np.float32] | None
    """float32 [D]: normalised mean of the phrasings."""
    phrasings: NDArray[np.float32] | None
    """float32 [M, D]: each of them."""
    without: NDArray[np.float32] | None
    like: NDArray[np.float32] | None
    like_rows: tuple[int | None, ...] = ()
    """Of each example the first file of the unit in the folder that it is; None for one from elsewhere."""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> NDArray[np.float32] | None:
        """float32 [D]: words less what is not looked for."""
        if self.words is None:
            return None if self.without is None else -self.without
        return self.words if self.without is None else self.words - self.without


def read_question(words: Words, without: Words, like: Example | Sequence[Example] | None) -> Question:
    """Read a question; bars part ways to say the same thing.

    Raises:
        MedclipError: WRONG_USE where there is nothing to look for, or an empty text.
    """
    question = Question(_texts(words), _texts(without), read_examples(like))
    if not question.words and not question.like:
        raise MedclipError(
            Reason.WRONG_USE,
            "there is nothing to look for.",
            hint="Name words, such as 'pleural effusion on a lateral film', or an example: --like FILE.",
        )
    return question


def _texts(words: Words) -> tuple[str, ...]:
    texts = [words] if isinstance(words, str) else list(words)
    parts = [" ".join(part.split()) for text in texts for part in text.split(BAR)]
    if not all(parts):
        raise MedclipError(Reason.WRONG_USE, "a text to look for is empty.", hint="Say what the image may show.")
    return tuple(dict.fromkeys(parts))


def encode_words(model: Model, question: Question) -> QuestionVectors:
    """Encode the words of a question.

    Raises:
        MedclipError: WRONG_USE for a pack that is image only.
    """
    words = encode_phrasings(model, question.words) if question.words else None
    without = encode_phrasings(model, question.without) if question.without else None
    return QuestionVectors(
        None if words is None else words.mean,
        None if words is None else words.single,
        None if without is None else without.mean,
        None,
        notes=prompt_notes([Prompt("", question.words, question.without)], model.tokenizer),
    )
