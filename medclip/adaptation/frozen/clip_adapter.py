"""CLIP-Adapter: two small layers beside the image features, mixed with them by a fixed ratio.

Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024.
v = r·A(x) + (1 − r)·x with A(x) = ReLU(U·ReLU(D·x)), then v at unit norm against the text. A has no biases, so it does
not matter whether x is the raw feature of the published code or the one of unit norm here: the direction is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.budget import BATCH, check_schedule, learn_at_best_rate, passes
from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import ArrayHead
from medclip.adaptation.data.shot_features import Shots, Views, seen, take
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from torch import Tensor

    from medclip.models.model import Model

RATIO = 0.2
REDUCTION = 4
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class ClipAdapterHead(ArrayHead):
    """The two layers, the ratio and the text."""

    down_HD: NDArray[np.float32]
    up_DH: NDArray[np.float32]
    ratio: float
    text_weight_DC: NDArray[np.float32]
    """Zero-shot weights, logit scale included."""
    plain_C: NDArray[np.bool_]
    """Multi-label classes without examples: they see the feature as it is."""
    kind: ClassVar[str] = "clip_adapter"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C]."""
        features = np.asarray(features_ND, np.float32)
        logits = self.adapted(features) @ self.text_weight_DC
        return np.where(self.plain_C, features @ self.text_weight_DC, logits) if self.plain_C.any() else logits

    def adapted(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the adapted features, float32 [N, D] of unit norm."""
        inner = np.maximum(features_ND @ self.down_HD.T, 0)
        outer = np.maximum(inner @ self.up_DH.T, 0)
        mixed = np.float32(self.ratio) * outer + np.float32(1 - self.ratio) * features_ND
        return mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), _TINY)


def fit_clip_adapter(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    ratio: float = RATIO,
    reduction: int = REDUCTION,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int = BATCH,
    optimiser: Literal["adamw", "sgd"] = "adamw",
    views: Views = "pooled",
) -> Fitted:
    """Train the adapter.

    The biomedical harness's setting is `ratio=0.5, optimiser="sgd", lr=0.01, epochs=20`; at 16 examples it moves the
    layers hardly away from where they start.

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots.
        val: Further examples, which choose the rate where none is given; folds of the shots do where there are none.
        seed: Seed of the first weights and the order of rows.
        ratio: Share r of the adapter, from 0 (zero-shot) to 1.
        reduction: D divided by the width between the layers.
        epochs: Passes over the rows; those of `budget.passes` where None.
        lr: Learning rate at the start of the cosine; None: the best of `budget.RATES`.
        batch_size: Rows in one step.
        optimiser: Name of the optimiser: "adamw", or "sgd" with momentum 0.9 and weight decay 0.0005.
        views: Kind of rows: one for each unit, or one for each view.

    Raises:
        MedclipError: As `take` and `train_epochs`; WRONG_USE for a ratio outside 0 … 1, a reduction below 1 or another
            optimiser.
    """
    check_schedule("clip-adapter", lr, epochs=epochs, batch_size=batch_size)
    if not 0 <= ratio <= 1:
        raise MedclipError(Reason.WRONG_USE, f"ratio is {ratio}; it lies between 0 and 1.")
    if reduction < 1:
        raise MedclipError(Reason.WRONG_USE, f"reduction is {reduction}; it takes at least 1.")
    if optimiser not in ("adamw", "sgd"):
        raise MedclipError(Reason.WRONG_USE, f"optimiser is {optimiser!r}.", hint='It is "adamw" or "sgd".')
    shots = take(base, text, train, val, views)
    num_epochs = passes(len(train)) if epochs is None else epochs
    start = first_head(shots, ratio, reduction, seed)
    stated = {"ratio": ratio, "reduction": reduction, "optimiser": optimiser, "batch_size": batch_size}

    def learn(examples: Examples, rate: float) -> Fitted:
        of_examples = replace(shots, train=examples, val=None)
        schedule = {"lr": rate, "epochs": num_epochs, "batch_size": batch_size, "seed": seed}
        head = _train(of_examples, start, optimiser, **schedule)
        settings = shots.settings(lr=rate, epochs=num_epochs, images=num_epochs * len(examples), **stated)
        return Fitted(head, head.down_HD.size + head.up_DH.size, settings)

    return learn_at_best_rate(base, shots, "clip-adapter", learn, lr=lr, seed=seed)


def first_head(shots: Shots, ratio: float, reduction: int, seed: int) -> ClipAdapterHead:
    """Draw the layers as torch's `Linear` does: uniform within ±1/√(inputs)."""
    rng = np.random.default_rng(seed)
    dim = len(shots.zero.weight_DC)
    hidden = max(dim // reduction, 1)
    down = rng.uniform(-1, 1, (hidden, dim)) / np.sqrt(dim)
    up = rng.uniform(-1, 1, (dim, hidden)) / np.sqrt(hidden)
    plain = ~seen(shots.train.targets, len(shots.names)) & shots.multilabel
    return ClipAdapterHead(down.astype(np.float32), up.astype(np.float32), ratio, shots.zero.weight_DC, plain)


def _train(
    shots: Shots, start: ClipAdapterHead, optimiser: str, *, lr: float, epochs: int, batch_size: int, seed: int
) -> ClipAdapterHead:
    import torch
    from torch.nn.functional import normalize, relu

    from medclip.adaptation.frozen.train_on_features import train_epochs

    down, up = (torch.from_numpy(a.copy()).requires_grad_() for a in (start.down_HD, start.up_DH))
    weight = torch.from_numpy(start.text_weight_DC)

    def forward(features: Tensor) -> Tensor:
        outer = relu(relu(features @ down.T) @ up.T)
        return normalize(start.ratio * outer + (1 - start.ratio) * features, dim=1, eps=_TINY) @ weight

    if optimiser == "sgd":
        steps: torch.optim.Optimizer = torch.optim.SGD([down, up], lr=lr, momentum=0.9, weight_decay=5e-4)
    else:
        steps = torch.optim.AdamW([down, up], lr=lr)
    train_epochs(shots, steps, forward, epochs=epochs, batch_size=batch_size, seed=seed)
    return replace(start, down_HD=down.detach().numpy(), up_DH=up.detach().numpy())
