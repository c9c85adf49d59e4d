"""The modality of an image that does not state it: the pack's only one, or the one that it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.models.prototypes.open_set import typical
from medclip.runs.units.problems import guess_problem, no_modality, untypical
from medclip.sample import Kind, Modality
from medclip.scoring.tasks import Scorer, modality_task
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, task_names

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.models.model import Model


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


class KnownModality:
    """Decides for one image at a time, as a scoring run does for a folder.

    Args:
        model: The loaded model.
        min_confidence: Least probability at which an inferred modality is believed.
    """

    def __init__(self, model: Model, min_confidence: float) -> None:
        self._model, self._least = model, min_confidence
        self._task = modality_task(model.card) if model.has_text else None

    @property
    def stated(self) -> Modality | None:
        """The modality of a pack that knows one alone, which needs no guess."""
        own = read_pack_texts(self._model.path, self._model.card)
        return only_modality(self._model.card, own, self._model.preprocess)

    def infer(self, kind: Kind, images: Images, *, coloured: bool) -> Modality:
        """Return what an image in its generic rendering looks like.

        Raises:
            MedclipError: MODALITY_UNKNOWN, MODALITY_UNCERTAIN.
        """
        problem = no_modality(kind) if kind is not Kind.IMAGE or self._task is None else None
        if problem is None and self._task is not None:
            features_VD = self._model.encode_image(images)
            name, probability = Scorer(self._model).likeliest(features_VD, self._task)
            problem = guess_problem(name, probability, self._least, coloured=coloured)
            if problem is None and not typical(self._model, features_VD[:1], name)[0]:
                problem = untypical(name)
            if problem is None:
                return Modality(name)
        assert problem is not None
        raise problem.error(None)
