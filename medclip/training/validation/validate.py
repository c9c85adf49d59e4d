"""Validation: loss in batches, retrieval within the whole validation set, and tasks in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from medclip.objectives.pairs import Pairs, keys_of, positives
from medclip.text.vocabulary.load import load_task
from medclip.training.batches.loader import Batch
from medclip.training.validation.zero_shot import EncodeText, measure

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
    images, texts, said, keys = [], [], [], []
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
        said += [t.strip().lower() for t, ok in zip(batch.texts, batch.valid, strict=True) if ok]
        keys += [k for k, ok in zip(batch.label_keys, batch.valid, strict=True) if ok]
    if not count:
        return {}
    image_ND, text_ND = torch.cat(images), torch.cat(texts)
    found = {"val_loss": total / count, **_retrieval(image_ND, text_ND, keys_of(keys, said))}
    for name in tasks:
        assert encode_text is not None
        found |= {f"zero_shot.{k}": v for k, v in measure(load_task(name), image_ND, keys, encode_text).items()}
    return found


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
