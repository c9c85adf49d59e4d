"""Spread a model over the ranks: a copy on each (DDP), or its parameters and optimizer in pieces (FSDP2)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medclip.training.ranks import World
from medclip.training.steps.towers import Towers, weights_of

_BLOCKS = ("resblocks", "blocks", "layer", "layers", "stages")
"""Names under which open_clip, timm and transformers keep the blocks of a tower."""


def spread(
    towers: Towers, world: World, *, parallel: str, bf16: bool, shard_size: int | None = None
) -> Callable[..., Any]:
    """Make the towers ready for this world.

    Args:
        towers: Towers on the world's device.
        world: World of the ranks.
        parallel: Way of parallel training: "ddp" or "fsdp".
        bf16: Whether FSDP gathers parameters and computes in bfloat16, and reduces gradients in float32.
        shard_size: Number of ranks that hold one copy of the parameters together with FSDP (HSDP); all of them where
            None.

    Returns:
        What to call in place of `towers`: the towers themselves in a world of one and with FSDP, which changes them in
        place; the DDP wrapper otherwise.
    """
    if world.group is None:
        return towers
    if parallel == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        # Of axes of length 1, such as the channel of grey clips, where strides mean nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        with warnings.catch_warnings():  # the name that torch 2.13 would rather have is not known before
            warnings.filterwarnings("ignore", ".*`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                towers,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                process_group=world.group,
                gradient_as_bucket_view=True,
                broadcast_buffers=False,  # none of them changes: statistics are frozen wherever there are ranks
            )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # FSDP shards no parameters in channels-last order.
    towers.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    shard = shard_size or world.size
    copies = world.size // shard  # torchrun counts up within a machine first: a shard's ranks are neighbours
    mesh = (
        init_device_mesh(world.device.type, (shard,))
        if copies == 1
        else init_device_mesh(world.device.type, (copies, shard), mesh_dim_names=("replicate", "shard"))
    )
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    for block in blocks_of(towers):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fusion = getattr(towers.clip, "fusion", None)
    heads = towers.supervised.values() if towers.supervised is not None else ()
    parts = (towers.get_submodule(name) for name in towers.parts)
    for head in (fusion, *parts, *heads):
        if head is not None and any(True for _ in head.parameters()):  # in float32, as all losses
            fully_shard(head, mesh=mesh)
    if not hasattr(towers.clip, "text"):  # the parts of an image tower alone are called one by one: all are one root
        fully_shard(towers, mesh=mesh, mp_policy=policy)
        return towers
    for tower in (towers.clip.visual, towers.clip.text):
        fully_shard(tower, mesh=mesh, mp_policy=policy)
    if towers.masked is not None:
        fully_shard(towers.masked, mesh=mesh, mp_policy=policy)
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
    of_wrapper = getattr(call, "no_sync", None)
    if of_wrapper is not None:
        return of_wrapper
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


def local_of(value: Tensor) -> Tensor:
    """Return this rank's piece of a sharded tensor, in the same memory; any other tensor is returned as it is."""
    return value.to_local() if hasattr(value, "to_local") else value  # type: ignore[operator]


def full_weights(towers: Towers, world: World) -> dict[str, Tensor]:
    """Return all that is trained, whole and on the CPU; on the first rank only, but every rank must call it.

    What is trained beside the dual encoder begins with the name of its part: masked, supervised, or that of a loss.
    """
    weights = {}
    for key, value in weights_of(towers).items():
        name = key.removeprefix("model.")
        full = value.full_tensor() if hasattr(value, "full_tensor") else value  # type: ignore[operator]
        if world.is_first:
            weights[name] = full.detach().cpu().clone()
    return weights
