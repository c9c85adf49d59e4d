"""Where a recipe's training differs from a reference's own code.

With words that is open_clip's loop, which UniMed-CLIP and most published models ran; without words that of medical_mae
(Xiao et al., WACV 2023), which is the masked autoencoder of He et al. with another recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from medclip.training.batches.order import SAMPLING
from medclip.training.recipe.schema import Recipe

OPEN_CLIP, MEDICAL_MAE = "open_clip", "medical_mae"
STRETCH = 4 / 3
"""Of torchvision's RandomResizedCrop, by default."""
_EPS = 1e-8
"""Of torch's AdamW, by default."""


@dataclass(frozen=True)
class Deviation:
    """One thing that is done in another way."""

    what: str
    """What it is about."""
    here: str
    reference: str
    key: str = ""
    """The key of the recipe that decides it; "" where none does."""
    of: str = OPEN_CLIP
    """Whose code the reference is."""

    @property
    def sentence(self) -> str:
        """It in words, such as "crops: keep the aspect ratio, black around; open_clip: are stretched"."""
        return f"{self.what}: {self.here}; {self.of}: {self.reference}"


def deviations(recipe: Recipe) -> tuple[Deviation, ...]:
    """List where a run differs from open_clip's `train_one_epoch`, its data pipeline and its evaluation.

    A run that reads no words is held against medical_mae instead.

    What a recipe merely chooses (rates, steps, towers, prompts) is none, and neither is what changes no number beyond
    rounding (padding that is not computed, cached gradients, the chunked loss).

    Args:
        recipe: Recipe as loaded; with `compat: open_clip` deviations that have a key are gone, unless it sets them.

    Returns:
        Those that a recipe can change first.

    Example:
        >>> recipe = Recipe.model_validate({"name": "a", "compat": "open_clip", "data": {"shards": "s"}})
        >>> "train.decay_embeddings" in {d.key for d in deviations(recipe)}
        False
    """
    if not recipe.needs_words:
        of_mae = (*_of_masks(recipe), *_of_weights(recipe), *_of_autoencoders(recipe))
        parts = (*_of_images(recipe, usual=("flip",)), *of_mae)
        # Its fine-tuning, unlike its pretraining, spares class token and positions.
        spared = () if recipe.objective.masked is not None else ("train.decay_embeddings",)
        return tuple(replace(deviation, of=MEDICAL_MAE) for deviation in parts if deviation.key not in spared)
    return (*_of_images(recipe), *_of_objective(recipe), *_of_weights(recipe), *_always(recipe))


def _of_images(recipe: Recipe, usual: tuple[str, ...] = ()) -> Iterator[Deviation]:
    a = recipe.augment
    if recipe.data.decode != "full":
        least = "the side" if recipe.data.decode == "scaled" else "twice the side"
        here = f"are decoded at a half, a quarter or an eighth, where at least {least} that is needed is left"
        yield Deviation("JPEGs of training", here, "are decoded with all pixels", "data.decode")
    if a.stretch != STRETCH:
        unstretched = "keep the aspect ratio" + ("" if recipe.model.native_aspect else ", black around")
        here = unstretched if a.stretch == 1 else f"are stretched by up to {a.stretch:.3g}"
        yield Deviation("crops", here, "are stretched by up to 4/3 to a square", "augment.stretch")
    changes = ("rotate_deg", "brightness", "contrast", "flip", "hue", "saturation")
    if changed := [name for name in changes if getattr(a, name) and name not in usual]:
        reference = f"crops{' and ' if usual else ''}{', '.join(usual)} only"
        yield Deviation("augmentation", f"also {', '.join(changed)}", reference, f"augment.{changed[0]}")


def _of_objective(recipe: Recipe) -> Iterator[Deviation]:
    o = recipe.objective
    for name in ("label", "text", "study"):
        relation = getattr(o, f"same_{name}")
        if relation != "negative":
            others = "left out of the loss" if relation == "ignored" else "positives where the caption states labels"
            here = "positives of each other" if relation == "positive" else others
            yield Deviation(f"pairs of the same {name}", here, "negatives of each other", f"objective.same_{name}")
    if o.other_source != "negative":
        here = "left out of the loss where they are of one kind of image"
        yield Deviation("pairs of different sources", here, "negatives of each other", "objective.other_source")
    if recipe.train.keep is not None:
        here = "holds images to what the start says of random sentences too"
        yield Deviation("the objective", here, "contrasts one image and one caption of each", "train.keep")
    for key, here in (
        ("masked", "predicts hidden pixels too"),
        ("text_teacher", "lets a sentence encoder teach the text tower too"),
        ("two_views", "contrasts two images and two captions of each sample"),
        ("views", "contrasts the views of an examination, their captions and what they are fused to"),
        ("unimodal", "contrasts two views of each image's pooled feature too"),
        ("source_weights", "weighs samples by their source"),
    ):
        if getattr(o, key):
            yield Deviation("the objective", here, "contrasts one image and one caption of each", f"objective.{key}")


def _of_masks(recipe: Recipe) -> Iterator[Deviation]:
    masked = recipe.objective.masked
    if masked is not None and masked.decoder == "linear":
        here = "a linear layer on the features of the whole image, with hidden patches painted over"
        yield Deviation("what guesses", here, "a decoder of visible patches alone", "objective.masked")
    if masked is not None and masked.foreground:
        yield Deviation("hidden patches", "the same share of all that is not empty", "anywhere", "objective.masked")
    if recipe.augment.flip:
        yield Deviation("mirroring", "never where the record names a side", "of every image", "augment.flip")


def _of_weights(recipe: Recipe) -> Iterator[Deviation]:
    t = recipe.train
    if not t.decay_embeddings and t.weight_decay:
        here = "not of the embeddings of tokens and positions"
        yield Deviation("weight decay", here, "of all matrices", "train.decay_embeddings")
    if t.image_lr_factor != 1:
        here = f"{t.image_lr_factor:g} times that of the others"
        yield Deviation("learning rate of the image trunk", here, "that of the others", "train.image_lr_factor")
    if recipe.model.freeze_bn and recipe.needs_words:
        yield Deviation("running statistics of batch normalisation", "kept", "learned", "model.freeze_bn")
    if t.ema:
        yield Deviation("weights that are kept", f"averaged, decay {t.ema:g}", "those of the last step", "train.ema")
    if t.max_bad_steps:
        here = f"the step is left out, up to {t.max_bad_steps} in a row"
        reference = "is not looked for" if recipe.needs_words else "ends the run"
        yield Deviation("a loss that is not finite", here, reference, "train.max_bad_steps")


def _of_autoencoders(recipe: Recipe) -> Iterator[Deviation]:
    t = recipe.train
    if t.clip_norm is not None:
        yield Deviation("gradients", f"are shortened to a norm of {t.clip_norm:g}", "are left", "train.clip_norm")
    if t.eps != _EPS:
        yield Deviation("epsilon of AdamW", f"{t.eps:g}", f"{_EPS:g}", "train.eps")
    yield Deviation(
        "values of pixels",
        "as the model's preprocessing has them",
        "brought to the mean and deviation of ImageNet, for NIH's images to their own",
    )
    yield Deviation("order of samples", _order(recipe), "a permutation of all", "data.policy")


def _always(recipe: Recipe) -> Iterator[Deviation]:
    yield Deviation("order of samples", _order(recipe), "buffers of shuffled samples in each worker", "data.policy")
    yield Deviation("what fills no whole batch", "is left out of the epoch", "is repeated or left out by each worker")
    native = recipe.model.native_aspect
    here = (
        "as many patches as fit, at the image's own aspect ratio" if native else "fitted into the square, black around"
    )
    yield Deviation("images that are scored", here, "shorter side fitted, centre cropped")
    yield Deviation("samples that cannot be read", "take no part in the loss; too many end the run", "are passed over")


def _order(recipe: Recipe) -> str:
    mixed = f"a permutation of each {recipe.data.window_shards} shards"
    chosen = mixed if SAMPLING[recipe.data.policy].in_windows else f"policy {recipe.data.policy}"
    return f"{chosen}, the same for any number of workers and ranks"
