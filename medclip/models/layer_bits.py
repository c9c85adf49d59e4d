"""How much relevance for an answer each linear layer of a vision transformer carries, and how many bits it gets for it.

After LRP-QViT (arXiv 2401.11243), which has no published code. Signed relevance adds up to the same in every layer, so
that a layer's score Ω is the sum of its absolute relevance at the layer's input, as a share of that of all layers, mean
over images. It is propagated by one rule for each operation (hila-chefer/Transformer-Explainability @ c3e578f), which
divides the relevance of the operation's outputs among its inputs. LayerNorm, softmax, GELU and dropout hand it on as it
is. Biases take no part, so that its sum is kept to some percent and not to the last bit.

A budget of bits is divided by an integer programme. The paper's linear objective, as recollected, gives all to few
layers; the noise objective is ours and the default: a bit less makes four times the noise, wherever it is taken from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn
from torch.nn import functional

from medclip.errors import MedclipError, Reason
from medclip.models.towers.merging_tower import blocks_of, find_vit, is_open_clip, split_heads

_EPS = 1e-9


@dataclass(frozen=True, eq=False)
class _Block:
    """The parts of a block, by one name in open_clip and timm."""

    norm1: nn.Module
    qkv: tuple[Tensor, Tensor | None]
    num_heads: int
    between: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """What is done to queries and keys before they meet."""
    proj: nn.Linear
    scale1: nn.Module
    norm2: nn.Module
    fc1: nn.Linear
    act: nn.Module
    fc2: nn.Linear
    scale2: nn.Module


def linear_layers(tower: nn.Module) -> dict[str, Tensor]:
    """Return the weights [O, I] of the linear layers of a transformer's blocks, by names such as `3.fc1`.

    Raises:
        MedclipError: WRONG_USE for another tower than `merging_tower.find_vit` finds.
    """
    weights: dict[str, Tensor] = {}
    for number, block in enumerate(blocks_of(find_vit(tower))):
        parts = _parts(block)
        named = {"qkv": parts.qkv[0], "proj": parts.proj.weight, "fc1": parts.fc1.weight, "fc2": parts.fc2.weight}
        weights |= {f"{number}.{name}": weight.detach() for name, weight in named.items()}
    return weights


def layer_relevance(tower: nn.Module, batch: Tensor, directions_BD: Tensor) -> Mapping[str, float]:
    """Return the score of each of `linear_layers`; they add up to 1.

    Args:
        tower: Tower of open_clip or timm, or a module with one inside; float32.
        batch: Images as it takes them.
        directions_BD: Weights, for each image, of the answer that is explained: logit = feature · direction.

    Raises:
        MedclipError: WRONG_USE as `linear_layers`.
    """
    vit = find_vit(tower)
    blocks = list(blocks_of(vit))
    inputs, relevance = _run(tower, vit, blocks, batch, directions_BD)
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for number in reversed(range(len(blocks))):
            relevance, of_layers = _through(_parts(blocks[number]), inputs[number], relevance)
            sums |= {f"{number}.{name}": value.abs().flatten(1).sum(1) for name, value in of_layers.items()}
        order = linear_layers(tower)
        by_layer = torch.stack([sums[name] for name in order])
        shares = (by_layer / by_layer.sum(0)).mean(1)
    return dict(zip(order, shares.tolist(), strict=True))


def _run(
    tower: nn.Module, vit: Any, blocks: list[nn.Module], batch: Tensor, directions_BD: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Compute a batch; return what each block took, and the relevance of the last block's tokens, sum 1 an image."""
    inputs: list[Tensor] = []
    ends: list[Tensor] = []

    def keep_input(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].detach())

    def keep_end(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ends.append(arguments[0].detach().requires_grad_())
        return (ends[-1], *arguments[1:])

    last = vit.ln_post if is_open_clip(vit) else vit.norm
    handles = [block.register_forward_pre_hook(keep_input) for block in blocks]
    normed: list[Tensor] = []
    handles += [
        last.register_forward_pre_hook(keep_end),
        last.register_forward_hook(lambda module, arguments, output: normed.append(output)),
    ]
    try:
        with torch.enable_grad():
            logits = (tower(batch) * directions_BD).sum()
            (slope,) = torch.autograd.grad(logits, normed[-1])
    finally:
        for handle in handles:
            handle.remove()
    relevance = (slope * normed[-1]).detach().clamp(min=0)
    relevance = relevance / relevance.flatten(1).sum(1).clamp(min=1e-12).view(-1, *[1] * (relevance.ndim - 1))
    if relevance.ndim == 2:  # the class token was taken before it was normalised
        at_tokens = torch.zeros_like(inputs[-1])
        at_tokens[:, 0] = relevance
        return inputs, at_tokens
    return inputs, relevance


def _through(block: _Block, x: Tensor, relevance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Carry relevance from what a block returned to what it took; return that of each linear layer's input, too."""
    normed1 = block.norm1(x)
    packed = functional.linear(normed1, *block.qkv)
    query, key, value = (split_heads(part, block.num_heads) for part in packed.chunk(3, dim=-1))
    query, key = block.between(query, key)
    query = query * query.shape[-1] ** -0.5
    weights = (query @ key.transpose(-1, -2)).softmax(dim=-1)
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    attended = block.scale1(block.proj(mixed))
    middle = x + attended
    normed2 = block.norm2(middle)
    hidden = block.fc1(normed2)
    active = block.act(hidden)
    added = block.scale2(block.fc2(active))

    stays, goes = sum_relevance(relevance, middle, added)
    at_fc2 = linear_relevance(goes, active, block.fc2.weight)
    at_fc1 = linear_relevance(at_fc2, normed2, block.fc1.weight)
    of_middle = copy_relevance(middle, stays, at_fc1)
    stays, goes = sum_relevance(of_middle, x, attended)
    at_proj = linear_relevance(goes, mixed, block.proj.weight)
    of_weights, of_value = product_relevance(split_heads(at_proj, block.num_heads), weights, value)
    of_query, of_key = product_relevance(of_weights, query, key.transpose(-1, -2))
    of_packed = torch.cat([_flat(part) for part in (of_query, of_key.transpose(-1, -2), of_value)], dim=-1)
    at_qkv = linear_relevance(of_packed, normed1, block.qkv[0])
    return copy_relevance(x, stays, at_qkv), {"qkv": at_qkv, "proj": at_proj, "fc1": at_fc1, "fc2": at_fc2}


def _parts(block: Any) -> _Block:
    if hasattr(block, "ln_1"):
        attention = block.attn
        return _Block(
            block.ln_1,
            (attention.in_proj_weight, attention.in_proj_bias),
            attention.num_heads,
            lambda q, k: (q, k),
            attention.out_proj,
            block.ls_1,
            block.ln_2,
            block.mlp.c_fc,
            block.mlp.gelu,
            block.mlp.c_proj,
            block.ls_2,
        )
    attention = block.attn
    return _Block(
        block.norm1,
        (attention.qkv.weight, attention.qkv.bias),
        attention.num_heads,
        lambda q, k: (attention.q_norm(q), attention.k_norm(k)),
        attention.proj,
        block.ls1,
        block.norm2,
        block.mlp.fc1,
        block.mlp.act,
        block.mlp.fc2,
        block.ls2,
    )


def _flat(x_BHTD: Tensor) -> Tensor:
    return x_BHTD.transpose(1, 2).flatten(2)


def safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, held away from zero by 1e-9 on b's side, and 0 where b is 0."""
    held = b.clamp(min=_EPS) + b.clamp(max=-_EPS)
    held = held + (held == 0).to(held.dtype) * _EPS
    return a / held * (b != 0).to(a.dtype)


def linear_relevance(relevance: Tensor, x: Tensor, weight: Tensor, alpha: float = 1.0) -> Tensor:
    """Return the relevance of a linear layer's inputs.

    Args:
        relevance: Relevance of the layer's outputs, [..., O].
        x: Inputs of the layer, [..., I].
        weight: [O, I]; its bias is not asked.
        alpha: Weight of what speaks for an output; alpha - 1 is that of what speaks against it.
    """
    rises, falls = weight.clamp(min=0), weight.clamp(max=0)
    positive, negative = x.clamp(min=0), x.clamp(max=0)

    def share(of_positive: Tensor, of_negative: Tensor) -> Tensor:
        sums = positive @ of_positive.T + negative @ of_negative.T
        scaled = safe_divide(relevance, sums)
        return positive * (scaled @ of_positive) + negative * (scaled @ of_negative)

    for_it = share(rises, falls)
    return for_it if alpha == 1 else alpha * for_it - (alpha - 1) * share(falls, rises)


def sum_relevance(relevance: Tensor, a: Tensor, b: Tensor, *, by_image: bool = True) -> tuple[Tensor, Tensor]:
    """Return the relevance of the two terms of a sum; together they have as much as the sum has.

    Args:
        relevance: Relevance of the sum, [B, ...].
        a: One term of the sum.
        b: The other term of the sum.
        by_image: Whether shares are those of each image; the published code has those of a whole batch.
    """
    scaled = safe_divide(relevance, a + b)
    of_a, of_b = a * scaled, b * scaled
    axes = tuple(range(int(by_image), relevance.ndim))
    sum_a, sum_b, total = (value.sum(axes, keepdim=True) for value in (of_a, of_b, relevance))
    sizes = sum_a.abs() + sum_b.abs()
    shares = (safe_divide(s.abs(), sizes) * total for s in (sum_a, sum_b))
    factors = [safe_divide(share, s) for share, s in zip(shares, (sum_a, sum_b), strict=True)]
    return of_a * factors[0], of_b * factors[1]


def product_relevance(relevance: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the relevance of the two factors of a matrix product a @ b, half of it each."""
    scaled = safe_divide(relevance, a @ b)
    return a * (scaled @ b.transpose(-1, -2)) / 2, b * (a.transpose(-1, -2) @ scaled) / 2


def copy_relevance(x: Tensor, *relevances: Tensor) -> Tensor:
    """Return the relevance of a value that several operations take."""
    return x * torch.stack([safe_divide(relevance, x) for relevance in relevances]).sum(0)


Objective = Literal["noise", "linear"]


def allocate_bits(
    relevance: Sequence[float],
    sizes: Sequence[float],
    *,
    choices: Sequence[int] = (4, 5, 6, 7, 8),
    mean_bits: float,
    objective: Objective = "noise",
    fixed: Mapping[int, int] | None = None,
) -> tuple[int, ...]:
    """Choose the bits of each layer.

    Args:
        relevance: Ω of each layer, 0 or more.
        sizes: Weights of each layer.
        choices: Bits that a layer may have.
        mean_bits: Most bits for a weight, on average over all weights.
        objective: Name of the objective: "noise" minimises Σ Ω·4^(-bits); "linear" maximises Σ Ω·bits.
        fixed: Place of a layer to its bits, such as {0: 8, 12: 8} for the first and the last.

    Returns:
        Bits of each layer, in order. Of several best divisions one that uses the fewest bits.

    Raises:
        MedclipError: WRONG_USE where no division keeps the budget.

    Example:
        >>> allocate_bits([0.6, 0.3, 0.1], [1, 1, 1], choices=(4, 6, 8), mean_bits=6, objective="linear")
        (8, 6, 4)
    """
    omega, weights, bits = np.asarray(relevance, float), np.asarray(sizes, float), np.asarray(choices, float)
    num_layers, num_choices = len(omega), len(bits)
    gain = omega[:, None] * (4.0**-bits if objective == "noise" else -bits)
    cost = weights[:, None] * bits / weights.sum()
    tie = 1e-9 * max(1e-12, float(np.abs(gain).max()))
    one_each = np.kron(np.eye(num_layers), np.ones(num_choices))
    allowed: Any = np.ones((num_layers, num_choices))
    for layer, num_bits in (fixed or {}).items():
        allowed[layer] = bits == num_bits
    solution = milp(
        (gain / np.abs(gain).max() + tie * cost).ravel() if np.abs(gain).max() > 0 else cost.ravel(),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.eye(gain.size), 0, allowed.ravel()),
            LinearConstraint(cost.ravel()[None], -np.inf, mean_bits + 1e-9),
        ],
        integrality=np.ones(gain.size),
        bounds=Bounds(0, 1),
    )
    if solution.x is None:
        raise MedclipError(
            Reason.WRONG_USE,
            f"no layer can have so few bits that the mean is {mean_bits:g}: they may have {list(choices)}.",
            hint="Allow more bits on average, or fewer for a layer.",
        )
    chosen = solution.x.reshape(gain.shape).argmax(axis=1)
    return tuple(int(bits[place]) for place in chosen)
