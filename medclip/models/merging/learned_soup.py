"""The learned soup: each tensor has shares of the models, which are learned by gradient on held-out data.

Reference: Wortsman et al., Model soups, ICML 2022, appendix, and its published code: a softmax over K numbers for each
tensor, equal at the start, and one temperature of the logits; AdamW without decay. All K models are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.merging.ingredients import (
    STATISTICS,
    Lesson,
    Lessons,
    MergedWeights,
    Plan,
    refuse_other_tensors,
    towers_of,
)

StateDict = Mapping[str, Tensor]
EPOCHS, RATE = 5, 0.05


@dataclass(frozen=True, eq=False)
class LearnedSoup:
    """A soup whose shares were learned."""

    state: dict[str, Tensor]
    shares: dict[str, Tensor]
    """Shares of the K models in each tensor that was learned, [K]; they add up to 1."""
    temperature: float
    """Learned with them, a factor of the logits; it is not in the weights."""
    losses: tuple[float, ...]
    """Mean loss of each epoch."""

    def mean_shares(self) -> list[float]:
        """Return the share of each model, over all numbers of all tensors."""
        sizes = {name: self.state[name].numel() for name in self.shares}
        total = sum((size * self.shares[name] for name, size in sizes.items()), torch.zeros(1))
        return [float(x) for x in total / max(1, sum(sizes.values()))]


def merge_learned(plan: Plan, lessons: Lessons | None) -> MergedWeights:
    """Make a learned soup of packs."""
    assert lessons is not None
    first = plan.ingredients[0]
    states = [one.state() for one in plan.ingredients]
    towers = _Asked(towers_of(first, states[0]).eval())

    def losses(epoch: int) -> Iterable[Callable[[StateDict, Tensor], Tensor]]:
        return (_loss_of(towers, lesson) for lesson in lessons(first, epoch))

    soup = learned_soup(states, losses)
    shares = dict(zip((one.name for one in plan.ingredients), soup.mean_shares(), strict=True))
    facts = {
        "shares": {name: round(share, 4) for name, share in shares.items()},
        "temperature": round(soup.temperature, 4),
        "losses": [round(loss, 4) for loss in soup.losses],
    }
    return MergedWeights(soup.state, plan.ingredients, facts, shares=shares)


def learned_soup(
    states: Sequence[StateDict],
    losses: Callable[[int], Iterable[Callable[[StateDict, Tensor], Tensor]]],
    *,
    epochs: int = EPOCHS,
    rate: float = RATE,
) -> LearnedSoup:
    """Learn the shares of models.

    Args:
        states: K state dicts with the same names and shapes.
        losses: Function of the epoch that returns for each batch of held-out data its loss, as a function of weights
            and of the factor of the logits.
        epochs: Number of passes over the held-out data.
        rate: Learning rate.

    Returns:
        The soup, each tensor in the dtype that the first model has it in. Running statistics are averaged, and what is
        no floating-point number is the first model's.

    Raises:
        MedclipError: WRONG_USE without a model; NOTHING_TO_DO where no batch says anything; PACK_INVALID naming
            the first tensor that differs.
    """
    if not states:
        raise MedclipError(Reason.WRONG_USE, "a soup needs at least one model.")
    for number, state in enumerate(states[1:], start=2):
        refuse_other_tensors(states[0], state, "model 1", f"model {number}")
    numbers = {name: value for name, value in states[0].items() if value.is_floating_point()}
    width = {name: torch.promote_types(value.dtype, torch.float32) for name, value in numbers.items()}
    raw = {
        name: torch.ones(len(states), dtype=width[name], requires_grad=True)
        for name in numbers
        if not name.endswith(STATISTICS)
    }
    temperature = torch.ones((), requires_grad=True)

    def mixed() -> dict[str, Tensor]:
        equal = torch.full((len(states),), 1 / len(states))
        soup = dict(states[0])
        for name, dtype in width.items():
            share = raw[name].softmax(0) if name in raw else equal.to(dtype)
            parts = (share[k] * state[name].to(dtype) for k, state in enumerate(states))
            soup[name] = sum(parts, torch.zeros((), dtype=dtype))
        return soup

    optimiser = torch.optim.AdamW([*raw.values(), temperature], lr=rate, weight_decay=0.0)
    means = []
    for epoch in range(epochs):
        values = []
        for loss_of in losses(epoch):
            loss = loss_of(mixed(), temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
        if not values:
            raise MedclipError(
                Reason.NOTHING_TO_DO,
                "the held-out data has no label that a task of the vocabulary asks for.",
                hint="A learned soup is learned on labelled images.",
            )
        means.append(sum(values) / len(values))
    with torch.no_grad():
        soup = {name: value.to(states[0][name].dtype).clone() for name, value in mixed().items()}
    shares = {name: value.detach().softmax(0) for name, value in raw.items()}
    return LearnedSoup(soup, shares, float(temperature.detach()), tuple(means))


class _Asked(nn.Module):
    """Towers that a lesson asks, so that `functional_call` can lend them weights."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip.requires_grad_(False)

    def forward(self, lesson: Lesson, temperature: Tensor) -> Tensor:
        return lesson(self.clip, temperature)


def _loss_of(towers: _Asked, lesson: Lesson) -> Callable[[StateDict, Tensor], Tensor]:
    def loss(state: StateDict, temperature: Tensor) -> Tensor:
        weights = {f"clip.{name}": value for name, value in state.items()}
        return torch.func.functional_call(towers, weights, (lesson, temperature))

    return loss
