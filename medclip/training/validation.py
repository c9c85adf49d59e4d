"""Validation: loss in batches, retrieval within the whole validation set, and tasks in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from medclip.objectives.pairs import Pairs, positives
from medclip.statistics.metrics.ranks import auroc
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand
from medclip.text.vocabulary.task import Task
from medclip.training.batches.loader import LABELS, TEXT, Batch

EncodeText = Callable[[Sequence[str]], Tensor]


def measure(task: Task, images_ND: Tensor, label_keys: Sequence[str], encode_text: EncodeText) -> dict[str, float]:
    """Measure one task on labelled images.

    Args:
        task: Its prompts become class vectors: the unit mean of unit vectors.
        images_ND: Unit-norm image features.
        label_keys: Of the images; `medclip.training.batches.samples.label_key` makes them.
        encode_text: Gives unit-norm features of sentences.

    Returns:
        "TASK": balanced accuracy of a multi-class task, or the mean AUROC over the classes of a multi-label one that
        are both present and absent somewhere. Empty when no image has a label that can be judged.
    """
    labels: list[Any] = [json.loads(key)[3].get(task.name) if key else None for key in label_keys]
    rows = [i for i, label in enumerate(labels) if label is not None]
    if not rows:
        return {}
    prompts = expand(task)
    positive = torch.stack([_unit_mean(encode_text(p.positive)) for p in prompts])
    features = images_ND[torch.tensor(rows, device=images_ND.device)]
    cosines = features @ positive.T
    names = [p.name for p in prompts]
    if task.kind == "multiclass":
        truth, called = np.array([labels[i] for i in rows]), np.array(names)[cosines.argmax(1).tolist()]
        return {task.name: float(np.mean([(called[truth == c] == c).mean() for c in np.unique(truth)]))}
    negative = torch.stack([_unit_mean(encode_text(p.negative)) for p in prompts])
    scores = (cosines - features @ negative.T).cpu().numpy()
    truth_NC = np.array([[labels[i].get(name) for name in names] for i in rows], np.float64)
    known = [a for c in range(len(names)) if not np.isnan(a := _area(scores[:, c], truth_NC[:, c]))]
    return {task.name: float(np.mean(known))} if known else {}


def _area(score_N: NDArray[np.float32], truth_N: NDArray[np.float64]) -> float:
    """Area over what is known; NaN where one class is missing."""
    known = ~np.isnan(truth_N)
    return float(auroc(score_N[known], truth_N[known] == 1))


def _unit_mean(vectors_ND: Tensor) -> Tensor:
    return normalize(normalize(vectors_ND.float(), dim=-1).mean(dim=0), dim=0)


_ROWS = 256
"""Rows of the retrieval matrix that are made at once."""


@torch.no_grad()
def validate(
    batches: Iterator[Batch],
    encode: Callable[[Batch], tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor, Pairs], Tensor],
    pairs: Callable[[Batch], Pairs],
    tasks: Sequence[str] = (),
    encode_text: EncodeText | None = None,
) -> dict[str, float]:
    """Measure a model in eval mode.

    Args:
        batches: The validation split; samples that could not be read are left out.
        encode: Gives unit-norm image and text features of a batch.
        loss: Gives the contrastive loss of features and pairs.
        pairs: Says which pairs of a batch are positives.
        tasks: Names of tasks that are measured zero-shot.
        encode_text: Gives unit-norm features of sentences; needed with tasks.

    Returns:
        val_loss (mean over samples); image_to_text_r1 and text_to_image_r1: share of samples whose nearest neighbour in
        the other modality says the same (same caption or same labels); chance_r1: what a random neighbour would reach;
        zero_shot.TASK for each task that could be judged.
    """
    images, texts, pair_keys, label_keys = [], [], [], []
    total, count = 0.0, 0
    for batch in batches:
        kept = torch.from_numpy(batch.valid)
        if not kept.any():
            continue
        image_BD, text_BD = encode(batch)
        size = int(kept.sum())
        total, count = total + float(loss(image_BD, text_BD, pairs(batch))) * size, count + size
        images.append(image_BD[kept].cpu())
        texts.append(text_BD[kept].cpu())
        pair_keys.append(torch.from_numpy(batch.pair_keys[:, [LABELS, TEXT]])[kept])
        label_keys += [k for k, ok in zip(batch.label_keys, batch.valid, strict=True) if ok]
    if not count:
        return {}
    image_ND, text_ND = torch.cat(images), torch.cat(texts)
    figures = {"val_loss": total / count, **_retrieval(image_ND, text_ND, torch.cat(pair_keys))}
    for name in tasks:
        assert encode_text is not None
        figures |= {f"zero_shot.{k}": v for k, v in measure(load_task(name), image_ND, label_keys, encode_text).items()}
    return figures


def _retrieval(image_ND: Tensor, text_ND: Tensor, keys_NK: Tensor) -> dict[str, float]:
    """Rows in chunks: the whole matrix of a large validation set would not fit."""
    hits = torch.zeros(3, dtype=torch.float64)
    rows_N = torch.arange(len(keys_NK))
    for chunk in rows_N.split(_ROWS):
        same = positives(keys_NK[chunk], keys_NK)
        same[torch.arange(len(chunk)), chunk] = True
        inside = torch.arange(len(chunk))
        to_text = (image_ND[chunk] @ text_ND.T).argmax(1)
        to_image = (text_ND[chunk] @ image_ND.T).argmax(1)
        hits += torch.stack([same[inside, to_text].sum(), same[inside, to_image].sum(), same.double().mean(1).sum()])
    shares = (hits / len(keys_NK)).tolist()
    return dict(zip(("image_to_text_r1", "text_to_image_r1", "chance_r1"), shares, strict=True))
