"""Packs from other people's checkpoints, and packs for other people's loaders: open_clip, transformers, timm."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, did_you_mean, naming, refuse_missing
from medclip.files.output import claim_folder, in_use, new_folder, scratch_folder
from medclip.modalities import MODALITIES
from medclip.models.inputs.preprocess import CROPS, budget_of, signal_of, square_side, volume_of
from medclip.models.interchange.choose_pixels import choose_pixels, find_preset
from medclip.models.interchange.find_source import find_source, is_bare_text_model
from medclip.models.interchange.layouts.layout import HUB_WEIGHTS, Place, Source, as_safetensors, no_weights
from medclip.models.interchange.pixels import other_arithmetic
from medclip.models.packs.card import FILE_NAME as CARD_NAME
from medclip.models.packs.card import IMPORTED, Card, licence_names
from medclip.models.packs.manifest import (
    CONFIG_NAME,
    FUSION,
    HUB,
    TEXT_FOLDER,
    WEIGHTS_NAME,
    WITHOUT_FUSION,
    file_sha256,
    is_pickle,
    read_config,
)
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.pack import find_pack, save_pack, verify_pack
from medclip.models.packs.words import has_text_tower, understands_words
from medclip.models.towers import bert as hf_text
from medclip.models.towers.table import ARGUMENTS, POOLINGS, ROTARY, check_pooling
from medclip.result import Result
from medclip.sample import Modality
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.version import __version__
from medclip.wording import list_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from medclip.models.inputs.preprocess import Preprocess
    from medclip.models.model import Model


CROP_EFFECT = "crop_effect"
"""Key of a card's `created_from` with what the crops do to the model's vectors."""
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def import_text_model(source: Path, out: Path) -> Path:
    """Write a text folder: config.json, the tokenizer's files as they are, and the weights as model.safetensors.

    Pickled weights are converted in a process of their own. No number is changed, and heads of other tasks are kept.

    Args:
        source: A folder with config.json, tokenizer and weights (pytorch_model.bin or model.safetensors) of a BERT.
        out: The folder to write; what is there goes.

    Returns:
        `out`, for `text_folder`.

    Raises:
        MedclipError: MISSING_FILE, UNSAFE_WEIGHTS, READ_ERROR; PACK_INVALID when weights, config and tokenizer do not
            go together; NON_FINITE.
    """
    from medclip.models.towers.state_dict import check_finite, read_weights
    from medclip.models.towers.weight_files import to_safetensors

    weights = next(iter(Place(source).find_weights(*HUB_WEIGHTS)), None)
    if weights is None:
        raise no_weights(source)
    load_tokenizer(source, hf_text.bert_text_cfg())
    with new_folder(out) as fresh:
        target = fresh / WEIGHTS_NAME
        if is_pickle(weights) or weights.suffix.lower() != ".safetensors":
            to_safetensors(weights, target)
        else:
            shutil.copyfile(weights, target)
        with naming(weights, instead=fresh):
            state = read_weights(target)
            hf_text.fitting(state, _tensors_of(source), weights)
            check_finite(state)
        for name in (hf_text.CONFIG, *_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, fresh / name)
    return out


def _tensors_of(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of the tower that a config describes, without memory."""
    import torch

    transformers: Any = import_module("transformers")  # its types take a type checker a minute
    try:
        with torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            return transformers.AutoModel.from_config(config).state_dict()
    except (OSError, TypeError, ValueError, ArithmeticError, RuntimeError) as e:
        raise MedclipError(
            Reason.PACK_INVALID, f"no text model can be built of its {hf_text.CONFIG}.", where=folder / hf_text.CONFIG
        ) from e


_NOT_MEASURED = "Nothing was measured by medclip: the card has no task and no figure."
_OTHER_PIXELS = (
    "The weights were not trained through medclip's adapters: what a file's values mean (window, polarity, padding) is "
    "decided by medclip. {pixels} This is from {origin}."
)
_CONTRADICTED = "The checkpoint's own file says otherwise and was not followed: {what}."


_CROP = (
    "Vectors of {num} drawn fundus images as medclip crops them and whole, as other code shows them to the model, have "
    "cosines of {low:.3f} to {high:.3f}; --crop none leaves images whole."
)
_CUT = (
    "Its authors' centre cut leaves {hidden:.0%} of such an image out; beside the image padded to a square cosines are "
    "{low:.3f} to {high:.3f}."
)
_DRAWN_PX = ((300, 400), (300, 450), (384, 512), (240, 240))


def _drawn_fundus() -> list[NDArray[np.uint8]]:
    """Draw round lit fields on black, of several shapes, with a disc and vessels; no image of a person."""
    import numpy as np

    drawn = []
    for number, (height, width) in enumerate(_DRAWN_PX):
        rows, columns = np.mgrid[0:height, 0:width]
        down, across = (rows - height / 2) / (0.46 * height), (columns - width / 2) / (0.46 * height)
        vessels = np.abs(down - 0.25 * np.sin(3 * across + number)) < 0.03
        disc = (across - 0.45) ** 2 + down**2 < 0.03
        light = 0.55 + 0.25 * np.cos(2 * across + number) - 0.25 * vessels + 0.35 * disc
        colour = np.stack([light, 0.55 * light, 0.3 * light], axis=-1) * ((down**2 + across**2) < 1)[..., None]
        drawn.append((255 * np.clip(colour, 0, 1)).astype(np.uint8))
    return drawn


def crop_effect(model: Model, preprocess: Preprocess) -> str:
    """Describe what crops do to vectors of drawn images; "" where the model takes no squares or nothing is cropped.

    Args:
        model: The imported model.
        preprocess: Treatment of images for it.
    """
    import numpy as np

    from medclip.imaging.crop.retina import find_field_of_view, square_around

    if preprocess.budget is not None or preprocess.volume is not None or preprocess.signal is not None:
        return ""
    drawn = _drawn_fundus()
    boxes = [find_field_of_view(image) for image in drawn]
    cropped = [image if box is None else square_around(image, box) for image, box in zip(drawn, boxes, strict=True)]

    def cosines(one: list[NDArray[np.uint8]], other: list[NDArray[np.uint8]]) -> dict[str, float]:
        vectors = model.encode_image(np.stack([*one, *other]), batch_size=2 * len(one))
        each = (vectors[: len(one)] * vectors[len(one) :]).sum(axis=1)
        return {"low": float(each.min()), "high": float(each.max())}

    shown = [preprocess.fit(image) for image in drawn]
    sentences = []
    if preprocess.crop != "none":
        sentences.append(_CROP.format(num=len(drawn), **cosines([preprocess.fit(image) for image in cropped], shown)))
    if preprocess.resize == "shortest":
        padded = replace(preprocess, resize="longest", resize_px=None)
        hidden = 1 - min(preprocess.placement(*image.shape[:2]).share_seen for image in drawn)
        sentences.append(_CUT.format(hidden=hidden, **cosines(shown, [padded.fit(image) for image in drawn])))
    return " ".join(sentences)


def _in_words(settings: Mapping[str, Any]) -> str:
    return list_of([f"{key} {value}" for key, value in settings.items()])


@dataclass(frozen=True, repr=False)
class Exported(Result):
    """What `export_pack` wrote."""

    folder: Path
    notes: tuple[str, ...]
    """What another loader has to know; empty where plain open_clip or timm loads the folder anywhere."""
    loader: str = "open_clip"
    """Whose form the folder has: open_clip's, or timm's for an image-only pack."""

    def _facts(self) -> dict[str, object]:
        return {"folder": self.folder, "notes": " ".join(self.notes)}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        notes = self.notes[:most] or ("",)
        return [{"folder": str(self.folder), "note": note} for note in notes]


@dataclass(frozen=True, eq=False)
class Statement:
    """What is said of a checkpoint beside its own files; fields are named and described as `medclip.models.import_`."""

    architecture: str | None = None
    text_folder: Path | None = None
    name: str | None = None
    licence: str = ""
    modalities: tuple[str, ...] = ()
    preset: str | Path | None = None
    pixels: Mapping[str, Any] = field(default_factory=dict)
    """From `state_pixels`."""
    crop: str = CROPS[0]
    pooling: str | None = None

    @property
    def has_more_than_weights(self) -> bool:
        """Whether something is said that a text model alone has no place for."""
        words = (self.text_folder, self.name, self.licence, self.modalities, self.pixels, self.preset)
        return any(words) or self.crop != CROPS[0]

    def check(self) -> None:
        """Refuse what there is not.

        Raises:
            MedclipError: MISSING_FILE, WRONG_USE.
        """
        refuse_missing(self.text_folder, "folder")
        unknown = [m for m in self.modalities if m not in MODALITIES]
        if unknown:
            raise MedclipError(
                Reason.WRONG_USE,
                f"there is no modality {list_of([repr(m) for m in unknown], 'or')}.",
                hint=did_you_mean(unknown[0], Modality, "Modalities are"),
            )
        if self.preset is not None:
            find_preset(self.preset)
        if self.pooling is not None:
            check_pooling(self.pooling)


def import_checkpoint(source: str | Path, out: Path, stated: Statement, *, overwrite: bool) -> Path:
    """Write a pack of a checkpoint or a model folder, or a text folder of a text model alone, and return its folder.

    Args:
        source: A checkpoint, a folder in one of the layouts of `medclip.models.interchange.layouts`, or anything else
            that `load_start` takes.
        out: The folder.
        stated: Facts that the source does not say of itself.
        overwrite: Whether a pack or text folder that is there already is replaced.
    """
    _check_place(out, Path(source), overwrite)
    stated.check()
    if stated.architecture is None and os.path.isdir(source) and is_bare_text_model(Path(source)):
        if stated.has_more_than_weights:
            raise MedclipError(
                Reason.WRONG_USE,
                "this is a text model alone: it becomes a folder without a card, so that no --name, --license, "
                "--modalities, --text-folder and nothing about images can be given.",
                where=source,
            )
        return import_text_model(Path(source), out)
    with scratch_folder(out) as scratch:
        located = _pooled(find_source(source, stated.architecture, scratch), stated.pooling)
        if not located.weights and located.folder is None:
            raise MedclipError(
                Reason.WRONG_USE,
                "an architecture alone has no weights to import.",
                where=source,
                hint="Name a checkpoint.",
            )
        chosen = choose_pixels(located, stated.preset, stated.pixels)
        from medclip.models.interchange.load_start import start_from  # torch, once nothing is left to refuse without
        from medclip.models.model import Model
        from medclip.models.towers.state_dict import check_finite

        with naming(next(iter(located.weights), located.place), instead=scratch):
            converted = tuple(as_safetensors(path, scratch) or path for path in located.weights)
            started = start_from(replace(chosen.source, weights=converted), text_folder=stated.text_folder)
            check_finite(started.model.state_dict())
        tokenizer = None if started.words is None else scratch / "tokenizer"
        if tokenizer is not None:
            started.tokenizer.save(tokenizer)
        preprocess = replace(started.preprocess, crop=stated.crop)
        of_crop = crop_effect(
            Model(started.model.eval(), started.words, preprocess, Card(name=out.name), name=out.name, path=out),
            preprocess,
        )
        card = Card(
            name=stated.name or out.name,
            summary="Imported weights." if tokenizer else "Imported weights of an image tower: image only.",
            licence=stated.licence,
            modalities=stated.modalities,
            limits=(
                _NOT_MEASURED,
                *([] if tokenizer else [_no_text(started.config)]),
                _OTHER_PIXELS.format(pixels=preprocess.describe(), origin=chosen.origin),
                *([of_crop] if of_crop else []),
                *([_CONTRADICTED.format(what=_in_words(chosen.contradicted))] if chosen.contradicted else []),
            ),
            created_from={
                IMPORTED: str(source) if str(source).startswith(HUB) else Path(source).name,
                "layout": located.layout,
                "sha256": _sha256_of(located.weights),
                "architecture": stated.architecture,
                "preprocess_cfg": preprocess.to_config(),
                "pixels_from": chosen.origin,
                **({CROP_EFFECT: of_crop} if of_crop else {}),
                **({"own_file_says": dict(chosen.contradicted)} if chosen.contradicted else {}),
                "medclip": __version__,
            },
        )
        return save_pack(
            out,
            started.model,
            tokenizer,
            preprocess,
            card,
            config=started.config,
            base=started.base,
            half=False,
            extra_files=_terms_beside(source),
        )


def _terms_beside(source: str | Path) -> dict[str, bytes]:
    """Return the texts of the terms of weights that lie in a folder with them, as the export of a pack has them."""
    folder = Path(source)
    return {name: (folder / name).read_bytes() for name in licence_names(folder)} if folder.is_dir() else {}


def _pooled(source: Source, pooling: str | None) -> Source:
    """Return an image tower with the pooling that the user states.

    Raises:
        MedclipError: WRONG_USE for a model with words, whose pooling is its own.
    """
    if pooling is None:
        return source
    if source.config is None or has_text_tower(source.config):
        raise MedclipError(
            Reason.WRONG_USE,
            "a model with a text tower has its own pooling.",
            where=source.place,
            hint="Leave --pooling out.",
        )
    vision_cfg = {**source.config["vision_cfg"], "timm_pool": pooling}
    return replace(
        source, config={k: v for k, v in source.config.items() if k != "embed_dim"} | {"vision_cfg": vision_cfg}
    )


def _no_text(config: Mapping[str, Any]) -> str:
    """Return the limit of an image-only pack, and how its tokens become a vector."""
    pooling = config["vision_cfg"]["timm_pool"]
    return f"It is image only: it has no text tower. The vector of an image is {POOLINGS[pooling]}."


def _sha256_of(weights: tuple[Path, ...]) -> str:
    """Return the hash of a file's bytes; of several files the hash of theirs, one a line."""
    hashes = [file_sha256(path) for path in weights]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _check_place(out: Path, source: Path, overwrite: bool) -> None:
    marks = (MANIFEST, hf_text.CONFIG) if os.path.isdir(out) and is_bare_text_model(out) else (MANIFEST,)
    if claim_folder(out, "model pack", marks=marks, inputs={"the source": source}, in_one_step=True) and not overwrite:
        kind = "model pack" if (out / MANIFEST).is_file() else "text model"
        raise in_use(out, f"this folder holds a {kind} already", "Name another folder, or replace it with --overwrite.")


def export_pack(model: str | Path | Model, out: Path) -> Exported:
    """Write a pack as a folder that open_clip or timm loads.

    Raises:
        MedclipError: As `medclip.models.export`.
    """
    path = find_pack(model)
    verify_pack(path)
    claim_folder(out, "export", in_one_step=True)
    with new_folder(out) as fresh:
        notes = _export(path, fresh, out)
    return Exported(out, notes, "open_clip" if understands_words(path) else "timm")


def _export(path: Path, fresh: Path, out: Path) -> tuple[str, ...]:
    """Write the files into `fresh`, which will be `out`, and return what another loader has to know."""
    config = read_config(path)
    if budget_of(config) is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "this model takes images at their own aspect ratio; open_clip has no form of it.",
            where=path,
            hint="Use it with medclip, or train it without model.native_aspect.",
        )
    others = {"ECGs": signal_of(config), "volumes or loops": volume_of(config)}
    taken = [word for word, value in others.items() if value is not None]
    if taken:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this model takes {taken[0]}; neither open_clip nor timm has a form of it.",
            where=path,
            hint="Use it with medclip.",
        )
    if not has_text_tower(config["model_cfg"]):
        return export_timm(path, fresh, config)
    if config["model_cfg"]["vision_cfg"].get(ARGUMENTS) is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "open_clip builds timm's towers by name alone; this one has sizes or parts of its own.",
            where=path,
            hint="Use it with medclip, or with the library that its checkpoint came from.",
        )
    text_cfg = config["model_cfg"]["text_cfg"]
    if text_cfg.get(ROTARY) is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            "this model's text tower has rotary positions; open_clip has no form of it.",
            where=path,
            hint="Use it with medclip, or export the pack that it was distilled from.",
        )
    weights = fresh / "open_clip_model.safetensors"
    if config["model_cfg"].pop(FUSION, None) is None:
        notes: list[str] = []
        shutil.copyfile(path / WEIGHTS_NAME, weights)
    else:
        from safetensors.torch import load_file, save_file

        notes = [WITHOUT_FUSION]
        state = load_file(path / WEIGHTS_NAME)
        save_file({name: value for name, value in state.items() if not name.startswith(f"{FUSION}.")}, weights)
    for file in (CARD_NAME, *licence_names(path)):
        shutil.copyfile(path / file, fresh / file)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (path / file).is_file():
            shutil.copyfile(path / file, fresh / file)
    if text_cfg.get("hf_model_name"):
        shutil.copytree(path / TEXT_FOLDER, fresh / TEXT_FOLDER)
        text_cfg["hf_model_name"] = str((out / TEXT_FOLDER).resolve())
        notes.append("The text tower's config is named by its absolute path: export again after moving the folder.")
    notes += _beyond_open_clip(config["model_cfg"])
    notes += _pixels_beyond_open_clip(config["preprocess_cfg"])
    (fresh / CONFIG_NAME).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return tuple(notes)


def _beyond_open_clip(model_cfg: dict[str, Any]) -> list[str]:
    """Return what of a config plain open_clip cannot build."""
    notes = []
    if model_cfg["text_cfg"].get("hf_pooler_type") == "eos_pooler":
        notes.append("open_clip has no eos pooling: import medclip.models.towers.poolers before loading.")
    trunk = model_cfg["vision_cfg"].get("timm_model_name")
    if trunk and _own_size(trunk) not in (None, model_cfg["vision_cfg"].get("image_size", 224)):
        notes.append(
            "The image size is not the timm tower's own; open_clip gives a timm tower another size after loading only, "
            "and does not load these weights."
        )
    return notes


def _pixels_beyond_open_clip(pixels: dict[str, Any]) -> list[str]:
    """Return what of a pack's pixels open_clip does not do, and leave a filter in the config that it knows."""
    notes = []
    if pixels["interpolation"] not in ("bicubic", "bilinear"):
        notes.append(f"open_clip has no {pixels['interpolation']} filter and resizes with its bicubic one.")
        pixels["interpolation"] = "bicubic"
    if "resize_px" in pixels:
        notes.append(f"open_clip does not resize to {pixels['resize_px']} px first: it shows more of the image.")
    return notes + other_arithmetic(pixels, "open_clip")


def _own_size(trunk: str) -> int | None:
    """Return the image size that a timm tower's position grid is made for; None for towers without one."""
    import timm
    import torch

    with torch.device("meta"):
        size = getattr(getattr(timm.create_model(trunk), "patch_embed", None), "img_size", None)
    return None if size is None else int(size[0])


_TRUNK = "visual.trunk."
_OWN_POOLINGS = ("mean", "token+mean")
"""Poolings that timm has no name for; a tower leaves its tokens as they are then."""
_EPS = 1e-6
"""Of the norms of timm's ViTs."""
_CROP_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}


def export_timm(path: Path, fresh: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Write config.json and weights as timm saves them.

    Returns:
        What somebody who loads it has to know.
    """
    from safetensors.torch import load_file, save_file

    tower, pixels = config["model_cfg"]["vision_cfg"], config["preprocess_cfg"]
    size, pooling = square_side(config["model_cfg"]), tower["timm_pool"]
    state = load_file(path / WEIGHTS_NAME)
    trunk = {name.removeprefix(_TRUNK): value for name, value in state.items() if not name.startswith(f"{FUSION}.")}
    save_file(trunk, fresh / WEIGHTS_NAME)
    for file in (CARD_NAME, *licence_names(path)):
        shutil.copyfile(path / file, fresh / file)
    arguments = dict(tower.get(ARGUMENTS) or {})
    mlp, eps = arguments.pop("mlp_layer", None), arguments.pop("norm_eps", _EPS)
    if "visual.trunk.pos_embed" in state:
        arguments["img_size"] = size
    pool = "" if pooling in _OWN_POOLINGS else pooling
    resized = pixels.get("resize_px") or size
    share = size / resized
    if math.floor(size / share) != resized:  # what timm computes back
        share = size / (resized + 1e-6)
    written = {
        "architecture": tower["timm_model_name"],
        "num_classes": 0,
        "global_pool": pool,
        "model_args": {**arguments, "num_classes": 0, "global_pool": pool},
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "mean": list(pixels["mean"]),
            "std": list(pixels["std"]),
            "interpolation": pixels["interpolation"],
            "crop_pct": share,
            "crop_mode": _CROP_MODES[pixels["resize_mode"]],
            "num_classes": 0,
            "fixed_input_size": True,
        },
    }
    (fresh / "config.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    notes = []
    if pooling in _OWN_POOLINGS:
        notes.append(f"timm returns the tokens; the pack's vector is made of {POOLINGS[pooling]}.")
    if mlp is not None:
        notes.append(f"JSON cannot hold a layer: give timm.create_model mlp_layer=timm.layers.{mlp}, too.")
    if eps != _EPS:
        notes.append(f"Likewise norm_layer=functools.partial(torch.nn.LayerNorm, eps={eps:g}).")
    notes += [WITHOUT_FUSION] * (config["model_cfg"].get(FUSION) is not None)
    return (*notes, *_other_border(pixels), *other_arithmetic(pixels, "timm"))


def _other_border(pixels: Mapping[str, Any]) -> list[str]:
    """Note where a pack fills borders with another colour than timm, which takes the mean one."""
    fill = pixels.get("fill_color", 0)
    colour = list(fill) if isinstance(fill, list | tuple) else [fill] * 3
    if pixels["resize_mode"] != "longest" or colour == [round(255 * value) for value in pixels["mean"]]:
        return []
    ours = "black" if colour == [0, 0, 0] else f"the colour {list_of([str(value) for value in colour])}"
    return [f"timm fills the border of images that are not square with the mean colour, medclip with {ours}."]
