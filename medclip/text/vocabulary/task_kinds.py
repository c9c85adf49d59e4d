"""The kinds of tasks, one row each: how a class is asked and scored, what its labels say, and what measures it.

No numpy here: what a row computes is imported when it is asked for. A task file names its kind, or has a key that only
files of one kind have. Rules of each kind are functions below, or "module:function".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.lazy import Table, import_name
from medclip.wording import list_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Target = Callable[..., Any] | str


@dataclass(frozen=True)
class TaskKind:
    """One kind of task; its name stands in task files, and in the column `kind` of scores."""

    words: str
    """Phrase for its answers, as errors and pages say it: "one class of several"."""
    probabilities: Target
    """(logits_NC): returns the probability of each class, in the type of the logits."""
    truth: Target
    """(task, labels, names): returns what labels of N images say of the classes of these names, float64 with NaN for
    what is not known: [N, 1], the number of the class, or [N, C], 1 and 0. A label is None where there is none."""
    check: Target
    """(file): raises ValueError for a `medclip.text.vocabulary.schema.TaskFile` that is none of this kind."""
    metrics: tuple[str, ...]
    """Names of metrics, as `medclip.statistics.metrics.classification.shares_of` has them: those of zero-shot
    evaluation, and what an adaptation is measured by beside `METRICS`; few-shot comparisons have `METRICS` alone."""
    labels: str = "label:{task}"
    """Column of a table that holds its labels."""
    one_answer: bool = False
    """Of an image one class alone is true, whose name is the label."""
    timed: bool = False
    """Its classes are years by which an event has happened: words cannot ask that, a trained head can."""
    placed: bool = False
    """Its answer is a map of the image: words cannot ask that, a trained head can, and no study has one probability."""
    rivals: Target | None = None
    """(logits [S, C − 1] of the other classes): returns what a class competes with, so that its probability is
    1 / (1 + exp(rivals − logit)); None where no such rule is known, and `probabilities` is asked instead."""
    keys: tuple[str, ...] = ()
    """Keys that only a task file of this kind has, of itself or of its classes: a file without `kind` is of the first
    kind of which it has one."""
    stands_for: Mapping[str, Any] = field(default_factory=dict)
    """What its name sets in a task file; empty for a kind that is asked and stored under its own name."""

    @property
    def independent(self) -> bool:
        """Whether each class is there or not, whatever is true of others: it is asked against its opposite."""
        return not (self.one_answer or self.timed or self.placed)

    def probabilities_of(self, logits_NC: NDArray[np.floating]) -> Any:
        """Turn logits into probabilities of the same type, [N, C]."""
        return _function(self.probabilities)(logits_NC)

    def truth_of(self, task: Any, labels: Sequence[Any], names: Sequence[str]) -> NDArray[np.float64]:
        """Read what labels say is true, see `truth`."""
        import numpy as np

        truth = np.asarray(_function(self.truth)(task, labels, names), np.float64)
        return truth if truth.ndim == 2 else truth.reshape(len(labels), -1)

    def chance_of(self, c: int, logits_SM: NDArray[np.floating], others_SC: NDArray[np.floating]) -> NDArray[Any]:
        """Compute the probability of class c for each of M logits of it beside those of the other classes, [S, M]."""
        import numpy as np
        from scipy.special import expit

        if self.rivals is not None:
            return expit(logits_SM - _function(self.rivals)(others_SC))
        every = [np.insert(others_SC, c, logits_S, axis=1) for logits_S in logits_SM.T]
        return np.stack([self.probabilities_of(logits_SC)[:, c] for logits_SC in every], axis=1)

    def check_file(self, file: Any) -> None:
        """Check the form of a task file.

        Raises:
            ValueError: The file lacks what this kind needs, or has what belongs to another.
        """
        _function(self.check)(file)


def kind_named(name: str) -> TaskKind:
    """Return the row of a kind.

    Raises:
        MedclipError: TABLE_INVALID for a kind that is not in the table.
    """
    row = TASK_KINDS.get(name)
    if row is None:
        kinds = list_of([f"{key} ({kind.words})" for key, kind in TASK_KINDS.items()])
        raise MedclipError(
            Reason.TABLE_INVALID, f"there is no kind of task named {name!r}.", hint=f"Kinds are {kinds}."
        )
    return row


def one_answer_kinds() -> frozenset[str]:
    """Return the names of the kinds of which one class alone is true."""
    return frozenset(name for name, row in TASK_KINDS.items() if row.one_answer)


def independent_kinds() -> frozenset[str]:
    """Return the names of the kinds whose classes are there or not, each for itself."""
    return frozenset(name for name, row in TASK_KINDS.items() if row.independent)


def with_kind(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a task file with its kind: the named one, or the first of which it has a key.

    Raises:
        MedclipError: TABLE_INVALID where the file sets a key otherwise than the kind that it names.

    Example:
        >>> with_kind({"ordered": True})["kind"], with_kind({"kind": "ordinal"})["ordered"]
        ('multiclass', True)
    """
    classes = values.get("classes")
    parts = [values, *(c for c in (classes if isinstance(classes, list) else ()) if isinstance(c, dict))]
    present = {key for part in parts for key, value in part.items() if value}
    recognised = (name for name, row in TASK_KINDS.items() if present & {*row.keys})
    kind = values["kind"] if "kind" in values else next(recognised, None)
    row = TASK_KINDS.get(kind) if isinstance(kind, str) else None
    sets = {} if row is None else row.stands_for
    for key in sets.keys() & values.keys() - {"kind"}:
        if values[key] != sets[key]:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"kind: {kind} means {key}: {_in_yaml(sets[key])}, and {key} is {_in_yaml(values[key])}.",
                hint=f"Leave {key} out, or name the kind {sets.get('kind', kind)}.",
            )
    return {**values, **({} if kind is None else {"kind": kind}), **sets}


def _in_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _function(target: Target) -> Callable[..., Any]:
    return import_name(target) if isinstance(target, str) else target


def softmax_over_classes(logits_NC: NDArray[np.floating]) -> Any:
    """Return probabilities that add up to 1."""
    from scipy.special import softmax

    return softmax(logits_NC, axis=1)


def sigmoid_of_each(logits_NC: NDArray[np.floating]) -> Any:
    """Return the probability of each class on its own."""
    from scipy.special import expit

    return expit(logits_NC)


def others_together(others_SC: NDArray[np.float64]) -> Any:
    """Return the logit of one of the other classes being true; scipy's logsumexp takes 0.1 ms a call, this far less."""
    import numpy as np

    return np.logaddexp.reduce(others_SC, axis=1, keepdims=True)


def nothing_else(others_SC: NDArray[np.float64]) -> float:
    """Return the logit of not being there: whatever the other classes are."""
    return 0.0


def number_of_class(task: Any, labels: Sequence[Any], names: Sequence[str]) -> list[list[float]]:
    """Read class names: the number of each, C for one that is not asked for."""
    number = {name: i for i, name in enumerate(names)}
    return [[float("nan") if label is None else number.get(label, len(names))] for label in labels]


def each_class(task: Any, labels: Sequence[Any], names: Sequence[str]) -> list[list[float]]:
    """Read which classes were looked for, and which are there."""
    nan = float("nan")
    return [[nan if label is None else label.get(name, nan) for name in names] for label in labels]


def check_one_answer(file: Any) -> None:
    """Refuse fewer than two classes, denials, and a wording of two classes."""
    _needs_words(file)
    if len(file.classes) < 2:
        raise ValueError(f"a {file.kind} task needs at least two classes")
    if any(c.negative_prompts for c in file.classes) or file.none_prompts or file.not_part_of_none:
        raise ValueError("negative_prompts, none_prompts and not_part_of_none belong to multilabel tasks")
    owners: dict[str, str] = {}
    for c in file.classes:
        for prompt in c.prompts:
            if owners.setdefault(prompt.lower(), c.name) != c.name:
                raise ValueError(f"two classes share the wording {prompt!r}")


def check_findings(file: Any) -> None:
    """Refuse an order of classes, and classes that cannot be denied."""
    _needs_words(file)
    _has_no_order(file)
    bare = [c.name for c in file.classes if not (c.negative_prompts and c.nouns and c.stems)]
    if bare:
        raise ValueError(f"{file.kind} classes need negative_prompts, nouns and stems: {', '.join(bare)}")


def check_years(file: Any) -> None:
    """Refuse lacking years, and words."""
    if not file.horizons_years or file.horizons_years != sorted(set(file.horizons_years)):
        raise ValueError(f"a {file.kind} task needs horizons_years, whole years in rising order")
    if file.classes or file.templates or file.none_prompts or file.image_names:
        raise ValueError(f"a {file.kind} task is asked of a head, not of words: it has no classes and no wordings")
    _has_no_order(file)


def check_structures(file: Any) -> None:
    """Refuse lacking structures, and words."""
    if not file.classes:
        raise ValueError(f"a {file.kind} task needs classes, the structures that it marks")
    if file.templates or file.none_prompts or file.horizons_years or any(c.negative_prompts for c in file.classes):
        raise ValueError(f"a {file.kind} task is asked of a head, not of words: it has no templates and no denials")
    _has_no_order(file)


def _needs_words(file: Any) -> None:
    if file.horizons_years:
        raise ValueError("horizons_years belongs to risk tasks")
    if not file.classes or not file.templates:
        raise ValueError("a task needs templates and classes")


def _has_no_order(file: Any) -> None:
    if file.ordered or file.worst_last:
        raise ValueError(f"{'ordered' if file.ordered else 'worst_last'} belongs to multiclass tasks")


_ONE_OF = TaskKind(
    "one class of several",
    softmax_over_classes,
    number_of_class,
    check_one_answer,
    metrics=("balanced_accuracy", "macro_auroc"),
    one_answer=True,
    rivals=others_together,
    keys=("worst_last",),
)
_ROWS: dict[str, TaskKind] = {
    "multiclass": _ONE_OF,
    "multilabel": TaskKind(
        "each class there or not",
        sigmoid_of_each,
        each_class,
        check_findings,
        metrics=("macro_auroc",),
        labels="label:{task}:CLASS with 0 or 1",
        rivals=nothing_else,
        keys=("negative_prompts", "none_prompts", "not_part_of_none"),
    ),
    "ordinal": replace(
        _ONE_OF,
        words="one step of a scale, its classes in their order",
        metrics=("balanced_accuracy", "macro_auroc", "spearman", "kappa_quadratic", "pairwise_accuracy"),
        keys=("ordered", "outside_order"),
        stands_for={"kind": "multiclass", "ordered": True},
    ),
    "risk": TaskKind(
        "the chance of an event by each of some years",
        sigmoid_of_each,
        "medclip.text.vocabulary.task:events_by_year",
        check_years,
        metrics=("macro_auroc",),
        labels="label:{task}:event_months and label:{task}:followup_months",
        timed=True,
        rivals=nothing_else,
        keys=("horizons_years",),
    ),
    "map": TaskKind(
        "where in the image each of some structures is",
        sigmoid_of_each,
        each_class,
        check_structures,
        metrics=(),
        labels="a column that names files of masks",
        placed=True,
    ),
}
TASK_KINDS = Table("medclip.task_kinds", _ROWS)
