"""Validation: loss in batches; with words retrieval within the whole validation set, and tasks in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from medclip.objectives.pairs import Pairs, positives
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand
from medclip.text.vocabulary.task import Task
from medclip.training.batches.loader import LABELS, TEXT, Batch
from medclip.training.batches.truth import truth_of
from medclip.training.ranks.world import World
from medclip.training.recipe.sections.objective import Objective
from medclip.training.steps.supervised import area_over_known, supervised_figures, supervised_loss, targets_of
from medclip.training.steps.towers import TowerOutputs

EncodeText = Callable[[Sequence[str]], Tensor]


def measure(task: Task, images_ND: Tensor, truth_NC: NDArray[np.float64], encode_text: EncodeText) -> dict[str, float]:
    """Measure one task on labelled images.

    Args:
        task: Its prompts become class vectors: the unit mean of unit vectors.
        images_ND: Unit-norm image features.
        truth_NC: Of the images, from `truth_of`.
        encode_text: Gives unit-norm features of sentences.

    Returns:
        "TASK": balanced accuracy of a multi-class task, or the mean AUROC over the classes of a multi-label one that
        are both present and absent somewhere. Empty when no image has a label that can be judged.
    """
    prompts = expand(task)
    positive = torch.stack([_unit_mean(encode_text(p.positive)) for p in prompts])
    cosines = images_ND @ positive.T
    if task.kind == "multiclass":
        known = ~np.isnan(truth_NC[:, 0])
        truth, called = truth_NC[known, 0], cosines.argmax(1).numpy()[known]
        recalls = [(called[truth == c] == c).mean() for c in np.unique(truth)]
        return {task.name: float(np.mean(recalls))} if recalls else {}
    negative = torch.stack([_unit_mean(encode_text(p.negative)) for p in prompts])
    scores = (cosines - images_ND @ negative.T).numpy()
    areas = [a for c in range(len(prompts)) if not np.isnan(a := area_over_known(scores[:, c], truth_NC[:, c]))]
    return {task.name: float(np.mean(areas))} if areas else {}


def _unit_mean(vectors_ND: Tensor) -> Tensor:
    return normalize(normalize(vectors_ND.float(), dim=-1).mean(dim=0), dim=0)


_ROWS = 256
"""Rows of the retrieval matrix that are made at once."""


@torch.no_grad()
def validate(
    batches: Iterator[Batch],
    encode: Callable[[Batch, int], TowerOutputs],
    loss: Callable[[Tensor, Tensor, Pairs], Tensor],
    pairs: Callable[[NDArray[np.int64], NDArray[np.bool_]], Pairs],
    tasks: Sequence[str] = (),
    encode_text: EncodeText | None = None,
    *,
    objective: Objective,
    world: World,
    size: int,
    batch_size: int,
) -> dict[str, float]:
    """Measure a model in eval mode. Every rank encodes its part; the figures are those of one process.

    Args:
        batches: This rank's part of the validation split (`Batches.validation`); samples that could not be read are
            left out.
        encode: Returns what the towers return for a batch that begins with this row of the split.
        loss: Gives the contrastive loss of features and pairs.
        pairs: Says of keys [b, 3] and of which samples take part [b] which pairs are positives.
        tasks: Names of tasks that are measured zero-shot.
        encode_text: Gives unit-norm features of sentences; needed with tasks.
        objective: What is learned.
        world: The ranks.
        size: Samples of all ranks together.
        batch_size: Samples of which the loss is computed at once.

    Returns:
        val_loss (mean over samples; the contrastive loss alone where captions are read); masked_error beside it: mean
        squared error of hidden pixels; supervised_loss, auroc and balanced_accuracy of a supervised part;
        image_to_text_r1 and text_to_image_r1: share of samples whose nearest neighbour in the other modality says the
        same (same caption or same labels); chance_r1: what a random neighbour would reach; zero_shot.TASK for each task
        that could be judged. The same on all ranks.
    """
    asked, learned = [load_task(name) for name in tasks], objective.supervised
    images, texts, errors, keys, logits, targets = [], [], [], [], [], []
    row = world.rank * -(-size // world.size)
    truths: list[list[NDArray[np.float64]]] = [[] for _ in asked]
    for batch in batches:
        outputs = encode(batch, row)
        images.append(outputs.image_BD)
        texts.append(outputs.text_BD)
        errors.append(outputs.errors_B2)
        if learned is not None:
            logits.append(outputs.logits_BC)
            targets.append(targets_of(learned.asked, learned.names, _keys_of(batch)))
        row += len(batch.texts)
        keys.append(torch.from_numpy(np.column_stack([batch.pair_keys, batch.valid])))
        for task, rows in zip(asked, truths, strict=True):
            rows.append(truth_of(task, _keys_of(batch)))
        batch.release()
    keys_N4, errors_N2 = (world.rows(torch.cat(rows))[:size] for rows in (keys, errors))
    valid_N = keys_N4[:, -1] == 1
    if not valid_N.any():
        return {}
    masked = {}
    if objective.masked is not None:
        summed, count = errors_N2[valid_N].double().sum(0).tolist()
        masked["masked_error"] = summed / max(count, 1)
    others, supervised = masked, {}
    if learned is not None:
        logits_NC, target = (world.rows(torch.cat(rows))[:size].float().cpu() for rows in (logits, targets))
        kind = learned.asked.kind
        loss_of_head = float(supervised_loss(logits_NC, target, kind, smoothing=learned.smoothing))
        supervised = {"supervised_loss": loss_of_head} | supervised_figures(logits_NC, target, kind)
        others = masked | supervised
    if not objective.needs_words:
        parts = [(objective.masked, masked.get("masked_error")), (learned, supervised.get("supervised_loss"))]
        value = sum(part.weight * error for part, error in parts if part is not None and error is not None)
        return {"val_loss": value} | (others if len(others) > 1 else {})
    image_ND, text_ND = (world.rows(torch.cat(rows))[:size] for rows in (images, texts))
    total = torch.zeros(1, dtype=torch.float64)
    for number, part in enumerate(torch.arange(size).split(batch_size)):
        if number % world.size == world.rank and valid_N[part].any():
            image_BD, text_BD = (x[part].to(world.device) for x in (image_ND, text_ND))
            value = float(loss(image_BD, text_BD, pairs(keys_N4[part, :-1].numpy(), valid_N[part].numpy())))
            total += value * int(valid_N[part].sum())
    figures = {"val_loss": float(world.sum(total)) / int(valid_N.sum())} | others
    figures |= _retrieval(image_ND[valid_N], text_ND[valid_N], keys_N4[valid_N][:, [LABELS, TEXT]], world)
    for task, rows in zip(asked, truths, strict=True):
        assert encode_text is not None
        truth_NC = world.rows(torch.from_numpy(np.concatenate(rows)))[:size].numpy()
        figures |= {f"zero_shot.{k}": v for k, v in measure(task, image_ND, truth_NC, encode_text).items()}
    return figures


def _keys_of(batch: Batch) -> list[str]:
    """Return the labels of a batch's samples; of those that could not be read nothing is known."""
    return [key if ok else "" for key, ok in zip(batch.label_keys, batch.valid, strict=True)]


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
