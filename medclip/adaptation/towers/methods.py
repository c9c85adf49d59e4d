"""The methods that change the towers: CLIP-SVD, LoRA, norm tuning, full fine-tuning. All of them end as dense weights.

Each trains a copy of the base and keeps its change in a form of its own; `apply_delta` makes the dense towers of base
and change, both here and when an adapted model is loaded, so that the two are equal bit for bit.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from medclip.adaptation.budget import STEPS, check_schedule, learn_at_best_rate
from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import text_head
from medclip.adaptation.data.shot_features import seen, take
from medclip.adaptation.data.task_loss import targets_of
from medclip.adaptation.methods import Fitted
from medclip.adaptation.towers import ln_tuning
from medclip.adaptation.towers.clip_svd import check_ratio, decompose, load_singular_values, merge, singular_values
from medclip.adaptation.towers.layers import Layer, Role, choose_layers, list_layers
from medclip.adaptation.towers.split_attention import join_attention, split_attention
from medclip.adaptation.towers.train_loop import Further, Loop, TrainImages, train_towers
from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from medclip.models.model import Model


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
AUTO = "auto"
"""All blocks of a transformer, the last two blocks of a convolutional tower. With 16 shots of four classes of brain MRI
and a base that never read their labels, EfficientNet-Lite0 came to a balanced accuracy of 0.71 in 100 steps, and with
the last third of its blocks to 0.51 in 60 steps, which take longer."""
SIDES = {"float32": None, "bfloat16": torch.bfloat16}
"""Precision of the products that only the gradient of S needs, see `svd.decompose`."""
FIXED = ("logit_scale", "logit_bias")
"""Parameters of the loss: no method changes them."""
Which = str | Sequence[int] | None
"""See `layers.choose_layers`; None: no layer of that tower."""
Prepared = tuple[nn.Module, Callable[[], dict[str, Tensor]], dict[str, Any]]
"""The copy to train, what gives its change, and settings that `apply_delta` needs."""


def fit_svd(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    layers: Which = AUTO,
    text_layers: Which = "all",
    roles: Sequence[Role] | None = None,
    rank_ratio: float = 1.0,
    rank_compat: bool = False,
    side: Literal["float32", "bfloat16"] = "float32",
    lr: float | None = None,
    **loop: Any,
) -> Fitted:
    """Learn the singular values of matrices of both towers (CLIP-SVD).

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots.
        val: Further examples, which choose the rate where none is given; folds of the shots do where there are none.
        seed: Seed of augmentation, order and prompts.
        layers: Layers of the image tower; see `AUTO`.
        text_layers: Layers of the text tower.
        roles: Roles of the layers; all roles where None.
        rank_ratio: Share of the singular values that is kept.
        rank_compat: Whether ranks are rounded as the reference does.
        side: Precision of some products: "bfloat16" takes less time on processors that compute in it: products that
            only the gradient of singular values needs are then made in it, and that gradient is off by less than a
            hundredth.
        lr: Highest rate; None: the best of the method's `budget.RATES`.
        loop: Further fields of `Loop`; `budget.STEPS` steps where none are named.

    Returns:
        Delta: layer name to singular values.

    Raises:
        MedclipError: WRONG_USE for another `side`.
    """
    if side not in SIDES:
        raise MedclipError(Reason.WRONG_USE, f"side is {side!r}.", hint=f"It is one of {', '.join(SIDES)}.")
    check_ratio(rank_ratio)
    _check_layers(base, layers, text_layers, roles)

    def prepare(clip: nn.Module) -> Prepared:
        split_attention(clip)
        decompose(clip, _chosen(clip, layers, text_layers, roles), rank_ratio, rank_compat, SIDES[side])
        return clip, lambda: singular_values(clip), {"rank_ratio": rank_ratio, "rank_compat": rank_compat}

    more = {"layers": layers, "text_layers": text_layers, "roles": roles, "side": side}
    return _fit("svd", base, text, train, val, seed, lr, loop, prepare, more)


def fit_lora(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    layers: Which = AUTO,
    text_layers: Which = "all",
    roles: Sequence[Role] | None = None,
    rank: int = 4,
    alpha: float = 8.0,
    lr: float | None = None,
    **loop: Any,
) -> Fitted:
    """Learn additions B·A of low rank to matrices of both towers (LoRA, with peft).

    Additions have rank `rank` and are alpha / rank · B·A; A begins from `seed`. All other arguments are those of
    `fit_svd`.

    Returns:
        Delta: `<layer>.A` and `<layer>.B`.

    Raises:
        MedclipError: WRONG_USE without peft.
    """
    peft = _peft()
    if rank < 1:
        raise MedclipError(Reason.WRONG_USE, f"the rank of LoRA is {rank}; it takes at least 1.")
    _check_layers(base, layers, text_layers, roles)

    def prepare(clip: nn.Module) -> Prepared:
        split_attention(clip)
        clip.requires_grad_(False)
        names = [layer.name for layer in _chosen(clip, layers, text_layers, roles)]
        exact = "|".join(map(re.escape, names))  # a list would be compared with the ends of names, and text names end
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=exact, lora_dropout=0.0)  # image names
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, clip)

        def delta() -> dict[str, Tensor]:
            deltas: dict[str, Tensor] = {}
            for name in names:
                layer: Any = clip.get_submodule(name)
                for key, part in (("A", layer.lora_A), ("B", layer.lora_B)):
                    deltas[f"{name}.{key}"] = _kept(part["default"].weight.flatten(1))
            return deltas

        return clip, delta, {"rank": rank, "alpha": alpha}

    more = {"layers": layers, "text_layers": text_layers, "roles": roles}
    return _fit("lora", base, text, train, val, seed, lr, loop, prepare, more)


def fit_norm(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    w_align: float = 0.0,
    w_uniform: float = 0.0,
    slerp: tuple[float, float] | None = None,
    lr: float | None = None,
    **loop: Any,
) -> Fitted:
    """Learn scale and shift of every normalisation of both towers.

    Running statistics of batch normalisation stay; every other weight stays bit for bit.

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots.
        val: Further examples, which choose the rate where none is given; folds of the shots do where there are none.
        seed: Seed of augmentation, order and prompts.
        w_align: Weight of `ln_tuning.alignment` of image features.
        w_uniform: Weight of `ln_tuning.uniformity`.
        slerp: Limits of the way to another feature of the class that replaces each; None: no such augmentation.
        lr: Highest rate; None: the best of the method's `budget.RATES`.
        loop: Further fields of `Loop`; `budget.STEPS` steps where none are named.

    Returns:
        Delta: parameter name to value.
    """
    if not any(isinstance(m, NORMS) and any(True for _ in m.parameters()) for m in base.clip.modules()):
        raise MedclipError(Reason.WRONG_USE, "this model has no normalisation with weights.")

    def prepare(clip: nn.Module) -> Prepared:
        clip.requires_grad_(False)
        for module in clip.modules():
            if isinstance(module, NORMS):
                module.requires_grad_(True)
        return clip, lambda: _learned(clip), {}

    def spread(z: Tensor, goal: Tensor, chance: torch.Generator) -> Tensor:
        assert slerp is not None
        return ln_tuning.slerp_within(z, ln_tuning.groups_of(goal), (slerp[0], slerp[1]), chance)

    def loss(z: Tensor, goal: Tensor) -> Tensor:
        return w_align * ln_tuning.alignment(z, ln_tuning.groups_of(goal)) + w_uniform * ln_tuning.uniformity(z)

    further = Further(None if slerp is None else spread, loss if w_align or w_uniform else None)
    more = {"w_align": w_align, "w_uniform": w_uniform, "slerp": slerp}
    return _fit("norm", base, text, train, val, seed, lr, loop, prepare, more, further)


def fit_full(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    lr: float | None = None,
    **loop: Any,
) -> Fitted:
    """Learn every weight of both towers; logit scale and running statistics stay. Arguments are those of `fit_norm`.

    Returns:
        Delta: name to value of every parameter that changed.
    """

    def prepare(clip: nn.Module) -> Prepared:
        clip.requires_grad_(True)
        for name in FIXED:
            if isinstance(p := getattr(clip, name, None), nn.Parameter):
                p.requires_grad_(False)
        return clip, lambda: changed_weights(clip, base.clip), {}

    return _fit("full", base, text, train, val, seed, lr, loop, prepare, {})


def _fit(
    method: str,
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    seed: int,
    lr: float | None,
    loop: Mapping[str, Any],
    prepare: Callable[[nn.Module], Prepared],
    more: Mapping[str, Any],
    further: Further | None = None,
) -> Fitted:
    """Train a copy at the best rate, take its change, make head and dense towers of it."""
    check_schedule(method, lr)
    loop = {"steps": STEPS, **loop}
    Loop(lr=0.0, **loop)  # refuses what cannot be, before examples are looked at
    shots = take(base, text, train, val)
    clip, delta_of, needed = prepare(copy.deepcopy(base.clip))
    learns = [p for p in clip.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in learns]
    images: dict[int, TrainImages] = {}  # by examples: what does not learn of the tower runs once for all rates

    def learn(examples: Examples, rate: float) -> Fitted:
        with torch.no_grad():
            for p, first in zip(learns, start, strict=True):
                p.copy_(first)
        once = Loop(lr=rate, **loop)
        if id(examples) not in images:
            images[id(examples)] = TrainImages(clip, base, examples, once, seed)
        goal = targets_of(examples.targets, base.device)
        if shots.multilabel:
            goal[:, ~torch.from_numpy(seen(examples.targets, len(text.names)))] = float("nan")
        train_towers(clip, base, text, images[id(examples)], goal, once, method=method, seed=seed, further=further)
        stated = {"images": once.num_images(len(examples)), **more, **needed}
        settings = _plain({**asdict(once), **stated})
        delta = delta_of()
        merged = apply_delta(method, base.clip, delta, settings)
        head = text_head(text.vectors(base.with_towers(copy.deepcopy(merged))), base.logit_scale)
        return Fitted(head, sum(p.numel() for p in learns), settings, merged, delta)

    fitted = learn_at_best_rate(base, shots, method, learn, lr=lr, seed=seed)
    lacking = {"no_examples": shots.no_examples} if shots.no_examples else {}
    return replace(fitted, settings={**fitted.settings, **lacking})


def _check_layers(base: Model, image: Which, text: Which, roles: Sequence[Role] | None) -> None:
    """Refuse layers that the model does not have."""
    clip = copy.deepcopy(base.clip)
    split_attention(clip)
    _chosen(clip, image, text, roles)


def _chosen(clip: nn.Module, image: Which, text: Which, roles: Sequence[Role] | None) -> list[Layer]:
    layers = list_layers(clip)
    chosen: list[Layer] = []
    for tower, which in (("image", image), ("text", text)):
        own = [layer for layer in layers if layer.tower == tower]
        if which is not None:
            chosen += choose_layers(own, _auto(own) if which == AUTO else which, roles)
    if not chosen:
        raise MedclipError(Reason.WRONG_USE, "no layers were asked for in either tower.")
    return chosen


def _auto(layers: Sequence[Layer]) -> str | Sequence[int]:
    last = max((layer.block for layer in layers if layer.block is not None), default=0)
    return [last - 1, last] if any(layer.role == "conv" for layer in layers) else "all"


def changed_weights(clip: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """Return name to value of the parameters of a copy that are not the base's any more, on the CPU."""
    before = dict(base.named_parameters())
    kept = ((name, _kept(p)) for name, p in clip.named_parameters())
    return {name: value for name, value in kept if not torch.equal(value, before[name].cpu())}


def _learned(clip: nn.Module) -> dict[str, Tensor]:
    return {n: _kept(p) for n, p in clip.named_parameters() if p.requires_grad}


def _kept(p: Tensor) -> Tensor:
    return p.detach().cpu().contiguous().clone()


def _peft() -> Any:
    try:
        import peft
    except ImportError as e:
        raise MedclipError(
            Reason.WRONG_USE,
            "LoRA needs peft, which is not installed.",
            hint="Run: pip install 'medclip-imaging[peft]'",
        ) from e
    return peft


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Turn tuples into lists, as JSON would."""
    return {k: list(v) if isinstance(v, tuple | range) else v for k, v in settings.items()}


def apply_delta(method: str, clip: nn.Module, delta: Mapping[str, Tensor], settings: Mapping[str, Any]) -> nn.Module:
    """Make the dense towers of a base and what a method learned.

    Args:
        method: Name of the method: svd, lora, norm, full or map-tuned.
        clip: The base's dual encoder; it is copied.
        delta: Learned tensors, from `Fitted.delta`.
        settings: Settings of the method, from `Fitted.settings`.

    Returns:
        A dual encoder of the base's classes with the base's names of weights.

    Raises:
        MedclipError: PACK_INVALID when the change is not one of this base's.
    """
    merged = copy.deepcopy(clip)
    try:
        if method == "svd":
            split_attention(merged)
            layers = [layer for layer in list_layers(merged) if layer.name in delta]
            decompose(merged, layers, settings["rank_ratio"], settings["rank_compat"])
            load_singular_values(merged, delta)
            merge(merged)
        elif method == "lora":
            split_attention(merged)
            _add_low_rank(merged, delta, settings["alpha"] / settings["rank"])
            join_attention(merged)
        elif method in ("norm", "full", "map-tuned"):
            own = dict(merged.named_parameters())
            with torch.no_grad():
                for name, value in delta.items():
                    own[name].copy_(value)
        else:
            raise MedclipError(Reason.PACK_INVALID, f"the method {method!r} changes no towers.")
    except (KeyError, AttributeError, RuntimeError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"what {method} learned does not fit this base ({e}).",
            hint="Take the base it was made on.",
        ) from e
    return merged.eval().requires_grad_(False)


@torch.no_grad()
def _add_low_rank(clip: nn.Module, delta: Mapping[str, Tensor], scale: float) -> None:
    for name in sorted({key.rpartition(".")[0] for key in delta}):
        weight = cast(Tensor, clip.get_submodule(name).weight)
        low, high = (delta[f"{name}.{part}"].to(weight) for part in "AB")
        weight.add_((scale * (high @ low)).reshape(weight.shape))
