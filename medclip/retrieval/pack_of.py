"""The pack that a folder of embeddings is of: found by name or named, and compared by its hash; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError
from medclip.models.packs.image_tower import image_tower_digest, pixels_digest
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import find_pack
from medclip.slides.store.slide_store import SlideStore

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
