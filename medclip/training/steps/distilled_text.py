"""The terms of the losses by which a text tower follows a frozen one: rows of `medclip.training.losses`.

Stage 1 of CLIP-IN: a tower whose table of positions gave way to rotary ones learns to say what it said with the table,
then of long texts the mean of what the old tower says of their windows. Both formulas are a reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medclip.models.interchange.load_start import load_start
from medclip.models.towers.table import ROTARY
from medclip.objectives.distill import mean_of_windows, token_errors
from medclip.objectives.ranks import sum_values
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.loader import Batch
from medclip.training.recipe.text_losses import DistilledCaptions, DistilledLong
from medclip.training.steps.frozen_models import TowerTeacher
from medclip.training.steps.loss_terms import Start, Step, Terms, image_weights, weighted
from medclip.training.steps.text_terms import of_single_images, refused_loss
from medclip.training.steps.towers import Seen

_FACTS = 3
"""Columns in front of the teacher's feature in what is seen of a caption."""


def tower_teacher(start: Start, settings: DistilledCaptions | DistilledLong) -> TowerTeacher:
    """Load the teacher: the tower that the run began with, or that of another model.

    Raises:
        MedclipError: RECIPE_INVALID where it cannot teach this student; as `load_start`.
    """
    of_single_images(start, settings)
    name = next(name for name, of in start.recipe.objective.losses.items() if of is settings)
    m, words = start.recipe.model, start.tokenizer
    place = settings.teacher or m.start
    if place is None:
        raise refused_loss(name, "there is no teacher: the recipe has no model.start", "Say its teacher.")
    of_start = settings.teacher is None
    started = load_start(
        place,
        architecture=m.architecture if of_start else None,
        text_folder=m.text_folder if of_start else None,
        preset=m.preset if of_start else None,
    )
    text: Any
    student: Any
    text, student = (getattr(model, "text", model) for model in (started.model, start.model))
    if not (hasattr(text, "ln_final") and hasattr(student, "ln_final")):
        raise refused_loss(name, "it compares open_clip's own text transformers, and this is a BERT", "Leave it out.")
    if started.config["text_cfg"].get(ROTARY) is not None:
        cause = f"the text tower of {place} has rotary positions, and would teach nothing else"
        raise refused_loss(name, cause, "Name as its teacher the pack that it was distilled from.")
    assert words is not None  # a loss that reads texts needs words
    sizes = text.ln_final.normalized_shape, started.config["embed_dim"]
    if sizes != (student.ln_final.normalized_shape, start.dim) or not _same_words(started.tokenizer, words):
        cause = f"the text tower of {place} has other widths or other words than the one that learns"
        raise refused_loss(name, cause, "Name a teacher of the same sizes and tokenizer.")
    return TowerTeacher(started.model, started.tokenizer, words, start.device)


def _same_words(one: Tokenizer, other: Tokenizer) -> bool:
    length = min(one.context_length, other.context_length)
    ids, others = (x.encode(["a chest x-ray, 7 mm nodule"])[0, : length - 1].tolist() for x in (one, other))
    return ids == others and one.vocab_size == other.vocab_size


def words_beside_teacher(teacher: TowerTeacher, seen: Seen) -> Tensor:
    """Return of each caption error and number of its tokens, whether it fits the teacher, and the teacher's feature."""
    assert seen.tokens_BL is not None
    assert seen.words_BLW is not None
    states_BLW, pooled_BD, mask_BL, fits_B = teacher.states(seen.tokens_BL, seen.words_BLW.shape[1])
    student_BLW = seen.words_BLW[:, : states_BLW.shape[1]]
    errors_B2 = token_errors(student_BLW, states_BLW, mask_BL & fits_B[:, None])
    return torch.cat([errors_B2, fits_B[:, None].float(), pooled_BD], dim=1)


def windows_of_captions(teacher: TowerTeacher, batch: Batch, _: int) -> Mapping[str, Tensor]:
    """Cut the captions that do not fit the teacher into windows that do."""
    return teacher.windows(batch.texts, only_longer=True)


def windows_of_long(teacher: TowerTeacher, batch: Batch, _: int) -> Mapping[str, Tensor]:
    """Cut the long texts into windows that fit the teacher."""
    return teacher.windows([texts[0] if texts else "" for texts in batch.roles["long"].texts], only_longer=False)


def followed(step: Step, settings: DistilledCaptions, teacher: TowerTeacher) -> Terms:
    """Compare features and token states of captions with the teacher's."""
    seen = step.outputs.extra["distilled_captions"]
    error_B, count_B, fits_B = seen[:, :_FACTS].unbind(1)
    of_windows_BD = _targets(step, "distilled_captions", teacher)
    target_BD = torch.where(fits_B[:, None] > 0, seen[:, _FACTS:].detach(), of_windows_BD)
    weights_B = image_weights(step.inputs)
    yield settings.weight, _away(step, step.outputs.text_BD, target_BD, weights_B)
    if settings.tokens:
        yield settings.weight * settings.tokens, _ratio(step, error_B, count_B.detach(), weights_B)


def followed_in_windows(step: Step, settings: DistilledLong, teacher: TowerTeacher) -> Terms:
    """Compare features of long texts with the mean of the teacher's features of their windows."""
    weights_B = image_weights(step.inputs) * step.inputs.texts["long"].mask_BK[:, 0]
    target_BD = _targets(step, "distilled_long", teacher)
    yield settings.weight, _away(step, step.outputs.texts["long"][:, 0], target_BD, weights_B)


def _targets(step: Step, name: str, teacher: TowerTeacher) -> Tensor:
    windows: Any = step.inputs.extra[name]
    if not len(windows["text_W"]):
        return torch.zeros_like(step.outputs.text_BD)
    return mean_of_windows(teacher.features(windows["tokens_WL"]), windows["text_W"], len(step.inputs))


def _away(step: Step, feature_BD: Tensor, target_BD: Tensor, weights_B: Tensor) -> Tensor:
    """Average one minus the cosine over all texts of the batch that have a target."""
    has_B = target_BD.ne(0).any(dim=1)
    return _ratio(step, 1 - (feature_BD * target_BD).sum(dim=1), has_B.float(), weights_B)


def _ratio(step: Step, value_B: Tensor, count_B: Tensor, weights_B: Tensor) -> Tensor:
    """Divide sums over the whole batch: the mean over the ranks is the ratio."""
    total = torch.where(count_B > 0, weighted(value_B, weights_B), 0).sum()
    count = sum_values(weighted(count_B, weights_B).sum(), step.world.group)
    return total * (step.world.size / count.clamp_min(1e-30))
