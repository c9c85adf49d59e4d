"""Parts of a recipe that do not go together with this model or this number of ranks, refused before the first step."""

from __future__ import annotations

from torch import nn

from medclip.adapters.registry import preprocessing_of
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.shards.folder import STORED_WORDS, Stored
from medclip.shards.reading.reinforced import ReinforcedShards
from medclip.shards.reading.samples import ShardReader
from medclip.training.batches.augment import pixels_identity
from medclip.training.batches.sample_texts import ROLES
from medclip.training.losses import losses_of
from medclip.training.ranks import Precision, World
from medclip.training.recipe.augment import Augment
from medclip.training.recipe.schema import Recipe
from medclip.training.steps.optimizer import moving_statistics
from medclip.training.steps.towers import Towers
from medclip.wording import list_of

_MOST_LOOKED_AT = 20_000
"""Samples in which texts of a role are looked for."""


def refuse_beside_native_aspect(recipe: Recipe) -> None:
    """Refuse what takes square images only.

    Raises:
        MedclipError: RECIPE_INVALID, with what to do.
    """
    for wrong, key, why in (
        (recipe.objective.masked is not None, "objective.masked", "it hides the cells of a square"),
        (recipe.augment.stretch > 1, "augment.stretch", "it makes squares of all images"),
    ):
        if wrong:
            raise MedclipError(
                Reason.RECIPE_INVALID,
                f"{key} does not go with model.native_aspect: {why}.",
                hint="Leave out one of them.",
            )


def adapters_of(reader: ShardReader, preprocess: Preprocess) -> dict[str, str]:
    """Return the preprocessing hash of each way of reading that a pack of these shards is scored with.

    It is that of the shards; of ECGs, which are stored as their files have them, that of what the model makes of them.
    """
    if preprocess.signal is None:
        return dict(reader.preprocessing)
    return {way: preprocessing_of(way, preprocess.policy) for way in reader.preprocessing}


def refuse_other_samples(reader: ShardReader, preprocess: Preprocess, recipe: Recipe) -> None:
    """Refuse shards of other samples than the model takes, and those of several views for single images.

    Raises:
        MedclipError: RECIPE_INVALID, with what to do.
    """
    takes: Stored = "volumes" if preprocess.volume is not None else "images"
    if preprocess.signal is not None:
        takes = "signals"
    if reader.holds_views and recipe.objective.views is None:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "these shards hold examinations of several views, and the recipe takes single images.",
            where=reader.folder,
            hint="Say objective.views: {max: 4} (2 for breasts), or build shards without --group.",
        )
    if reader.holds == takes:
        return
    key: dict[Stored, str] = {"images": "", "volumes": "model.volume", "signals": "model.signal"}
    wanted = f"Say {key[reader.holds]}" if key[reader.holds] else f"Leave out {key[takes]}"
    option = "without --volumes and --signals" if takes == "images" else f"with `medclip shards build --{takes}`"
    raise MedclipError(
        Reason.RECIPE_INVALID,
        f"these shards hold {STORED_WORDS[reader.holds]}, and the model of the recipe takes {STORED_WORDS[takes]}.",
        where=reader.folder,
        hint=f"{wanted}, or build shards {option}.",
    )


def refuse_other_pixels(stored: ReinforcedShards, reader: ShardReader) -> None:
    """Refuse stored augmentations that would give other pixels than those that the teachers saw.

    Raises:
        MedclipError: PREPROCESSING_MISMATCH.
    """
    if stored.is_foreign:
        return  # nobody knows what they were made with
    noted, here = stored.facts[0]["pixels"], pixels_identity() | {"preprocessing": dict(reader.preprocessing)}
    if noted == here:
        return
    names = list_of([name for name in here if noted.get(name) != here[name]])
    raise MedclipError(
        Reason.PREPROCESSING_MISMATCH,
        f"the vectors of data.reinforced are of other pixels than are made here: {names} differ"
        f"{'s' if ' and ' not in names else ''}.",
        where=stored.folder,
        hint="Reinforce the shards again here, or install the Pillow that they were reinforced with: "
        f"{noted.get('pillow')}.",
    )


def stored_augment(stored: ReinforcedShards, recipe: Recipe) -> Augment:
    """Return what the stored augmentations were drawn with; of shards of others, which do not say it, the recipe's."""
    return recipe.augment if stored.is_foreign else Augment.model_validate(stored.facts[0]["augment"])


def refuse_lacking_texts(reader: ShardReader, recipe: Recipe, stored: ReinforcedShards | None = None) -> None:
    """Refuse losses that read texts of which no training sample has any, and candidates that none has.

    Of larger splits 20,000 samples, spread evenly, are looked at, up to the first that has what is wanted.

    Raises:
        MedclipError: RECIPE_INVALID, naming loss and role, and where samples would say such texts.
    """
    lacking = {role.name: role for role in recipe.roles}
    if recipe.data.negatives == "labels":
        lacking.pop("negative", None)
    if stored is not None and any(facts["synthetic"] for facts in stored.facts):
        lacking.pop("synthetic", None)
    shares = recipe.data.candidates
    needs = set() if shares is None else {"weighed caption", *(["raw text"] if shares.p_raw else [])}
    size, step = len(reader), max(1, len(reader) // _MOST_LOOKED_AT)
    for i in range(0, size, step):
        if not lacking and not needs:
            return
        try:
            record, _ = reader.record(i)
        except MedclipError:  # counted, with its reason, when its turn comes
            continue
        lacking = {name: role for name, role in lacking.items() if not any(role.draw(record, None))}
        needs -= {"raw text" if candidate.is_raw else "weighed caption" for candidate in record.candidates}
    looked_at = f"{len(range(0, size, step))} of {size} of the split {reader.split!r}"
    for name, role in lacking.items():
        loss = next(loss for loss, row, settings in losses_of(recipe) if name in row.texts_read(settings))
        of_words = " among the words of data.tags" if role.words else ""
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"the loss {loss!r} reads texts of the role {name!r}, and no sample that was looked at ({looked_at}) "
            f"has any{of_words}.",
            where=reader.folder,
            hint=f"A sample says them in {ROLES[name].stated_by}.",
        )
    for what in sorted(needs, reverse=True):
        key, again = "data.candidates", ""
        if what == "raw text":
            key, again = f"{key}.p_raw", ", with `captions: {keep_raw: true}` in its steps"
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"{key} draws a {what} of each sample, and none that was looked at ({looked_at}) has any.",
            where=reader.folder,
            hint=f"`medclip pairs rewrite` writes such shards{again}; or leave {key} out.",
        )


def refuse_what_does_not_go_together(recipe: Recipe, towers: Towers, world: World, precision: Precision) -> None:
    """Refuse combinations that would fail in the first step, or learn something else than the recipe says.

    Raises:
        MedclipError: RECIPE_INVALID, with what to do.
    """
    t, m = recipe.train, recipe.model
    sharded = world.size > 1 and t.parallel == "fsdp"
    bf16 = precision == "bf16"
    normed = any(isinstance(x, nn.modules.batchnorm._BatchNorm) for x in towers.modules())
    in_parts = world.size > 1 or t.micro_batch is not None
    beside = ("masked.", *(f"{name}." for name in towers.parts))  # what learns beside the towers and stays behind
    for wrong, what, hint in (
        (
            not any(p.requires_grad for name, p in towers.named_parameters() if not name.startswith(beside)),
            "the towers are locked, so nothing learns",
            "Leave out model.lock_image or model.lock_text, or unlock a layer.",
        ),
        (
            in_parts and bool(moving_statistics(towers, freeze_bn=m.freeze_bn)),
            "batch normalisation that learns its statistics would see a part of the batch only",
            "Say model.freeze_bn=true, or use one process without train.micro_batch.",
        ),
        (
            sharded and m.freeze_blocks > 0,
            "model.freeze_blocks does not go with train.parallel=fsdp",
            "Use model.lock_image with unlocked_image_groups, or train.parallel=ddp.",
        ),
        (
            sharded and bf16 and (towers.masked is not None or normed),
            "train.precision=bf16 with train.parallel=fsdp goes with neither objective.masked nor batch normalisation",
            "Use train.precision=fp32, or train.parallel=ddp.",
        ),
        (
            sharded and world.size % (t.shard_size or world.size) != 0,
            f"{world.size} ranks cannot be divided into shards of train.shard_size={t.shard_size}",
            "Name a number that divides the ranks, the GPUs of one machine say.",
        ),
    ):
        if wrong:
            raise MedclipError(Reason.RECIPE_INVALID, f"{what}.", hint=hint)
