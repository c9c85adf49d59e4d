"""What changed: which heads and layers the singular values moved, and which sentences that change speaks of.

Singular values are sorted over a whole matrix and belong to no head. The reference code cuts their vector into as many
pieces as there are heads and ranks these; a piece is a band of sizes, not a head. `per_head` measures the change of the
weight in the rows (values) or columns (output) that are a head's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medclip.adaptation.towers.clip_svd import decompose, decomposed, load_singular_values, singular_values
from medclip.adaptation.towers.layers import Role, list_layers
from medclip.adaptation.towers.split_attention import replace_module, split_attention
from medclip.adaptation.towers.svd_linear import SVDLinear
from medclip.errors import MedclipError, Reason
from medclip.text.vocabulary.load import load_task, spoken_names

if TYPE_CHECKING:
    from medclip.adaptation.data.table import LabelledUnit
    from medclip.models.inputs.preprocess import Images
    from medclip.models.model import Model
    from medclip.progress import Progress
    from medclip.settings import Settings


@dataclass(frozen=True)
class Part:
    """A head of a layer, or a whole layer, and how much it changed."""

    layer: str
    block: int
    role: Role
    head: int | None
    """None: the whole layer."""
    change: float
    """Frobenius norm of the change of its weight."""


@dataclass(frozen=True)
class Meaning:
    """What the change of one part does to image features, in sentences."""

    part: Part
    effect: float
    """Mean length of the change of the unit feature when this part alone is undone."""
    sentences: tuple[tuple[str, float], ...]
    """Sentences and the share of the change's variance over images that each explains beyond those before it."""


def per_head(clip: nn.Module, before: Mapping[str, Tensor]) -> tuple[Part, ...]:
    """Measure how much each part of the image tower changed, largest first.

    U diag(ΔS) Vᵀ is cut by rows for the values of a head and by columns for its share of the output. Layers of other
    roles, and towers without heads, are parts as a whole.

    Args:
        clip: Decomposed dual encoder, with the singular values of now.
        before: Singular values before training, from `singular_values`.
    """
    parts = []
    for layer in list_layers(clip):
        module, block = layer.module, layer.block
        if layer.tower != "image" or block is None or not isinstance(module, SVDLinear):
            continue
        delta = module.S.detach() - before[layer.name].to(module.S)
        heads = _num_heads(clip, layer.name) if layer.role in ("v", "out") else None
        if heads is None:
            parts.append(Part(layer.name, block, layer.role, None, float(delta.norm())))
            continue
        moved = (module.U * delta) @ module.V
        pieces = moved.chunk(heads, dim=0 if layer.role == "v" else 1)
        parts += [Part(layer.name, block, layer.role, h, float(p.norm())) for h, p in enumerate(pieces)]
    return tuple(sorted(parts, key=lambda p: -p.change))


def what_changed(
    model: Model,
    learned: Mapping[str, Tensor],
    images: Images,
    sentences: Sequence[str] | None = None,
    *,
    num_parts: int = 8,
    num_sentences: int = 5,
) -> tuple[Meaning, ...]:
    """Describe in sentences what the parts that changed most do to the features of some images.

    Each part in turn is set back to the base's weights while all others keep what they learned. By how much the unit
    features of the images then differ is what that part's change does. Sentences are picked one after the other, each
    time the one along whose vector that difference varies most over the images (the greedy search of TextSpan,
    Gandelsman et al. 2024, on differences instead of contributions).

    What it can say: along which of the given sentences the change of a part moves these images apart. What it cannot
    say: that the part "detects" what the sentence names, or that any sentence fits well; read the shares, and compare
    them with those of sentences that have nothing to do with the task. A difference that is the same for all images is
    not seen, nor is the text tower. medclip-mini's image tower has no heads: its parts are whole layers.

    Args:
        model: The base model; not changed.
        learned: Singular values after training, by layer.
        images: N of them at the model's size, at least 3; a few dozen that show what the task is about.
        sentences: Sentences to choose from; one of each class of every vocabulary where None.
        num_parts: Parts that are looked at; each takes one more pass over the images.
        num_sentences: Sentences for each part.

    Raises:
        MedclipError: WRONG_USE for fewer than 3 images, or layers that this model does not have.
    """
    if len(images) < _FEWEST_IMAGES:
        raise MedclipError(Reason.WRONG_USE, f"{len(images)} images say nothing of variance; give 3 or more.")
    vocabulary = vocabulary_sentences() if sentences is None else tuple(sentences)
    vectors_MD = model.encode_text(vocabulary)
    clip = copy.deepcopy(model.clip)
    split_attention(clip)
    layers = [layer for layer in list_layers(clip) if layer.name in learned]
    if len(layers) != len(learned):
        raise MedclipError(Reason.WRONG_USE, f"this model has {len(layers)} of the {len(learned)} layers that learned.")
    decompose(clip, layers)
    before = singular_values(clip)
    load_singular_values(clip, learned)
    after_ND = _features(model, clip, images)
    changes = []
    for part in per_head(clip, before)[:num_parts]:
        with _undone(clip, part, before[part.layer]):
            moved_ND = after_ND - _features(model, clip, images)
        effect = float(np.linalg.norm(moved_ND, axis=1).mean())
        changes.append(Meaning(part, effect, explain_variance(moved_ND, vocabulary, vectors_MD, num_sentences)))
    return tuple(changes)


MOST_IMAGES = 48
_FEWEST_IMAGES = 3


def changes_on(
    model: Model,
    learned: Mapping[str, Tensor],
    units: Sequence[LabelledUnit],
    settings: Settings,
    progress: Progress,
) -> tuple[Meaning, ...]:
    """Describe what changed on the first view of some files, at most 48, spread evenly; see `what_changed`.

    Returns:
        Nothing where fewer than 3 files could be read.
    """
    from medclip.embeddings.embeddings_reader import open_reader

    places = np.unique(np.linspace(0, len(units) - 1, min(len(units), MOST_IMAGES)).round().astype(int)).tolist()
    chosen = [units[i] for i in places]
    progress.stage("Describing what changed", len(chosen))
    with open_reader(model, settings, None) as reader:
        pixels = [
            unit.pixels[0]
            for start in range(0, len(chosen), reader.at_once)
            for unit in reader.read(chosen[start : start + reader.at_once], progress.step, keep_pixels=True)
            if unit.problem is None and len(unit.pixels)
        ]
    return what_changed(model, learned, np.stack(pixels)) if len(pixels) >= _FEWEST_IMAGES else ()


def explain_variance(
    moved_ND: NDArray[np.float32], sentences: Sequence[str], vectors_MD: NDArray[np.float32], count: int
) -> tuple[tuple[str, float], ...]:
    """Pick sentences greedily along whose vectors differences vary most; see `what_changed`.

    Args:
        moved_ND: Differences of features, one for each image.
        sentences: Sentences, M.
        vectors_MD: Vectors of the sentences; what all of them share is taken out first.
        count: Number of sentences to pick.

    Returns:
        Sentence and share of the variance; shares add up to at most 1. Fewer than `count` where nothing is left.
    """
    left = np.asarray(moved_ND, np.float64) - np.mean(moved_ND, axis=0, dtype=np.float64)
    words = np.asarray(vectors_MD, np.float64) - np.mean(vectors_MD, axis=0, dtype=np.float64)
    scale, total = np.linalg.norm(words, axis=1).max(initial=0.0), float((left**2).sum())
    picked: list[tuple[str, float]] = []
    while total > 0 and len(picked) < count:
        lengths = np.linalg.norm(words, axis=1)
        usable = lengths > 1e-6 * scale  # what is left of a sentence that those before say already
        unit = np.where(usable[:, None], words / np.where(usable, lengths, 1.0)[:, None], 0.0)
        variance = ((left @ unit.T) ** 2).sum(axis=0)
        best = int(variance.argmax())
        if not usable.any() or variance[best] <= 1e-9 * total:
            break
        picked.append((sentences[best], float(variance[best] / total)))
        left = left - np.outer(left @ unit[best], unit[best])
        words = words - np.outer(words @ unit[best], unit[best])
    return tuple(picked)


def vocabulary_sentences() -> tuple[str, ...]:
    """Return one sentence for each class of every vocabulary: the first template with the first wording."""
    tasks = [load_task(name) for name in spoken_names()]
    return tuple(dict.fromkeys(t.templates[0].format(c.prompts[0]) for t in tasks for c in t.classes))


def _num_heads(clip: nn.Module, name: str) -> int | None:
    """Return the number of heads of the attention that a layer is part of; its qkv may stand between."""
    for _ in range(2):
        name = name.rpartition(".")[0]
        heads: Any = getattr(clip.get_submodule(name), "num_heads", None)
        if isinstance(heads, int):
            return heads
    return None


def _features(model: Model, clip: Any, images: Images) -> NDArray[np.float32]:
    with torch.no_grad():
        chunks = [images[i : i + model.batch_size] for i in range(0, len(images), model.batch_size)]
        return np.concatenate([clip.encode_image(model.normalise(c), normalize=True).cpu().numpy() for c in chunks])


@contextmanager
def _undone(clip: nn.Module, part: Part, before: Tensor) -> Iterator[None]:
    """Set one part back to what it was, for a while."""
    layer = decomposed(clip)[part.layer]
    if part.head is None:
        learned = layer.S.detach().clone()
        with torch.no_grad():
            layer.S.copy_(before)
            try:
                yield
            finally:
                layer.S.copy_(learned)
        return
    with torch.no_grad():
        now, then = layer.weight, (layer.U * before.to(layer.S)) @ layer.V
        dim = 0 if part.role == "v" else 1
        heads = _num_heads(clip, part.layer)
        assert heads is not None
        now.chunk(heads, dim)[part.head].copy_(then.chunk(heads, dim)[part.head])
        dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        dense.weight, dense.bias = nn.Parameter(now, requires_grad=False), layer.bias  # type: ignore[assignment]
        replace_module(clip, part.layer, dense)
    try:
        yield
    finally:
        replace_module(clip, part.layer, layer)
