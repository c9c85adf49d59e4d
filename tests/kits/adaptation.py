"""Made-up examples, class words and models for the tests of adaptation.

`made_up` gives units whose features lie around one direction per class, `FakeModel` encodes sentences into vectors near
the same directions (so that zero-shot is better than chance and can be improved), and `tiny_model` is a real dual
encoder with random weights: open_clip's ViT and text transformer, 32 px, 16 dimensions, 3 blocks each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText, class_text
from medclip.adaptation.data.examples import Examples
from medclip.sample import Modality
from medclip.text.vocabulary.task import Task, TaskClass

if TYPE_CHECKING:
    from medclip.models.model import Model
    from medclip.text.tokenizers.tokenizer import Tokenizer

SIZE_PX = 32
DIM = 16
NAMES = ("apple", "pear", "plum", "quince", "cherry", "medlar")


def words(num_classes: int = 3, *, multilabel: bool = False, ordered: bool = False) -> ClassText:
    """Give the words of a task of fruit: two wordings in two templates each; steps of a scale where ordered."""
    classes = tuple(
        TaskClass(n, n, (n, f"{n} fruit"), (f"no {n}", f"without {n}") if multilabel else (), nouns=(n,))
        for n in NAMES[:num_classes]
    )
    kind = "multilabel" if multilabel else "multiclass"
    return class_text(
        Task("fruit", "Fruit", kind, (Modality.FUNDUS,), ("{}", "a photo of {}"), classes, ordered=ordered)
    )


class FakeModel:
    """The part of `Model` that feature methods look at: encode_text, has_text, logit_scale, name.

    Args:
        text: Whose sentences it knows.
        logit_scale: a.
        noise: How far a sentence lies from its class's direction.
        dim: D.
    """

    def __init__(self, text: ClassText, *, logit_scale: float = 50.0, noise: float = 0.7, dim: int = DIM) -> None:
        self.logit_scale = logit_scale
        self.has_text = True
        self.name = "fake"
        self.dim = dim
        rng = np.random.default_rng(7)
        self._known: dict[str, NDArray[np.float32]] = {}
        for sign, lists in ((1.0, text.positive()), (-1.0, text.negative())):
            for centre, sentences in zip(centres(len(lists), dim), lists, strict=True):
                for said in sentences:
                    self._known[said] = unit(sign * centre + noise * unit(rng.normal(size=dim)))

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give float32 [N, D] of unit norm."""
        return np.stack([self._known[t] for t in texts])


def centres(num_classes: int, dim: int = DIM) -> NDArray[np.float64]:
    """Give the orthonormal direction of each class, [C, D]; the same ones every time."""
    return np.linalg.qr(np.random.default_rng(3).normal(size=(dim, dim)))[0].T[:num_classes]


def unit(vectors: NDArray) -> NDArray[np.float32]:
    """Give vectors the norm 1, float32."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def made_up(
    num_units: int = 24,
    num_classes: int = 3,
    *,
    seed: int = 0,
    multilabel: bool = False,
    unknown: float = 0.0,
    views: tuple[int, int] = (1, 1),
    noise: float = 1.5,
    dim: int = DIM,
    patients: int | None = None,
) -> Examples:
    """Make labelled units: classes in turn (multi-label: each class by chance of a half).

    Args:
        num_units: N.
        num_classes: C, at most six.
        seed: Of everything that differs between units.
        multilabel: Targets float32 [N, C] instead of int64 [N].
        unknown: Share of multi-label targets that nobody knows (NaN).
        views: Fewest and most views of a unit.
        noise: Of features; 0 puts every unit on its class's direction.
        dim: D.
        patients: Number of patients whose units come in turn; every unit its own patient where None.

    Returns:
        Pixels are uint8 [V, 32, 32, 3] with a bright square in a place that depends on the class.
    """
    rng = np.random.default_rng(seed)
    directions = centres(num_classes, dim)
    targets: NDArray[Any] = np.arange(num_units) % num_classes
    shown = np.eye(num_classes, dtype=np.float32)[targets]
    if multilabel:
        shown = rng.integers(0, 2, (num_units, num_classes)).astype(np.float32)
        targets = np.where(rng.random(shown.shape) < unknown, np.float32("nan"), shown)
    pixels, features = [], []
    for row in shown:
        count = int(rng.integers(views[0], views[1] + 1))
        mean = (2 * row - 1 if multilabel else row) @ directions
        features.append(unit(mean + noise * unit(rng.normal(size=(count, dim)))))
        image = rng.integers(0, 80, (count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        for c in np.flatnonzero(row):
            image[:, 5 * c : 5 * c + 5, 5 * c : 5 * c + 5] += 150
        pixels.append(image)
    who = [f"patient{i % (patients or num_units)}" for i in range(num_units)]
    return Examples(tuple(pixels), tuple(features), targets, tuple(who))


def of_features(features_ND: NDArray, targets: NDArray) -> Examples:
    """Give units of one view each that are nothing but features."""
    pixels = tuple(np.zeros((1, 2, 2, 3), np.uint8) for _ in features_ND)
    return Examples(pixels, tuple(f[None] for f in features_ND), targets, tuple(map(str, range(len(features_ND)))))


def tiny_model(
    text: ClassText | None = None, *, dim: int = DIM, text_width: int = 32, context_length: int = 16
) -> Model:
    """Give a real `Model` with random weights, made anew each time; open_clip's ViT-and-text `CLIP`.

    Args:
        text: Whose sentences the tokenizer learns; those of `words()` where None.
        dim: D.
        text_width: Of token embeddings.
        context_length: Tokens of a sentence.
    """
    from medclip.models.inputs.preprocess import Preprocess
    from medclip.models.model import Model
    from medclip.models.packs.card import Card
    from medclip.models.towers.build import build_clip

    said = text or words()
    tokenizer = _tokenizer(
        tuple(s for of_class in (*said.positive(), *said.negative()) for s in of_class), context_length
    )
    config = {
        "embed_dim": dim,
        "vision_cfg": {"image_size": SIZE_PX, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": context_length,
            "vocab_size": tokenizer.vocab_size,
            "width": text_width,
            "heads": 2,
            "layers": 3,
        },
    }
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = build_clip(config)
    return Model(clip, tokenizer, Preprocess(SIZE_PX), Card(name="tiny"), name="tiny", path=Path("tiny"))


def real_features(model: Model, examples: Examples) -> Examples:
    """Give the same units with the features that a real model has of their pixels."""
    features = tuple(model.encode_image(p) for p in examples.pixels)
    return Examples(examples.pixels, features, examples.targets, examples.patients)


@cache
def _tokenizer(sentences: tuple[str, ...], context_length: int) -> Tokenizer:
    from medclip.text.tokenizers.tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory(prefix="medclip-kit-") as folder:
        return train_tokenizer(list(sentences) * 3, Path(folder), vocab_size=400, context_length=context_length)
