"""The terms of the losses that read texts beside captions: rows of `medclip.training.losses`."""

from __future__ import annotations

from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.hard_negatives import pairwise_loss, row_loss
from medclip.training.recipe.text_losses import HardNegatives
from medclip.training.steps.loss_terms import Start, Step, Terms, image_weights


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


def told_apart(step: Step, settings: HardNegatives, _: object) -> Terms:
    """Compare the caption of each image with its false texts."""
    out, mask_BK = step.outputs, step.inputs.texts["negative"].mask_BK & _taking_part(step)[:, None]
    features = (out.image_BD, out.text_BD, out.texts["negative"], mask_BK, step.scale)
    if settings.form == "row":
        yield settings.weight, row_loss(*features, step.inputs.pairs, group=step.world.group)
    else:
        weights_B = image_weights(step.inputs)
        yield settings.weight, pairwise_loss(*features, weights_B=weights_B, group=step.world.group)


def _taking_part(step: Step) -> Tensor:
    return image_weights(step.inputs) > 0
