"""What a run begins with: tokenizer and towers, new ones or those of a model that is there already."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.files.output import new_folder
from medclip.imaging.geometry import TokenBudget
from medclip.models.inputs.preprocess import NATIVE_TOWER, Preprocess, square_side
from medclip.models.inputs.signal_input import KEY as SIGNAL
from medclip.models.inputs.volume_input import TUBELET, VolumeInput
from medclip.models.interchange.load_start import Started, load_start
from medclip.models.interchange.start_trunk import PackTrunk, names_a_pack, read_trunk, start_trunk
from medclip.models.packs.manifest import FUSION
from medclip.models.towers.build import (
    build_clip,
    default_config,
    image_section,
    image_tower_weights,
    start_image_tower,
)
from medclip.models.towers.layers import lock_image, lock_text, recompute_activations, set_drop_path
from medclip.models.towers.lens_tower import KEY as LENS
from medclip.models.towers.lens_tower import LensShape, add_lens
from medclip.models.towers.masked_autoencoder import check_trunk, prepare_trunk
from medclip.models.towers.native_aspect import check_equal, make_native, patch_side
from medclip.models.towers.table import ARGUMENTS, ROTARY, tower_named
from medclip.models.towers.timm_tower import takes_pooling, without_words
from medclip.models.towers.view_fusion import ViewFusion
from medclip.shards.reading.samples import ShardReader
from medclip.text.captions.draw import all_wordings, draw_caption
from medclip.text.tokenizers.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from medclip.training.batches.sample_texts import ROLES
from medclip.training.recipe.compatibility import refuse_beside_native_aspect
from medclip.training.recipe.model import LensPart
from medclip.training.recipe.schema import Recipe
from medclip.training.steps.experts import place_experts
from medclip.training.steps.masked_pixels import trunk_of
from medclip.training.steps.optimizer import freeze

_WORDING_STREAM = 9
_MAX_TOKENIZER_SAMPLES = 20_000
"""Samples whose captions train a tokenizer; more of them add no wording."""


def check_towers(recipe: Recipe) -> None:
    """Refuse what no run can begin with, before shards are built for it. A recipe of words needs them for that."""
    if not recipe.needs_words:
        begin(recipe, recipe.folder, None)


def begin(recipe: Recipe, folder: Path, reader: ShardReader | None) -> Started:
    """Make the tokenizer and the dual encoder of a run, or its image tower alone where it reads no words.

    They are on the CPU, with everything frozen that the recipe says.

    Args:
        recipe: Recipe of what to train.
        folder: The run's folder; gets tokenizer/ where captions are read.
        reader: The training split: a new tokenizer is trained on its captions. None where no words are read.

    Returns:
        The model (text tower in `model.text`, or an image tower alone), its `model_cfg`, tokenizer and normalisation.

    Raises:
        MedclipError: RECIPE_INVALID when parts do not fit together; whatever loading a model raises.
    """
    m = recipe.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        source = m.start if m.lens is None else m.lens.trunk
        if recipe.needs_words:
            started = _built(recipe, folder, reader) if source is None else _loaded(recipe, folder, source)
            started = _native_aspect(recipe, _custom_text(started))
            _start_scale(recipe, started)
        else:
            started = _native_aspect(recipe, _built_alone(recipe) if source is None else _loaded_alone(recipe, source))
        if m.lens is not None:
            started = _with_lens(recipe, started, m.lens)
        started = _with_fusion(recipe, started)
        model: Any = started.model
        if m.experts is not None:
            place_experts(model.visual, m.experts, alike=source is not None or m.image_weights is not None)
    if m.drop_path:
        set_drop_path(model.visual, m.drop_path)
    freeze(model, m.freeze_blocks)
    if m.lock_image:
        lock_image(model, unlocked_groups=m.unlocked_image_groups)
    if m.lock_text:
        lock_text(model, unlocked_layers=m.unlocked_text_layers)
    if m.grad_checkpointing:
        recompute_activations(model)
    if started.preprocess.takes == "images":  # kernels of tubelets have an axis more, those of signals one less
        model.to(memory_format=torch.channels_last)
    return started


def _with_fusion(recipe: Recipe, started: Started) -> Started:
    """Add what fuses the views of an examination, where the recipe has any and the start brings none of that kind."""
    objective, config = recipe.objective, dict(started.config)
    views, fusion = objective.views, config.get(FUSION)
    if views is None:
        return started
    model: Any = started.model
    if fusion is None or fusion["kind"] != views.fusion:
        torch.manual_seed(recipe.seed)
        model.fusion = ViewFusion(config["embed_dim"], views.fusion)
        config[FUSION] = model.fusion.to_config()
    if not objective.supervised and not (objective.contrastive and views.joint):
        model.fusion.requires_grad_(False)  # nothing reads the fused vector, and ranks would wait for its gradients
    return replace(started, config=config)


def tokenizer_folder(recipe: Recipe, folder: Path) -> Path:
    """Return where the tokenizer of a run lies: the recipe's own, or in the run's folder."""
    return recipe.text.tokenizer or folder / "tokenizer"


def _with_lens(recipe: Recipe, started: Started, lens: LensPart) -> Started:
    """Place a lens in front of the image tower; nothing else learns but what the recipe unlocks."""
    m, old, model = recipe.model, started.preprocess, started.model
    if old.takes != "images" or old.budget is not None:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.lens.trunk: the pack {lens.trunk} does not take square images, behind which a lens could stand.",
            hint="Name a pack of images, all of one size.",
        )
    visual: Any = model.visual
    trunk = trunk_of(model)
    check_trunk(trunk)
    width, patches = int(trunk.embed_dim), math.prod(trunk.patch_embed.grid_size)  # type: ignore[arg-type, union-attr]
    shape = LensShape(
        lens.latents or patches,
        width,
        lens.token_width or width,
        lens.depth,
        lens.self_per_cross,
        lens.cross_heads,
        lens.latent_heads,
        lens.head_dim,
        lens.tied,
    )
    config = copy.deepcopy(started.config)
    config["vision_cfg"][LENS] = shape.to_config() | {"fourier_bands": lens.fourier_bands}
    if m.signal is not None:
        config["vision_cfg"][SIGNAL] = m.signal.config
        preprocess = replace(old, signal=m.signal.taken, adapters={})
    else:
        assert m.volume is not None
        config["vision_cfg"][LENS]["patch_px"] = lens.patch_px
        config["vision_cfg"] |= {TUBELET: m.volume.tower, "image_size": square_side(config)}
        preprocess = replace(old, volume=m.volume, adapters={})
    model.requires_grad_(False)
    torch.manual_seed(recipe.seed)
    try:
        tower = add_lens(visual, config["vision_cfg"])
    except MedclipError as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"model.lens: {e.message}", hint=e.hint) from e
    if lens.unlock_cls and tower.visual.trunk.cls_token is not None:
        tower.visual.trunk.cls_token.requires_grad_(True)
    for block in list(tower.visual.trunk.blocks)[: lens.unlock_blocks]:
        block.requires_grad_(True)
    if lens.image_anchor or lens.token_anchor:
        tower.mean_std = preprocess.mean, preprocess.std
    if lens.token_anchor and tower.latent_positions is not None:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "model.lens.token_anchor compares tokens one by one, and the lens gives another number than the tower has "
            "patches.",
            hint="Leave model.lens.latents out.",
        )
    tower.keeps_tokens = lens.token_anchor > 0
    model.visual = tower
    return replace(started, config=config, preprocess=preprocess)


def _loaded(recipe: Recipe, folder: Path, source: str) -> Started:
    started, place = _start_of(recipe, source), tokenizer_folder(recipe, folder)
    if not place.is_dir():  # the first rank writes it for all
        with new_folder(place) as draft:
            started.tokenizer.save(draft)
    return started


def _loaded_alone(recipe: Recipe, source: str) -> Started:
    """Load a model and keep nothing but its image tower."""
    started = _start_of(recipe, source)
    if started.words is None:
        return started
    try:
        config = without_words(started.config)
        alone: Any = build_clip(config)
    except MedclipError as e:
        raise MedclipError(e.reason, f"model.start: {e.message}", where=source, hint=e.hint) from e
    visual: Any = started.model.visual
    alone.visual.trunk.load_state_dict(visual.trunk.state_dict())
    return Started(alone, config | {"embed_dim": alone.visual.dim}, None, started.preprocess)


def _start_of(recipe: Recipe, source: str) -> Started:
    m = recipe.model
    overrides: dict[str, Any] = {}
    if "size_px" in m.model_fields_set:
        overrides["vision_cfg"] = {"image_size": m.size_px}
    if "context_length" in recipe.text.model_fields_set:
        overrides["text_cfg"] = {"context_length": recipe.text.context_length}
    if m.text is not None:
        overrides["text_cfg"] = {**overrides.get("text_cfg", {}), ROTARY: m.text.config}
    return load_start(
        source,
        architecture=m.architecture,
        text_folder=m.text_folder,
        preset=m.preset,
        overrides=overrides,
        words=recipe.needs_words,
    )


def _built_alone(recipe: Recipe) -> Started:
    """Build an image tower alone."""
    m, source = recipe.model, _pack_of(recipe)
    tower, pixels = _tower_of(recipe, source), _pixels_of(recipe, source)
    arguments = {} if source is None or not source.arguments else {ARGUMENTS: dict(source.arguments)}
    of_signals = _signal_tower(recipe, source)
    _check_pooling(recipe, tower, {} if source is None else source.arguments or {})
    config: dict[str, Any]
    if of_signals is not None:
        tower, config = of_signals["tower"], {"vision_cfg": {SIGNAL: of_signals}}
    else:
        config = without_words({"vision_cfg": image_section(tower, pixels.size_px) | arguments})
    if m.volume is not None:
        config["vision_cfg"][TUBELET] = m.volume.tower
    if m.image_pooling is not None and "timm_pool" in config["vision_cfg"]:
        config["vision_cfg"]["timm_pool"] = m.image_pooling
    elif recipe.objective.masked is None and config["vision_cfg"].get("timm_pool") == "mean":
        config["vision_cfg"]["timm_pool"] = "avg"  # as medical MAE classifies: the norm comes behind the mean
    torch.manual_seed(recipe.seed)
    try:
        model: Any = build_clip(config)
    except MedclipError as e:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_tower {tower!r} at {pixels.size_px} px: {e.message}",
            hint="Name a tower of timm, and a model.size_px that is a multiple of its patches.",
        ) from e
    config["embed_dim"] = model.visual.dim
    _start_trunk(recipe, model, source)
    return Started(model, config, None, pixels)


def _pack_of(recipe: Recipe) -> PackTrunk | None:
    """Read the image tower that `model.image_weights` names; None where that is no pack."""
    weights = recipe.model.image_weights
    return read_trunk(weights) if weights not in (None, "imagenet") and names_a_pack(weights) else None


def _tower_of(recipe: Recipe, source: PackTrunk | None) -> str:
    """Return timm's name of the tower: that of the pack, where the recipe names none."""
    return (
        recipe.model.image_tower if source is None or "image_tower" in recipe.model.model_fields_set else source.tower
    )


def _check_pooling(recipe: Recipe, tower: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a `model.image_pooling` that the tower does not have, or that does nothing for it."""
    pooling, words = recipe.model.image_pooling, recipe.needs_words
    if pooling is None:
        return
    if tower_named(tower) is not None:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_pooling does nothing for the tower {tower!r}, which is a row of TOWERS and makes its vector "
            "itself.",
            hint="Leave it out.",
        )
    if takes_pooling(tower, pooling, arguments, words=words):
        return
    lacks, other = "class token", "a vision transformer that has one"
    if pooling == "map":
        lacks, other = "attention pooling", "a vision transformer"
        if words:
            lacks = "attention pooling of its own, which it needs beside words"
            other = "one that timm builds with it, such as vit_base_patch16_siglip_224"
    raise MedclipError(
        Reason.RECIPE_INVALID,
        f"model.image_pooling is {pooling}, and the tower {tower!r} has no {lacks}.",
        hint=f"Say model.image_pooling: avg, or name as model.image_tower {other}.",
    )


def _pixels_of(recipe: Recipe, source: PackTrunk | None) -> Preprocess:
    """Return how images are treated: as the pack does, at the recipe's size where it names one."""
    m = recipe.model
    if source is None:
        return Preprocess(m.size_px, volume=m.volume, signal=None if m.signal is None else m.signal.taken)
    old = source.preprocess
    _refuse_another_signal(recipe, source)
    _refuse_another_volume(m.volume, source)
    size = m.size_px if "size_px" in m.model_fields_set else old.size_px
    resize = None if old.resize_px is None else round(old.resize_px * size / old.size_px)
    return replace(old, size_px=size, resize_px=resize, adapters={}, volume=m.volume)


def _signal_tower(recipe: Recipe, source: PackTrunk | None) -> dict[str, Any] | None:
    """Return `vision_cfg.signal` of the tower of ECGs that is built, that of the pack; None for towers of images."""
    if recipe.model.signal is None:
        return None
    return recipe.model.signal.config if source is None else dict(source.vision_cfg[SIGNAL])


def _refuse_another_signal(recipe: Recipe, source: PackTrunk) -> None:
    """Refuse a pack that takes other ECGs than the recipe says, or takes none."""
    of_recipe, of_pack = recipe.model.signal, source.preprocess.signal
    if of_recipe is None and of_pack is None:
        return
    if of_recipe is None or of_pack is None:
        kinds = ("ECGs", "images") if of_recipe is None else ("images", "ECGs")
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_weights: the pack {source.pack} takes {kinds[0]}, and the recipe trains on {kinds[1]}.",
            hint="Say model.signal: {} to go on with a tower of ECGs, or begin with another pack.",
        )
    stated = of_pack.to_config() | dict(source.vision_cfg[SIGNAL])
    for name in sorted(of_recipe.model_fields_set):
        if getattr(of_recipe, name) != stated.get(name):
            raise MedclipError(
                Reason.RECIPE_INVALID,
                f"model.signal.{name} is {getattr(of_recipe, name)}, and the pack {source.pack} has "
                f"{stated.get(name)}.",
                hint="Leave it out: the section is that of the pack.",
            )


def _refuse_another_volume(volume: VolumeInput | None, source: PackTrunk) -> None:
    """Refuse a pack of another kind of volumes, orientation, or unit; one of images becomes one of volumes."""
    of_pack = source.preprocess.volume
    if of_pack is None:
        return
    kinds = [("images" if of is None else f"{of.kind} {of.plane or ''} {of.unit}") for of in (of_pack, volume)]
    if kinds[0] != kinds[1]:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_weights: the pack {source.pack} was trained on {' '.join(kinds[0].split())}, and "
            f"model.volume says {' '.join(kinds[1].split())}.",
            hint="Say the same kind, plane and unit, or begin with a pack of images.",
        )


def _start_trunk(recipe: Recipe, model: Any, source: PackTrunk | None) -> None:
    """Load the weights that a built image tower begins with, or draw those of a masked autoencoder."""
    weights, masked = recipe.model.image_weights, recipe.objective.masked
    if source is not None:
        start_trunk(trunk_of(model), source)
        if masked is not None and masked.decoder != "linear":
            model.visual.trunk.pos_embed.requires_grad_(False)
    elif weights == "imagenet":
        from medclip.settings import Settings

        if "efficientnet_lite0" not in recipe.model.image_tower:
            raise MedclipError(
                Reason.RECIPE_INVALID,
                f"model.image_weights: the weights from ImageNet are those of tf_efficientnet_lite0, and "
                f"model.image_tower is {recipe.model.image_tower!r}.",
                hint="Say model.image_weights: null for random weights, a pack with such a tower, or a safetensors "
                "file of it.",
            )
        start_image_tower(model, image_tower_weights(Settings().home / "cache"))
    elif weights is not None:
        start_image_tower(model, Path(weights))
    elif masked is not None and masked.decoder != "linear":
        prepare_trunk(trunk_of(model))


def _start_scale(recipe: Recipe, started: Started) -> None:
    """Set the scale and the bias that the contrastive loss begins with."""
    m, model, is_siglip = recipe.model, started.model, recipe.objective.loss == "siglip"
    clip: Any = model
    fixed = recipe.objective.temperature
    scale = 1 / fixed if fixed else m.logit_scale or (None if m.start or m.lens else 10.0 if is_siglip else 1 / 0.07)
    with torch.no_grad():
        if scale is not None:
            clip.logit_scale.fill_(math.log(scale))
            clip.logit_scale.requires_grad_(fixed is None)
        if is_siglip:
            if clip.logit_bias is None or "logit_bias" in m.model_fields_set:
                clip.logit_bias = nn.Parameter(torch.tensor(m.logit_bias))
            started.config["init_logit_bias"] = float(clip.logit_bias)


def _built(recipe: Recipe, folder: Path, reader: ShardReader | None) -> Started:
    m, source = recipe.model, _pack_of(recipe)
    tokenizer, pixels = _tokenizer(recipe, folder, reader), _pixels_of(recipe, source)
    if source is not None and source.arguments:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_weights: the tower of {source.pack} was built with arguments of its own "
            f"({', '.join(source.arguments)}), which no tower under a text tower of a recipe takes.",
            hint="Begin with a pack whose tower timm builds by its name alone.",
        )
    tower = _tower_of(recipe, source)
    _check_pooling(recipe, tower, {})
    config = default_config(
        vocab_size=tokenizer.vocab_size,
        context_length=tokenizer.context_length,
        embed_dim=m.embed_dim,
        size_px=pixels.size_px,
        image_tower=tower,
        image_pooling=m.image_pooling or "avg",
        text_width=m.text_width,
        text_heads=m.text_heads,
        text_layers=m.text_layers,
        signal=_signal_tower(recipe, source),
    )
    if m.text is not None:
        config["text_cfg"][ROTARY] = m.text.config
    torch.manual_seed(recipe.seed)
    model = build_clip(config)
    _start_trunk(recipe, model, source)
    return Started(model=model, config=config, words=tokenizer, preprocess=pixels)


def _custom_text(started: Started) -> Started:
    """Keep the text tower in a module of its own (open_clip's CustomTextCLIP): it can be locked and sharded there."""
    if hasattr(started.model, "text"):
        return started
    from open_clip.model import convert_to_custom_text_state_dict

    config = {**started.config, "custom_text": True}
    model = build_clip(config, started.base)
    model.load_state_dict(convert_to_custom_text_state_dict(dict(started.model.state_dict())))
    return replace(started, model=model, config=config)


def _native_aspect(recipe: Recipe, started: Started) -> Started:
    """Let the image tower take images at their own aspect ratio, where recipe or start say so."""
    m, budget = recipe.model, started.preprocess.budget
    if not m.native_aspect and budget is None:
        return started
    if not m.native_aspect and "native_aspect" in m.model_fields_set:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "model.native_aspect is false, and model.start takes images at their own aspect ratio.",
            hint="Leave model.native_aspect out.",
        )
    refuse_beside_native_aspect(recipe)
    config, model = copy.deepcopy(started.config), started.model
    if budget is None:
        visual: Any = model.visual
        side, plain = square_side(config), copy.deepcopy(visual)
        make_native(visual, config["vision_cfg"].get("timm_model_name"), side)
        check_equal(visual, plain, side)
        config["vision_cfg"][NATIVE_TOWER] = True
        patch = patch_side(visual)
        budget = TokenBudget(patch, (side // patch) ** 2)
    budget = replace(budget, max_tokens=m.max_tokens or budget.max_tokens)
    old = started.preprocess
    preprocess = Preprocess(old.size_px, old.mean, old.std, budget=budget, resize="native", crop=old.crop)
    return replace(started, config=config, preprocess=preprocess)


def _tokenizer(recipe: Recipe, folder: Path, reader: ShardReader | None) -> Tokenizer:
    place = tokenizer_folder(recipe, folder)
    if recipe.text.tokenizer is not None or (place / "tokenizer_config.json").is_file():
        return load_tokenizer(place)
    assert reader is not None
    text, rng = recipe.text, np.random.default_rng((recipe.seed, _WORDING_STREAM))
    captions, roles = list(all_wordings()), [ROLES[role.name] for role in recipe.roles]
    for i in range(min(len(reader), _MAX_TOKENIZER_SAMPLES)):
        try:
            record, _ = reader.record(i)
        except MedclipError:  # counted, with its reason, when its turn comes
            continue
        captions += [*record.texts, *([record.report] if record.report else [])]
        captions += [text for role in roles if role.is_encoded for text in role.texts(record)]
        if recipe.data.candidates is not None:
            captions += [candidate.text for candidate in record.candidates if candidate.text not in record.texts]
        captions += [
            draw_caption(record, rng, native_share=recipe.data.native_share, native=recipe.data.native)
            for _ in range(text.captions_per_sample)
        ]
    with new_folder(place) as draft:
        return train_tokenizer(captions, draft, vocab_size=text.vocab_size, context_length=text.context_length)
