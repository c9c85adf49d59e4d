"""Training of one slide head: a slide a step, AdamW with a cosine to 0, the best epoch by held-back patients.

The recipe is that of PathGen's slide classifiers: AdamW at 1e-4, weight decay 1e-5, batches of one slide, 50 epochs;
the epoch with the greatest AUROC + macro F1 on validation slides is kept, the last one where there are none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medclip.adaptation.data.task_loss import targets_of, task_loss
from medclip.adaptation.frozen.train_on_features import run_epochs
from medclip.errors import MedclipError, Reason
from medclip.objectives.branch_diversity import branch_diversity
from medclip.objectives.hazard import hazard_targets, masked_hazard_loss
from medclip.slides.learning.labels import Bags
from medclip.slides.learning.pooling import MASKED_SHARE, Pooled, Shape, SlidePooling
from medclip.statistics.metrics.selection_score import log_loss, mean_auroc
from medclip.text.vocabulary.task_kinds import kind_named

LEAST_VALIDATION = 2
"""Patients of each stratum that validation slides are of, at least; with fewer the epoch would be chosen by chance."""


@dataclass(frozen=True)
class SlideRecipe:
    """How a slide head learns."""

    pooling: str = "abmil"
    """mean, abmil or acmil."""
    epochs: int = 50
    lr: float = 1e-4
    """Of AdamW; a cosine to 0 over all steps."""
    weight_decay: float = 1e-5
    max_patches: int = 0
    """Patches of a slide that are drawn anew for each step; 0: all. Scoring always sees all."""
    num_branches: int = 0
    """T of acmil; 0: five."""
    masked_share: float = MASKED_SHARE
    """Of the ten patches that a branch of acmil looks at most, the share that each step hides; 0: none. Nothing is
    hidden from other poolings."""
    diversity: float = 1.0
    """Weight of how alike the branches of acmil look; 0: they may look at the same patches."""
    val_share: float = 0.2
    """Share of the patients learned from that the epoch is chosen by; 0: the last epoch is kept."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.lr <= 0 or self.max_patches < 0 or not 0 <= self.val_share < 1:
            raise MedclipError(
                Reason.WRONG_USE,
                f"epochs={self.epochs}, lr={self.lr:g}, max_patches={self.max_patches} and "
                f"val_share={self.val_share:g} cannot be.",
                hint="At least one epoch, a rate above 0, and a share of validation patients from 0 to below 1.",
            )
        if not 0 <= self.masked_share < 1 or self.diversity < 0:
            raise MedclipError(
                Reason.WRONG_USE,
                f"masked_share={self.masked_share:g} and diversity={self.diversity:g} cannot be.",
                hint="A share from 0 to below 1, since a branch that sees nothing learns nothing; a weight from 0 on.",
            )
        Shape(self.pooling, 1, 1, num_branches=self.num_branches)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Learned:
    """A head that has learned."""

    model: SlidePooling
    """In eval mode."""
    epoch: int
    """The one that was kept, from 1."""
    chosen_on: int
    """Validation slides that the epoch was chosen by; 0: it is the last one."""
    scores: tuple[float, ...] = field(default=())
    """Of each epoch on validation slides."""


def train_slides(train: Bags, recipe: SlideRecipe, *, seed: int, val: Bags | None = None) -> Learned:
    """Learn a head from slides.

    Args:
        train: Slides that are learned from.
        recipe: Recipe that the head learns by.
        seed: Seed of the initial weights, the order of slides and what is hidden of them. Torch's global source of
            chance is left as it was.
        val: Slides of other patients that the epoch is chosen by; None: the last one is kept.

    Raises:
        MedclipError: NON_FINITE for a loss that is no number, or vectors that are none; WRONG_USE for no slides.
    """
    if not len(train):
        raise MedclipError(Reason.WRONG_USE, "there is no slide to learn from.", hint="Check labels and patients.")
    model = _new_model(train, recipe, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(seed)
    truth, mask = _truth(train)
    scores: list[float] = []
    best: dict[str, Tensor] = {}

    def loss_of(rows: Tensor) -> Tensor:
        terms = []
        for row in rows.tolist():
            bag_ND = _drawn(_bag(train, row), recipe.max_patches, generator)
            pooled = model(bag_ND, generator, recipe.masked_share)
            observed = None if mask is None else mask[row : row + 1]
            loss = slide_loss(pooled, truth[row : row + 1], train.kind, observed, diversity=recipe.diversity)
            terms.append(loss.total)
        return torch.stack(terms).mean()

    def judge(epoch: int) -> None:
        nonlocal best
        if val is None or not len(val):
            return
        scores.append(_quality(slide_logits(model, val), val))
        if scores[-1] == max(scores) and scores.index(scores[-1]) == epoch - 1:
            best = {name: value.clone() for name, value in model.state_dict().items()}
        model.train()

    model.train()
    run_epochs(len(train), optimizer, loss_of, epochs=recipe.epochs, batch_size=1, seed=seed, after_epoch=judge)
    if best:
        model.load_state_dict(best)
    kept = 1 + int(np.argmax(scores)) if scores else recipe.epochs
    return Learned(model.eval(), kept, 0 if val is None else len(val), tuple(scores))


def slide_logits(model: SlidePooling, bags: Bags) -> NDArray[np.float32]:
    """Compute the logits of slides, float32 [S, C]."""
    model.eval()
    with torch.no_grad():
        logits = [model(_bag(bags, i)).slide_C.numpy() for i in range(len(bags))]
    return np.stack(logits) if logits else np.zeros((0, len(bags.names)), np.float32)


def held_back(bags: Bags, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide slides by patient into those to learn from and those that the epoch is chosen by.

    Returns:
        Rows to learn from and rows held back; none of the latter where a stratum would have fewer than
        `LEAST_VALIDATION` patients on either side.
    """
    every = np.arange(len(bags))
    patients = np.array(bags.patients)
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    for stratum in np.unique(bags.strata):
        # In the order of their slides: names are hashes with a key of each machine.
        patients_of_stratum = list(dict.fromkeys(patients[bags.strata == stratum].tolist()))
        num = round(share * len(patients_of_stratum))
        if num < LEAST_VALIDATION or len(patients_of_stratum) - num < LEAST_VALIDATION:
            return every, every[:0]
        chosen |= set(rng.permutation(patients_of_stratum)[:num].tolist())
    back = np.isin(patients, sorted(chosen))
    if len(np.unique(bags.strata[~back])) != len(np.unique(bags.strata)):
        return every, every[:0]
    return every[~back], every[back]


def _new_model(bags: Bags, recipe: SlideRecipe, seed: int) -> SlidePooling:
    dim = _bag(bags, 0).shape[1]
    shape = Shape(recipe.pooling, dim, len(bags.names), bags.kind, recipe.num_branches)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SlidePooling(shape)


def _bag(bags: Bags, row: int) -> Tensor:
    bag_ND = torch.from_numpy(np.ascontiguousarray(bags.read(row), dtype=np.float32))
    if not bool(torch.isfinite(bag_ND).all()):
        raise MedclipError(
            Reason.NON_FINITE,
            f"the patch vectors of slide {row + 1} hold values that are no numbers.",
            hint="Embed this slide again, or leave it out.",
        )
    return bag_ND


def _drawn(bag_ND: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if not most or len(bag_ND) <= most:
        return bag_ND
    return bag_ND[torch.randperm(len(bag_ND), generator=generator)[:most]]


def _truth(bags: Bags) -> tuple[Tensor, Tensor | None]:
    if not bags.rules.timed:
        return targets_of(bags.targets, torch.device("cpu")), None
    return hazard_targets(bags.targets[:, 0], bags.targets[:, 1], len(bags.names))


def _quality(logits_NC: NDArray[np.float32], bags: Bags) -> float:
    """Score an epoch, the greater the better: AUROC + macro F1 (one answer), AUROC (findings), −loss (years).

    The log loss decides between equal epochs, of which a handful of slides makes many.
    """
    if bags.rules.timed:
        truth, mask = hazard_targets(bags.targets[:, 0], bags.targets[:, 1], len(bags.names))
        return -float(masked_hazard_loss(torch.from_numpy(logits_NC), truth, mask))
    tie = 1e-6 * log_loss(logits_NC, bags.targets)
    if bags.rules.independent:
        return float(mean_auroc(logits_NC[None], bags.targets)[0]) - tie
    from sklearn.metrics import f1_score

    one_hot_NC = np.eye(len(bags.names))[bags.targets]
    margin_NC = np.stack([_margin(logits_NC, c) for c in range(len(bags.names))], axis=1)
    area = float(mean_auroc(margin_NC[None], one_hot_NC)[0])
    no_answer: Any = 0.0  # typed as text there
    f1: Any = f1_score(bags.targets, logits_NC.argmax(axis=1), average="macro", zero_division=no_answer)
    return area + float(f1) - tie


def _margin(logits_NC: NDArray[np.float32], c: int) -> NDArray[np.float64]:
    """Return the log odds of a class against all others, [N]."""
    from scipy.special import logsumexp

    others = np.delete(logits_NC.astype(np.float64), c, axis=1)
    return logits_NC[:, c] - np.asarray(logsumexp(others, axis=1), np.float64)


def of_pooling(recipe: SlideRecipe, pooling: str) -> SlideRecipe:
    """Return the same recipe with another pooling."""
    return replace(recipe, pooling=pooling, num_branches=0)


@dataclass(frozen=True, eq=False)
class SlideLoss:
    """The terms of the loss, scalars; what is trained is their sum."""

    branches: Tensor
    """Mean over the branches; 0 for one branch, whose answer is the slide's."""
    slide: Tensor
    diversity: Tensor
    """Times its weight."""

    @property
    def total(self) -> Tensor:
        """Branches + slide + diversity."""
        return self.branches + self.slide + self.diversity


def slide_loss(
    pooled: Pooled, target_1X: Tensor, kind: str, mask_1K: Tensor | None = None, *, diversity: float = 1.0
) -> SlideLoss:
    """Compute the loss of one slide.

    Args:
        pooled: Answer of the pooling.
        target_1X: int64 [1], the class; float32 [1, C] with NaN for unknown (multilabel); float32 [1, K], truth of each
            year (risk).
        kind: Kind of the task, a row of `TASK_KINDS`.
        mask_1K: Mask of a risk's years, [1, K]: 1 where the year is known.
        diversity: Weight of how alike the branches look; the other terms have 1.
    """
    num_branches = len(pooled.attention_TN)
    alike = diversity * branch_diversity(pooled.attention_TN)
    slide = _answer_loss(pooled.slide_C[None], target_1X, kind, mask_1K)
    if num_branches == 1:
        return SlideLoss(slide * 0, slide, alike)
    repeated = target_1X.expand(num_branches, *target_1X.shape[1:])
    mask = None if mask_1K is None else mask_1K.expand(num_branches, -1)
    branches = _answer_loss(pooled.branch_TC, repeated, kind, mask)
    return SlideLoss(branches, slide, alike)


def _answer_loss(logits: Tensor, target: Tensor, kind: str, mask: Tensor | None) -> Tensor:
    if kind_named(kind).timed:
        assert mask is not None
        return masked_hazard_loss(logits, target, mask)
    return task_loss(logits, target)
