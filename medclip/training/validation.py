"""Validation: loss in batches; with words retrieval within the whole validation set, and tasks in words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from medclip.objectives.pairs import Pairs, positives
from medclip.sample import POSITIONS, SIDES, VIEW_KINDS
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand
from medclip.text.vocabulary.task import Task
from medclip.training.batches.loader import LABELS, SOURCE, STUDY, TEXT, Batch
from medclip.training.batches.sample_texts import truth_of
from medclip.training.ranks import World
from medclip.training.recipe.objective import Objective
from medclip.training.result import SIZES
from medclip.training.steps.inputs import Exams, exams_of
from medclip.training.steps.supervised import (
    area_over_known,
    learned_from,
    supervised_figures,
    supervised_loss,
    targets_of,
)
from medclip.training.steps.towers import TowerOutputs, joined

EncodeText = Callable[[Sequence[str]], Tensor]


WITHIN = "within_sources"
"""Behind the name of a task: the mean of its figures within single sources."""
_FEWEST = 5
"""Images of a class within a source below which the source is not judged by it."""


def measure(
    task: Task,
    images_ND: Tensor,
    truth_NC: NDArray[np.float64],
    encode_text: EncodeText,
    source_N: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """Measure one task on labelled images.

    Args:
        task: Task, whose prompts become class vectors: the unit mean of unit vectors.
        images_ND: Unit-norm image features.
        truth_NC: Truth of the images, from `truth_of`.
        encode_text: Function that returns unit-norm features of sentences.
        source_N: Number of the source of each image; None where nothing is asked within sources.

    Returns:
        "TASK": balanced accuracy of a multi-class task, or the mean AUROC over the classes of a multi-label one that
        are both present and absent somewhere. Empty when no image has a label that can be judged.
        "TASK.within_sources": the mean of the same over the sources within which it can be judged, on what has five
        images there of two classes, or of a class and without it. A score of where an image is from gets chance there.
    """
    prompts = expand(task)
    positive = torch.stack([_unit_mean(encode_text(p.positive)) for p in prompts])
    cosines = images_ND @ positive.T
    if task.rules.one_answer:
        scores_NC, judge = cosines.numpy(), _balanced_accuracy
    else:
        negative = torch.stack([_unit_mean(encode_text(p.negative)) for p in prompts])
        scores_NC, judge = (cosines - images_ND @ negative.T).numpy(), _mean_area
    figures = {task.name: judge(scores_NC, truth_NC)}
    if source_N is not None:
        parts = [source_N == source for source in np.unique(source_N)]
        within = [judge(scores_NC[part], truth_NC[part], fewest=_FEWEST) for part in parts]
        judged = [figure for figure in within if figure is not None]
        figures[f"{task.name}.{WITHIN}"] = float(np.mean(judged)) if judged else None
    return {name: figure for name, figure in figures.items() if figure is not None}


def _balanced_accuracy(scores_NC: NDArray[np.float32], truth_NC: NDArray[np.float64], fewest: int = 1) -> float | None:
    """Return the mean recall over the classes that have so many images; within a source of two at least, among them.

    None where nothing can be judged.
    """
    labelled = ~np.isnan(truth_NC[:, 0])
    truth, scores = truth_NC[labelled, 0].astype(int), scores_NC[labelled]
    classes = np.flatnonzero(np.bincount(truth, minlength=scores_NC.shape[1])[: scores_NC.shape[1]] >= fewest)
    if fewest > 1:
        if len(classes) < 2:
            return None
        of_classes = np.full(scores.shape, -np.inf)
        of_classes[:, classes] = scores[:, classes]
        scores = of_classes
    called = scores.argmax(1)
    recalls = [(called[truth == c] == c).mean() for c in (classes if fewest > 1 else np.unique(truth))]
    return float(np.mean(recalls)) if recalls else None


def _mean_area(scores_NC: NDArray[np.float32], truth_NC: NDArray[np.float64], fewest: int = 1) -> float | None:
    """Return the mean area over the classes that are there and absent so often; None where there is none."""
    areas = []
    for scores_N, truth_N in zip(scores_NC.T, truth_NC.T, strict=True):
        if min((truth_N == 1).sum(), (truth_N == 0).sum()) >= fewest:
            areas.append(area_over_known(scores_N, truth_N))
    return float(np.mean(areas)) if areas else None


def _unit_mean(vectors_ND: Tensor) -> Tensor:
    return normalize(normalize(vectors_ND.float(), dim=-1).mean(dim=0), dim=0)


_ROWS = 256
"""Rows of the retrieval matrix that are made at once."""


@torch.no_grad()
def validate(
    batches: Iterator[Batch],
    encode: Callable[[Batch, int], TowerOutputs],
    loss: Callable[[TowerOutputs, Pairs, Exams | None], Tensor],
    pairs: Callable[[NDArray[np.int64], NDArray[np.bool_]], Pairs],
    tasks: Sequence[str] = (),
    encode_text: EncodeText | None = None,
    *,
    objective: Objective,
    world: World,
    size: int,
    batch_size: int,
    kept_kl: Callable[[TowerOutputs], float] | None = None,
    patients: Sequence[str | None] = (),
) -> dict[str, float]:
    """Measure a model in eval mode. Every rank encodes its part; the figures are those of one process.

    Args:
        batches: This rank's part of the validation split (`Batches.validation`); samples that could not be read are
            left out.
        encode: Function that returns what the towers return for a batch that begins with this row of the split.
        loss: Function that returns the contrastive loss of features, pairs and what is known of views.
        pairs: Function that says of keys [b, 6] and of which samples take part [b] which pairs are positives.
        tasks: Names of tasks that are measured zero-shot.
        encode_text: Function that returns unit-norm features of sentences; needed with tasks.
        objective: Objective that is learned.
        world: The ranks.
        size: Samples of all ranks together.
        batch_size: Samples of which the loss is computed at once.
        kept_kl: Function that returns how far features have moved from those of the start, with `train.keep`.
        patients: Patient of each sample of the split, None where the shards name nobody: its study stands for it.

    Returns:
        val_loss (mean over samples; the contrastive loss alone where captions are read); masked_error beside it: mean
        squared error of hidden pixels; supervised_loss, auroc and balanced_accuracy of a head (the mean over several,
        and of each as FIGURE.TASK);
        image_to_text_r1 and text_to_image_r1: share of samples whose nearest neighbour in the other modality says the
        same (same caption or same labels); chance_r1: what a random neighbour would reach; zero_shot.TASK and
        zero_shot.TASK.within_sources for each task that could be judged, and within_sources, the mean of the latter.
        Of examinations it is the fused vector that is compared with the first caption, and
        cross_view_r1 is the share of views whose nearest neighbour among all views of the other position (CC and MLO)
        is of the same breast; cross_view_chance_r1 what a random one would reach. kept_kl is how far images have moved
        among random sentences since the run began (`train.keep`). num_images and num_patients that the figures are of,
        and auroc_low and auroc_high, the 95 % interval of `auroc` by patient; of several heads each as FIGURE.TASK.
        The same on all ranks.
    """
    named_tasks = [load_task(name) for name in tasks]
    heads = {head.asked.name: (head, head.asked, head.names) for head in objective.supervised}
    parts: list[TowerOutputs] = []
    keys, targets, views_of_batches = [], [], []
    row = world.rank * -(-size // world.size)
    truths: list[list[NDArray[np.float64]]] = [[] for _ in named_tasks]
    for batch in batches:
        outputs, exams = encode(batch, row), exams_of(batch)
        num = len(batch.keys)
        parts.append(outputs.each(functools.partial(_of_samples, num)))
        targets.append([targets_of(t, names, learned_from(head.sources, batch)) for head, t, names in heads.values()])
        views_of_batches.append(() if exams is None else exams)
        row += num
        keys.append(torch.from_numpy(np.column_stack([batch.pair_keys[:num], batch.valid])))
        for task, rows in zip(named_tasks, truths, strict=True):
            rows.append(truth_of(task, learned_from((), batch)))
        batch.release()

    def every(rows: Sequence[Tensor]) -> Tensor:
        return world.rows(torch.cat(list(rows)))[:size]

    keys_NK = every(keys)
    features = joined(parts, every)
    image_NVD, text_NTD, errors_NV2, logits_N1C, fused_N1D = features[:5]
    exams = Exams(*(every(rows) for rows in zip(*views_of_batches, strict=True))) if any(views_of_batches) else None
    valid_N = keys_NK[:, -1] == 1
    if not valid_N.any():
        return {}
    masked = {}
    if objective.masked is not None:
        summed, count = errors_NV2[valid_N].double().sum((0, 1)).tolist()
        masked["masked_error"] = summed / max(count, 1)
    of_heads: dict[str, dict[str, float]] = {}
    sizes: dict[str, float] = {}
    whose = _whose(patients, keys_NK[:, STUDY].tolist())
    first = 0
    for (name, (head, about, classes)), rows in zip(heads.items(), zip(*targets, strict=True), strict=True):
        logits_NC, target = logits_N1C[:, 0, first : first + len(classes)].float().cpu(), every(rows)
        first += len(classes)
        value = float(supervised_loss(logits_NC, target, about.kind, smoothing=head.smoothing))
        figures = supervised_figures(logits_NC, target, about.kind, whose)
        behind = f".{name}" if len(heads) > 1 else ""
        sizes |= {f"{size_}{behind}": figures.pop(size_) for size_ in SIZES if size_ in figures}
        of_heads[name] = {"supervised_loss": value} | figures
    if not heads:
        among = [one for one, is_valid in zip(whose, valid_N.tolist(), strict=True) if is_valid]
        sizes = {"num_images": len(among), "num_patients": len(set(among))}
    others = masked | _of_all(of_heads)
    if not objective.needs_words:
        value = 0.0 if objective.masked is None else objective.masked.weight * masked["masked_error"]
        value += sum(head.weight * of_heads[name]["supervised_loss"] for name, (head, *_) in heads.items())
        return {"val_loss": value} | (others if len(others) > 1 else {}) | _cross_view(image_NVD, exams) | sizes
    total = torch.zeros(1, dtype=torch.float64)
    for number, part in enumerate(torch.arange(size).split(batch_size)):
        if number % world.size == world.rank and valid_N[part].any():
            outputs = features.each(functools.partial(_of_part, part, world.device))
            views = None if exams is None else Exams(*(x[part].to(world.device) for x in exams))
            value = float(loss(outputs, pairs(keys_NK[part, :-1].numpy(), valid_N[part].numpy()), views))
            total += value * int(valid_N[part].sum())
    figures = (
        {"val_loss": float(world.sum(total)) / int(valid_N.sum())} | others | _cross_view(image_NVD, exams) | sizes
    )
    if kept_kl is not None:
        figures["kept_kl"] = kept_kl(features.each(lambda x: x[valid_N].flatten(0, 1)))
    image_ND, text_ND = image_NVD[:, 0] if exams is None else fused_N1D[:, 0], text_NTD[:, 0]
    figures |= _retrieval(image_ND[valid_N], text_ND[valid_N], keys_NK[valid_N][:, [LABELS, TEXT]], world)
    truths_NC = [world.rows(torch.from_numpy(np.concatenate(rows)))[:size].numpy() for rows in truths]
    return figures | _zero_shot(named_tasks, truths_NC, image_ND, keys_NK[:, SOURCE].numpy(), encode_text)


def _whose(patients: Sequence[str | None], studies: Sequence[int]) -> list[Hashable]:
    """Return what resamples are drawn of: patients, else studies, else the samples themselves."""
    named = patients or [None] * len(studies)
    return [
        patient if patient is not None else ("study", study) if study >= 0 else ("sample", row)
        for row, (patient, study) in enumerate(zip(named, studies, strict=True))
    ]


def _of_samples(num: int, values: Tensor) -> Tensor:
    """Part the rows by samples."""
    return values.unflatten(0, (num, -1))


def _of_part(part: Tensor, device: torch.device, values: Tensor) -> Tensor:
    """Take the rows of some samples, on the device."""
    return values[part].flatten(0, 1).to(device)


def _zero_shot(
    tasks: Sequence[Task],
    truths_NC: Sequence[NDArray[np.float64]],
    image_ND: Tensor,
    source_N: NDArray[np.int64],
    encode_text: EncodeText | None,
) -> dict[str, float]:
    """Return what each task gives without a label, also within sources, and the mean of the latter over tasks."""
    figures: dict[str, float] = {}
    for task, truth_NC in zip(tasks, truths_NC, strict=True):
        assert encode_text is not None
        measured = measure(task, image_ND, truth_NC, encode_text, source_N)
        figures |= {f"zero_shot.{name}": figure for name, figure in measured.items()}
    if within := [figure for name, figure in figures.items() if name.endswith(f".{WITHIN}")]:
        figures[WITHIN] = float(np.mean(within))
    return figures


def _of_all(of_heads: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the figures of one head; of several their means, and those of each by its task."""
    if len(of_heads) == 1:
        return dict(*of_heads.values())
    names = dict.fromkeys(name for figures in of_heads.values() for name in figures)
    values = {name: [figures[name] for figures in of_heads.values() if name in figures] for name in names}
    means = {name: float(np.mean(several)) for name, several in values.items()}
    return means | {f"{name}.{task}": v for task, figures in of_heads.items() for name, v in figures.items()}


def _cross_view(image_NVD: Tensor, exams: Exams | None) -> dict[str, float]:
    """Look for the other view of a breast among the views of all breasts, of one kind of mammogram at a time."""
    if exams is None:
        return {}
    side_NV, position_NV, kind_NV = (x.cpu() for x in exams.view_types_BV3.unbind(-1))
    breast_NV = torch.arange(len(side_NV))[:, None] * len(SIDES) + side_NV
    hits, chances = [], []
    for kind in range(len(VIEW_KINDS)):
        usable_NV = (side_NV >= 0) & (side_NV < len(SIDES)) & (kind_NV == kind)
        cc, mlo = ((usable_NV & (position_NV == position)) for position in range(len(POSITIONS)))
        for ours, theirs in ((cc, mlo), (mlo, cc)):
            same = breast_NV[ours][:, None] == breast_NV[theirs][None]
            has_partner = same.any(dim=1)
            if not has_partner.any():
                continue
            nearest = (image_NVD[ours].cpu() @ image_NVD[theirs].cpu().T).argmax(dim=1)
            hits.append(same[torch.arange(len(same)), nearest][has_partner].double())
            chances.append(same[has_partner].double().mean(dim=1))
    if not hits:
        return {}
    return {"cross_view_r1": float(torch.cat(hits).mean()), "cross_view_chance_r1": float(torch.cat(chances).mean())}


def _retrieval(image_ND: Tensor, text_ND: Tensor, keys_NK: Tensor, world: World) -> dict[str, float]:
    """Rows in chunks, every rank some: the whole matrix of a large validation set would not fit."""
    hits = torch.zeros(3, dtype=torch.float64)
    for chunk in torch.arange(len(keys_NK)).split(_ROWS)[world.rank :: world.size]:
        same = positives(keys_NK[chunk], keys_NK)
        same[torch.arange(len(chunk)), chunk] = True
        inside = torch.arange(len(chunk))
        to_text = (image_ND[chunk] @ text_ND.T).argmax(1)
        to_image = (text_ND[chunk] @ image_ND.T).argmax(1)
        hits += torch.stack([same[inside, to_text].sum(), same[inside, to_image].sum(), same.double().mean(1).sum()])
    shares = (world.sum(hits) / len(keys_NK)).tolist()
    return dict(zip(("image_to_text_r1", "text_to_image_r1", "chance_r1"), shares, strict=True))
