"""The terms of the losses that read texts beside captions: rows of `medclip.training.losses`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.edit_pairs import edit_pair_loss
from medclip.objectives.hard_negatives import pairwise_loss, row_loss
from medclip.objectives.pairs import Pairs, keys_of
from medclip.objectives.ranks import sum_values
from medclip.objectives.softened import softened_loss
from medclip.objectives.tags import tag_softmax_loss
from medclip.training.batches.loader import STATED, TEXT, Batch
from medclip.training.recipe.text_losses import EditPairs, HardNegatives, LongCaptions, Softened, Tags
from medclip.training.steps.loss_terms import Start, Step, Terms, image_weights
from medclip.training.steps.supervised import num_known, supervised_loss
from medclip.training.steps.towers import Seen, pooled_dim


def of_single_images(start: Start, settings: object) -> object:
    """Refuse a recipe whose samples have several images or captions; return the settings.

    Raises:
        MedclipError: RECIPE_INVALID.
    """
    objective = start.recipe.objective
    several = [name for name in ("views", "two_views") if getattr(objective, name) is not None]
    if several:
        name = next(name for name, of in objective.losses.items() if of is settings)
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"objective.losses.{name} compares one image with texts and does not go with objective.{several[0]}.",
            hint="Leave one of the two out.",
        )
    return settings


def refused_loss(name: str, cause: str, hint: str) -> MedclipError:
    """Return the error of a loss that cannot be computed."""
    return MedclipError(Reason.RECIPE_INVALID, f"objective.losses.{name}: {cause}.", hint=hint)


@dataclass(frozen=True)
class GrowingShare:
    """The share of other pairs, step by step."""

    settings: Softened
    total_steps: int

    def at(self, step: int) -> float:
        """Return the share of a step, from 0; the last one's is that of the settings."""
        part = 1.0 if self.settings.schedule == "constant" else step / max(1, self.total_steps - 1)
        return self.settings.share * part


def growing_share(start: Start, settings: Softened) -> GrowingShare:
    """Begin the share of a run.

    Raises:
        MedclipError: RECIPE_INVALID where samples have several images.
    """
    of_single_images(start, settings)
    return GrowingShare(settings, start.total_steps)


def share_of_step(share: GrowingShare, batch: Batch, step: int) -> dict[str, Tensor]:
    """Return the share of a step, ahead of it."""
    return {"share": torch.tensor(share.at(step))}


def softly_contrasted(step: Step, settings: Softened, _: object) -> Terms:
    """Contrast images and captions with softened targets."""
    out, share = step.outputs, step.inputs.extra["softened"]["share"]
    yield (
        settings.weight,
        softened_loss(
            *(out.image_BD, out.text_BD, step.scale, share),
            similarity=settings.similarity,
            pairs=step.inputs.pairs,
            group=step.world.group,
        ),
    )


def told_apart(step: Step, settings: HardNegatives, _: object) -> Terms:
    """Compare the caption of each image with its false texts."""
    out, mask_BK = step.outputs, step.inputs.texts["negative"].mask_BK & _taking_part(step)[:, None]
    features = (out.image_BD, out.text_BD, out.texts["negative"], mask_BK, step.scale)
    if settings.form == "row":
        yield settings.weight, row_loss(*features, step.inputs.pairs, group=step.world.group)
    else:
        weights_B = image_weights(step.inputs)
        yield settings.weight, pairwise_loss(*features, weights_B=weights_B, group=step.world.group)


def tag_head(start: Start, settings: Tags) -> nn.Linear:
    """Make the layer that tells the words.

    Raises:
        MedclipError: RECIPE_INVALID where samples have several images.
    """
    of_single_images(start, settings)
    return nn.Linear(pooled_dim(start.model.visual, start.dim), len(start.recipe.data.tags))


def tag_logits(head: nn.Linear, seen: Seen) -> Tensor:
    """Return the logit of each word for each image, in float32."""
    with torch.autocast(seen.pooled_BD.device.type, enabled=False):
        return head(seen.pooled_BD.float())


def tagged(step: Step, settings: Tags, _: object) -> Terms:
    """Compare each word with what is stated and denied; what is neither, or both, is not known."""
    stated_BC, denied_BC = (step.inputs.texts[role].mask_BK for role in ("tags", "absent"))
    truth_BC = torch.where(stated_BC == denied_BC, torch.nan, stated_BC.float())
    known, group = num_known(truth_BC, step.world.group), step.world.group
    logits_BC = step.outputs.extra["tags"]
    truth = step.of_images(truth_BC)
    yield settings.weight, supervised_loss(logits_BC, truth, "multilabel", known_answers=known, group=group)


def tagged_among_all(step: Step, settings: Tags, _: object) -> Terms:
    """Share the mass of each image among the words that are stated of it."""
    stated_BC, group = step.inputs.texts["tags"].mask_BK, step.world.group
    num_stating = sum_values(stated_BC.any(1).sum().float(), group)
    logits_BC, stated = step.outputs.extra["tags_softmax"], step.of_images(stated_BC)
    yield settings.weight, tag_softmax_loss(logits_BC, stated, num_stating=num_stating, group=group)


def contrasted_with_long(step: Step, settings: LongCaptions, _: object) -> Terms:
    """Contrast images with their long texts, both ways; a sample without one is no row and no column."""
    image_BD, long_BD = step.outputs.image_BD, step.outputs.texts["long"][:, 0]
    pairs = pairs_of_texts(step, "long")
    yield settings.weight, clip_loss(image_BD, long_BD, step.scale, pairs, group=step.world.group)


def pairs_of_texts(step: Step, role: str) -> Pairs:
    """Return the pairs of images with their texts of a role; a sample without one is no row and no column."""
    pairs = step.inputs.pairs
    # What makes two captions alike (labels, words, study) does not make other texts fit each other's images, nor does
    # anybody know that they do not: such pairs are left out. Equal long texts need no key: their features are equal, so
    # that sharing the mass among them would change neither the loss nor its gradient.
    left_out = [keys_BK for keys_BK in (pairs.ignored_BK, pairs.positive_BK) if keys_BK is not None]
    return replace(
        pairs,
        positive_BK=None,
        ignored_BK=torch.cat(left_out, 1) if left_out else None,
        text_positive_BK=None,
        valid_B=_taking_part(step) & step.inputs.texts[role].mask_BK[:, 0],
    )


def partner_keys(_: object, batch: Batch, __: int) -> Mapping[str, Tensor]:
    """Return the pair of each sample, and what makes two samples no negatives: itself, its caption, its labels."""
    names = [
        texts[0] if texts and valid else "" for texts, valid in zip(batch.roles["pair"].texts, batch.valid, strict=True)
    ]
    captions_and_labels = torch.from_numpy(batch.pair_keys[:, [TEXT, STATED]])
    return {"pair": keys_of(names), "same": torch.cat([keys_of(batch.keys), captions_and_labels], 1)}


def told_from_partner(step: Step, settings: EditPairs, _: object) -> Terms:
    """Compare each sample with the one that differs from it by an edit."""
    keys, out = step.inputs.extra["edit_pairs"], step.outputs
    yield (
        settings.weight,
        edit_pair_loss(
            out.image_BD,
            out.text_BD,
            keys["pair"],
            step.scale,
            same_BK=keys["same"],
            weights_B=image_weights(step.inputs),
            group=step.world.group,
        ),
    )


def _taking_part(step: Step) -> Tensor:
    return image_weights(step.inputs) > 0
