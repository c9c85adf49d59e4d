"""A pack that was made of others: what chooses a greedy soup, and what is measured of the merged pack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.models.merging.ingredients import Ingredient, Lesson, Plan, Tried
from medclip.models.merging.merges import MERGES
from medclip.progress import Progress
from medclip.result import Result
from medclip.wording import count, figure, list_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medclip.models.model import Model
    from medclip.models.packs.card import SplitFigures
    from medclip.shards.reading.samples import ShardReader

FEWEST_IMAGES = 500
"""Held-out images below which a soup may be chosen by chance."""
BASIN = 0.02
"""Where the midpoint lies so far below the lower end, the ends are in different basins."""
_FEW_RESAMPLES = 20
"""Of figures whose interval nobody sees."""
_TEST = "test"
_WITHIN, _OVER = "macro_auroc_within", "macro_auroc"


@dataclass(frozen=True, eq=False, repr=False)
class MergedPack(Result):
    """A pack that was made of others."""

    path: Path
    """Its folder."""
    name: str
    method: str
    packs: tuple[str, ...]
    """Names and versions of the packs whose training is in it."""
    tried: tuple[Tried, ...] = ()
    """Of a greedy soup: what became of each pack but the best."""
    figure: float | None = None
    """Of a greedy soup, on the data that chose it; no figure of the pack."""
    held_out: SplitFigures | None = None
    """What was measured after merging, on patients that took no part in it; None where no shards were given."""
    notes: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of a learned soup: the share of each pack, over all weights."""

    def _facts(self) -> Mapping[str, object]:
        chosen = {} if self.figure is None else {"chosen at": figure(self.figure, decimals=3)}
        if self.shares:
            chosen["shares"] = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return {
            "name": self.name,
            "method": MERGES[self.method].title,
            "packs": list_of(self.packs),
            **chosen,
            "measured": "not" if self.held_out is None else f"on {count(self.held_out.num_images, 'image')}",
            "notes": " ".join(self.notes),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [] if self.held_out is None else self.held_out.rows()[:most]


class HeldOut:
    """Measures candidates on one split of shards, and the merged pack on another."""

    def __init__(
        self, plan: Plan, shards: list[Path], val_split: str, test_split: str | None, device: str, progress: Progress
    ) -> None:
        from medclip.models.packs.card import training_hashes, training_patients
        from medclip.shards.folder import read_index
        from medclip.shards.reading.samples import no_split

        indexes = [read_index(place) for place in shards]
        if test_split is not None and not any(test_split in index["counts"]["by_split"] for index in indexes):
            if shards and test_split != _TEST:
                raise no_split(test_split, shards[0], indexes)
            test_split = None

        self._plan, self._shards, self._device, self._progress = plan, shards, device, progress
        self._val_split, self._test_split = val_split, test_split
        lists = [read(one.path, one.card) for one in plan.every for read in (training_hashes, training_patients)]
        self._seen = frozenset().union(*(one for one in lists if one))
        self._chosen_with: frozenset[str] = frozenset()
        self._num_chosen_with = 0
        self._first: Model | None = None

    def figure(self, one: Ingredient, towers: nn.Module) -> float:
        """Return the mean area of a candidate over the tasks of the split that a soup is chosen on."""
        from medclip.models.packs.pack import load_model

        self._first = self._first or load_model(one.path, device=self._device, verify=False)
        figures = self._measured(self._first.with_towers(towers), self._val_split, self._seen, _FEW_RESAMPLES)
        self._num_chosen_with = figures.num_images
        return merit(figures)

    def lessons(self, one: Ingredient, epoch: int) -> Iterator[Lesson]:
        """Yield the batches of the split that a learned soup learns from, in an order of this epoch.

        Each task is asked with one sentence of each class (and one of its opposite), drawn for the batch: all of them
        at each step would encode hundreds of texts.
        """
        from medclip.evaluation.shard_split import blocks_of, choose_rows
        from medclip.models.packs.pack import load_model
        from medclip.shards.reading.samples import ShardReader
        from medclip.training.batches.samples import Drawing, Room, Samples

        self._first = self._first or load_model(one.path, device="cpu", verify=False)
        model, rng = self._first, np.random.default_rng(epoch)  # chance is that of the epoch: a merge can be repeated
        with ShardReader(self._shards, self._val_split) as reader, ThreadPoolExecutor(2) as pool:
            self._chosen_with = _of_split(reader)
            rows = choose_rows(reader, self._seen, None).rows
            self._num_chosen_with = len(rows)
            self._progress.stage(f"Learning on the split {self._val_split}, epoch {epoch + 1}", len(rows))
            samples = Samples(reader, Drawing(model.preprocess, 0, None, 0.0, 0.0, words=False), Room(0))
            for _, block in blocks_of(pool, samples, rng.permutation(rows), model.batch_size):
                read = [sample for sample in block if sample.image is not None and sample.label_key]
                questions = _questions([sample.label_key for sample in read], rng)
                if questions:
                    yield _lesson(model, [sample.image for sample in read], questions)
                self._progress.step(len(block))

    def measure(self, pack: Path, num_resamples: int) -> SplitFigures | None:
        """Measure the merged pack on the test split, and write the figures on its card; None where there is none."""
        from medclip.models.merging.merge import with_figures
        from medclip.models.packs.pack import load_model, pack_card, update_pack

        if self._test_split is None:
            return None
        model = load_model(pack, device=self._device, verify=False)
        figures = self._measured(model, self._test_split, self._seen | self._chosen_with, num_resamples)
        update_pack(pack, card=with_figures(pack_card(pack), figures))
        return figures

    def notes(self, trace: Sequence[Tried]) -> tuple[str, ...]:
        """Return what must be known of how a greedy soup was chosen."""
        notes = []
        if 0 < self._num_chosen_with < FEWEST_IMAGES:
            notes.append(
                f"The soup was chosen on {count(self._num_chosen_with, 'image')}: with fewer than {FEWEST_IMAGES} "
                "chance decides."
            )
        apart = [one.name for one in trace if one.midpoint is not None and one.alone - one.midpoint > BASIN]
        if apart:
            notes.append(
                f"Halfway between the best pack and {list_of(apart)} figures are worse than at both ends: they lie in "
                "different basins, and no average with them is of use."
            )
        return tuple(notes)

    def _measured(self, model: Model, split: str, seen: frozenset[str], num_resamples: int) -> SplitFigures:
        from medclip.evaluation.shard_split import measure_split
        from medclip.shards.reading.samples import ShardReader
        from medclip.training.batches.samples import Drawing

        with ShardReader(self._shards, split) as reader:
            if split == self._val_split:
                self._chosen_with = _of_split(reader)
            drawing = Drawing(model.preprocess, 0, None, 0.0, 0.0, words=model.has_text)
            return measure_split(
                model, reader, drawing, seen=seen, num_resamples=num_resamples, progress=self._progress
            )


def merit(figures: SplitFigures) -> float:
    """Return the mean area over tasks; within sources where there are several, or telling them apart would pass for it.

    Raises:
        MedclipError: NOTHING_TO_DO where no task has an area.
    """
    areas = []
    for metrics in figures.figures.values():
        within = metrics.get(_WITHIN)
        if within:
            areas.append(sum(one["value"] for one in within.values()) / len(within))
        elif _OVER in metrics:
            areas.append(metrics[_OVER]["value"])
    if not areas:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"no task of the split {figures.split!r} could be measured.",
            hint="A greedy soup is chosen on labelled images, with enough patients of more than one answer.",
        )
    return sum(areas) / len(areas)


def _of_split(reader: ShardReader) -> frozenset[str]:
    """Return the hashes of a split's files and patients."""
    return frozenset(key for row in reader.provenance() for key in (*row["files"], row["patient"]) if key)


@dataclass(frozen=True, eq=False)
class _Question:
    """One task, asked of the images of a batch."""

    kind: str
    positive: list[str]
    """A sentence for each of C classes."""
    negative: list[str]
    """Of its opposite; empty where one class alone is true."""
    targets: Tensor
    """As `medclip.training.steps.supervised.targets_of` has them."""


def _questions(label_keys: Sequence[str], rng: np.random.Generator) -> list[_Question]:
    """Ask the tasks that the labels of a batch speak of, with sentences drawn of each class."""
    from medclip.text.vocabulary.load import load_task, task_names
    from medclip.text.vocabulary.prompts import expand
    from medclip.training.batches.sample_texts import labels_of
    from medclip.training.steps.supervised import targets_of

    asked = {name for key in label_keys for name in labels_of(key)} & set(task_names())
    questions = []
    for task in (load_task(name) for name in sorted(asked)):
        if not task.has_words:
            continue
        names = [c.name for c in task.classes]
        targets = targets_of(task, names, label_keys)
        if targets.isnan().all():
            continue
        template = rng.integers(len(task.templates))
        ways = [c.by_template[template] for c in expand(task)]
        positive, negative = ([str(rng.choice(way[side])) for way in ways if way[side]] for side in (0, 1))
        questions.append(_Question(task.kind, positive, negative if task.rules.independent else [], targets))
    return questions


def _lesson(model: Model, images: list[Any], questions: list[_Question]) -> Lesson:
    """Return the loss of towers on a batch: the mean over its questions."""
    import torch

    from medclip.training.steps.supervised import supervised_loss

    budget = model.preprocess.budget
    batch = model.normalise(np.stack(images) if budget is None else [budget.unpack(packed) for packed in images])
    tokens = [torch.from_numpy(model.tokenizer.encode([*q.positive, *q.negative])) for q in questions]

    def loss(towers: Any, temperature: Tensor) -> Tensor:
        features_BD = towers.encode_image(batch, normalize=True)
        scale, losses = temperature * towers.logit_scale.exp(), []
        for question, of_question in zip(questions, tokens, strict=True):
            vectors = towers.encode_text(of_question, normalize=True)
            logits_BC = scale * features_BD @ vectors[: len(question.positive)].T
            if question.negative:
                logits_BC = logits_BC - scale * features_BD @ vectors[len(question.positive) :].T
            losses.append(supervised_loss(logits_BC, question.targets, question.kind))
        return torch.stack(losses).mean()

    return loss
