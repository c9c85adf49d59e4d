"""What the log of a run says, and what stands out in it: plain sentences made of its numbers, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from medclip.evaluation.hidden_pixels import MASKED_ERROR, MASKED_GAIN
from medclip.evaluation.shard_split import RETRIEVAL, VIEWS
from medclip.reports.model_card import metric_title, task_title
from medclip.training.recipe.schema import Recipe
from medclip.wording import by_reason, count, figure, interval, list_of, number, percent, real

if TYPE_CHECKING:
    from medclip.training.reconstructions import Reconstruction

Severity = Literal["bad", "wait", "good"]
_ORDER: tuple[Severity, ...] = ("bad", "wait", "good")
_WAITS = 0.1
"""Share of the time waiting for data, or with an idle device, that is too much; a few per cent are usual."""
_WORSE = 1.02
"""Factor on the lowest validation loss above which the last one has risen, and not only wavered."""
_AT_LIMIT = 99.9
_LEARNED = 0.25
"""Share by which a guess of hidden patches must be better than one without a model."""


@dataclass(frozen=True)
class History:
    """The entries of a log, in order."""

    entries: Sequence[Mapping[str, Any]]

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the entries of a kind: step, val, skip, bad, note or resume."""
        return [entry for entry in self.entries if entry.get("kind") == kind]

    def column(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of each logged step that has a finite value."""
        return [(e["step"], value) for e in self.of("step") if (value := real(e.get(name))) is not None]

    def validation(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of each validation that has a finite value."""
        return [(e["step"], value) for e in self.of("val") if (value := real(e.get(name))) is not None]

    @property
    def skipped(self) -> list[int]:
        """Steps whose loss or gradient was not finite."""
        return [e["step"] for e in self.of("skip")]

    @property
    def resumed(self) -> list[int]:
        """Steps that the run was taken up at; a run that was finished already is not taken up."""
        last = max((e["step"] for e in self.of("step")), default=0)
        return sorted({e["step"] for e in self.of("resume") if e["step"] < last})

    @property
    def bad(self) -> dict[str, int]:
        """Samples that could not be read, by reason, up to the last count."""
        counts = self.of("bad")
        return {} if not counts else {k: v for k, v in counts[-1].items() if k not in ("kind", "step")}

    @property
    def notes(self) -> list[str]:
        """What the run noted, each once."""
        return list(dict.fromkeys(str(e["note"]) for e in self.of("note")))


@dataclass(frozen=True)
class Finding:
    """One sentence, and how bad it is."""

    severity: Severity
    text: str


def findings(
    recipe: Recipe,
    history: History,
    rows: Sequence[Mapping[str, Any]],
    *,
    finished: bool,
    filled: Sequence[Reconstruction] = (),
) -> list[Finding]:
    """List what stands out, the worst first.

    `rows` are the figures of the run's own test split, as `SplitFigures.rows` has them; empty where none was measured.
    """
    every = [*_steps(history), *_samples(history), *_loss(recipe, history), *_test(recipe, rows, finished)]
    every += [*_filled(filled, rows), *_speed(history)]
    if not finished:
        every.append(Finding("wait", "The run was stopped before its end: there is no pack yet."))
    if not any(one.severity != "good" for one in every):
        every.insert(0, Finding("good", "No step was left out, no sample was unreadable, and the loss went down."))
    return sorted(every, key=lambda one: _ORDER.index(one.severity))


def _steps(history: History) -> Iterator[Finding]:
    skipped = history.skipped
    if skipped:
        steps = list_of([number(step) for step in skipped], most=5)
        what = "step was" if len(skipped) == 1 else "steps were"
        yield Finding(
            "bad", f"{number(len(skipped))} {what} left out since its loss or gradient was not finite: {steps}."
        )
    scales = [value for _, value in history.column("scale")]
    if scales and scales[-1] >= _AT_LIMIT:
        yield Finding(
            "wait", "The logit scale ended at its limit of 100: the loss asks for more certainty than it may have."
        )


def _samples(history: History) -> Iterator[Finding]:
    bad = history.bad
    if bad:
        yield Finding(
            "bad", f"{count(sum(bad.values()), 'sample')} could not be read ({by_reason(bad)}) and took no part."
        )


def _loss(recipe: Recipe, history: History) -> Iterator[Finding]:
    losses = history.column("loss")
    if len(losses) > 1 and losses[-1][1] >= losses[0][1]:
        first, last = (figure(losses[i][1], decimals=3) for i in (0, -1))
        yield Finding(
            "bad", f"The training loss did not go down: {first} in the first logged step, {last} in the last."
        )
    validation = history.validation("val_loss")
    if not validation:
        yield Finding("wait", "There was no validation: nothing says when the run began to learn its images by heart.")
        return
    step, lowest = min(validation, key=lambda point: point[1])
    last = validation[-1][1]
    if last > _WORSE * lowest:
        kept = "that step’s" if recipe.train.export == "best" else "those of the last step (train.export)"
        if recipe.train.export == "best" and (history.validation("auroc") or recipe.train.best_by != "loss"):
            kept = f"those of {chosen_step(recipe, history)}"
        yield Finding(
            "wait",
            f"The validation loss was lowest at step {number(step)} ({figure(lowest, decimals=3)}) and rose to "
            f"{figure(last, decimals=3)}; the weights in the pack are {kept}.",
        )


def chosen_step(recipe: Recipe, history: History) -> str:
    """Return which step has the weights of the pack, and the figure that chose it; nothing for the last step."""
    if recipe.train.export != "best":
        return ""
    if recipe.train.best_by == "within_sources":
        if not (means := history.validation("within_sources")):
            return ""
        step, mean = max(means, key=lambda point: point[1])
        return (
            f"step {number(step)}, with the highest mean over tasks within single sources ({figure(mean, decimals=3)})"
        )
    if areas := history.validation("auroc"):
        step, area = max(areas, key=lambda point: point[1])
        return f"step {number(step)}, with the highest mean AUROC in validation ({figure(area, decimals=3)})"
    if losses := history.validation("val_loss"):
        step, loss = min(losses, key=lambda point: point[1])
        return f"step {number(step)}, with the lowest loss in validation ({figure(loss, decimals=3)})"
    return ""


def _test(recipe: Recipe, rows: Sequence[Mapping[str, Any]], finished: bool) -> Iterator[Finding]:
    of_run = [row for row in rows if row["metric"].split()[-1] != "start"]
    if finished and not of_run and recipe.needs_words:
        yield Finding(
            "wait", "No test split was measured: the figures below are of images that settings were chosen with."
        )
    yield from _same_patients(rows)
    with_chance = [
        row for row in of_run if row["chance"] is not None and row["low"] is not None and row["task"] != VIEWS
    ]
    if errors := [row for row in with_chance if row["metric"] == MASKED_ERROR and row["value"] >= row["chance"]]:
        yield Finding("bad", f"On the test split, no better than a guess without a model: {_with_chance(errors)}.")
    with_chance = [row for row in with_chance if row["metric"] != MASKED_ERROR]
    below = [row for row in with_chance if row["value"] <= row["chance"] and row["metric"] != MASKED_GAIN]
    unsure = [row for row in with_chance if row["low"] <= row["chance"] < row["value"]]
    among_several = [row for row in below if _is_among_several(row)]
    if plain := [row for row in below if not _is_among_several(row)]:
        yield Finding("bad", f"On the test split, no better than chance: {_with_chance(plain)}.")
    if among_several:
        yield Finding(
            "wait",
            f"On the test split, no better than chance: {_with_chance(among_several)}. A shuffled list does well where "
            "many images share a text, and a model that puts like beside like makes the same mistake several times: "
            "R@1 says more here.",
        )
    if unsure:
        yield Finding("wait", f"On the test split, intervals hold what chance gives: {_with_chance(unsure)}.")


def _same_patients(rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield how often an image finds another of its patient, where views of one thing were drawn together."""
    of_metric = {row["metric"]: row for row in rows if row["task"] == VIEWS}
    after = of_metric.get("re_identification zero_shot") or of_metric.get("re_identification")
    if after is not None and after["chance"] is not None:
        before = of_metric.get("re_identification start")
        then = "" if before is None else f", by the model that the run began with {percent(before['value'])}"
        yield Finding(
            "wait",
            f"On the test split, {percent(after['value'])} of images find an image of the same patient first{then}; "
            f"at random {percent(after['chance'])} would: vectors of this model are personal data.",
        )


def _filled(filled: Sequence[Reconstruction], rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield that little was learned: on the test split, or on the images that are shown where that was not measured."""
    where, gain = f"On {count(len(filled), 'held-out image')}", _better_than_naive(filled) if filled else 1.0
    for row in rows:
        if row["metric"] == MASKED_ERROR and row["chance"]:
            where, gain = "On the test split", 1 - row["value"] / row["chance"]
            if gain <= 0 and row["low"] is not None:
                return  # `_test` says so
    if gain < _LEARNED:
        by = f"{percent(gain)} smaller" if gain > 0 else "no smaller"
        yield Finding(
            "wait",
            f"{where} hidden patches are guessed hardly better than without a model (the error is {by}): train longer, "
            "or with a larger train.lr.",
        )


def _is_among_several(row: Mapping[str, Any]) -> bool:
    """Whether a figure is a recall among more than the first answer."""
    return row["task"] == RETRIEVAL and not row["metric"].split()[0].endswith("_r1")


def _with_chance(rows: Sequence[Mapping[str, Any]]) -> str:
    texts = []
    for row in rows:
        value, chance = (figure(row[name], decimals=3) for name in ("value", "chance"))
        texts.append(f"{_title(row)} {value} ({interval(row['low'], row['high'], decimals=3)}; chance {chance})")
    return "; ".join(texts)


def _speed(history: History) -> Iterator[Finding]:
    waiting, idle = (_mean(history, key) for key in ("data_wait", "device_idle"))
    if waiting > _WAITS:
        yield Finding(
            "wait",
            f"{percent(waiting)} of the time was spent waiting for data: raise data.workers, then use "
            "data.worker_kind: process.",
        )
    elif idle > _WAITS:
        yield Finding(
            "wait",
            f"The device was idle {percent(idle)} of the time though data was there: a larger train.micro_batch or "
            "train.compile give it more to do at once.",
        )


def _mean(history: History, name: str) -> float:
    values = [value for _, value in history.column(name)]
    return sum(values) / len(values) if values else 0.0


def _better_than_naive(reconstructions: Sequence[Reconstruction]) -> float:
    """Return by which share the guesses' error is smaller than that of guesses without a model; below 0: larger."""
    naive = sum(one.naive_error for one in reconstructions)
    return 1 - sum(one.error for one in reconstructions) / naive if naive > 0 else 0.0


def _title(row: Mapping[str, Any]) -> str:
    """Return what a figure is, with its task."""
    metric = metric_title(row["metric"])
    return metric if row["task"] == RETRIEVAL else f"{task_title(row['task'])}: {metric}"
