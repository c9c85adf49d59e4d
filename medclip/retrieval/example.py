"""An example to search by: a file, or the number of one in the folder, and its vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.open_embeddings import Embeddings
from medclip.embeddings.write_embeddings import hash_of
from medclip.errors import MedclipError, Reason
from medclip.files.disk.input_paths import refuse_missing
from medclip.models.packs.card import read_card
from medclip.models.packs.image_tower import image_tower_digest, pixels_digest
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import find_pack
from medclip.models.packs.words import no_words, understands_words
from medclip.progress import Progress
from medclip.retrieval.searchable import open_searchable
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.slides.store.slide_store import SlideStore

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

    Raises:
        MedclipError: As `row_of`; what reading an image raises.
    """
    rows = tuple(None if embeddings is None else row_of(embeddings, example) for example in like)
    parts = []
    known = [row for row in rows if row is not None]
    if embeddings is not None and known:
        units = open_searchable(embeddings, "units", progress)
        parts.append(units.vectors.rows(np.flatnonzero(np.isin(units.rows, known))))
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
    same = units.filter(pc.equal(units.column("sha256"), hash_of(path)))  # pyright: ignore[reportAttributeAccessIssue]
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
