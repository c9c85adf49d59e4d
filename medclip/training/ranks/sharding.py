"""Spread a model over the ranks: a copy on each (DDP), or its parameters and optimizer in pieces (FSDP2)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medclip.training.ranks.world import World
from medclip.training.steps.towers import Towers, weights_of

_BLOCKS = ("resblocks", "blocks", "layer", "layers", "stages")
"""Names under which open_clip, timm and transformers keep the blocks of a tower."""


def spread(towers: Towers, world: World, *, parallel: str, bf16: bool) -> Callable[..., Any]:
    """Make the towers ready for this world.

    Args:
        towers: On the world's device.
        world: Its ranks.
        parallel: "ddp" or "fsdp".
        bf16: With FSDP: gather parameters and compute in bfloat16, reduce gradients in float32.

    Returns:
        What to call in place of `towers`: the towers themselves in a world of one and with FSDP, which changes them in
        place; the DDP wrapper otherwise.
    """
    if world.group is None:
        return towers
    if parallel == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(
            towers,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            process_group=world.group,
            gradient_as_bucket_view=True,
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # FSDP shards no parameters in channels-last order.
    towers.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    for block in blocks_of(towers):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    for tower in (towers.clip.visual, towers.clip.text):
        fully_shard(tower, mesh=mesh, mp_policy=policy)
    if towers.masked is not None:
        fully_shard(towers.masked.head, mesh=mesh, mp_policy=policy)
    return towers


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """List the repeated blocks of the towers: members of a list with one of the usual names."""
    blocks: list[nn.Module] = []
    for name, child in module.named_children():
        if name in _BLOCKS and isinstance(child, nn.ModuleList | nn.Sequential):
            blocks += [b for b in child if any(True for _ in b.parameters())]
        else:
            blocks += blocks_of(child)
    return blocks


def no_sync(call: Callable[..., Any], towers: Towers) -> Callable[[], Any]:
    """Yield a context manager in which backward passes only add up gradients on each rank (all but the last chunk)."""
    own = getattr(call, "no_sync", None)
    if own is not None:
        return own
    sharded = [m for m in towers.modules() if hasattr(m, "set_requires_gradient_sync")]
    if not sharded:
        return contextlib.nullcontext

    @contextlib.contextmanager
    def waiting() -> Any:
        for m in sharded:
            m.set_requires_gradient_sync(False, recurse=False)  # type: ignore[operator]
        try:
            yield
        finally:
            for m in sharded:
                m.set_requires_gradient_sync(True, recurse=False)  # type: ignore[operator]

    return waiting


def clip_gradients(parameters: list[nn.Parameter], limit: float) -> float:
    """Scale gradients down to a common norm; whole and sharded ones together.

    Args:
        parameters: All that learn.
        limit: Largest norm; infinity only measures.

    Returns:
        The norm before, equal on all ranks.
    """
    kinds: dict[type, list[Tensor]] = {}
    for p in parameters:
        if p.grad is not None:
            kinds.setdefault(type(p.grad), []).append(p.grad)
    norms = [torch.nn.utils.get_total_norm(grads) for grads in kinds.values()]
    full_norms = [n.full_tensor() if hasattr(n, "full_tensor") else n for n in norms]  # type: ignore[operator]
    if not full_norms:
        return 0.0
    total = full_norms[0] if len(full_norms) == 1 else torch.stack([n.float() for n in full_norms]).norm()
    factor = torch.clamp(limit / (total + 1e-6), max=1.0)
    for grads in kinds.values():
        for grad in grads:
            grad.mul_(factor if len(kinds) == 1 else float(factor))
    return float(total)


def full_weights(towers: Towers, world: World) -> dict[str, Tensor]:
    """Return the dual encoder's whole state dict on the CPU; on the first rank only, but every rank must call it."""
    weights = {}
    for key, value in weights_of(towers).items():
        name = key.removeprefix("model.")
        if name.startswith("masked."):
            continue
        full = value.full_tensor() if hasattr(value, "full_tensor") else value  # type: ignore[operator]
        if world.is_first:
            weights[name] = full.detach().cpu().clone()
    return weights
