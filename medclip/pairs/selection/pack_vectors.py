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
    from pathlib import Path

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
    """Of unit norm; NaN where there is none."""
    why_M: NDArray[np.object_]
    """Reason for which there is no vector: `other_input` for what the pack does not take, else why the image could not
    be read; "" where there is one."""

    @property
    def is_other_M(self) -> NDArray[np.bool_]:
        """What the pack does not take: ECG records where it takes images, images where it takes signals."""
        return self.why_M == str(Reason.OTHER_INPUT)

    @property
    def unread(self) -> Counter[str]:
        """How many that the pack takes could not be read, by reason."""
        return Counter(self.why_M[(self.why_M != "") & ~self.is_other_M].tolist())


def load_pack(model: str, context: Context) -> Model:
    """Load the pack that a step names: a folder, relative to the steps, or a built-in pack.

    Raises:
        MedclipError: What `load_model` raises.
    """
    from medclip.models.packs.pack import load_model

    return load_model(need_pack(model, context.folder))


def need_pack(model: str, folder: Path) -> Path:
    """Find the pack that a step names: a folder, relative to the steps, or a built-in pack.

    Raises:
        MedclipError: What `find_pack` raises.
    """
    from medclip.models.packs.pack import find_pack

    place = folder / model
    return find_pack(place if place.is_dir() else model)


def pack_facts(model: Model) -> dict[str, Any]:
    """Return which pack was asked: its name, version, and the sha256 of its manifest, which has that of every file."""
    from medclip.models.packs.manifest import pack_digest

    return {"name": model.name, "version": model.card.version, "sha256": pack_digest(model.path)}


def need_input(model: Model, pile: Pile) -> None:
    """Refuse a pack that takes nothing of what a pile holds.

    Raises:
        MedclipError: WRONG_USE for a pack of images beside ECG records alone, and the other way round.
    """
    if not len(pile) or takes(model, pile).any():
        return
    if model.preprocess.signal is not None:
        message = f"the pack {model.name} takes ECGs as signals, and these pairs are of images."
        hint = "Name a pack of images; `medclip ecg digitise` makes records of printed sheets."
    else:
        message = f"the pack {model.name} takes {model.preprocess.takes}, and these pairs are of ECG records."
        hint = "Name a pack whose tower takes signals: a recipe with `model.signal` trains one (`medclip pretrain`)."
    raise MedclipError(Reason.WRONG_USE, message, where=pile.place, hint=hint)


def takes(model: Model, pile: Pile, rows_M: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
    """Return whether a pack takes what rows of a pile, or all, hold: ECG records as signals, or images; bool [M]."""
    return pile.is_record(rows_M) == (model.preprocess.signal is not None)


def encode_pile(model: Model, pile: Pile, rows_M: NDArray[np.int64], progress: Progress) -> PackVectors:
    """Encode the images or ECG records of some rows, a few at a time; what the pack does not take is not read.

    Raises:
        MedclipError: What `need_input` raises.
    """
    need_input(model, pile)
    vectors_MD = np.full((len(rows_M), model.dim), np.nan, np.float32)
    is_taken_M = takes(model, pile, rows_M)
    why_M = np.where(is_taken_M, "", str(Reason.OTHER_INPUT)).astype(object)
    taken = np.flatnonzero(is_taken_M)
    progress.stage(f"Encoding images with {model.name}", len(taken))
    at_once = max(model.batch_size, _AT_ONCE // model.batch_size * model.batch_size)
    for start in range(0, len(taken), at_once):
        places, images = [], []
        part = taken[start : start + at_once]
        for place, image in zip(part.tolist(), pile.looks(rows_M[part].tolist()), strict=True):
            try:
                if isinstance(image, MedclipError):
                    raise image
                images.append(_taken(model, image))
                places.append(place)
            except MedclipError as error:
                why_M[place] = str(error.reason)
        if images:
            vectors_MD[places] = model.encode_image(model.preprocess.together(images))
        progress.step(len(part))
    return PackVectors(vectors_MD, why_M)


def _taken(model: Model, image: NDArray[np.uint8] | Recording) -> NDArray[Any]:
    """Return an image at the pack's size; of an ECG what the model is shown of its file, int16 [12, T]."""
    if isinstance(image, np.ndarray):
        return model.preprocess.fit(image)
    from medclip.training.batches.augment_signals import prepare_record

    assert model.preprocess.signal is not None
    return prepare_record(image, model.preprocess.signal)


def other_notes(model: Model, vectors: PackVectors) -> tuple[str, ...]:
    """Write how many pairs stay because the pack does not take what they show; nothing where it takes all."""
    if not (num := int(vectors.is_other_M.sum())):
        return ()
    shown = "ECG records" if model.preprocess.signal is None else "images"
    return (f"{count(num, 'pair')} of {shown} not judged: the pack {model.name} does not take them. They stay.",)


def unread_notes(unread: Mapping[str, int]) -> tuple[str, ...]:
    """Write how many pairs are dropped because their image could not be read; nothing where all could."""
    if not unread:
        return ()
    return (f"{count(sum(unread.values()), 'pair')} dropped, as the image could not be read: {by_reason(unread)}.",)
