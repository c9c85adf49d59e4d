"""BERT text towers from a local folder: config.json says the sizes, nothing else is needed and no hub is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "config.json"
POOLINGS = {
    "cls_last_hidden_state": "cls_last_hidden_state_pooler",
    "eos": "eos_pooler",
    "mean": "mean_pooler",
    "pooler_output": "cls_pooler",
}
"""Ways to make one vector of the tokens' states, and their names in open_clip. "eos" is ours, see `poolers`."""
_KINDS = ("bert", "roberta", "xlm-roberta", "mt5", "m2m_100")
"""Model types that open_clip can make a text tower of; transformers has their code, so none of it is fetched."""
_WEIGHTS = "model.safetensors"


def bert_text_cfg(
    *,
    pooling: str = "cls_last_hidden_state",
    projection: Literal["none", "linear", "mlp"] = "mlp",
    context_length: int = 256,
) -> dict[str, Any]:
    """Return the `text_cfg` of a BERT tower whose config.json lies in the base folder itself.

    Args:
        pooling: Name of a pooling, one of `POOLINGS`.
        projection: Projection to the joint space: "mlp" is two layers without bias around a GELU, (d_text + d_embed) //
            2 wide, as in BiomedCLIP; "none" needs d_text = d_embed.
        context_length: Tokens per sentence.

    Raises:
        MedclipError: WRONG_USE for a pooling or projection that does not exist.
    """
    if pooling not in POOLINGS or projection not in ("none", "linear", "mlp"):
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no text pooling {pooling!r} with projection {projection!r}.",
            hint=f"Pooling: {', '.join(POOLINGS)}; projection: none, linear, mlp.",
        )
    return {
        "hf_model_name": ".",
        "hf_tokenizer_name": "tokenizer",
        "hf_pooler_type": POOLINGS[pooling],
        "hf_proj_type": None if projection == "none" else projection,
        "context_length": context_length,
    }


def read_text_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a text model.

    Raises:
        MedclipError: PACK_INVALID when it is missing, or of a kind that needs code from elsewhere.
    """
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = values["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"there is no {CONFIG} of a text model here.", where=folder) from e
    if kind not in _KINDS:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"a text model of the type {kind!r} cannot be built; {', '.join(_KINDS)} can.",
            where=folder,
        )
    return values


def is_text_model(folder: Path) -> bool:
    """Whether a folder holds the config of a text model that can be built."""
    try:
        read_text_config(folder)
    except MedclipError:
        return False
    return True


def folder_of(name: str, base: Path | None) -> Path:
    """Resolve the `hf_model_name` of a config.

    Args:
        name: An absolute folder, or one relative to `base`. Never a hub's name.
        base: The pack's folder, or whatever `Started.base` said.

    Raises:
        MedclipError: PACK_INVALID when there is no such folder.
    """
    folder = Path(name) if Path(name).is_absolute() else base / name if base is not None else None
    if folder is None or not folder.is_dir():
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its text tower is the hub model {name!r}, which would need the network.",
            hint="Give hf_model_name as a folder with the text model's config.json.",
        )
    return folder


def ready(text_cfg: Mapping[str, Any], model_cfg: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """Return the `text_cfg` that open_clip builds the tower from, offline.

    Args:
        text_cfg: Config with an `hf_model_name`.
        model_cfg: Config of the model, with the width of the joint space.
        base: Base folder, see `folder_of`.

    Raises:
        MedclipError: PACK_INVALID when folder, pooling, projection and sizes do not go together.
    """
    from medclip.models.towers import poolers  # noqa: F401  (registers the end-token pooling)

    folder = folder_of(str(text_cfg["hf_model_name"]), base)
    values = read_text_config(folder)
    completed = {**text_cfg, "hf_model_name": str(folder.resolve()), "hf_model_pretrained": False}
    if completed.get("hf_proj_type", "mlp") in (None, "none"):
        completed["hf_proj_type"] = None
        width = values.get("hidden_size", values.get("d_model"))
        if width != (embed_dim := model_cfg.get("embed_dim")):
            raise MedclipError(
                Reason.PACK_INVALID,
                f"without a projection the text width must be the joint width; they are {width} and {embed_dim}.",
                where=folder,
            )
    longest = values.get("max_position_embeddings")
    if longest and completed.get("context_length", 77) > longest:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"a context of {completed.get('context_length', 77)} tokens is more than the text model's {longest} "
            "positions.",
            where=folder,
        )
    return completed


def start_text_tower(model: nn.Module, folder: Path) -> bool:
    """Load the pre-trained weights of a text model, where its folder has them, into `model.text`.

    Args:
        model: open_clip CustomTextCLIP with a BERT tower.
        folder: A folder in transformers' layout. Heads of other tasks in it are left out.

    Returns:
        Whether there were weights.

    Raises:
        MedclipError: UNSAFE_WEIGHTS when they are a pickle; PACK_INVALID when they do not fit.
    """
    from safetensors.torch import load_file

    if not (folder / _WEIGHTS).is_file():
        if pickles := sorted(folder.glob("pytorch_model*.bin")):
            raise MedclipError(
                Reason.UNSAFE_WEIGHTS,
                "the text model's weights are a pickle.",
                where=pickles[0],
                hint=f"Convert them once: medclip models import {folder} --out FOLDER, and name that folder; or "
                "take the file away to begin with random weights.",
            )
        return False
    tower: nn.Module = model.text.transformer  # type: ignore[assignment, union-attr]
    tower.load_state_dict(fitting(load_file(folder / _WEIGHTS), tower.state_dict(), folder / _WEIGHTS), strict=False)
    return True


def fitting(state: Mapping[str, Tensor], tower_state: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Return the weights of a text tower out of a language model's.

    The prefix of the model inside a model with a head comes off, and old names (LayerNorm.gamma) become new ones.

    Args:
        state: State dict of the file; heads of other tasks are left out.
        tower_state: State dict of the tower.
        where: The file, for errors.

    Raises:
        MedclipError: PACK_INVALID when tensors are missing or have other sizes. A pooler may be missing: models with
            a masked-language head have none, and it starts anew as in transformers.
    """
    prefix = next((p for p in ("bert.", "roberta.", "") if any(k.startswith(f"{p}embeddings.") for k in state)), "")
    tensors = {k.removeprefix(prefix): v for k, v in state.items()}
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        tensors = {k.replace(old, new): v for k, v in tensors.items()}
    tensors = {k: v for k, v in tensors.items() if k in tower_state}
    faults = [f"{k} is missing" for k in tower_state if k not in tensors and not k.startswith("pooler.")]
    faults += [
        f"{k} is {list(v.shape)}, not {list(tower_state[k].shape)}"
        for k, v in tensors.items()
        if v.shape != tower_state[k].shape
    ]
    if faults:
        raise MedclipError(
            Reason.PACK_INVALID, f"the text model's weights do not fit its {CONFIG}: {faults[0]}.", where=where
        )
    return tensors
