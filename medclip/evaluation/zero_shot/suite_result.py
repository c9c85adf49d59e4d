"""What an evaluation over a suite gives: figures by set, means by group, what was missing; and its folder.

Sets that are done stay in the folder, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import printable
from medclip.evaluation.dense.figures import DenseFigures
from medclip.evaluation.zero_shot.compared_packs import ComparedPacks
from medclip.evaluation.zero_shot.figures import (
    OTHER_WORDS,
    BesideCard,
    TaskFigures,
    TextFigures,
    card_lines,
    task_lines,
    text_lines,
)
from medclip.evaluation.zero_shot.sensitivity import Negation, Sensitivity
from medclip.evaluation.zero_shot.suite import SuiteFile
from medclip.files.output import claim_run, read_note, write_file
from medclip.files.tables.write import parquet_bytes
from medclip.models.packs.word_control import WordControl
from medclip.result import Result
from medclip.statistics.estimate import DECIMALS, Figure
from medclip.wording import by_reason, estimate, list_of

if TYPE_CHECKING:
    import pyarrow as pa


TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
}
"""Metrics that can stand for a set; the table on screen has them, evaluate.json all."""


@dataclass(frozen=True)
class SetResult:
    """One set, measured."""

    id: str
    group: str
    modality: str
    metric: str
    """The figure that enters the group's mean."""
    classes: tuple[str, ...]
    prompts_per_class: tuple[int, ...]
    images_per_class: tuple[int, ...]
    """Of the images that could be read."""
    num_images: int
    num_read: int
    num_left_out: int
    problems: Mapping[str, int]
    """Images that could not be read, by reason."""
    num_patients: int | None
    """None where the data does not say whose images they are: intervals are over images then."""
    num_in_training: int | None
    """Images that the pack was trained on; None where the pack does not list its training files."""
    figures: Mapping[str, Figure]
    unseen: Mapping[str, Figure]
    """The same figures without the images of training, and without the other images of their patients; empty where
    there are none to leave out, or where only one class remains."""
    num_unseen: int
    notes: tuple[str, ...]
    word_control: WordControl | None = None
    """The set with words of other findings, and with words of nothing medical; None where no figure is defined."""
    sensitivity: Sensitivity | None = None
    """What the figures owe to the prompts; None where that was not asked."""

    @property
    def value(self) -> float | None:
        """The figure that enters the group's mean; None where no image could be read."""
        figure = self.figures.get(self.metric)
        return None if figure is None else figure.value

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SetResult:
        """Read back what `to_json` gave."""
        kept = dict(values)
        for name in ("figures", "unseen"):
            kept[name] = {metric: Figure(**figure) for metric, figure in kept[name].items()}
        for name in ("classes", "prompts_per_class", "images_per_class", "notes"):
            kept[name] = tuple(kept[name])
        if kept.get("word_control") is not None:
            kept["word_control"] = WordControl.from_json(kept["word_control"])
        if kept.get("sensitivity") is not None:
            kept["sensitivity"] = Sensitivity.from_json(kept["sensitivity"])
        return cls(**kept)


@dataclass(frozen=True)
class MissingSet:
    """A set of the suite that is not in the data folder."""

    id: str
    group: str
    looked_for: tuple[str, ...]
    """Relative to the data folder."""


@dataclass(frozen=True)
class UnusableSet:
    """A set that is in the data folder and does not fit the suite."""

    id: str
    group: str
    reason: str
    message: str
    """What does not fit and where, relative to the data folder."""


@dataclass(frozen=True)
class GroupMean:
    """The mean over the measured sets of one group."""

    id: str
    title: str
    num_sets: int
    """In the suite: the weight of the group in the full average, where sets weigh alike."""
    num_measured: int
    mean: float | None
    published: float | None
    """In percent."""


@dataclass(frozen=True, repr=False)
class SuiteResult(Result):
    """A whole evaluation."""

    suite: str
    suite_digest: str
    model: str
    model_version: str
    model_digest: str
    """Hash of the pack's manifest."""
    sets: tuple[SetResult, ...]
    missing: tuple[MissingSet, ...]
    unusable: tuple[UnusableSet, ...]
    not_asked: tuple[str, ...]
    groups: tuple[GroupMean, ...]
    average: float | None
    """Mean over the measured sets (with all of them there, the mean of the groups weighted by their sets); or over the
    means of the measured groups, where the suite says that these weigh alike."""
    num_sets: int
    """In the suite."""
    notes: tuple[str, ...]
    """What a reader of the figures must know, in sentences."""
    negation: Negation | None = None
    """Whether the text tower hears "no"; None where that was not asked."""
    compared: ComparedPacks | None = None
    """The same images by another pack; None where none was named."""
    tasks: tuple[TaskFigures, ...] = ()
    """Tasks of the vocabulary over all sets that ask them: by source and across them, and beside the card."""
    texts: tuple[TextFigures, ...] = ()
    """Images and the words of their source, looked for by each other."""
    dense: tuple[DenseFigures, ...] = ()
    """Images with masks, on which heads over the frozen tower learned to segment."""
    beside_card: BesideCard | None = None
    """How far all of this is from the pack's card; None where the card has no figures."""
    folder: Path | None = None
    """Where evaluate.json and predictions.parquet are."""

    @property
    def num_problems(self) -> int:
        """Images that could not be read."""
        return sum(sum(s.problems.values()) for s in (*self.sets, *self.texts, *self.dense))

    @property
    def num_in_training(self) -> int | None:
        """Measured images that the pack was trained on; None where it does not say."""
        counts = [s.num_in_training for s in (*self.sets, *self.dense) if s.num_in_training is not None]
        return sum(counts) if counts else None

    def _facts(self) -> dict[str, object]:
        ids = [s.id for s in (*self.sets, *self.dense)]
        average = "none" if self.average is None else f"{100 * self.average:.2f} %"
        return {
            "suite": self.suite,
            "model": f"{self.model} {self.model_version}",
            "sets": f"{len(ids)} of {self.num_sets}: {list_of(ids, most=5)}",
            "average": average,
            "images in training": "unknown" if self.num_in_training is None else self.num_in_training,
            "images not read": self.num_problems,
            "sets that do not fit": len(self.unusable),
            **self._against(),
        }

    def _against(self) -> dict[str, str]:
        """Return the fact of a comparison, where there is one."""
        rows = () if self.compared is None else self.compared.rows()
        if self.compared is None or not rows:
            return {}
        apart = rows[-1].difference
        return {f"less {self.compared.model}": estimate(apart.value, apart.low, apart.high)}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        rows = [
            {"set": s.id, "metric": name, "value": f.value, "low": f.low, "high": f.high, "num_images": s.num_read}
            for s in self.sets
            for name, f in s.figures.items()
        ]
        rows += [row for one in self.dense for row in one.rows()]
        return rows[:most]

    def to_json(self) -> str:
        """Return the text of evaluate.json; the same evaluation gives the same bytes."""
        values = {k: v for k, v in asdict(self).items() if k != "folder"}
        values |= {"num_in_training": self.num_in_training, "num_problems": self.num_problems}
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    def lines(self) -> Iterator[str]:
        """Yield the table on screen and the sentences under it."""
        yield f"{self.suite} · {self.model} {self.model_version}"
        yield ""
        if self.sets:
            yield from _table(self)
            yield ""
        for one in self.dense:
            yield from one.lines()
            yield ""
        if self.tasks:
            yield from task_lines(self.tasks)
            yield ""
        if self.texts:
            yield from text_lines(self.texts)
            yield ""
        if self.beside_card is not None and (self.tasks or self.texts):
            yield from card_lines(self.beside_card)
            yield ""
        if self.compared is not None:
            yield from self.compared.lines(f"{self.model} {self.model_version}")
            yield ""
        if self.negation is not None:
            yield self.negation.line()
        yield from self.notes


def suite_result(
    suite: SuiteFile,
    sets: Sequence[SetResult],
    missing: Sequence[MissingSet],
    unusable: Sequence[UnusableSet],
    not_asked: Sequence[str],
    *,
    model: Any,
    model_digest: str,
) -> SuiteResult:
    """Join the sets: means by group, the average, and what has to be said about them."""
    values = {s.id: s.value for s in sets if s.value is not None}
    groups, means = [], []
    for group in suite.groups:
        members = suite.members(group.id)
        present = [values[m.id] for m in members if m.id in values]
        means += [sum(present) / len(present)] if present else []
        mean = _mean(present) if suite.is_averaged else None
        groups.append(GroupMean(group.id, group.title, len(members), len(present), mean, group.published))
    average = _mean(means if suite.average == "groups" else list(values.values())) if suite.is_averaged else None
    return SuiteResult(
        suite=suite.name,
        suite_digest=suite.digest(),
        model=model.name,
        model_version=str(model.card.version),
        model_digest=model_digest,
        sets=tuple(sets),
        missing=tuple(missing),
        unusable=tuple(unusable),
        not_asked=tuple(not_asked),
        groups=tuple(groups),
        average=average,
        num_sets=len(suite.sets) + len(suite.masks),
        notes=tuple(_sentences(suite, sets, missing, unusable, not_asked, average, len(values))),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), DECIMALS) if values else None


def _sentences(
    suite: SuiteFile,
    sets: Sequence[SetResult],
    missing: Sequence[MissingSet],
    unusable: Sequence[UnusableSet],
    not_asked: Sequence[str],
    average: float | None,
    num_measured: int,
) -> Iterator[str]:
    total, num_asked = len(suite.sets), len(suite.sets) + len(suite.texts) + len(suite.masks)
    if average is not None and total > 1:
        metrics = " and ".join(sorted({TITLES[s.metric] for s in sets}))
        yield f"Average over {_averaged(suite, sets)} ({metrics}): {100 * average:.2f} %."
    if suite.published is not None:
        published = suite.published
        head = f"Published for {published.model}: {published.average:.2f} % over all {total} sets"
        if num_measured < total:
            yield f"{head}. The average above is over fewer sets and must not be compared with it."
        else:
            yield f"{head}, with other prompts and another crop than here; compare with that in mind."
    counted = sets if suite.is_averaged else sorted(sets, key=lambda s: s.num_read)[-1:]  # the same images again
    seen = sum(s.num_in_training or 0 for s in counted)
    if seen:
        images = sum(s.num_read for s in counted)
        yield (
            f"WARNING: {seen} of {images} images are in the pack's training data. These figures do not say how the "
            "model does on new images; see the figures without them, where there are enough."
        )
    elif any(s.num_in_training is None for s in sets):
        yield ("The pack does not list its training files: nobody can say here whether these images were among them.")
    elif sets:
        yield "None of the images is in the pack's training data, compared by the bytes of the files."
    without = [s.id for s in sets if s.num_patients is None]
    if without:
        yield (
            f"Intervals resample images or groups of them, not patients, in: {', '.join(without)} (the data names no "
            "patients)."
        )
    if not_asked:
        yield f"Not asked for: {', '.join(not_asked)}."
    if unusable:
        yield f"Unusable: {len(unusable)} of {num_asked} sets are here and were not measured:"
        yield from (f"  {u.id}  {printable(u.message)}" for u in unusable)
    if missing:
        yield f"Missing: {len(missing)} of {num_asked} sets. Looked in the data folder for:"
        width = max(len(m.id) for m in missing)
        for m in missing:
            yield f"  {m.id:{width}}  {list_of(m.looked_for, 'or')}"


def _averaged(suite: SuiteFile, sets: Sequence[SetResult]) -> str:
    groups = [s.group for s in sets if s.value is not None]
    over = f"{len(groups)} of {len(suite.sets)} sets"
    return (
        over if suite.average == "sets" else f"the means of {len(set(groups))} of {len(suite.groups)} groups, of {over}"
    )


def _table(result: SuiteResult) -> Iterator[str]:
    width = max([len(s.id) for s in result.sets] + [18])
    metrics = [m for m in TITLES if m != "macro_f1" or any(s.metric == m for s in result.sets)]
    head = "".join(f"{TITLES[metric]:>24}" for metric in metrics)
    yield f"{'set':{width}}{'images':>8}{'patients':>10}{'in training':>13}{head}"
    for group in result.groups:
        for s in result.sets:
            if s.group != group.id:
                continue
            yield _line(s.id, s.num_read, s.num_patients, s.num_in_training, s.figures, metrics, width)
            if s.unseen:
                yield _line("  without training", s.num_unseen, None, 0, s.unseen, metrics, width)
            if s.problems:
                yield f"  not read: {by_reason(s.problems)}"
            if s.word_control is not None:
                yield from s.word_control.lines()
            if s.sensitivity is not None:
                yield from s.sensitivity.lines()
            for note in s.notes:
                yield f"  {printable(note)}"
        if group.mean is not None and group.num_sets > 1:
            over = f"{group.num_measured} of {group.num_sets} sets"
            published = "" if group.published is None else f" (published, all sets: {group.published:.2f} %)"
            yield f"= {group.title}: {100 * group.mean:.2f} % over {over}{published}"


def _line(
    name: str,
    num_images: int,
    num_patients: int | None,
    num_in_training: int | None,
    figures: Mapping[str, Figure],
    metrics: Sequence[str],
    width: int,
) -> str:
    cells = "".join(f"{_said(figures.get(metric)):>24}" for metric in metrics)
    seen = "unknown" if num_in_training is None else num_in_training
    line = f"{name:{width}}{num_images:>8}{'-' if num_patients is None else num_patients:>10}{seen:>13}{cells}"
    return line.rstrip()


def _said(figure: Figure | None) -> str:
    return "" if figure is None else estimate(figure.value, figure.low, figure.high)


RUN_NAME = "run.json"
RESULT_NAME = "evaluate.json"
PREDICTIONS_NAME = "predictions.parquet"
DENSE_NAME = "dense.parquet"
EVALUATION = "evaluation"
"""What the folder holds, in sentences."""
COMPARED = "compared"
"""Folder, in that of an evaluation, with the results of the packs that it was compared with."""
_PARTS = "sets"


class SuiteStore:
    """Results of one pack over one suite.

    Args:
        folder: Folder of the results; made if it is not there.
        identity: Identity of the results (pack and suite). A folder of something else is refused.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds anything else; as `medclip.files.output.disk_errors`.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self._parts = folder / _PARTS
        claim_run(folder, EVALUATION, identity, RUN_NAME)

    def kept(self, name: str, fingerprint: str) -> SetResult | None:
        """Return the result of a set that is done; None where it is not, or was made of other data."""
        values = read_note(self._parts / f"{name}.json")
        if values is None or values.get("fingerprint") != fingerprint or not self._table(name).is_file():
            return None
        return SetResult.from_json(values["result"])

    def keep(self, name: str, fingerprint: str, result: SetResult, predictions: pa.Table) -> None:
        """Store a set: first its predictions, then the result that says they are complete."""
        write_file(self._table(name), parquet_bytes(predictions))
        self._note(name, fingerprint, result)

    def predictions(self, name: str) -> pa.Table:
        """Return the predictions of a set that is done."""
        import pyarrow.parquet as pq

        return pq.read_table(self._table(name))

    def kept_texts(self, name: str, fingerprint: str) -> TextFigures | None:
        """Return what was measured of images and their texts; None where it was not, or of other data."""
        values = read_note(self._parts / f"{name}.json")
        return None if values is None or values.get("fingerprint") != fingerprint else TextFigures(**values["result"])

    def keep_texts(self, name: str, fingerprint: str, result: TextFigures) -> None:
        """Store what was measured of images and their texts."""
        self._note(name, fingerprint, result)

    def kept_dense(self, name: str, fingerprint: str) -> DenseFigures | None:
        """Return what was measured of images with masks; None where it was not, or of other data."""
        values = read_note(self._parts / f"{name}.json")
        if values is None or values.get("fingerprint") != fingerprint or not self._table(name).is_file():
            return None
        result = DenseFigures.from_json(values["result"])
        is_there = all(self.example(name, one.what).is_file() for one in result.examples if one.is_drawn)
        return result if is_there else None

    def keep_dense(
        self, name: str, fingerprint: str, result: DenseFigures, table: pa.Table, drawn: Mapping[str, bytes]
    ) -> None:
        """Store a set with masks: its table and examples first, then the result that says they are complete."""
        write_file(self._table(name), parquet_bytes(table))
        for what, image in drawn.items():
            write_file(self.example(name, what), image)
        self._note(name, fingerprint, result)

    def _note(self, name: str, fingerprint: str, result: SetResult | TextFigures | DenseFigures) -> None:
        values = {"fingerprint": fingerprint, "result": result.to_json()}
        write_file(self._parts / f"{name}.json", json.dumps(values, indent=1) + "\n")

    def example(self, name: str, what: str) -> Path:
        """Return where the drawing of an example lies."""
        return self.example_in(self.folder, name, what)

    @staticmethod
    def example_in(folder: Path, name: str, what: str) -> Path:
        """Return where the drawing of an example lies in a folder of results."""
        return folder / _PARTS / f"{name}-{what}.png"

    def finish(self, text: str, names: Sequence[str], dense: Sequence[str] = ()) -> None:
        """Write evaluate.json and the predictions of all sets in one table; none where there are no sets but texts.

        Images with masks have a table of their own.
        """
        import pyarrow as pa

        if dense:
            joined = pa.concat_tables([self.predictions(name) for name in dense])
            write_file(self.folder / DENSE_NAME, parquet_bytes(joined))

        tables = [self.predictions(name) for name in names]
        if tables:
            predictions = pa.concat_tables(tables)
            if OTHER_WORDS in predictions.column_names:
                predictions = predictions.drop_columns([OTHER_WORDS])
            write_file(self.folder / PREDICTIONS_NAME, parquet_bytes(predictions))
        write_file(self.folder / RESULT_NAME, text)

    def _table(self, name: str) -> Path:
        return self._parts / f"{name}.parquet"
