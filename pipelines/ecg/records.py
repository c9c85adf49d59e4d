"""Records of a shard folder with one model: their vectors, what is known of them, and how a task is answered."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.models.inputs.signal_input import SignalInput
from medclip.models.packs.pack import load_model, pack_card
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.metrics.classification import HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import Resampled, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.ecg_statements import statements
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand
from medclip.training.batches.augment_signals import prepare_record

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
from baselines import linear_probe  # pyright: ignore[reportMissingImports]
from measuring import plain  # pyright: ignore[reportMissingImports]

Floats = NDArray[np.floating[Any]]
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Records:
    """The records of a split with one model."""

    model: Any
    vectors_ND: NDArray[np.float32]
    labels: tuple[dict[str, Any], ...]
    patients: tuple[str, ...]
    sources: tuple[str, ...]

    def targets(self, task: str) -> NDArray[np.float32]:
        """Return what is true of a task's classes, [N, C]; NaN where it is not known."""
        names = [c.name for c in load_task(task).classes]
        own = [labels.get(task) or {} for labels in self.labels]
        return np.array([[labels.get(name, np.nan) for name in names] for labels in own], np.float32)

    def by_head(self, task: str) -> Floats:
        """Return the logits of the pack's own head, [N, C]."""
        heads = read_pack_heads(self.model.path, pack_card(self.model.path))
        return heads[task].head.logits(self.vectors_ND, self.model)

    def by_words(self, task: str) -> Floats:
        """Return the cosines of each class's sentences, [N, C]: of several true classes none competes with another."""
        return self.vectors_ND @ encode_prompts(self.model, sentences_of(task)).T


def sentences_of(task: str) -> list[list[str]]:
    """Return the sentences of each class: those of the vocabulary, and the German wordings of its statements, which a
    model that read German reports knows.
    """
    asked = load_task(task)
    sentences = []
    for one, prompts in zip(asked.classes, expand(asked), strict=True):
        code = str(one.codes["scp"])
        group = [s for s in statements().values() if code in _groups(task, s)]
        sentences.append([*prompts.positive, *(words for s in group for words in s.german)])
    return sentences


def _groups(task: str, statement: Any) -> tuple[str, ...]:
    """Return by which name a task knows a statement."""
    return {"ecg_superclass": (statement.superclass,), "ecg_subclass": (statement.subclass,)}.get(
        task, (statement.code,)
    )


@cache
def shown(shards: Path, split: str, taken: SignalInput) -> NDArray[np.int16]:
    """Return a split's records as a model takes them, int16 [N, 12, T]; they are prepared once for all models."""
    with ShardReader(shards, split) as reader:
        recordings = [reader[i].recording for i in range(len(reader))]
    return np.stack([prepare_record(r, taken) for r in recordings if r is not None])


def encode(pack: Path, shards: Path, split: str) -> Records:
    """Encode every record of a split."""
    model = load_model(pack)
    taken = model.preprocess.signal
    assert taken is not None
    records = shown(shards, split, taken)
    vectors = [model.encode_image(records[n : n + _BATCH]) for n in range(0, len(records), _BATCH)]
    with ShardReader(shards, split) as reader:
        labels = tuple(dict(reader.record(i)[0].labels) for i in range(len(reader)))
        patients = tuple(str(row["patient"]) for row in reader.rows)
        sources = tuple(str(row["source"]) for row in reader.rows)
    return Records(model, np.concatenate(vectors), labels, patients, sources)


def macro_area(
    scores_RNC: Floats, targets_NC: Floats, patients: Sequence[str], num_resamples: int
) -> tuple[Resampled | None, int]:
    """Measure the mean over classes of the area under the ROC curve, and the mean of it over R runs.

    Args:
        scores_RNC: Of each run, such as a draw of the labelled patients: how much they differ is in the interval.
        targets_NC: 1, 0 and NaN.
        patients: Of each record.
        num_resamples: Of patients.

    Returns:
        The figure, and of how many classes it is the mean: those that at least three patients have, and three have not.
        None where there is no such class.
    """
    test = HeldOut(np.asarray(targets_NC, np.float32), numbered(patients), targets_NC.shape[1])
    weights_PB = draw_weights(test.num_patients, num_resamples, seed=0)
    figure = figures(np.asarray(scores_RNC), test, weights_PB, ["macro_auroc"], runs=(len(scores_RNC), 1))
    return figure.get("macro_auroc"), len(test.measured())


def measured(scores_NC: Floats, records: Records, task: str, num_resamples: int) -> dict[str, Any]:
    """Measure one task: of how many classes, and the mean of their areas."""
    area, num_classes = macro_area(scores_NC[None], records.targets(task), records.patients, num_resamples)
    return {"num_classes": num_classes} | ({} if area is None else {"macro_auroc": plain(interval_of(area))})


def probe(train: Records, val: Records, test: Records, task: str) -> Floats:
    """Fit a logistic regression on frozen vectors for each class, its strength chosen on validation; logits [N, C]."""
    targets = {name: records.targets(task) for name, records in (("train", train), ("val", val))}
    columns = []
    for c in range(targets["train"].shape[1]):
        rows = {name: ~np.isnan(values[:, c]) for name, values in targets.items()}
        truth = {name: values[rows[name], c].astype(np.int64) for name, values in targets.items()}
        if len(set(truth["train"].tolist())) < 2 or not rows["val"].any():
            columns.append(np.zeros(len(test.vectors_ND)))  # nothing to learn from
            continue
        p_N2 = linear_probe(
            (train.vectors_ND[rows["train"]], truth["train"]),
            (val.vectors_ND[rows["val"]], truth["val"]),
            test.vectors_ND,
            2,
        )
        columns.append(np.log(np.clip(p_N2[:, 1], 1e-6, 1)) - np.log(np.clip(p_N2[:, 0], 1e-6, 1)))
    return np.stack(columns, axis=1)
