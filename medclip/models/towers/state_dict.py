"""Weights on their way into a dual encoder: names and sizes as open_clip writes them, old and new, made to fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medclip.errors import MedclipError, Reason
from medclip.models.towers.weight_files import wrapping

KEEP = 20
"""Rows that stay."""


def stretch_positions(positions_LD: Tensor, length: int) -> Tensor:
    """Return the position embeddings of another context length.

    The first `KEEP` rows stay as they are (half of the rows in towers shorter than twice that); the others are
    interpolated linearly, the last one onto the last.

    Args:
        positions_LD: [L, D] of a trained text tower.
        length: Wanted number of rows. Fewer than L: the first rows. The causal mask is no weight: the tower that is
            built for the new length has its own.

    Returns:
        [length, D], same dtype.

    Example:
        >>> import torch
        >>> stretched = stretch_positions(torch.arange(77.0)[:, None], 256)
        >>> stretched[[0, 19, 20, 255], 0].tolist()
        [0.0, 19.0, 20.0, 76.0]
    """
    present = len(positions_LD)
    if length <= present:
        return positions_LD[:length].clone()
    keep = min(KEEP, present // 2)
    tail_1DL = positions_LD[keep:].float().T[None]
    spread_1DL = torch.nn.functional.interpolate(tail_1DL, size=length - keep, mode="linear", align_corners=True)
    return torch.cat([positions_LD[:keep], spread_1DL[0].T.to(positions_LD.dtype)])


_NAMED = 3
"""Names told when weights do not fit."""
HF_MARK = "text.transformer.embeddings."
"""Names of a BERT text tower begin like this."""


def read_weights(*paths: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or the files that weights are split over, without the prefixes of wrappers.

    Raises:
        MedclipError: PACK_INVALID when one cannot be read or is empty.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as e:
            raise MedclipError(
                Reason.PACK_INVALID,
                "the weights cannot be read.",
                where=path,
                hint="Take the file from its source again.",
            ) from e
        if not tensors:
            raise MedclipError(Reason.PACK_INVALID, "there are no weights in it.", where=path)
        state |= tensors
    prefix = wrapping(state)
    return {name.removeprefix(prefix): value for name, value in state.items()}


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuse weights with NaN or infinity in them.

    Raises:
        MedclipError: NON_FINITE naming the first such tensor.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise MedclipError(
                Reason.NON_FINITE,
                f"the weights {name} hold values that are not finite numbers.",
                hint="Take the file from its source again, or an earlier checkpoint of the training.",
            )


def suited_config(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config with what the weights themselves decide: a text module of its own, a bias of the logits."""
    suited = dict(config)
    if any(name.startswith("text.") for name in state):
        suited["custom_text"] = True
    if "logit_bias" in state and suited.get("init_logit_bias") is None:
        suited["init_logit_bias"] = 0.0
    return suited


def text_projection_of(state: Mapping[str, Tensor]) -> str:
    """Name the projection of a BERT tower by its weights: "mlp", "linear" or "none"."""
    return "mlp" if "text.proj.0.weight" in state else "linear" if "text.proj.weight" in state else "none"


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, where: Path) -> None:
    """Load weights into a dual encoder, all of them and nothing else.

    As open_clip's `load_checkpoint`: old names of the text tower, scalar and one-element logit scales, image positions
    of another grid (bicubic). Text positions of another length are stretched as in `stretch`. The tensors that some
    transformers versions saved beside a BERT's weights (position ids, an unused pooler) are left out.

    Args:
        model: Model from `build_clip`.
        state: State dict from `read_weights`.
        where: The file, for errors.

    Raises:
        MedclipError: PACK_INVALID naming some of the tensors that are missing, unknown or of another size.
    """
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed

    weights = dict(state)
    current = model.state_dict()
    if hasattr(model, "text"):
        weights = convert_to_custom_text_state_dict(weights)
    for name in [
        n for n in weights if n not in current and n.startswith((f"{HF_MARK}position_ids", "text.transformer.pooler."))
    ]:
        del weights[name]
    for name in ("logit_scale", "logit_bias"):
        if name in weights and name in current:
            weights[name] = weights[name].reshape(current[name].shape)
    if "logit_bias" in current and "logit_bias" not in weights:
        weights["logit_bias"] = current["logit_bias"]
    for name in ("positional_embedding", "text.positional_embedding"):
        if name in weights and name in current:
            weights[name] = stretch_positions(weights[name], len(current[name]))
    if "visual.positional_embedding" in weights:
        weights["visual.positional_embedding"] = weights["visual.positional_embedding"].float()
        resize_pos_embed(weights, model)
    if "visual.trunk.pos_embed" in weights:
        weights["visual.trunk.pos_embed"] = _trunk_positions(weights["visual.trunk.pos_embed"], model.visual.trunk)  # type: ignore[union-attr]
    faults = [f"{n} is missing" for n in current if n not in weights]
    faults += [f"{n} is unknown" for n in weights if n not in current]
    faults += [
        f"{n} is {list(weights[n].shape)}, not {list(current[n].shape)}"
        for n in current
        if n in weights and weights[n].shape != current[n].shape
    ]
    if faults:
        more = f" (and {len(faults) - _NAMED} more)" if len(faults) > _NAMED else ""
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the weights do not fit the architecture: {'; '.join(faults[:_NAMED])}{more}.",
            where=where,
        )
    model.load_state_dict(weights, strict=True)


def _trunk_positions(positions: Tensor, trunk: Any) -> Tensor:
    """Resample the position grid of a timm ViT, where it has another size."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    table, grid = trunk.pos_embed, getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    if table is None or grid is None or positions.shape == table.shape:
        return positions
    prefix = table.shape[1] - grid[0] * grid[1]
    return resample_abs_pos_embed(positions, new_size=list(grid), num_prefix_tokens=prefix)


_DRAWING = frozenset({"uniform_", "normal_", "erfinv_", "kaiming_uniform_"})
"""Methods of tensors that fill them with numbers of a random law, and what torch asks for before it calls them."""


class Unfilled(TorchFunctionMode):
    """Within it, parameters that would get random numbers keep what the memory held.

    Those of a ViT-B/16 with its text tower take about a second of one core, and the weights of a pack replace them all.
    What is computed in another way, such as masks, positions of fixed waves, ones and zeros, is as ever. Every
    parameter must be loaded afterwards: `load_state_dict` with `strict`.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Leave a parameter as it is; call all else."""
        given = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            tensor = args[0] if args else given["tensor"]
            if isinstance(tensor, nn.Parameter) or tensor.requires_grad:
                return tensor
        return func(*args, **given)
