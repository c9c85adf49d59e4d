"""What every method on frozen features shares: checked shots, rows to learn from, and a fair judge of settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import Head, LinearHead, text_head
from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.class_vectors import ClassVectors
from medclip.statistics.metrics.selection_score import Quality, quality

if TYPE_CHECKING:
    from medclip.models.model import Model

Views = Literal["pooled", "each"]
"""One row for each unit (the mean of its views), or one for each view with its unit's label."""
Setting = TypeVar("Setting")
FOLDS = 5
"""Of the cross-validation inside the shots, where there are enough patients."""


@dataclass(frozen=True, eq=False)
class Shots:
    """The examples of one task, checked: finite, of one size, at least two classes."""

    names: tuple[str, ...]
    train: Examples
    val: Examples | None
    vectors: ClassVectors | None
    """None for an image-only pack."""
    logit_scale: float
    zero: LinearHead
    """Zero-shot: a·cos, or a·(cos⁺ − cos⁻) for multi-label tasks; zeros for an image-only pack."""
    views: Views

    @property
    def multilabel(self) -> bool:
        """Whether a unit may have several classes."""
        return self.train.multilabel

    @property
    def no_examples(self) -> list[str]:
        """Classes that `train` cannot teach: without a unit, or (multi-label) without a positive or a negative."""
        present = seen(self.train.targets, len(self.names))
        return [n for n, is_there in zip(self.names, present, strict=True) if not is_there]

    def rows(self, examples: Examples) -> tuple[NDArray[np.float64], NDArray]:
        """Return features float64 [M, D] of unit norm and their targets, int64 [M] or float32 [M, C]."""
        if self.views == "pooled":
            return examples.pooled().astype(np.float64), examples.targets
        counts = [len(v) for v in examples.features]
        return np.concatenate(examples.features).astype(np.float64), np.repeat(examples.targets, counts, axis=0)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return what every method on features states, and `more`."""
        stated: dict[str, Any] = {"views": self.views, **more}
        if self.no_examples:
            stated["no_examples"] = self.no_examples
        return stated


def take(base: Model, text: ClassText, train: Examples, val: Examples | None, views: Views = "pooled") -> Shots:
    """Check the examples and encode the classes' words, where the base understands any.

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots.
        val: Further examples to choose settings with; as good as None where there are none, or (multi-label) where no
            class has both a positive and a negative among them.
        views: Kind of rows: one for each unit, or one for each view.

    Raises:
        MedclipError: NON_FINITE for features that are not finite or have no direction; WRONG_USE for no examples, one
            class only, a class without examples where the base is image only, targets that do not fit the task,
            features of another size than the text's, or another `views`.
    """
    if views not in ("pooled", "each"):
        raise MedclipError(Reason.WRONG_USE, f"views is {views!r}.", hint='It is "pooled" or "each".')
    vectors = text.vectors(base) if base.has_text else None
    zero = _no_words(base.dim, len(text.names)) if vectors is None else text_head(vectors, base.logit_scale)
    if not np.isfinite(zero.weight_DC).all():
        raise MedclipError(Reason.NON_FINITE, "the class vectors of the base model are not finite.")
    if len(train) == 0:
        raise MedclipError(Reason.WRONG_USE, "there are no examples to learn from.")
    used = val if val is not None and len(val) else None
    for name, examples in (("examples", train), ("validation examples", used)):
        if examples is not None:
            _check(name, examples, text, dim=len(zero.weight_DC))
    if not train.multilabel and len(np.unique(train.targets)) < 2:
        only = text.names[int(train.targets[0])]
        raise MedclipError(
            Reason.WRONG_USE, f"all examples are of one class, {only}.", hint="Give examples of at least two classes."
        )
    if not seen(train.targets, len(text.names)).any():
        raise MedclipError(
            Reason.WRONG_USE,
            "no class has both an example that shows it and one that does not.",
            hint=f"Give both for at least one of {', '.join(text.names)}.",
        )
    unseen = [n for n, shown in zip(text.names, seen(train.targets, len(text.names)), strict=True) if not shown]
    if vectors is None and unseen:
        both = " both with and without it" if train.multilabel else ""
        raise MedclipError(
            Reason.WRONG_USE,
            f"there are no examples{both} of {unseen[0]}, and the base is image only: it has no words to stand in.",
            hint="Give examples of every class, or leave the class out.",
        )
    if used is not None and used.multilabel and not seen(used.targets, len(text.names)).any():
        used = None
    return Shots(text.names, train, used, vectors, base.logit_scale, zero, views)


def _no_words(dim: int, num_classes: int) -> LinearHead:
    return LinearHead(np.zeros((dim, num_classes), np.float32), np.zeros(num_classes, np.float32))


def seen(targets: NDArray, num_classes: int) -> NDArray[np.bool_]:
    """Return which classes can be learned: with a unit, or (multi-label) with a positive and a negative; bool [C]."""
    if targets.ndim == 1:
        return np.bincount(targets, minlength=num_classes) > 0
    return (targets == 1).any(axis=0) & (targets == 0).any(axis=0)


def with_unseen(head: LinearHead, zero: LinearHead, there_C: NDArray[np.bool_], *, multilabel: bool) -> LinearHead:
    """Return classes without examples a logit from the text.

    Multi-label classes stand alone and take the zero-shot logit. Classes that compete take the lead that zero-shot
    gives them over the mean of the learned classes, on top of those classes' mean logit: log-odds between classes
    without examples are zero-shot's.

    Args:
        head: Head that was learned; columns of classes without examples hold anything.
        zero: Zero-shot head.
        there_C: bool [C], which classes were learned.
        multilabel: Whether classes stand alone.
    """
    if there_C.all():
        return head
    weight, bias = head.weight_DC.copy(), head.bias_C.copy()
    missing = ~there_C
    weight[:, missing], bias[missing] = zero.weight_DC[:, missing], 0.0
    if not multilabel:
        weight[:, missing] += (head.weight_DC - zero.weight_DC)[:, there_C].mean(axis=1, keepdims=True)
        bias[missing] = head.bias_C[there_C].mean()
    return LinearHead(weight, bias)


def unit_logits(head: Head, examples: Examples) -> NDArray[np.float64]:
    """Return the logits of each unit, float64 [N, C]: the mean over its views, as scoring does."""
    return mean_of_views(head.logits(np.concatenate(examples.features), None), examples)


def mean_of_views(values_MX: NDArray, examples: Examples) -> NDArray[np.float64]:
    """Average what belongs to the M views of N units over each unit's own; float64 [N, X]."""
    counts = np.array([len(v) for v in examples.features])
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.add.reduceat(np.asarray(values_MX, np.float64), firsts, axis=0) / counts[:, None]


@dataclass(frozen=True, eq=False)
class Part:
    """Examples to learn from, and others to judge by what was learned."""

    learn: Examples
    judge: Examples


class Judge:
    """Scores settings of a method: on `val`, else by cross-validation inside the shots, folds made of whole patients.

    Where a class has one patient only (multi-label: where no fold leaves both sides of a class to learn from), and
    there is no `val`, nothing can be judged: `how` is "default", and there are no `parts`.
    """

    how: Literal["val", "folds", "default"]

    def __init__(self, shots: Shots, seed: int, most_folds: int = FOLDS) -> None:
        train = shots.train
        if shots.val is not None:
            self.how, self.parts = "val", (Part(train, shots.val),)
            return
        every = np.arange(len(train))
        divided = folds(train, len(shots.names), seed, most_folds)
        parts = tuple(_part(train.select(np.setdiff1d(every, rows)), train.select(rows)) for rows in divided)
        judged = bool(parts) and seen(np.concatenate([p.judge.targets for p in parts]), len(shots.names)).any()
        self.how, self.parts = ("folds", parts) if judged else ("default", ())

    def logits(self, heads: Sequence[Head]) -> NDArray[np.float64]:
        """Return the logits of all judged units, from the head of each part; float64 [N, C]."""
        return np.concatenate([unit_logits(h, p.judge) for h, p in zip(heads, self.parts, strict=True)])

    @property
    def targets(self) -> NDArray:
        """Return the targets of all judged units, in the order of `logits`."""
        return np.concatenate([p.judge.targets for p in self.parts])

    def quality(self, heads: Sequence[Head]) -> Quality:
        """Score the heads that were learned from the parts; the greater the better."""
        return quality(self.logits(heads), self.targets)

    def log_loss(self, heads: Sequence[Head]) -> float:
        """Return the log loss of the heads that were learned from the parts, over all judged units."""
        return -self.quality(heads).minus_log_loss

    def best(
        self, settings: Sequence[Setting], learn: Callable[[Examples, Setting], Head], default: Setting
    ) -> Setting:
        """Return the first of the best settings, or `default` where nothing can be judged."""
        if self.how == "default":
            return default
        scores = [self.quality([learn(p.learn, s) for p in self.parts]) for s in settings]
        return settings[max(range(len(settings)), key=scores.__getitem__)]


def _part(learn: Examples, judge: Examples) -> Part:
    """Make a part; in multi-label tasks without judging by classes that cannot be learned in it."""
    if not learn.multilabel:
        return Part(learn, judge)
    present = seen(learn.targets, learn.targets.shape[1])
    return Part(learn, replace(judge, targets=np.where(present, judge.targets, np.float32("nan"))))


def folds(train: Examples, num_classes: int, seed: int, most: int = FOLDS) -> tuple[NDArray[np.int64], ...]:
    """Divide the shots into at most `most` folds of whole patients, classes spread evenly.

    Patients are dealt in the order of their first rows. Their names are hashes with a key of each machine: in the order
    of names two machines chose two settings from the same shots.

    Returns:
        Rows of each fold. None at all where a fold would take all patients of a class away.
    """
    rng = np.random.default_rng(seed)
    classes = train.targets if not train.multilabel else np.zeros(len(train), np.int64)
    rows_of_class = (np.flatnonzero(classes == c) for c in range(num_classes))
    of_class = [list(dict.fromkeys(train.patients[i] for i in rows)) for rows in rows_of_class]
    count = min([most, *(len(p) for p in of_class if p)])
    if count < 2:
        return ()
    fold: dict[str, int] = {}
    for patients in of_class:
        new = [p for p in patients if p not in fold]
        sizes = [sum(fold.get(p) == k for p in patients) for k in range(count)]
        for i in rng.permutation(len(new)):
            fold[new[int(i)]] = k = int(np.argmin(sizes))
            sizes[k] += 1
    of_row = np.array([fold[p] for p in train.patients])
    present = seen(train.targets, num_classes)
    for k in range(count):
        if not train.multilabel and (seen(train.targets[of_row != k], num_classes) != present).any():
            return ()
    return tuple(rows for k in range(count) if len(rows := np.flatnonzero(of_row == k)))


def _check(name: str, examples: Examples, text: ClassText, dim: int) -> None:
    for i, views in enumerate(examples.features):
        if views.ndim != 2 or views.shape[1] != dim or not len(views):
            raise MedclipError(
                Reason.WRONG_USE, f"features of the {name} are {list(views.shape)}; the text's have {dim} dimensions."
            )
        if not np.isfinite(views).all():
            raise MedclipError(
                Reason.NON_FINITE,
                f"the features of unit {i} of the {name} are not finite.",
                hint="The image tower gave NaN or infinity for it; leave it out, or check the base model.",
            )
        if np.linalg.norm(views.mean(axis=0, dtype=np.float64)) < 1e-6:
            raise MedclipError(Reason.NON_FINITE, f"the features of unit {i} of the {name} have no direction (norm 0).")
    targets, count = examples.targets, len(text.names)
    if examples.multilabel != text.rules.independent or len(targets) != len(examples):
        raise MedclipError(Reason.WRONG_USE, f"the targets of the {name} do not fit a {text.kind} task.")
    if examples.multilabel:
        fits = targets.shape[1] == count and bool((np.isnan(targets) | (targets == 0) | (targets == 1)).all())
    else:
        fits = bool(np.issubdtype(targets.dtype, np.integer) and (targets >= 0).all() and (targets < count).all())
    if not fits:
        raise MedclipError(Reason.WRONG_USE, f"the targets of the {name} are not those of {count} classes.")
