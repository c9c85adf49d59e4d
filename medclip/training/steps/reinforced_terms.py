"""The terms of a student that follows stored vectors of teachers: a row of `medclip.training.losses`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.reinforced import reinforced_loss
from medclip.training.batches.loader import Batch
from medclip.training.recipe.text_losses import Distill
from medclip.training.steps.loss_terms import Start, Step, Terms, image_weights
from medclip.training.steps.text_terms import of_single_images
from medclip.wording import count

_ROWS = 3
"""Vectors of a sample in a step: of its image, its caption and its synthetic caption."""


@dataclass(frozen=True)
class StoredTeachers:
    """Whose vectors are stored."""

    dims: tuple[int, ...]
    scales: tuple[float, ...]
    biases: tuple[float, ...]


def stored_teachers(start: Start, settings: Distill) -> StoredTeachers:
    """Read whose vectors are stored.

    Raises:
        MedclipError: RECIPE_INVALID where samples have several images, or scales or biases are not one for each.
    """
    of_single_images(start, settings)
    assert start.reinforced is not None  # the recipe names none without
    teachers = start.reinforced["teachers"] or [{"dim": dim, "scale": 100, "bias": 0} for dim in settings.dims]
    if not teachers or (settings.dims and settings.dims != tuple(teacher["dim"] for teacher in teachers)):
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"objective.losses.distill.dims is {list(settings.dims)}, and the stored vectors say "
            f"{[teacher['dim'] for teacher in teachers] or 'nothing'}.",
            hint="Name the width of each teacher of shards of others, such as [768, 768]; else leave it out.",
        )
    for name in ("scales", "biases"):
        num = len(getattr(settings, name))
        if num not in (0, len(teachers)):
            raise MedclipError(
                Reason.RECIPE_INVALID,
                f"objective.losses.distill.{name} has {count(num, 'value')} for {count(len(teachers), 'teacher')}.",
                hint="Name one for each teacher, in the order of --teacher, or leave it out.",
            )
    return StoredTeachers(
        tuple(int(teacher["dim"]) for teacher in teachers),
        settings.scales or tuple(float(teacher["scale"]) for teacher in teachers),
        settings.biases or tuple(float(teacher["bias"]) for teacher in teachers),
    )


def stored_rows(teachers: StoredTeachers, batch: Batch, _: int) -> Mapping[str, Tensor]:
    """Return the vectors of each sample, zeros for one that takes no part: bfloat16 [b, 3, E]."""
    width = sum(teachers.dims)
    empty = bytes(2 * _ROWS * width)
    if other := next((len(one) for one in batch.stored if one and len(one) != len(empty)), None):
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"the stored vectors have {other // (2 * _ROWS)} values, and those of the teachers add up to {width}.",
            hint="Name the width of each teacher: objective.losses.distill.dims.",
        )
    rows = b"".join(stored or empty for stored in (batch.stored or (b"",) * len(batch.keys)))
    return {"rows": torch.frombuffer(bytearray(rows), dtype=torch.bfloat16).view(-1, _ROWS, width)}


def taught_by_stored(step: Step, settings: Distill, teachers: StoredTeachers) -> Terms:
    """Compare images with captions, and with synthetic ones, as the teachers do."""
    image_BE, *texts_BE = step.inputs.extra["distill"]["rows"].float().unbind(1)
    out, pairs, group = step.outputs, step.inputs.pairs, step.world.group
    bias = getattr(step.model, "logit_bias", None)
    captions = [(out.text_BD, texts_BE[0], pairs)]
    if settings.synthetic:
        synthetic = step.inputs.texts["synthetic"]
        valid_B = (image_weights(step.inputs) > 0) & synthetic.mask_BK[:, 0]
        captions.append((out.texts["synthetic"][:, 0], texts_BE[1], replace(pairs, valid_B=valid_B)))
    for text_BD, known_BE, of in captions:
        yield (
            settings.weight,
            reinforced_loss(
                *(out.image_BD, text_BD, step.scale, image_BE, known_BE),
                dims=teachers.dims,
                scales=teachers.scales,
                biases=teachers.biases,
                bias=0.0 if bias is None else bias,
                form=settings.form,
                pairs=of,
                group=group,
            ),
        )
        if settings.contrastive:
            yield settings.contrastive, clip_loss(out.image_BD, text_BD, step.scale, of, group=group)
