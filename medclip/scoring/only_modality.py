"""The one modality that a pack knows, if it knows no other: what files are taken for that name none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medclip.adaptation.data.class_text import ClassText
from medclip.sample import Modality
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, task_names

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Preprocess


def only_modality(
    card: Any, own: Mapping[str, ClassText] = MappingProxyType({}), preprocess: Preprocess | None = None
) -> Modality | None:
    """Return the modality that all questions to a pack are about, None where there are several or none.

    A pack that can tell modalities apart is asked which one a file is of; it needs no such guess. A pack that takes
    signals reads ECGs alone, whatever its card says.

    Args:
        card: The pack's card.
        own: Tasks that the pack has heads for, which it brings along.
        preprocess: Preprocessing of the pack.
    """
    if preprocess is not None and preprocess.modality is not None:
        return preprocess.modality
    if MODALITY_TASK in card.tasks:
        return None
    known = frozenset(task_names())
    about: set[frozenset[str]] = set()
    for name in card.tasks:
        if name in own:
            about.add(frozenset(map(str, own[name].task.modalities)))
        elif name in known:
            about.add(frozenset(map(str, load_task(name).modalities)))
    names = set(card.modalities)
    if about and all(about):
        names = set().union(*about)
    with suppress(ValueError):
        return Modality(names.pop()) if len(names) == 1 else None
    return None
