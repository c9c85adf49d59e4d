"""The pack that a folder of embeddings is of: found by name or named, and compared by its hash, without torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError
from medclip.models.packs.card import read_card
from medclip.models.packs.image_tower import image_tower_digest, pixels_digest
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import find_pack
from medclip.models.packs.words import no_words, understands_words
from medclip.retrieval.example import Load
from medclip.settings import DEFAULT_MODEL
from medclip.slides.slide_store import SlideStore

if TYPE_CHECKING:
    from medclip.models.model import Model


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
