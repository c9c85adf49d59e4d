"""Tip-Adapter: the examples as a cache of keys and labels beside the zero-shot logits; Tip-Adapter-F trains the keys.

Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022.
logits = a·f·T + α·exp(−β(1 − f·K))·Y. Multi-label: Y is +n̄/n⁺ for positives and −n̄/n⁻ for negatives of a class with
n̄ = (n⁺ + n⁻)/2, so that both sides weigh the same, and 0 where nobody knows; a class without one side stays zero-shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.budget import BATCH, check_schedule, learn_at_best_rate, passes
from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import ArrayHead
from medclip.adaptation.data.shot_features import Judge, Shots, Views, mean_of_views, take
from medclip.adaptation.frozen.estimator import FeatureClassifier
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import mean_auroc

if TYPE_CHECKING:
    from medclip.models.model import Model

ALPHA, BETA = 1.17, 1.0
"""Of the published code; used where nothing can be judged."""
SCALE = (50.0, 50.0)
"""Ends (β, α) of the search, which are not tried themselves: the biomedical harness's."""
REACH = 5.0
"""Where examples lie closer together than CLIP's, β is searched further: up to this over the median of 1 − cos."""
STEPS = (200, 200)
"""Values of β and of α that are tried; 40 of each in multi-label tasks, where a try costs a ranking for each class."""
EPS = 1e-4


@dataclass(frozen=True, eq=False)
class TipHead(ArrayHead):
    """The cache, the text, and how they are mixed."""

    keys_ND: NDArray[np.float32]
    values_NC: NDArray[np.float32]
    text_weight_DC: NDArray[np.float32]
    """Zero-shot weights, logit scale included."""
    alpha: float
    beta: float
    kind: ClassVar[str] = "tip"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C]."""
        features = np.asarray(features_ND, np.float32)
        affinity = np.exp(np.float32(-self.beta) * (1 - features @ self.keys_ND.T))
        mixed_in = np.float32(self.alpha) * (affinity @ self.values_NC)
        return np.asarray(features @ self.text_weight_DC + mixed_in, np.float32)


@dataclass(frozen=True)
class MixOptions:
    """How cache and text are mixed."""

    alpha: float | None = None
    """Weight of the cache, where it is not to be searched; `beta` has to be given too."""
    beta: float | None = None
    """Sharpness of the cache, likewise."""
    scale: tuple[float, float] | None = None
    """Ends (β, α) of the search; None for `SCALE`, and further where the examples lie close together."""
    steps: tuple[int, int] | None = None
    """Values of β and of α that are tried; None for `STEPS`."""
    views: Views = "pooled"
    """"each" makes every view a key."""

    def __post_init__(self) -> None:
        if (self.alpha is None) != (self.beta is None):
            raise MedclipError(Reason.WRONG_USE, "one of alpha and beta is given.", hint="Give both, or neither.")
        steps, scale = self.steps or STEPS, self.scale or SCALE
        if min(steps) < 1 or min(scale) <= 0.1:
            raise MedclipError(
                Reason.WRONG_USE,
                f"a search of {steps} values of β and α up to {scale} is none.",
                hint="Give ends above 0.1 and at least one value each.",
            )


def fit_tip(base: Model, text: ClassText, train: Examples, val: Examples | None, *, seed: int, **mix: Any) -> Fitted:
    """Build the cache; nothing is trained.

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots: the mean of a unit's views is one key.
        val: Examples that β and α are searched on; where None, folds of the shots, by patient; α = 1.17 and β = 1 where
            a class has one patient only.
        seed: Seed of the folds.
        mix: Fields of `MixOptions`.

    Raises:
        MedclipError: As `take`; WRONG_USE for one of α and β without the other, or a search that is none.
    """
    options = MixOptions(**mix)
    shots = take(base, text, train, val, options.views)
    chosen = _Mix(shots, seed, options).choose()
    head = replace(cache(shots, train), alpha=chosen.alpha, beta=chosen.beta)
    return Fitted(head, 0, shots.settings(alpha=chosen.alpha, beta=chosen.beta, chosen_on=chosen.chosen_on))


def fit_tip_f(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int = BATCH,
    **mix: Any,
) -> Fitted:
    """Train the keys of the cache with AdamW, at Tip-Adapter's own β and α; then search these again on `val`.

    The last epoch is the model (the published code takes the best by test accuracy). Keys are kept at unit norm: as
    free weights they reach cosines above 1, whose exp(β(cos − 1)) has no bound where β is large. At 16 shots of brain
    MRI on a base whose features lie within 0.003 in cosine, that gives 0.54 instead of 0.39.

    `alpha` and `beta` of `mix` are those of the cache while the keys are trained. `epochs` (passes over the rows; those
    of `budget.passes` where None), `batch_size` (rows in a step) and `lr` (at the start of its cosine; None: the best
    of `budget.RATES`) are of the training, `seed` also of the order of its rows. All other arguments are those of
    `fit_tip`; without `val` the mix stays.
    """
    import torch
    from torch.nn.functional import normalize

    from medclip.adaptation.frozen.train_on_features import train_epochs

    check_schedule("tip-f", lr, epochs=epochs, batch_size=batch_size)
    options = MixOptions(**mix)
    shots = take(base, text, train, val, options.views)
    mixture = _Mix(shots, seed, options)
    chosen = mixture.choose()
    num_epochs = passes(len(train)) if epochs is None else epochs

    def learn(examples: Examples, rate: float) -> Fitted:
        start = replace(cache(shots, examples), alpha=chosen.alpha, beta=chosen.beta)
        keys = torch.from_numpy(start.keys_ND.copy()).requires_grad_()
        values, weight = torch.from_numpy(start.values_NC), torch.from_numpy(start.text_weight_DC)

        def forward(features: torch.Tensor) -> torch.Tensor:
            affinity = torch.exp(-start.beta * (1 - features @ normalize(keys, dim=1).T))
            return features @ weight + start.alpha * (affinity @ values)

        optimizer = torch.optim.AdamW([keys], lr=rate, eps=EPS)
        of_examples = replace(shots, train=examples, val=None)
        train_epochs(of_examples, optimizer, forward, epochs=num_epochs, batch_size=batch_size, seed=seed)
        stated = {"lr": rate, "epochs": num_epochs, "images": num_epochs * len(examples), "batch_size": batch_size}
        head = replace(start, keys_ND=normalize(keys.detach(), dim=1).numpy())
        return Fitted(head, keys.numel(), stated)

    fitted = learn_at_best_rate(base, shots, "tip-f", learn, lr=lr, seed=seed)
    head = fitted.head
    assert isinstance(head, TipHead)
    settings = {**fitted.settings, "alpha_while_training": chosen.alpha, "beta_while_training": chosen.beta}
    mix_chosen_on = chosen.chosen_on
    if shots.val is not None:
        alpha_found, beta_found = search([(head, shots.val)], mixture.scale, mixture.steps)
        head, mix_chosen_on = replace(head, alpha=alpha_found, beta=beta_found), "val"
    settings |= {"alpha": head.alpha, "beta": head.beta, "mix_chosen_on": mix_chosen_on}
    return replace(fitted, head=head, settings=shots.settings(**settings))


class TipAdapter(FeatureClassifier):
    """Tip-Adapter as an estimator. Without class vectors it is the cache alone.

    Args:
        class_vectors: float [C, D], one row per class in the order of sorted labels; None for none.
        logit_scale: Scale a, the model's exp(logit_scale); multiplies `class_vectors`.
        alpha: Weight of the cache.
        beta: Sharpness of the cache.
    """

    def __init__(
        self, class_vectors: Any = None, logit_scale: float = 1.0, alpha: float = ALPHA, beta: float = BETA
    ) -> None:
        self.class_vectors = class_vectors
        self.logit_scale = logit_scale
        self.alpha = alpha
        self.beta = beta

    def fit(self, X: Any, y: Any) -> Self:
        """Keep features [N, D] and labels [N] as the cache."""
        features, targets = self._read(X, y)
        text = (self.logit_scale * self._text(features.shape[1])).astype(np.float32)
        values = np.eye(len(self.classes_), dtype=np.float32)[targets]
        self.head_ = TipHead(features.astype(np.float32), values, text, self.alpha, self.beta)
        return self


def cache(shots: Shots, examples: Examples) -> TipHead:
    """Make the head that has examples as its cache, at the published mix."""
    keys, targets = shots.rows(examples)
    values = np.eye(len(shots.names), dtype=np.float32)[targets] if targets.ndim == 1 else _balanced(targets)
    return TipHead(keys.astype(np.float32), values, shots.zero.weight_DC, ALPHA, BETA)


def search(
    judged: Sequence[tuple[TipHead, Examples]], scale: tuple[float, float], steps: tuple[int, int]
) -> tuple[float, float]:
    """Return the first best (α, β): by accuracy, or mean AUROC in multi-label tasks.

    β_i = 0.1 + i(S_β − 0.1)/n_β and α_j likewise: the ends S are not tried. β is the outer loop.

    Args:
        judged: A head, and examples that are not in its cache; several where the shots are folded.
        scale: Ends S of the search of β and α.
        steps: Numbers n of β and α.
    """
    betas, alphas = (0.1 + np.arange(n) * (s - 0.1) / n for s, n in zip(scale, steps, strict=True))
    targets = np.concatenate([e.targets for _, e in judged])
    features = [np.concatenate(e.features) for _, e in judged]
    apart = [1 - f @ h.keys_ND.T for f, (h, _) in zip(features, judged, strict=True)]
    zero = [mean_of_views(f @ h.text_weight_DC, e) for f, (h, e) in zip(features, judged, strict=True)]
    zero_NC = np.concatenate(zero)
    best, best_pair = -1.0, (ALPHA, BETA)
    for beta in betas:
        added = [mean_of_views(np.exp(-beta * a) @ h.values_NC, e) for a, (h, e) in zip(apart, judged, strict=True)]
        logits = zero_NC + alphas[:, None, None] * np.concatenate(added)
        right = mean_auroc(logits, targets) if targets.ndim == 2 else (logits.argmax(axis=2) == targets).mean(axis=1)
        if right.max() > best:
            best, best_pair = float(right.max()), (float(alphas[right.argmax()]), float(beta))
    return best_pair


@dataclass(frozen=True)
class _Found:
    alpha: float
    beta: float
    chosen_on: str


class _Mix:
    """Chooses α and β of a cache that is not trained."""

    def __init__(self, shots: Shots, seed: int, options: MixOptions) -> None:
        self._shots, self._seed, self._options = shots, seed, options
        self.steps = options.steps or ((40, 40) if shots.multilabel else STEPS)
        self.scale = options.scale or (max(SCALE[0], REACH / max(_apart(shots), 1e-6)), SCALE[1])

    def choose(self) -> _Found:
        """Return what was given, else what is best on `val` or folds of the shots, else the published values."""
        alpha, beta = self._options.alpha, self._options.beta
        if alpha is not None and beta is not None:
            return _Found(alpha, beta, "given")
        judge = Judge(self._shots, self._seed)
        if judge.how == "default":
            return _Found(ALPHA, BETA, judge.how)
        chosen = search([(cache(self._shots, p.learn), p.judge) for p in judge.parts], self.scale, self.steps)
        return _Found(*chosen, judge.how)


def _apart(shots: Shots) -> float:
    """Return the median of 1 − cos between different units of the shots."""
    pooled = shots.train.pooled()
    return float(np.median((1 - pooled @ pooled.T)[np.triu_indices(len(pooled), k=1)]))


def _balanced(targets_NC: NDArray) -> NDArray[np.float32]:
    """Return +n̄/n⁺ and −n̄/n⁻ for each class that has both, and 0 elsewhere."""
    yes, no = targets_NC == 1, targets_NC == 0
    num_yes, num_no = yes.sum(axis=0), no.sum(axis=0)
    mean = np.where((num_yes > 0) & (num_no > 0), (num_yes + num_no) / 2, 0.0)
    return (yes * (mean / np.maximum(num_yes, 1)) - no * (mean / np.maximum(num_no, 1))).astype(np.float32)
