"""CoOp: learned vectors stand where the words of a template stood; towers stay as they are.

Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022. Image features are those of `Examples`, without
augmentation, so that only the text tower runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from medclip.adaptation.budget import BATCH, check_schedule, learn_at_best_rate, passes
from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.shot_features import Shots, Views, seen, take, with_unseen
from medclip.adaptation.data.task_loss import learn, targets_of, task_logits, task_loss
from medclip.adaptation.methods import Fitted
from medclip.adaptation.prompts.prompted_text_tower import (
    Placeholders,
    Position,
    embed,
    encode_embedded,
    place,
    placeholders,
)
from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from medclip.models.model import Model

NUM_VECTORS = 4
WORDS = "a photo of a"
PUBLISHED: Mapping[str, tuple[float, int, int]] = {
    "coop": (0.002, 100, 32),
    "cocoop": (0.002, 10, 1),
    "biomedcoop": (0.0025, 100, 4),
}
"""Rate, epochs and images in a step of the published code (of CoOp: in the biomedical harness)."""
Compat = Literal["upstream"] | None
STD = 0.02
"""Of vectors that begin at random."""
Extra = Callable[[Tensor, Tensor], Tensor]
"""A further loss of image features [N, D] and text features [R, D], unit norm both."""


class Context(nn.Module):
    """Learned vectors of a task's sentences.

    Args:
        base: Base model whose text tower runs; frozen.
        text: The classes.
        num_vectors: Number of vectors, M; ignored where `words` are given.
        words: The vectors begin as their token embeddings; None begins at random.
        position: Position of the vectors, see `prompt_tower.place`.
        class_specific: Vectors of its own for each class instead of shared ones.
        generator: Generator of a random beginning.

    Raises:
        MedclipError: WRONG_USE where a class's words do not fit the context.
    """

    def __init__(
        self,
        base: Model,
        text: ClassText,
        *,
        num_vectors: int,
        words: str | None,
        position: Position,
        class_specific: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._base = [base]  # in a list, so that the base is no child
        self._position: Position = position
        phrases = (*text.phrases, *text.negative_phrases)
        start_MW = None if words is None else words_embedded(base, words)
        count = num_vectors if start_MW is None else len(start_MW)
        names = text.names * 2 if text.negative_phrases else text.names
        self.words: Placeholders = placeholders(base.tokenizer, phrases, count, names)
        self._tokens = self.words.tokens_CL.to(base.device)
        self._embedded = embed(base.clip, self._tokens)
        if start_MW is None:
            width = self._embedded.shape[-1]
            start_MW = (STD * torch.randn(count, width, generator=generator)).to(base.device)
        start = start_MW.repeat(len(phrases), 1, 1) if class_specific else start_MW.clone()
        self.vectors = nn.Parameter(start.float())

    def forward(self) -> Tensor:
        """Encode every sentence: float [R, D] of unit norm, R = C, or 2C where classes are denied too."""
        base = self._base[0]
        embedded = place(self._embedded, self.vectors, self.words, self._position)
        return encode_embedded(base.clip, self._tokens, embedded, base.tokenizer.pad_id)


def words_embedded(base: Model, words: str) -> Tensor:
    """Return the token embeddings of some words, [M, W].

    Raises:
        MedclipError: WRONG_USE for words without a token.
    """
    tokens = placeholders(base.tokenizer, [words], 1)
    count = tokens.name_lens[0]
    if not count:
        raise MedclipError(Reason.WRONG_USE, "the words to begin with are empty.", hint="Give words, or none at all.")
    embedded_LW = embed(base.clip, tokens.tokens_CL.to(base.device))[0]
    return embedded_LW[tokens.prefix + 1 :][:count].clone()


@dataclass(frozen=True)
class PromptOptions:
    """How a context is learned."""

    num_vectors: int = NUM_VECTORS
    """M, where `words` is None."""
    words: str | None = WORDS
    """The vectors begin as these words; None: at random."""
    position: Position = "end"
    """"end": before the name; "middle": half before, half after; "front": after it."""
    class_specific: bool = False
    """Learn vectors for each class."""
    lr: float | None = None
    """Of SGD; None: the best of `budget.RATES`."""
    epochs: int | None = None
    """Passes over the shots; those of `budget.passes` where None."""
    batch_size: int | None = None
    """Units in a step; 32 where None."""
    compat: Compat = None
    """"upstream": rate, epochs and units in a step of the published code, see `PUBLISHED`."""
    views: Views = "pooled"
    """"pooled": one feature for each unit; "each": every view is a row."""

    @property
    def context(self) -> dict[str, Any]:
        """Arguments of `Context`."""
        return {name: getattr(self, name) for name in ("num_vectors", "words", "position", "class_specific")}


def fit_coop(
    base: Model, text: ClassText, train: Examples, val: Examples | None, *, seed: int, **prompt: Any
) -> Fitted:
    """Learn the context of the classes' first wordings. The last epoch is the model.

    Args:
        base: The base model.
        text: The classes' words.
        train: The shots.
        val: Further examples, which choose the rate where none is given; folds of the shots do where there are none.
        seed: Seed of the order of batches and of a random beginning.
        prompt: Fields of `PromptOptions`.

    Returns:
        A linear head of the learned class vectors. A multi-label class without positives or negatives keeps its
        zero-shot logit.
    """
    return learn_context("coop", "CoOp", base, text, (train, val), seed, PromptOptions(**prompt))


def learn_context(
    method: str,
    title: str,
    base: Model,
    text: ClassText,
    examples: tuple[Examples, Examples | None],
    seed: int,
    options: PromptOptions,
    further: Callable[[], tuple[Extra, dict[str, Any]]] | None = None,
) -> Fitted:
    """Learn a context at the best rate.

    Args:
        method: Name of the method.
        title: Name of the method in errors.
        base: The base model.
        text: The classes' words.
        examples: The shots, and what chooses the rate where none is given.
        seed: Seed of the order of batches and of a random beginning.
        options: Options of learning.
        further: Maker of a further loss, and what the result states of it, once nothing is to be refused any more.
    """
    o, (train, val) = options, examples
    check_prompt(method, base, text, o.num_vectors, o.words, o.lr, epochs=o.epochs, batch_size=o.batch_size)
    shots = take(base, text, train, val, o.views)
    extra, settings = (None, None) if further is None else further()
    lr, schedule = schedule_of(method, len(train), o.lr, o.epochs, o.batch_size, o.compat)

    def learn_at(learned: Examples, rate: float) -> Fitted:
        of_examples = replace(shots, train=learned, val=None)
        once = {"lr": rate, **schedule}
        return fit_context(
            base,
            text,
            of_examples,
            seed=seed,
            method=title,
            context=o.context,
            schedule=once,
            extra=extra,
            settings=settings,
        )

    return stated(learn_at_best_rate(base, shots, method, learn_at, lr=lr, seed=seed), shots, o.compat)


def check_prompt(
    method: str,
    base: Model,
    text: ClassText,
    num_vectors: int,
    words: str | None,
    lr: float | None,
    **counts: int | None,
) -> None:
    """Refuse a schedule that is none, and vectors or words that do not fit the text tower, before examples are seen.

    Raises:
        MedclipError: WRONG_USE.
    """
    check_schedule(method, lr, **counts)
    placeholders(
        base.tokenizer,
        (*text.phrases, *text.negative_phrases),
        num_vectors if words is None else len(words_embedded(base, words)),
        text.names * 2 if text.negative_phrases else text.names,
    )


def schedule_of(
    method: str, num_units: int, lr: float | None, epochs: int | None, batch_size: int | None, compat: Compat
) -> tuple[float | None, dict[str, int]]:
    """Return the rate, where it is not to be chosen, and epochs and batch size: given, published, or the budget's."""
    if compat is None:
        own = None, passes(num_units), BATCH
    elif compat == "upstream":
        own = PUBLISHED[method]
    else:
        raise MedclipError(Reason.WRONG_USE, f"compat is {compat!r}.", hint='It is "upstream", or left out.')
    own_lr, own_epochs, own_size = own
    schedule = {"epochs": epochs, "batch_size": batch_size}
    own_schedule = {"epochs": own_epochs, "batch_size": own_size}
    return own_lr if lr is None else lr, {k: own_schedule[k] if v is None else v for k, v in schedule.items()}


def stated(fitted: Fitted, shots: Shots, compat: Compat) -> Fitted:
    """Add what a prompt method states of itself: `compat`, images seen, classes without examples."""
    settings = dict(fitted.settings) | ({} if compat is None else {"compat": compat})
    settings["images"] = settings["epochs"] * len(shots.train)
    return replace(fitted, settings=shots.settings(**settings))


def fit_context(
    base: Model,
    text: ClassText,
    shots: Shots,
    *,
    seed: int,
    method: str,
    context: dict,
    schedule: dict,
    extra: Extra | None = None,
    settings: dict | None = None,
) -> Fitted:
    """Learn a context with the task's loss and, where given, a further one.

    Args:
        base: The base model.
        text: The classes' words.
        shots: The checked examples.
        seed: Seed of chance.
        method: Name of the method, for errors.
        context: Arguments of `Context`.
        schedule: lr, epochs and batch_size.
        extra: A further loss.
        settings: Further settings that the result states.
    """
    generator = torch.Generator().manual_seed(seed)
    features_ND, goal = tensors_of(shots, base.device)
    learner = Context(base, text, generator=generator, **context)
    count = len(text.names)

    def loss_of(rows: Tensor) -> Tensor:
        text_RD = learner()
        batch_ND = features_ND[rows]
        loss = task_loss(task_logits(batch_ND, text_RD, base.logit_scale, count), goal[rows])
        if extra is not None:
            loss = loss + extra(batch_ND, text_RD)
        return loss

    learn([learner.vectors], loss_of, len(features_ND), method=method, generator=generator, **schedule)
    with torch.no_grad():
        text_RD = learner()
    head = head_of(text_RD, base.logit_scale, count)
    if shots.multilabel:
        head = with_unseen(head, shots.zero, seen(shots.train.targets, count), multilabel=True)
    used = shots.settings(**{**context, "num_vectors": learner.words.num_vectors}, **schedule, **(settings or {}))
    return Fitted(head, learner.vectors.numel(), used, prompt=learner.vectors.detach().cpu())


def tensors_of(shots: Shots, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return features float32 [M, D] and their targets; multi-label classes that cannot be learned are masked."""
    features, targets = shots.rows(shots.train)
    if shots.multilabel:
        targets = np.where(seen(shots.train.targets, len(shots.names)), targets, np.float32("nan"))
    return torch.tensor(features, dtype=torch.float32, device=device), targets_of(targets, device)


def head_of(text_RD: Tensor, scale: float, num_classes: int) -> LinearHead:
    """Make the head of class vectors, and of those that deny the classes where there are any."""
    vectors = text_RD.float().cpu().numpy()
    weight = vectors[:num_classes]
    if len(vectors) > num_classes:
        weight = weight - vectors[num_classes:]
    return LinearHead(np.ascontiguousarray((np.float32(scale) * weight).T), np.zeros(num_classes, np.float32))
