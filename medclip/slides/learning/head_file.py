"""A slide head on disk: its arrays as safetensors, and a card in JSON that says what it may be asked about. No pickle.

| file | content |
|---|---|
| slide_head.json | answers, pooling, the pack whose vectors it takes, size and scale of patches, how it was made |
| slide_head.safetensors | its arrays, float32 |

A head belongs to the pack and the patches that it learned from: vectors of another pack, and patches of another size
or scale, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medclip.embeddings.embedded_unit import EmbeddingPack, from_dict
from medclip.errors import MedclipError, Reason
from medclip.files.output import new_file, write_file
from medclip.slides.learning.pooling import Shape, SlidePooling
from medclip.slides.slide_features import SlideFeatures
from medclip.text.vocabulary.task_kinds import TASK_KINDS

CARD, ARRAYS = "slide_head.json", "slide_head.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class HeadCard:
    """What a head answers, and what it may be asked about."""

    label: str
    """Column or question that it learned."""
    names: tuple[str, ...]
    """Classes, or years of a risk, in the order of logits."""
    kind: str
    shape: Shape
    pack: EmbeddingPack
    """Whose vectors it takes."""
    size_px: int
    """Rows and columns of a patch."""
    mpp_um: float
    """Scale of a patch in µm/px."""
    grid: str
    """Hash of the options of tissue and grid that it learned from."""
    record: Mapping[str, Any]
    """How it was made: recipe, seed, counts, out-of-fold figures, notes. No name of a file or patient."""


@dataclass(frozen=True, eq=False)
class SlideHead:
    """A head with its card."""

    card: HeadCard
    model: SlidePooling


def check_fit(card: HeadCard, features: SlideFeatures) -> str:
    """Refuse vectors that a head did not learn from.

    Returns:
        What is to be known all the same, in a sentence; blank where all is alike.

    Raises:
        MedclipError: WRONG_USE for another pack, or patches of another size or scale.
    """
    if features.pack.digest != card.pack.digest or features.pack.preprocessing != card.pack.preprocessing:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the head learned from vectors of {card.pack.name} {card.pack.version} ({card.pack.digest[:12]}), these "
            f"are of {features.pack.name} {features.pack.version} ({features.pack.digest[:12]}).",
            hint="Embed the slides with the head's pack, or learn a head of these vectors.",
        )
    if features.size_px != card.size_px or abs(features.mpp_um - card.mpp_um) > 1e-3 * card.mpp_um:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the head learned from patches of {card.size_px} pixels at {card.mpp_um:g} µm/px, these are of "
            f"{features.size_px} at {features.mpp_um:g}.",
            hint="Embed the slides with the head's size and scale.",
        )
    if features.grid != card.grid:
        return "Tissue and grid were chosen with other options than those of the slides that the head learned from."
    return ""


def write_head(folder: Path, head: SlideHead) -> None:
    """Write a head into a folder, the card last: a folder with a card is whole."""
    from safetensors.torch import save_file

    with new_file(folder / ARRAYS) as draft:
        save_file({name: value.detach().contiguous() for name, value in head.model.state_dict().items()}, draft)
    values = {"format": FORMAT, **asdict(head.card)}
    write_file(folder / CARD, json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_head(folder: Path | str) -> SlideHead:
    """Read a head back.

    Raises:
        MedclipError: MISSING_FILE for a folder without one; PACK_INVALID for a card or arrays that cannot be read or do
            not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise MedclipError(
            Reason.MISSING_FILE,
            f"there is no {CARD} here.",
            where=folder,
            hint="Name a folder that medclip slides learn wrote.",
        )
    try:
        card = _card(json.loads((folder / CARD).read_text(encoding="utf-8")))
        model = SlidePooling(card.shape)
        model.load_state_dict(load_file(folder / ARRAYS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, MedclipError, RecursionError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"{CARD} and {ARRAYS} cannot be read, or do not fit together.",
            where=folder,
            hint="Learn the head again, or copy both files again.",
        ) from e
    return SlideHead(card, model.eval())


def _card(values: Mapping[str, Any]) -> HeadCard:
    if values["format"] != FORMAT or values["kind"] not in TASK_KINDS:
        raise ValueError("another format")
    of_card = {field.name: values[field.name] for field in fields(HeadCard)}
    shape = Shape(**values["shape"])
    names = tuple(map(str, values["names"]))
    if shape.num_outputs != len(names) or shape.kind != values["kind"]:
        raise ValueError("names and shape differ")
    return HeadCard(**{**of_card, "names": names, "shape": shape, "pack": from_dict(values["pack"])})
