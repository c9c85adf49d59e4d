"""Zero-shot measures while training: each task's classes in words, against the labels of the validation split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from medclip.text.vocabulary.prompts import expand
from medclip.text.vocabulary.task import Task

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
    from sklearn.metrics import recall_score, roc_auc_score

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
        truth = [labels[i] for i in rows]
        said = [names[k] for k in cosines.argmax(1).tolist()]
        recall = recall_score(truth, said, labels=sorted(set(truth)), average="macro")
        return {task.name: float(recall)}
    negative = torch.stack([_unit_mean(encode_text(p.negative)) for p in prompts])
    scores = (cosines - features @ negative.T).cpu().numpy()
    found = [_auroc([labels[i].get(name) for i in rows], scores[:, c], roc_auc_score) for c, name in enumerate(names)]
    known = [a for a in found if a is not None]
    return {task.name: float(np.mean(known))} if known else {}


def _auroc(truth: list[int | None], scores: NDArray[np.float32], roc_auc_score: Callable[..., float]) -> float | None:
    kept = [i for i, t in enumerate(truth) if t is not None]
    values = [truth[i] for i in kept]
    return float(roc_auc_score(values, scores[kept])) if len(set(values)) == 2 else None


def _unit_mean(vectors_ND: Tensor) -> Tensor:
    return normalize(normalize(vectors_ND.float(), dim=-1).mean(dim=0), dim=0)
