"""The losses that a training step adds up: one row each, in the order in which they are added. No torch here.

The mathematics of a loss is a file of `medclip.objectives`. A row says where a recipe has its settings, which texts of
a sample it reads, what it needs beside features (a frozen model, a module that learns with the towers, tensors of the
batch), and which terms it adds;
its functions are "module:function", or the functions themselves. Those of the table are in
`medclip.training.steps.loss_terms`, and in `text_terms`, `token_terms` and `distilled_text` beside it. A recipe names a
loss that has a section below `objective.losses`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.lazy import Table
from medclip.training.batches.sample_texts import OWN, ROLES
from medclip.training.recipe.text_losses import (
    Distill,
    DistilledCaptions,
    DistilledLong,
    EditPairs,
    HardNegatives,
    Levels,
    LongCaptions,
    MaskedWords,
    Softened,
    Tags,
    TokenAlignment,
)
from medclip.training.recipe.view_losses import Views

Target = Callable[..., Any] | str
_TERMS = "medclip.training.steps.loss_terms"
_TEXT_TERMS = "medclip.training.steps.text_terms"
_REINFORCED = "medclip.training.steps.reinforced_terms"
_DISTILLED = "medclip.training.steps.distilled_text"
_TOKENS = "medclip.training.steps.token_terms"
_LEVELS = "medclip.training.steps.level_terms"
_VIEWS = "medclip.training.steps.view_centres"


@dataclass(frozen=True)
class Loss:
    """One loss: what it needs, and what it adds to the sum."""

    terms: Target
    """(step, settings, state): yields weights and scalars. `step` is a `medclip.training.steps.loss_terms.Step`, and
    `state` what `begin` returned, or else the settings; the mean of a scalar over the ranks is that of the batch."""
    section: Any = None
    """Class of its settings below `objective.losses`, a `medclip.training.recipe.section.Section`; None for a
    loss that has a place of its own in a recipe."""
    settings: Callable[[Any], Any] | None = None
    """(recipe): returns them from that place; None where the recipe does not have the loss."""
    texts: tuple[str, ...] = ()
    """Roles of the texts of a sample that it reads: "own" is its caption, the others, which are in `step.inputs.texts`
    and `step.outputs.texts` by their role, are those of `medclip.training.batches.sample_texts.ROLES`."""
    adds_up: bool = False
    """The loss of a batch is the sum of those of its samples, so that no chunk needs the features of another."""
    begin: Target | None = None
    """(start, settings): makes what the run needs for it. A module learns beside the towers, lies in checkpoints and
    stays behind when the pack is written. `before_epoch` and `after_step` are called of whatever has both
    (`medclip.training.steps.optimizer.Hook`)."""
    look: Target | None = None
    """(state, seen): returns a row for each image of what the towers see in training: `step.outputs.extra[name]`."""
    prepare: Target | None = None
    """(state, batch, number of the step): returns tensors by name, made on the CPU ahead of the step:
    `step.inputs.extra[name]`. The same names for every batch."""
    sees: tuple[str, ...] = ()
    """Names of those tensors, of one row for each sample, that `look` gets as well: `seen.prepared[name]`."""

    encodes_split: bool = False
    """Its state looks at images of the training split between steps: the trainer calls its `encode_with` once, with
    what returns the features of samples, equal on all ranks and as validation has them."""

    def __post_init__(self) -> None:
        """Refuse a row that reads texts of no role."""
        unknown = [role for role in self.texts if role not in (OWN, *ROLES)]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no role of texts: these are {', '.join((OWN, *ROLES))}")

    def texts_read(self, settings: Any) -> tuple[str, ...]:
        """Return the roles that it reads with these settings: one that they have a switch for only where it is on."""
        return tuple(role for role in self.texts if getattr(settings, role, True) is not False)

    @property
    def reads_words(self) -> bool:
        """Whether the text tower reads any of its texts."""
        return any(role == OWN or ROLES[role].is_encoded for role in self.texts)


_ROWS: dict[str, Loss] = {
    "contrastive": Loss(
        f"{_TERMS}:contrastive",
        settings=lambda recipe: recipe.objective if recipe.objective.needs_words else None,
        texts=(OWN,),
    ),
    "image_anchor": Loss(
        f"{_TERMS}:anchored",
        settings=lambda recipe: (recipe.model.lens and recipe.model.lens.image_anchor) or None,
        look=f"{_TERMS}:middle_slices",
    ),
    "token_anchor": Loss(
        f"{_TERMS}:token_anchored",
        settings=lambda recipe: recipe.model.lens if recipe.model.lens and recipe.model.lens.token_anchor else None,
        look=f"{_TERMS}:token_distances_to_middle",
    ),
    "unimodal": Loss(
        f"{_TERMS}:unimodal",
        settings=lambda recipe: recipe.objective.unimodal,
        begin=f"{_TERMS}:unimodal_views",
        look=f"{_TERMS}:views_of_pooled",
    ),
    "text_teacher": Loss(
        f"{_TERMS}:taught",
        settings=lambda recipe: recipe.objective.text_teacher,
        texts=(OWN,),
        begin=f"{_TERMS}:teacher",
        prepare=f"{_TERMS}:teacher_tokens",
    ),
    "keep": Loss(
        f"{_TERMS}:kept",
        settings=lambda recipe: recipe.train.keep if recipe.needs_words else None,
        begin=f"{_TERMS}:old_model",
    ),
    "masked": Loss(f"{_TERMS}:hidden", settings=lambda recipe: recipe.objective.masked, adds_up=True),
    "supervised": Loss(
        f"{_TERMS}:classified", settings=lambda recipe: recipe.objective.supervised or None, adds_up=True
    ),
    "softened": Loss(
        f"{_TEXT_TERMS}:softly_contrasted",
        section=Softened,
        texts=(OWN,),
        begin=f"{_TEXT_TERMS}:growing_share",
        prepare=f"{_TEXT_TERMS}:share_of_step",
    ),
    "hard_negatives": Loss(
        f"{_TEXT_TERMS}:told_apart",
        section=HardNegatives,
        texts=(OWN, "negative"),
        begin=f"{_TEXT_TERMS}:of_single_images",
    ),
    "tags": Loss(
        f"{_TEXT_TERMS}:tagged",
        section=Tags,
        texts=("tags", "absent"),
        adds_up=True,
        begin=f"{_TEXT_TERMS}:tag_head",
        look=f"{_TEXT_TERMS}:tag_logits",
    ),
    "tags_softmax": Loss(
        f"{_TEXT_TERMS}:tagged_among_all",
        section=Tags,
        texts=("tags",),
        adds_up=True,
        begin=f"{_TEXT_TERMS}:tag_head",
        look=f"{_TEXT_TERMS}:tag_logits",
    ),
    "long_captions": Loss(
        f"{_TEXT_TERMS}:contrasted_with_long",
        section=LongCaptions,
        texts=("long",),
        begin=f"{_TEXT_TERMS}:of_single_images",
    ),
    "distilled_captions": Loss(
        f"{_DISTILLED}:followed",
        section=DistilledCaptions,
        texts=(OWN,),
        begin=f"{_DISTILLED}:tower_teacher",
        look=f"{_DISTILLED}:words_beside_teacher",
        prepare=f"{_DISTILLED}:windows_of_captions",
    ),
    "distilled_long": Loss(
        f"{_DISTILLED}:followed_in_windows",
        section=DistilledLong,
        texts=("long",),
        begin=f"{_DISTILLED}:tower_teacher",
        prepare=f"{_DISTILLED}:windows_of_long",
    ),
    "edit_pairs": Loss(
        f"{_TEXT_TERMS}:told_from_partner",
        section=EditPairs,
        texts=(OWN, "pair"),
        begin=f"{_TEXT_TERMS}:of_single_images",
        prepare=f"{_TEXT_TERMS}:partner_keys",
    ),
    "token_alignment": Loss(
        f"{_TOKENS}:aligned",
        section=TokenAlignment,
        texts=(OWN,),
        begin=f"{_TOKENS}:token_heads",
        look=f"{_TOKENS}:seen_by",
    ),
    "masked_words": Loss(
        f"{_TOKENS}:guessed",
        section=MaskedWords,
        texts=(OWN,),
        adds_up=True,
        begin=f"{_TOKENS}:word_guesser",
        look=f"{_TOKENS}:seen_by",
        prepare=f"{_TOKENS}:mask_captions",
        sees=("tokens_BL", "used_BL", "masked_BL", "target_BL"),
    ),
    "distill": Loss(
        f"{_REINFORCED}:taught_by_stored",
        section=Distill,
        texts=(OWN, "synthetic"),
        begin=f"{_REINFORCED}:stored_teachers",
        prepare=f"{_REINFORCED}:stored_rows",
    ),
    "levels": Loss(
        f"{_LEVELS}:compared_by_level",
        section=Levels,
        texts=("summary", "long", "attributes"),
        begin=f"{_LEVELS}:begin_levels",
        look=f"{_LEVELS}:local_and_regions",
        prepare=f"{_LEVELS}:parts_of_batch",
        sees=("local_B4", "regions_BK4"),
    ),
    "views": Loss(
        f"{_VIEWS}:drawn_together",
        section=Views,
        begin=f"{_VIEWS}:view_centres",
        prepare=f"{_VIEWS}:numbers_of_views",
        encodes_split=True,
    ),
}
LOSSES = Table("medclip.losses", _ROWS)
"""A new loss is one file and one line here."""


def loss_named(name: str) -> Loss:
    """Return the row of a loss.

    Raises:
        MedclipError: RECIPE_INVALID where there is none.
    """
    if name not in LOSSES:
        named = [loss for loss, row in LOSSES.items() if row.section is not None]
        hint = did_you_mean(name, named, "Losses that stand below objective.losses are")
        raise MedclipError(Reason.RECIPE_INVALID, f"there is no loss {name!r}.", hint=hint)
    return LOSSES[name]


def losses_of(recipe: Any) -> list[tuple[str, Loss, Any]]:
    """Return name, row and settings of each loss of a recipe, in the order of the table, and then those of
    `objective.losses`, in the recipe's order.
    """
    rows = [(name, row, row.settings(recipe)) for name, row in LOSSES.items() if row.settings is not None]
    rows += [(name, loss_named(name), settings) for name, settings in recipe.objective.losses.items()]
    return [(name, row, settings) for name, row, settings in rows if settings is not None]
