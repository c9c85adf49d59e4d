"""Start from a model that is there already: towers with weights, tokenizer and normalisation, ready to train."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from medclip.errors import MedclipError, Reason, naming, printable
from medclip.models.devices import check_device
from medclip.models.inputs.preprocess import Preprocess, from_config, square_side
from medclip.models.interchange.choose_pixels import check_pixels, choose_pixels
from medclip.models.interchange.find_source import find_source, read_hub, refuse_pickle
from medclip.models.interchange.layouts.layout import Source, as_safetensors, no_weights
from medclip.models.model import Model
from medclip.models.packs.card import Card
from medclip.models.packs.manifest import HUB, TEXT_FOLDER
from medclip.models.packs.words import has_text_tower
from medclip.models.towers import bert as hf_text
from medclip.models.towers.build import build_clip
from medclip.models.towers.rotary_text import without_table
from medclip.models.towers.state_dict import (
    HF_MARK,
    load_weights,
    read_weights,
    suited_config,
    text_projection_of,
)
from medclip.models.towers.table import ROTARY
from medclip.text.tokenizers.tokenizer import Tokenizer, load_tokenizer

_IMAGE_BLOCK = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.")
_TEXT_BLOCK = re.compile(r"(?:text\.)?transformer\.resblocks\.(\d+)\.")


def alike(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Name the open_clip architectures with a ViT of these sizes.

    Args:
        state: Weights by name. Towers of timm and ResNets are not told.

    Returns:
        Names, in open_clip's order. QuickGELU has no weights, so both forms of a name are given; with a BERT only the
        image tower is compared.
    """
    import open_clip

    sizes = _sizes(state)
    if sizes is None:
        return ()
    names = open_clip.list_models()
    return tuple(n for n in names if _fits(open_clip.get_model_config(n) or {}, sizes))


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Read off what a config would say; None where the image tower is not open_clip's own ViT."""
    if "visual.proj" not in state or "visual.conv1.weight" not in state:
        return None
    width, _, patch, _ = state["visual.conv1.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5) * patch
    sizes = {
        "embed_dim": state["visual.proj"].shape[1],
        "vision.width": width,
        "vision.patch_size": patch,
        "vision.image_size": side,
        "vision.layers": _count(state, _IMAGE_BLOCK),
    }
    tokens = state.get("token_embedding.weight", state.get("text.token_embedding.weight"))
    if tokens is not None:
        sizes |= {"text.vocab_size": tokens.shape[0], "text.width": tokens.shape[1]}
        sizes["text.layers"] = _count(state, _TEXT_BLOCK)
    return sizes


def _count(state: Mapping[str, Tensor], block: re.Pattern[str]) -> int:
    return len({m[1] for name in state if (m := block.match(name))})


def _fits(config: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    if "timm_model_name" in config["vision_cfg"] or "multimodal_cfg" in config:
        return False
    for key, size in sizes.items():
        part, _, field = key.rpartition(".")
        values = config[f"{part}_cfg"] if part else config
        if values.get(field) != size:
            return False
    return True


_SPARE_ROWS, _SPARE_SHARE = 128, 0.04
"""Rows of a text tower's table that may stand for no word, whichever is more: tables are filled up to a round number
(ModernBERT: 50,280 of 50,368). A cased BERT's tokenizer has 1,526 ids fewer than an uncased one."""
_TOKENIZER = "tokenizer"
"""`hf_tokenizer_name` of configs whose tokenizer lies in the model's own folder."""


@dataclass(frozen=True, eq=False)
class Started:
    """A dual encoder to train or to save, or an image tower alone to save."""

    model: nn.Module
    """float32, every parameter trainable."""
    config: dict[str, Any]
    """open_clip `model_cfg`; `build_clip(config, base)` makes the same towers again."""
    words: Tokenizer | None
    """Its tokenizer; None for an image tower alone."""
    preprocess: Preprocess
    """How images were treated where its weights come from; bound to no adapter."""
    base: Path | None = None
    """Folder that a relative `hf_model_name` in the config starts from."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            MedclipError: WRONG_USE for an image tower alone.
        """
        if self.words is None:
            raise _no_words()
        return self.words


def _no_words() -> MedclipError:
    return MedclipError(
        Reason.WRONG_USE,
        "this is an image tower alone, without words to train it with.",
        hint="Import it and adapt it to labelled images: medclip models import, medclip adapt.",
    )


def load_start(
    start: str | Path,
    *,
    architecture: str | None = None,
    text_folder: Path | None = None,
    preset: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    words: bool = True,
) -> Started:
    """Load a model to go on from. No pickle is loaded, and no network asked unless `start` names a hub.

    Args:
        start: Model to start from, see `find_source`. An architecture's name gives random weights.
        architecture: open_clip architecture of a bare checkpoint: a name, or a JSON file that describes it.
        text_folder: Folder with the config.json and the tokenizer of a BERT, or with a tokenizer alone. Needed where
            the model names one on a hub. Given with a model whose own text tower is no BERT, that tower is replaced:
            image weights from `start`, text weights from the folder's model.safetensors where it has one (UniMed-CLIP
            began like that).
        preset: Preset that says how images are treated where the weights come without a file that does: see
            `find_preset`.
        overrides: Settings that are merged into the config before the towers are built:
            `{"text_cfg": {"context_length": 256}}` stretches the text positions,
            `{"vision_cfg": {"image_size": 336}}` resamples the image positions, `{"text_cfg": {"rotary": {}}}` leaves
            the text positions out and turns queries and keys instead (`medclip.models.towers.rotary_text`).
        words: Whether captions are to be read; an image tower alone is refused then.

    Returns:
        Model, config, tokenizer, how images are treated.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID, MISSING_FILE, UNSAFE_WEIGHTS or WRONG_USE.

    Example:
        >>> started = load_start("medclip-mini", overrides={"text_cfg": {"context_length": 96}})
        >>> started.tokenizer.encode(["a chest x-ray"]).shape
        (1, 96)
    """
    source = find_source(start, architecture)
    refuse_pickle(source)
    started = start_from(choose_pixels(source, preset).source, text_folder=text_folder, overrides=overrides)
    if words and started.words is None:
        raise _no_words().at(source.place)
    return started


def start_from(
    source: Source, *, text_folder: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Started:
    """Load what `find_source` found; its weights are safetensors. See `load_start`."""
    with naming(source.place):
        return _started(source, text_folder, overrides or {})


def _started(source: Source, text_folder: Path | None, overrides: Mapping[str, Any]) -> Started:
    state, trained_px = _state_of(source), None
    _refuse_incomplete(source, text_folder, state or {})
    assert source.config is not None
    config = copy.deepcopy(source.config)
    if not has_text_tower(config):
        if text_folder is not None:
            raise MedclipError(
                Reason.WRONG_USE,
                "this is an image tower alone, without a text tower that a text folder could go with.",
                where=source.place,
                hint="Leave --text-folder out.",
            )
        return _image_only(config, source, state, overrides)
    config, base, replaced = _text_tower(config, source, text_folder, state)
    if state is not None:
        state = {n: v for n, v in state.items() if not replaced or n.startswith(("visual.", "logit_"))}
        config = suited_config(config, state)
        trained_px = square_side(config)
        if (overrides.get("text_cfg") or {}).get(ROTARY) is not None:
            state = without_table(state)
    _merge(config, overrides)
    tokenizer = load_tokenizer(text_folder or source.folder or Path(), config["text_cfg"])
    model = build_clip(config, base)
    _check_tokens(model, config, tokenizer, source)
    if state is not None:
        own_text = {n: v for n, v in model.state_dict().items() if n.startswith("text.")} if replaced else {}
        load_weights(model, {**own_text, **state}, where=source.weights[0])
        check_pixels(source, trained_px or 0, alike(state))
    if base is not None and (state is None or replaced):
        hf_text.start_text_tower(model, hf_text.folder_of(config["text_cfg"]["hf_model_name"], base))
    pixels = source.preprocess or {"resize_mode": "longest"}  # of random weights, which know no images yet
    preprocess = from_config({"model_cfg": config, "preprocess_cfg": pixels}, {})
    preprocess = preprocess if trained_px is None else _at_another_size(preprocess, trained_px)
    return Started(model, config, tokenizer, preprocess, base)


def _refuse_incomplete(source: Source, text_folder: Path | None, state: Mapping[str, Tensor]) -> None:
    """Refuse a model that lacks something, in one sentence for all that it lacks: files, and what it must be told."""
    lacking: list[MedclipError] = []

    @contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except MedclipError as error:
            lacking.append(error)

    has_words, sizes, side = True, _sizes(state) or {}, None
    if not source.weights and source.folder is not None:
        lacking.append(no_weights(source.folder))
    if source.config is None:
        lacking.append(_needs_architecture(source, state))
        side = sizes.get("vision.image_size")
        if text_folder is None and any(HF_MARK in name for name in state):
            lacking.append(_needs_folder("config.json and tokenizer of its text tower, a BERT", source))
    else:
        config = copy.deepcopy(source.config)
        has_words, side = has_text_tower(config), square_side(config)
        if has_words:
            with noted():
                _text_tower(config, source, text_folder, state or None)
                load_tokenizer(text_folder or source.folder or Path(), config["text_cfg"])
    lacking = [e for e in lacking if e.reason in (Reason.MISSING_FILE, Reason.WRONG_USE)]
    if not lacking:  # the pixels alone are checked once the weights are known to fit
        return
    if not source.preprocess:
        with noted():
            check_pixels(source, side, alike(state), image_only=not has_words)
    if len(lacking) == 1:
        raise lacking[0]
    parts = "; ".join(f"({n}) {error.message.removesuffix('.')}" for n, error in enumerate(lacking, 1))
    hints = dict.fromkeys(error.hint for error in lacking if error.hint)
    raise MedclipError(
        lacking[0].reason, f"{len(lacking)} things are missing: {parts}.", where=source.place, hint=" ".join(hints)
    )


def _at_another_size(preprocess: Preprocess, trained_px: int) -> Preprocess:
    """Cut off the same share of an image as at the size that a model was trained at."""
    if preprocess.resize_px is None:
        return preprocess
    return replace(preprocess, resize_px=round(preprocess.resize_px * preprocess.size_px / trained_px))


def _image_only(
    config: dict[str, Any], source: Source, state: Mapping[str, Tensor] | None, overrides: Mapping[str, Any]
) -> Started:
    """Build an image tower alone, and load it."""
    trained_px = square_side(config)
    check_pixels(source, trained_px, (), image_only=True)
    _merge(config, {name: values for name, values in overrides.items() if name != "text_cfg"})
    model: Any = build_clip(config)
    if state is not None:
        load_weights(model, state, where=source.weights[0])
    config["embed_dim"] = model.visual.dim
    preprocess = from_config({"model_cfg": config, "preprocess_cfg": source.preprocess}, {})
    return Started(model, config, None, _at_another_size(preprocess, trained_px))


def _state_of(source: Source) -> dict[str, Tensor] | None:
    """Read the weights under the names of the towers that the source's config describes; None for random weights."""
    if not source.weights:
        return None
    state = read_weights(*source.weights)
    try:
        with naming(source.weights[0]):
            return state if source.convert is None else source.convert(state)
    except KeyError as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the weights do not fit the config beside them: {printable(str(e.args[0]))} is missing.",
            where=source.weights[0],
            hint="Take both from their source again.",
        ) from e


def _text_tower(
    config: dict[str, Any], source: Source, text_folder: Path | None, state: Mapping[str, Tensor] | None
) -> tuple[dict[str, Any], Path | None, bool]:
    """Settle where the text tower's config and tokenizer lie.

    Returns:
        The config, the base folder of its `hf_model_name`, and whether a BERT takes the place of another text tower.
    """
    text_cfg: dict[str, Any] = config["text_cfg"]
    text_cfg.setdefault("context_length", 77)
    has_bert = state is None or any(name.startswith(HF_MARK) for name in state)
    if text_folder is not None:
        text_folder = text_folder.resolve()
        if not text_folder.is_dir():
            raise MedclipError(Reason.MISSING_FILE, "there is no such folder.", where=text_folder)
        if text_cfg.get("hf_model_name"):
            text_cfg |= {"hf_model_name": ".", "hf_tokenizer_name": _TOKENIZER}
            return config, text_folder, False
        if hf_text.is_text_model(text_folder):
            projection: Any = text_projection_of(state) if state is not None and has_bert else "mlp"
            config["text_cfg"] = hf_text.bert_text_cfg(projection=projection)
            return config, text_folder, state is not None and not has_bert
        text_cfg["hf_tokenizer_name"] = _TOKENIZER
        return config, None, False
    name = text_cfg.get("hf_model_name")
    if text_cfg.get("hf_tokenizer_name"):
        if source.folder is None:
            raise _needs_folder(f"tokenizer {text_cfg['hf_tokenizer_name']!r}", source)
        text_cfg["hf_tokenizer_name"] = _TOKENIZER
    if not name:
        return config, None, False
    if source.folder is not None:
        for inside in (TEXT_FOLDER, "."):
            if hf_text.is_text_model(source.folder / inside):
                text_cfg["hf_model_name"] = inside
                return config, source.folder.resolve(), False
    if Path(name).is_absolute() and hf_text.is_text_model(Path(name)):
        text_cfg["hf_model_name"] = "."
        return config, Path(name), False
    raise _needs_folder(f"text model {name!r}", source)


def _needs_architecture(source: Source, state: Mapping[str, Tensor]) -> MedclipError:
    names = alike(state)
    hint = f"Of these sizes are: {', '.join(names)}." if names else "For example: --architecture ViT-B-16."
    return MedclipError(
        Reason.WRONG_USE,
        "a bare checkpoint does not say what it is built like; name its open_clip architecture (--architecture).",
        where=source.place,
        hint=hint,
    )


def _needs_folder(what: str, source: Source) -> MedclipError:
    return MedclipError(
        Reason.MISSING_FILE,
        f"it needs the {what}, which does not lie beside it.",
        where=source.place,
        hint="Give the folder that holds it: --text-folder (model.text_folder in a recipe).",
    )


def _check_tokens(model: Any, config: Mapping[str, Any], tokenizer: Tokenizer, source: Source) -> None:
    """Refuse a tokenizer that the text tower was not made for."""
    tower = getattr(model, "text", model)
    text_config = getattr(tower, "config", None)  # a BERT's
    pad = getattr(text_config, "pad_token_id", None) if text_config is not None else tokenizer.pad_id
    by_rank = text_config is None and config["text_cfg"].get("pool_type", "argmax") == "argmax"
    if by_rank and not config["text_cfg"].get("embed_cls") and tokenizer.eos_id != tokenizer.vocab_size - 1:
        raise MedclipError(
            Reason.PACK_INVALID,
            "the end token of the tokenizer is not its last id, where the text tower looks for it.",
            where=source.place,
            hint="Take the tokenizer from the model's source again.",
        )
    rows, places = int(tower.vocab_size), getattr(text_config, "max_position_embeddings", None)
    cause = ""
    if not rows - max(_SPARE_ROWS, _SPARE_SHARE * rows) <= tokenizer.vocab_size <= rows:
        cause = f"the tokenizer has {tokenizer.vocab_size:,} ids, and the text tower's table of words {rows:,} rows"
    elif pad != tokenizer.pad_id:
        cause = f"the tokenizer fills short texts with the id {tokenizer.pad_id}, and the text tower expects {pad}"
    elif places is not None and tokenizer.context_length > places:
        cause = f"texts are {tokenizer.context_length} tokens long, and the text tower has places for {places}"
    if cause:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the tokenizer is that of another model: {cause}.",
            where=source.place,
            hint="Take the tokenizer from the model's source; of a BERT its folder: --text-folder.",
        )


def _merge(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Merge overrides into a config, in place; a table within is merged key by key."""
    for key, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = value


def load_hub(
    name: str, cache_dir: Path | str | None = None, *, device: str = "cpu", preset: str | Path | None = None
) -> Model:
    """Load a checkpoint by its hub name, in any layout that `medclip models import` takes.

    What lies in the cache is used; the network is asked only for what is missing, and never with HF_HUB_OFFLINE=1.
    Pickled weights are converted in a process of their own, each time anew: import what is used more than once.

    Args:
        name: Name "org/name", with or without "hf-hub:".
        cache_dir: Cache in the hub's layout (models--org--name/snapshots/...); the hub client's own where None.
        device: Torch device.
        preset: Preset that says how images are treated where the repository does not: see `medclip.models.presets`.

    Returns:
        A model whose card knows nothing but its name, and whose preprocessing is bound to no adapter: figures measured
        on medclip's own packs do not apply to it. Images are treated as the checkpoint's own files say, after the
        modality's crop.

    Raises:
        MedclipError: PACK_NOT_FOUND when it is neither in the cache nor to be had; UNSAFE_WEIGHTS when its weights are
            a pickle with more than tensors; PACK_INVALID when the towers cannot be built.
    """
    check_device(device)
    repository = name.removeprefix(HUB)
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = read_hub(repository, scratch, cache=None if cache_dir is None else os.fspath(cache_dir))
        weights = tuple(as_safetensors(path, scratch) or path for path in source.weights)
        started = start_from(replace(choose_pixels(source, preset).source, weights=weights))
    card = Card(name=repository, summary="Public checkpoint, by its hub name. Nothing was measured by medclip.")
    return Model(
        started.model,
        started.words,
        started.preprocess,
        card,
        name=repository,
        path=Path(repository),
        device=device,
    )
