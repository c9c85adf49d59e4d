"""CoCoOp: CoOp whose vectors are moved by each image, so that the text tower runs once per image.

Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022. Much dearer to score with than the other
heads: an image costs one forward pass of every class's sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from medclip.adaptation.budget import learn_at_best_rate
from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.shot_features import Shots, Views, take
from medclip.adaptation.data.task_loss import learn, task_logits, task_loss
from medclip.adaptation.methods import Fitted
from medclip.adaptation.prompts.coop import (
    NUM_VECTORS,
    WORDS,
    Compat,
    Context,
    check_prompt,
    schedule_of,
    stated,
    tensors_of,
)
from medclip.adaptation.prompts.prompted_text_tower import embed, encode_embedded

if TYPE_CHECKING:
    from medclip.models.model import Model

REDUCTION = 16
_IMAGES = 8
"""Images whose sentences go through the text tower together."""
_META = ("weight1", "bias1", "weight2", "bias2")


@dataclass(frozen=True, eq=False)
class CoCoOpHead:
    """The learned vectors, the small net that moves them, and the tokenised sentences they stand in."""

    vectors_MW: NDArray[np.float32]
    meta: tuple[NDArray[np.float32], ...]
    """Weight and bias of D → D/16, then of D/16 → W."""
    tokens_RL: NDArray[np.int64]
    """Placeholder sentences: one for each class, and then those that deny it for multilabel tasks."""
    prefix: int
    """Tokens before the vectors."""
    scale: float
    num_classes: int
    kind: ClassVar[str] = "cocoop"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C]; runs the text tower of `model` for each row."""
        rows = [np.zeros((0, self.num_classes), np.float32)]
        tokens_RL = torch.from_numpy(self.tokens_RL).to(model.device)
        parts = [torch.from_numpy(a).to(model.device) for a in (self.vectors_MW, *self.meta)]
        with torch.no_grad():
            embedded_RLW = embed(model.clip, tokens_RL)
            for start in range(0, len(features_ND), _IMAGES):
                features = torch.tensor(features_ND[start : start + _IMAGES], device=model.device)
                text_BRD = encode_moved(
                    model, tokens_RL, embedded_RLW, moved(parts[0], parts[1:], features), self.prefix
                )
                rows.append(image_logits(features, text_BRD, self.scale, self.num_classes).cpu().numpy())
        return np.concatenate(rows)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return vectors, net, sentences and numbers."""
        return {
            "vectors": self.vectors_MW,
            **dict(zip(_META, self.meta, strict=True)),
            "tokens": self.tokens_RL,
            "scale": np.float64(self.scale).reshape(1),
            "counts": np.array([self.prefix, self.num_classes], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> CoCoOpHead:
        """Make it again."""
        prefix, num_classes = (int(n) for n in arrays["counts"])
        return cls(
            np.asarray(arrays["vectors"], np.float32),
            tuple(np.asarray(arrays[k], np.float32) for k in _META),
            np.asarray(arrays["tokens"], np.int64),
            prefix,
            float(arrays["scale"][0]),
            num_classes,
        )


def moved(vectors_MW: Tensor, meta: list[Tensor] | tuple[Tensor, ...], features_BD: Tensor) -> Tensor:
    """Return each image's vectors, [B, M, W]: all of them moved by the same net(f)."""
    weight1, bias1, weight2, bias2 = meta
    shift_BW = linear(relu(linear(features_BD, weight1, bias1)), weight2, bias2)
    return vectors_MW + shift_BW[:, None]


def encode_moved(model: Model, tokens_RL: Tensor, embedded_RLW: Tensor, vectors_BMW: Tensor, prefix: int) -> Tensor:
    """Encode every sentence with each image's vectors: float [B, R, D] of unit norm."""
    num_images, count = vectors_BMW.shape[:2]
    rows = len(tokens_RL)
    embedded = embedded_RLW.expand(num_images, -1, -1, -1)
    vectors = vectors_BMW[:, None].expand(-1, rows, -1, -1)
    joined = torch.cat([embedded[:, :, :prefix], vectors, embedded[:, :, prefix + count :]], dim=2).flatten(0, 1)
    text = encode_embedded(model.clip, tokens_RL.repeat(num_images, 1), joined, model.tokenizer.pad_id)
    return text.unflatten(0, (num_images, rows))


def image_logits(features_BD: Tensor, text_BRD: Tensor, scale: float, num_classes: int) -> Tensor:
    """Return each image's logits against its own text features, [B, C]."""
    pairs = zip(features_BD, text_BRD, strict=True)
    return torch.cat([task_logits(f[None], text_RD, scale, num_classes) for f, text_RD in pairs])


def fit_cocoop(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    num_vectors: int = NUM_VECTORS,
    words: str | None = WORDS,
    lr: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    compat: Compat = None,
    views: Views = "pooled",
) -> Fitted:
    """Learn vectors and a net D → D/16 → W that moves them by the image's feature.

    The last epoch is the model. Arguments are those of `fit_coop`; the net begins from `seed`, too. With
    `compat="upstream"` it learns at a rate of 0.002 for 10 epochs, one image in a step.
    """
    check_prompt("cocoop", base, text, num_vectors, words, lr, epochs=epochs, batch_size=batch_size)
    shots = take(base, text, train, val, views)
    lr, schedule = schedule_of("cocoop", len(train), lr, epochs, batch_size, compat)

    def learn_at(examples: Examples, rate: float) -> Fitted:
        of_examples = replace(shots, train=examples, val=None)
        return _fit(base, text, of_examples, num_vectors, words, {"lr": rate, **schedule}, seed)

    return stated(learn_at_best_rate(base, shots, "cocoop", learn_at, lr=lr, seed=seed), shots, compat)


def _fit(
    base: Model, text: ClassText, shots: Shots, num_vectors: int, words: str | None, schedule: dict[str, Any], seed: int
) -> Fitted:
    generator = torch.Generator().manual_seed(seed)
    features_ND, goal = tensors_of(shots, base.device)
    start = Context(
        base, text, num_vectors=num_vectors, words=words, position="end", class_specific=False, generator=generator
    )
    vectors, placed, count = start.vectors, start.words, len(text.names)
    meta = meta_net(features_ND.shape[1], vectors.shape[1], seed, base.device)
    tokens_RL = placed.tokens_CL.to(base.device)
    embedded_RLW = embed(base.clip, tokens_RL)

    def loss_of(rows: Tensor) -> Tensor:
        batch_BD = features_ND[rows]
        text_BRD = encode_moved(base, tokens_RL, embedded_RLW, moved(vectors, meta, batch_BD), placed.prefix)
        return task_loss(image_logits(batch_BD, text_BRD, base.logit_scale, count), goal[rows])

    learn([vectors, *meta], loss_of, len(features_ND), method="CoCoOp", generator=generator, **schedule)
    head = CoCoOpHead(
        vectors.detach().cpu().numpy(),
        tuple(p.detach().cpu().numpy() for p in meta),
        placed.tokens_CL.numpy(),
        placed.prefix,
        base.logit_scale,
        count,
    )
    used = shots.settings(num_vectors=placed.num_vectors, words=words, **schedule)
    return Fitted(head, sum(p.numel() for p in (vectors, *meta)), used)


def meta_net(dim: int, width: int, seed: int, device: torch.device) -> tuple[nn.Parameter, ...]:
    """Begin the net as torch begins linear layers, without touching the global source of chance."""
    hidden = max(1, dim // REDUCTION)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(dim, hidden), nn.Linear(hidden, width)
    return tuple(nn.Parameter(p.detach().to(device)) for layer in layers for p in (layer.weight, layer.bias))
