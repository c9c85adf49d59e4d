"""Validation: loss in batches, and retrieval within the whole validation set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.soft_targets import same_meaning
from medclip.training.data import Batch

Encode = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
Targets = Callable[[Batch], "Tensor | None"]


@torch.no_grad()
def validate(model: nn.Module, batches: Iterator[Batch], encode: Encode, targets: Targets) -> dict[str, float]:
    """Measure a model in eval mode.

    Args:
        model: Weights to measure.
        batches: The validation split.
        encode: Gives unit-norm image and text features of a batch.
        targets: Gives the soft targets of a batch, None for hard ones.

    Returns:
        val_loss (mean over samples); image_to_text_r1 and text_to_image_r1: share of samples whose nearest neighbour in
        the other modality says the same (same caption or same labels); chance_r1: what a random neighbour would reach.
    """
    model.eval()
    images, texts, said, keys = [], [], [], []
    loss = 0.0
    scale = model.logit_scale.exp()  # type: ignore[operator, union-attr]
    for batch in batches:
        image_BD, text_BD = encode(model, batch)
        loss += float(clip_loss(image_BD, text_BD, scale, targets(batch))) * len(batch.texts)
        images.append(image_BD)
        texts.append(text_BD)
        said += batch.texts
        keys += batch.label_keys
    same_NN = same_meaning(said, keys)
    cosines_NN = (torch.cat(images) @ torch.cat(texts).T).cpu()
    rows = torch.arange(len(said))
    return {
        "val_loss": loss / len(said),
        "image_to_text_r1": float(same_NN[rows, cosines_NN.argmax(1)].float().mean()),
        "text_to_image_r1": float(same_NN[cosines_NN.argmax(0), rows].float().mean()),
        "chance_r1": float(same_NN.float().mean()),
    }
