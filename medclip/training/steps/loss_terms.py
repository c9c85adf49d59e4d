"""What the losses of `medclip.training.losses` are computed of, and the terms that each adds to the sum of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from medclip.lazy import import_name
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.distill import relational_loss
from medclip.objectives.lens import anchored_loss, token_distances
from medclip.objectives.multi_view import ExamKeys, multi_view_clip_loss
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import sum_values
from medclip.objectives.replay import replay_loss
from medclip.objectives.sigmoid import siglip_loss
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.loader import Batch
from medclip.training.losses import Loss, losses_of
from medclip.training.ranks import World
from medclip.training.recipe.model import LensPart
from medclip.training.recipe.objective import Objective, TextTeacher, Unimodal
from medclip.training.recipe.schema import Recipe, package_folder
from medclip.training.recipe.train import Keep
from medclip.training.steps.frozen_models import Replay, SentenceTeacher
from medclip.training.steps.inputs import Exams, Inputs
from medclip.training.steps.supervised import supervised_loss
from medclip.training.steps.towers import Seen, TowerOutputs, UnimodalViews, pooled_dim

ALL = slice(None)
"""All samples of a batch."""


class Start(NamedTuple):
    """What a run begins with, on its device."""

    recipe: Recipe
    model: Any
    """The dual encoder, or the image tower alone, before anything is sharded."""
    dim: int
    """Of its features."""
    tokenizer: Tokenizer | None
    device: torch.device
    total_steps: int = 1
    """Of the run."""
    reinforced: Mapping[str, Any] | None = None
    """Facts on the teachers whose vectors are stored; None where there are none."""


class Sizes(NamedTuple):
    """What the means of a batch of all ranks are over; None and nothing where the rows at hand are counted."""

    hidden: Tensor | None = None
    """Weight of its hidden patches."""
    known_answers: Mapping[str, Tensor] = {}
    """Known answers of each head."""


class Step(NamedTuple):
    """What a loss is computed of: a batch, or a chunk of one whose losses add up."""

    recipe: Recipe
    model: Any
    world: World
    inputs: Inputs
    """Of the batch."""
    outputs: TowerOutputs
    """Of the samples of the chunk."""
    part: slice = ALL
    """These samples."""
    sizes: Sizes = Sizes()
    """Of the batch, where the samples are a chunk."""

    @property
    def scale(self) -> Tensor:
        """The factor of the cosines."""
        return self.model.logit_scale.exp()

    def of_images(self, values: Tensor) -> Tensor:
        """Take the rows of the chunk, of which there is one for each sample, or for each of its images."""
        several = len(values) // len(self.inputs)
        return values if self.part == ALL else values[self.part.start * several : self.part.stop * several]


Terms = Iterator[tuple[float, Tensor]]


def contrast(
    objective: Objective, model: Any, outputs: TowerOutputs, pairs: Pairs, exams: Exams | None = None, group: Any = None
) -> Tensor:
    """Return the contrastive loss of features.

    Args:
        objective: Section of the recipe.
        model: Dual encoder, which holds scale and shift of the cosines.
        outputs: Features of B samples.
        pairs: Pairs of samples that belong together.
        exams: Views and captions that they have; None where samples are single images.
        group: The ranks whose features are each other's negatives; None looks at these samples alone.
    """
    scale = model.logit_scale.exp()
    if exams is not None and objective.views is not None:
        v, size = objective.views, len(exams.view_types_BV3)
        keys = ExamKeys(
            image_there_BV=exams.there_BV,
            image_part_BV=exams.sides_BV,
            text_part_BT=exams.text_parts_BT,
            text_positive_BT=exams.text_keys_BT if objective.same_text == "positive" else None,
            text_ignored_BT=exams.text_keys_BT if objective.same_text == "ignored" else None,
        )
        return multi_view_clip_loss(
            outputs.image_BD.unflatten(0, (size, -1)).unbind(1),
            outputs.text_BD.unflatten(0, (size, -1)).unbind(1),
            scale,
            w_it=v.image_text,
            w_vv=v.images,
            w_tt=v.texts,
            w_joint=v.joint,
            joint_BD=outputs.fused_BD,
            exams=keys,
            pairs=pairs,
            group=group,
        )
    if objective.loss == "siglip":
        return siglip_loss(outputs.image_BD, outputs.text_BD, scale, model.logit_bias, pairs, group=group)
    return clip_loss(outputs.image_BD, outputs.text_BD, scale, pairs, group=group)


def contrastive(step: Step, objective: Objective, _: object) -> Terms:
    """Contrast images with words, or the two views of both that `objective.two_views` makes."""
    views, group = objective.two_views, step.world.group
    if views is None:
        value = contrast(objective, step.model, step.outputs, step.inputs.pairs, step.inputs.exams, group)
    else:
        image_BD, text_BD = step.outputs.image_BD, step.outputs.text_BD
        value = multi_view_clip_loss(
            (image_BD[::2], image_BD[1::2]),
            (text_BD[::2], text_BD[1::2]),
            step.scale,
            w_vv=views.images,
            w_tt=views.texts,
            pairs=step.inputs.pairs,
            group=group,
        )
    yield objective.contrastive, value


def anchored(step: Step, weight: float, _: object) -> Terms:
    """Contrast what a lens makes of clips with what the frozen tower sees in their middle slice."""
    anchors = (step.outputs.extra["image_anchor"],)
    yield weight, anchored_loss(step.outputs.image_BD, anchors, step.scale, step.inputs.pairs, group=step.world.group)


def middle_slices(_: object, seen: Seen) -> Tensor:
    """Return what the frozen tower behind a lens sees in the middle slice of each clip, of unit norm."""
    return normalize(seen.model.visual.features_of_middle(seen.images).float(), dim=-1)


def token_anchored(step: Step, lens: LensPart, _: object) -> Terms:
    """Average over the whole batch how far tokens behind a lens are from those of the middle slice."""
    weights_B = step.of_images(image_weights(step.inputs))
    total = weighted(step.outputs.extra["token_anchor"], weights_B).sum()
    count = sum_values(weights_B.sum(), step.world.group)
    yield lens.token_anchor, total * (step.world.size / count.clamp_min(1e-30))


def token_distances_to_middle(lens: LensPart, seen: Seen) -> Tensor:
    """Return the distance of each clip's tokens behind the lens from those of its middle slice."""
    tower = seen.model.visual
    return token_distances(tower.kept_tokens.pop(), tower.tokens_of_middle(seen.images), lens.anchor_form)


def unimodal(step: Step, settings: Unimodal, _: object) -> Terms:
    """Contrast two views of the pooled feature of each image."""
    first_BD, second_BD = step.outputs.extra["unimodal"].chunk(2, dim=1)
    alone = replace(step.inputs.pairs, positive_BK=None, ignored_BK=None, text_positive_BK=None)
    yield settings.weight, clip_loss(first_BD, second_BD, step.scale, alone, group=step.world.group)


def unimodal_views(start: Start, settings: Unimodal) -> UnimodalViews:
    """Make what learns two views of the pooled feature."""
    return UnimodalViews(pooled_dim(start.model.visual, start.dim), settings.dropout)


def views_of_pooled(views: UnimodalViews, seen: Seen) -> Tensor:
    """Return both views of each image's pooled feature, side by side."""
    return views(seen.pooled_BD)


def teacher(start: Start, settings: TextTeacher) -> SentenceTeacher:
    """Open the frozen sentence encoder."""
    return SentenceTeacher(package_folder(settings.folder), str(start.device))


def teacher_tokens(encoder: SentenceTeacher, batch: Batch, _: int) -> Mapping[str, Tensor]:
    """Return what the sentence encoder reads of the captions of a batch."""
    return encoder.tokens(batch.texts)


def taught(step: Step, settings: TextTeacher, encoder: SentenceTeacher) -> Terms:
    """Compare relations of captions among each other with those of the frozen encoder."""
    yield (
        settings.weight,
        relational_loss(
            step.outputs.text_BD,
            encoder(step.inputs.extra["text_teacher"]),
            settings.temperature,
            valid_B=step.inputs.valid_B,
            group=step.world.group,
        ),
    )


def kept(step: Step, keep: Any, replay: Replay) -> Terms:
    """Measure how far images have moved among random sentences since the run began."""
    yield (
        keep.weight,
        replay_loss(
            step.outputs.image_BD,
            step.outputs.extra["keep"],
            replay.sentences(step.inputs.step),
            replay.scale,
            keep.temperature,
            symmetric=keep.symmetric,
            follow_new=keep.target == "new",
            weights_B=image_weights(step.inputs),
            group=step.world.group,
        ),
    )


def old_model(start: Start, keep: Keep) -> Replay:
    """Copy the model that the run begins with."""
    assert start.tokenizer is not None  # a recipe without words keeps nothing
    return Replay(keep, start.model, start.tokenizer, start.recipe.seed)


def hidden(step: Step, settings: Any, _: object) -> Terms:
    """Average the error of the hidden patches of the whole batch: the mean over ranks is that."""
    total, count = weighted(step.outputs.errors_B2, step.of_images(image_weights(step.inputs))[:, None]).sum(0)
    num_hidden = step.sizes.hidden
    if num_hidden is None:
        num_hidden = sum_values(count.detach(), step.world.group)
    yield settings.weight, total * (step.world.size / num_hidden.clamp_min(1e-30))


def classified(step: Step, heads: Sequence[Any], _: object) -> Terms:
    """Compare the answers of each head with the truth."""
    named = [(head, head.asked, len(head.names)) for head in heads]
    logits = step.outputs.logits_BC.split([width for *_, width in named], dim=1)
    for (head, task, _), logits_BC in zip(named, logits, strict=True):
        yield (
            head.weight,
            supervised_loss(
                logits_BC,
                step.of_images(step.inputs.targets[task.name]),
                task.kind,
                smoothing=head.smoothing,
                known_answers=step.sizes.known_answers.get(task.name),
                group=step.world.group,
            ),
        )


class ActiveLoss(NamedTuple):
    """A loss of a run, its functions imported."""

    name: str
    settings: Any
    state: Any
    """What its `begin` returned; the settings where it has none."""
    terms: Callable[[Step, Any, Any], Terms]
    look: Callable[[Any, Seen], Tensor] | None
    prepare: Callable[[Any, Batch, int], Mapping[str, Tensor]] | None
    adds_up: bool
    sees: tuple[str, ...] = ()
    encodes_split: bool = False


def begin_losses(start: Start) -> tuple[ActiveLoss, ...]:
    """Return the losses of a recipe, in the order of `losses_of`. All chance is torch's.

    Raises:
        MedclipError: What their `begin` raises.
    """
    return tuple(_begun(start, *one) for one in losses_of(start.recipe))


def _begun(start: Start, name: str, row: Loss, settings: Any) -> ActiveLoss:
    terms, begin, look, prepare = (
        import_name(one) if isinstance(one, str) else one for one in (row.terms, row.begin, row.look, row.prepare)
    )
    assert terms is not None
    state = settings if begin is None else begin(start, settings)
    return ActiveLoss(name, settings, state, terms, look, prepare, row.adds_up, row.sees, row.encodes_split)


def image_weights(inputs: Inputs) -> Tensor:
    """Return how much the images of a batch count, float32 [b * V], those of a sample together."""
    size, device = len(inputs), inputs.images.device
    weights_B = torch.ones(size, device=device) if inputs.valid_B is None else inputs.valid_B.float()
    if inputs.pairs.weights_B is not None:
        weights_B = weights_B * inputs.pairs.weights_B
    return weights_B.repeat_interleave(inputs.num_views)


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Weigh values; where, not a product: a sample that takes no part may hold anything, also NaN."""
    return torch.where(weights > 0, values * weights, 0)
