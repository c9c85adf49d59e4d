"""Contrastive batches larger than memory: features first, then the loss, then one chunk after another again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason

C = TypeVar("C")


def cached_backward(
    chunks: Sequence[C],
    encode: Callable[[C], tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
    *,
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
    loss_parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Add the gradients of a loss of a whole batch to parameters, holding the activations of one chunk at a time.

    1. Each chunk is encoded without gradients. 2. The loss of all features is made, and its gradients with respect to
    them; parameters that the loss itself uses (the logit scale) get theirs here, once. 3. Each chunk is encoded again,
    with the random state it had the first time, and passes on the gradients of its features.

    Loss and gradients equal those of the whole batch at once, to rounding, if a sample's features do not depend on the
    others of its chunk. Batch normalisation in training mode breaks that; freeze it.

    Args:
        chunks: The batch in parts, in the order of the samples.
        encode: Function that returns the features of a chunk: one or more tensors with as many rows for each sample.
            Called twice for each chunk.
        loss: Function called once with each feature of the whole batch; returns a scalar.
        no_sync: Function that returns a context in which gradients are not sent to other ranks
            (`DistributedDataParallel.no_sync`); it is entered for everything but the last chunk.
        loss_parameters: Parameters that the loss uses and `encode` does not. With `no_sync` they are named so that the
            last chunk sends their gradients as well.

    Returns:
        The loss, detached.

    Raises:
        MedclipError: WRONG_USE without a chunk.

    Reference: Gao et al., Scaling deep contrastive learning batch size under memory limited setup, RepL4NLP 2021.

    Example:
        >>> tower = torch.nn.Linear(3, 2)
        >>> value = cached_backward(torch.ones(4, 3).split(2), lambda x: (tower(x),), lambda f: f.square().sum())
        >>> tower.weight.grad.shape
        torch.Size([2, 3])
    """
    if not chunks:
        raise MedclipError(Reason.WRONG_USE, "a batch needs one chunk or more.")
    with no_sync():
        states, outputs = [], []
        with torch.no_grad():
            for chunk in chunks:
                states.append(_RandomState.now())
                outputs.append(encode(chunk))
        leaves = [torch.cat(feature).requires_grad_() for feature in zip(*outputs, strict=True)]
        value = loss(*leaves)
        value.backward()
        sizes = [[len(part) for part in feature] for feature in zip(*outputs, strict=True)]
        del outputs
    gradients = [
        (torch.zeros_like(x) if x.grad is None else x.grad).split(own) for x, own in zip(leaves, sizes, strict=True)
    ]
    for i, chunk in enumerate(chunks):
        last = i == len(chunks) - 1
        with nullcontext() if last else no_sync():
            with states[i].again():
                features = encode(chunk)
            ends = [(x, g[i]) for x, g in zip(features, gradients, strict=True) if x.requires_grad]
            if last:  # nothing is added to them, but their gradients are complete: a reducer waits for this
                ends += [((p * 0).sum(), p.new_ones(())) for p in loss_parameters if p.requires_grad]
            if ends:
                torch.autograd.backward([x for x, _ in ends], [g for _, g in ends])
    return value.detach()


@dataclass(frozen=True, eq=False)
class _RandomState:
    """The state of torch's generators on the CPU and, where there are any, on CUDA devices."""

    cpu: Tensor
    cuda: list[Tensor]

    @staticmethod
    def now() -> _RandomState:
        started = torch.cuda.is_available() and torch.cuda.is_initialized()
        return _RandomState(torch.get_rng_state(), torch.cuda.get_rng_state_all() if started else [])

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw once more what was drawn after `now`; what comes later draws on as if nothing had been."""
        with torch.random.fork_rng(devices=range(len(self.cuda))):
            torch.set_rng_state(self.cpu)
            for device, state in enumerate(self.cuda):
                torch.cuda.set_rng_state(state, device)
            yield
