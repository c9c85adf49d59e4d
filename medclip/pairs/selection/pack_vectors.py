"""A pack that steps ask, and what it makes of the images or ECG records of a pile: one vector each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.wording import by_reason, count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.imaging.ecg.recording import Recording
    from medclip.models.model import Model
    from medclip.pairs.pile import Pile
    from medclip.pairs.selection.steps import Context
    from medclip.progress import Progress

_AT_ONCE = 32
"""Images that are read for one call of the model, or so many batches as fill it."""


@dataclass(frozen=True, eq=False)
class PackVectors:
    """What a pack makes of M images."""

    vectors_MD: NDArray[np.float32]
    """Of unit norm; NaN where an image could not be read or is none for the pack."""
    unread: Mapping[str, int]
    """How many, by reason."""


def load_pack(model: str, context: Context) -> Model:
    """Load the pack that a step names: a folder, relative to the steps, or a built-in pack.

    Raises:
        MedclipError: What `load_model` raises.
    """
    from medclip.models.packs.pack import load_model

    folder = context.folder / model
    return load_model(folder if folder.is_dir() else model)


def pack_facts(model: Model) -> dict[str, Any]:
    """Return which pack was asked: its name, version, and the sha256 of its manifest, which has that of every file."""
    from medclip.models.packs.manifest import pack_digest

    return {"name": model.name, "version": model.card.version, "sha256": pack_digest(model.path)}


def need_input(model: Model, pile: Pile) -> None:
    """Refuse a pack that does not take what a pile holds.

    Raises:
        MedclipError: WRONG_USE for a pack of images beside ECG records, and the other way round.
    """
    taken = model.preprocess.signal is not None
    if taken == pile.holds_records:
        return
    if taken:
        message = f"the pack {model.name} takes ECGs as signals, and these pairs are of images."
        hint = "Name a pack of images; `medclip ecg digitise` makes records of printed sheets."
    else:
        message = f"the pack {model.name} takes {model.preprocess.takes}, and these pairs are of ECG records."
        hint = "Name a pack whose tower takes signals: a recipe with `model.signal` trains one (`medclip pretrain`)."
    raise MedclipError(Reason.WRONG_USE, message, where=pile.place, hint=hint)


def encode_pile(model: Model, pile: Pile, rows_M: NDArray[np.int64], progress: Progress) -> PackVectors:
    """Encode the images or ECG records of some rows, a few at a time.

    Raises:
        MedclipError: What `need_input` raises.
    """
    need_input(model, pile)
    vectors_MD = np.full((len(rows_M), model.dim), np.nan, np.float32)
    unread: Counter[str] = Counter()
    progress.stage(f"Encoding images with {model.name}", len(rows_M))
    at_once = max(model.batch_size, _AT_ONCE // model.batch_size * model.batch_size)
    for start in range(0, len(rows_M), at_once):
        places, images = [], []
        part = rows_M[start : start + at_once].tolist()
        for place, image in enumerate(pile.recordings(part) if pile.holds_records else pile.images(part), start):
            try:
                if isinstance(image, MedclipError):
                    raise image
                images.append(_taken(model, image))
                places.append(place)
            except MedclipError as error:
                unread[str(error.reason)] += 1
        if images:
            vectors_MD[places] = model.encode_image(model.preprocess.together(images))
        progress.step(min(at_once, len(rows_M) - start))
    return PackVectors(vectors_MD, unread)


def _taken(model: Model, image: NDArray[np.uint8] | Recording) -> NDArray[Any]:
    """Return an image at the pack's size; of an ECG what the model is shown of its file, int16 [12, T]."""
    if isinstance(image, np.ndarray):
        return model.preprocess.fit(image)
    from medclip.training.batches.augment_signals import prepare_record

    assert model.preprocess.signal is not None
    return prepare_record(image, model.preprocess.signal)


def unread_notes(unread: Mapping[str, int]) -> tuple[str, ...]:
    """Write how many pairs are dropped because their image could not be read; nothing where all could."""
    if not unread:
        return ()
    return (f"{count(sum(unread.values()), 'pair')} dropped, as the image could not be read: {by_reason(unread)}.",)
