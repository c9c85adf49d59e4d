"""Centres of the views of one object and the views farthest from them: the row `views` of `medclip.training.losses`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.objectives.ranks import sum_values
from medclip.objectives.views import hard_views, num_hard_views, similarity_to_centre, view_centre, view_terms
from medclip.shards.reading.samples import ShardReader
from medclip.training.batches.loader import Batch
from medclip.training.recipe.view_losses import Views
from medclip.training.steps.loss_terms import Start, Step, Terms, image_weights
from medclip.training.steps.text_terms import of_single_images
from medclip.wording import list_of

_NEVER = -1
_LABEL = "labels"


class ViewCentres(nn.Module):
    """Centres and hard views of a run. As buffers they lie in its checkpoints: what is computed in an epoch's middle
    by a run that goes on would be of other weights.

    Args:
        settings: Section of the recipe.
        objects: Numbers of the samples of each object, in the split.
        keys: Keys of these samples, object by object.
        dim: Width of the features.
    """

    owner_N: Tensor
    centre_OD: Tensor
    hard_N: Tensor
    epoch: Tensor

    def __init__(self, settings: Views, objects: Sequence[Sequence[int]], keys: Sequence[str], dim: int) -> None:
        super().__init__()
        self._settings, self._sizes = settings, [len(of) for of in objects]
        self.samples = [sample for of in objects for sample in of]
        """Numbers of the views, in the split, object by object."""
        self._number_of = {key: number for number, key in enumerate(keys)}
        self._encode: Callable[[Sequence[int]], Tensor] | None = None
        owner_N = torch.repeat_interleave(torch.arange(len(objects)), torch.tensor(self._sizes))
        self.register_buffer("owner_N", owner_N, persistent=False)
        self.register_buffer("centre_OD", torch.zeros(len(objects), dim))
        self.register_buffer("hard_N", torch.zeros(len(self.samples), dtype=torch.bool))
        self.register_buffer("epoch", torch.tensor(_NEVER))

    def encode_with(self, encode: Callable[[Sequence[int]], Tensor]) -> None:
        """Take what returns the features of samples, of unit norm, the same on every rank; zeros for a bad one."""
        self._encode = encode

    def numbers(self, keys: Sequence[str]) -> list[int]:
        """Return the number of each sample among the views; -1 for one that is no view of an object with several."""
        return [self._number_of.get(key, _NEVER) for key in keys]

    def before_epoch(self, epoch: int) -> None:
        """Compute centres and hard views, unless a checkpoint of this epoch had them."""
        if int(self.epoch) != epoch:
            self._compute()
            self.epoch.fill_(epoch)

    def after_step(self, towers: Any, step: int, counts: Tensor) -> None:
        """Compute them again where the recipe counts steps."""
        if self._settings.every != "epoch" and (step + 1) % self._settings.every == 0:
            self._compute()

    @torch.no_grad()
    def _compute(self) -> None:
        assert self._encode is not None  # the trainer brings it before the first step
        start, features_ND = 0, self._encode(self.samples).float()
        for number, size in enumerate(self._sizes):
            view_VD = features_ND[start : start + size]
            centre_D = view_centre(view_VD, self._settings.neighbours)
            self.centre_OD[number] = centre_D
            similarity_V = similarity_to_centre(view_VD, centre_D.expand_as(view_VD))
            similarity_V[view_VD.abs().sum(dim=1) == 0] = torch.inf  # an image that cannot be read is no hard one
            worst = hard_views(similarity_V, num_hard_views(size, self._settings.hard))
            self.hard_N[start : start + size] = False
            self.hard_N[start + worst] = True
            start += size


def view_centres(start: Start, settings: Views) -> ViewCentres:
    """Sort the samples of the training split by the object that they show.

    Raises:
        MedclipError: RECIPE_INVALID where samples have several images, or there is no such column, or all objects
            have fewer views than are to be hard; NOTHING_TO_DO where no object has two.
    """
    of_single_images(start, settings)
    data = start.recipe.data
    reader = data.open_split(data.train_split)
    by_object: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, names in enumerate(objects_of(reader, settings)):
        if None not in names and "" not in names:
            by_object[names].append(number)
    objects = [numbers for numbers in by_object.values() if len(numbers) > 1]
    if not by_object:
        named = list_of([*settings.object, *([] if settings.label is None else [f"a label of {settings.label!r}"])])
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"objective.losses.views: no sample says its {named}.",
            where=reader.folder,
            hint="Name what samples say in `object`, and in `label` a task of their labels.",
        )
    if not objects:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"objective.losses.views: by {list_of(settings.object)} each object has one view only.",
            where=reader.folder,
            hint="Name in `object` what several images of one thing share, or leave the loss out.",
        )
    largest = max(map(len, objects))
    if settings.hard > largest:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"objective.losses.views.hard is {settings.hard:g}, and no object has more than {largest} views.",
            where=reader.folder,
            hint="Name a smaller number, or a share such as 0.2.",
        )
    keys = [reader.key(number) for numbers in objects for number in numbers]
    return ViewCentres(settings, objects, keys, start.dim).to(start.device)


def objects_of(reader: ShardReader, settings: Views) -> Iterator[tuple[object, ...]]:
    """Yield what each sample shows; a sample is read, without its pixels, where samples.parquet does not say it."""
    for number, row in enumerate(reader.rows):
        cells: dict[str, object] = dict(row)
        if settings.label is not None or not cells.keys() >= set(settings.object):
            record, meta = reader.record(number)
            cells |= {"study": meta.get("study"), "laterality": record.laterality}
            labels = record.labels.get(settings.label or "", None)
            cells[_LABEL] = labels if labels is None or isinstance(labels, str) else tuple(sorted(labels.items()))
        for column in settings.object:
            if column not in cells:
                hint = did_you_mean(column, sorted(cells.keys() - {_LABEL}), "Columns are")
                message = f"objective.losses.views.object: samples have no column {column!r}."
                raise MedclipError(Reason.RECIPE_INVALID, message, where=reader.folder, hint=hint)
        yield tuple(cells[column] for column in (*settings.object, *([] if settings.label is None else [_LABEL])))


def numbers_of_views(centres: ViewCentres, batch: Batch, _: int) -> Mapping[str, Tensor]:
    """Return which of the views each sample of a batch is, ahead of the step: which are hard may yet change."""
    return {"view": torch.tensor(centres.numbers(batch.keys))}


def drawn_together(step: Step, settings: Views, centres: ViewCentres) -> Terms:
    """Average how far the hard views of the whole batch are from their centres."""
    number_B = step.inputs.extra["views"]["view"]
    is_hard_B = (number_B >= 0) & centres.hard_N[number_B.clamp_min(0)] & (image_weights(step.inputs) > 0)
    owner_H = centres.owner_N[number_B[is_hard_B]]
    term_H = view_terms(
        step.outputs.image_BD[is_hard_B], owner_H, centres.centre_OD, form=settings.form, margin=settings.margin
    )
    num_terms = sum_values((term_H > 0).sum().float(), step.world.group)
    yield settings.weight, term_H.sum() * (step.world.size / num_terms.clamp_min(1))
