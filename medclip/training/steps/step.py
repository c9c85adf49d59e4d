"""What one step computes: a batch becomes features, features and pairs become a loss, the loss becomes gradients.

Contrastive batches larger than memory get their features first, then the loss, then one chunk after another again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.normalise import normalise_with
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.towers.tokens import unpack_batch
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import sum_values
from medclip.objectives.replay import replay_loss
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.loader import KIND, LABELS, SOURCE, STATED, STUDY, TEXT, Batch
from medclip.training.ranks import World
from medclip.training.recipe.schema import Recipe
from medclip.training.sharding import no_sync
from medclip.training.steps.frozen_models import Replay
from medclip.training.steps.inputs import Exams, Inputs, each_of, empty_batch, exams_of, role_inputs
from medclip.training.steps.loss_terms import ALL, ActiveLoss, Sizes, Step, contrast, image_weights, weighted
from medclip.training.steps.supervised import learned_from, num_known, targets_of
from medclip.training.steps.towers import TowerOutputs, Towers, joined

C = TypeVar("C")


def cached_backward(
    chunks: Sequence[C],
    encode: Callable[[C], tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
    *,
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
    loss_parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Add the gradients of a loss of a whole batch to parameters, holding the activations of one chunk at a time.

    1. Each chunk is encoded without gradients. 2. The loss of all features is made, and its gradients with respect to
    them; parameters that the loss itself uses (the logit scale) get theirs here, once. 3. Each chunk is encoded again,
    with the random state it had the first time, and passes on the gradients of its features.

    Loss and gradients equal those of the whole batch at once, to rounding, if a sample's features do not depend on the
    others of its chunk. Batch normalisation in training mode breaks that; freeze it.

    Args:
        chunks: The batch in parts, in the order of the samples.
        encode: Function that returns the features of a chunk: one or more tensors with as many rows for each sample.
            Called twice for each chunk.
        loss: Function called once with each feature of the whole batch; returns a scalar.
        no_sync: Function that returns a context in which gradients are not sent to other ranks
            (`DistributedDataParallel.no_sync`); it is entered for everything but the last chunk.
        loss_parameters: Parameters that the loss uses and `encode` does not. With `no_sync` they are named so that the
            last chunk sends their gradients as well.

    Returns:
        The loss, detached.

    Raises:
        MedclipError: WRONG_USE without a chunk.

    Reference: Gao et al., Scaling deep contrastive learning batch size under memory limited setup, RepL4NLP 2021.

    Example:
        >>> tower = torch.nn.Linear(3, 2)
        >>> value = cached_backward(torch.ones(4, 3).split(2), lambda x: (tower(x),), lambda f: f.square().sum())
        >>> tower.weight.grad.shape
        torch.Size([2, 3])
    """
    if not chunks:
        raise MedclipError(Reason.WRONG_USE, "a batch needs one chunk or more.")
    with no_sync():
        again, outputs = [], []
        with torch.no_grad():
            for chunk in chunks:
                again.append(_random_state())
                outputs.append(encode(chunk))
        leaves = [torch.cat(feature).requires_grad_() for feature in zip(*outputs, strict=True)]
        value = loss(*leaves)
        value.backward()
        sizes = [[len(part) for part in feature] for feature in zip(*outputs, strict=True)]
        del outputs
    gradients = [
        (torch.zeros_like(x) if x.grad is None else x.grad).split(lengths)
        for x, lengths in zip(leaves, sizes, strict=True)
    ]
    for i, chunk in enumerate(chunks):
        last = i == len(chunks) - 1
        with nullcontext() if last else no_sync():
            with again[i]():
                features = encode(chunk)
            ends = [(x, g[i]) for x, g in zip(features, gradients, strict=True) if x.requires_grad]
            if last:  # nothing is added to them, but their gradients are complete: a reducer waits for this
                ends += [((p * 0).sum(), p.new_ones(())) for p in loss_parameters if p.requires_grad]
            if ends:
                torch.autograd.backward([x for x, _ in ends], [g for _, g in ends])
    return value.detach()


def _random_state() -> Callable[[], AbstractContextManager[None]]:
    """Note the state of torch's generators on the CPU and, where there are any, on CUDA devices.

    Returns:
        What draws once more what is drawn after this call; what comes later draws on as if nothing had been.
    """
    state = torch.get_rng_state()
    on_cards = torch.cuda.is_available() and torch.cuda.is_initialized()
    states = torch.cuda.get_rng_state_all() if on_cards else []

    @contextmanager
    def again() -> Iterator[None]:
        with torch.random.fork_rng(devices=range(len(states))):
            torch.set_rng_state(state)
            for device, state_of_card in enumerate(states):
                torch.cuda.set_rng_state(state_of_card, device)
            yield

    return again


_MASK_STREAM, _FIXED_MASK_STREAM = 11, 13


class StepComputer:
    """Computes losses and gradients of batches; knows no optimizer, schedule or file.

    Args:
        recipe: Recipe, of which objective and micro-batch are used.
        towers: The model.
        call: Callable that `spread` returned for the towers.
        tokenizer: Tokenizer of the towers; None without words.
        preprocess: The model's treatment of images.
        world: The ranks.
        losses: Losses of the recipe, from `begin_losses`.
        bf16: Whether the towers are computed in bfloat16; losses stay in float32.
    """

    def __init__(
        self,
        recipe: Recipe,
        towers: Towers,
        call: Callable[..., Any],
        tokenizer: Tokenizer | None,
        preprocess: Preprocess,
        world: World,
        losses: Sequence[ActiveLoss],
        *,
        bf16: bool = False,
    ) -> None:
        self._recipe, self._towers, self._call, self._world = recipe, towers, call, world
        self._tokenizer, self._losses = tokenizer, losses
        self._heads = {head.asked.name: (head, head.asked, head.names) for head in recipe.objective.supervised}
        sharded = world.group is not None and recipe.train.parallel == "fsdp"  # FSDP casts by itself
        self._autocast = lambda: torch.autocast(world.device.type, torch.bfloat16, enabled=bf16 and not sharded)
        self._preprocess = preprocess
        self._mean = torch.tensor(preprocess.mean, device=world.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=world.device).view(1, 3, 1, 1)
        self._waiting = no_sync(call, towers)
        self._replay: Replay | None = next((one.state for one in losses if one.name == "keep"), None)

    def prepare(self, batch: Batch, step: int) -> Inputs:
        """Make a batch's tensors on the CPU; the images are the batch's own memory. Draws no random number but its own.

        Args:
            batch: This rank's share of the batch.
            step: Number of the step, from 0; hidden patches depend on it.
        """
        exams = exams_of(batch)
        several = batch.num_views if exams is None else 1  # of single images each is classified, changed anew
        return Inputs(
            torch.from_numpy(batch.images),
            torch.from_numpy(batch.tokens).long(),
            batch.num_tokens,
            self._pairs(batch.pair_keys, batch.valid, batch.num_texts, batch.weights),
            batch.num_views,
            torch.tensor(batch.valid) if self._world.group is not None or not batch.valid.all() else None,
            *self._hidden_patches(batch, step),
            {one.name: one.prepare(one.state, batch, step) for one in self._losses if one.prepare is not None},
            {
                name: targets_of(task, classes, learned_from(head.sources, batch)).repeat_interleave(several, dim=0)
                for name, (head, task, classes) in self._heads.items()
            },
            batch.num_texts,
            exams,
            None if batch.view_types is None else batch.view_types[:, :, 0] >= 0,
            step,
            role_inputs(batch),
        )

    def nothing(self, step: int) -> Inputs:
        """Make inputs on the device of which no sample takes part, with the fields that those of other ranks have.

        Args:
            step: Number of the step, as in `prepare`.
        """
        o, size = self._recipe.objective, self._recipe.train.batch_size // self._world.size
        batch = empty_batch(
            size,
            self._preprocess,
            0 if self._tokenizer is None else self._tokenizer.context_length,
            num_views=o.num_views,
            num_texts=o.num_texts,
            of_exam=o.views is not None,
            weighted=bool(o.source_weights),
            roles=self._recipe.roles,
        )
        return self.prepare(batch, step).to(self._world.device)

    def backward(self, inputs: Inputs, step: int) -> Tensor:
        """Add the gradients of a batch to the parameters; return this rank's loss, on the device.

        Those of the loss's own parameters are this rank's; all others are averaged over the ranks.

        Args:
            inputs: This rank's share of the batch, on the device.
            step: Number of the step, from 0; drop-out depends on it and on the rank.
        """
        seed = (self._recipe.seed, step, self._world.rank)
        chunks = self._chunks(len(inputs), inputs.num_views)
        devices = [self._world.device] if self._world.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(np.random.default_rng(seed).integers(2**62)))
            if len(chunks) == 1:
                loss = self._loss(inputs, self._forward(inputs, chunks[0]))
                loss.backward()
            elif all(one.adds_up for one in self._losses):
                loss = self._added_up(inputs, chunks)
            else:
                loss = self._cached(inputs, chunks)
        return loss.detach()

    def encode(self, batch: Batch, row: int = 0) -> TowerOutputs:
        """Return what the towers return for a batch of validation, no more at once than in a step.

        Args:
            batch: Samples of the split.
            row: Number of the first one in its split; what is hidden of each sample depends on it alone.
        """
        images, exams = torch.from_numpy(batch.images), exams_of(batch)
        size = len(batch.keys)
        masks = self._fixed_masks(range(row, row + size), images)
        there_BV = None if exams is None else exams.there_BV.numpy()
        inputs = Inputs(
            images,
            torch.from_numpy(batch.tokens).long(),
            batch.num_tokens,
            num_views=batch.num_views,
            num_texts=batch.num_texts,
            mask_BL=masks[0],
            decoded_BL=masks[1],
            exams=exams,
            there_BV=there_BV,
        ).to(self._world.device)
        parts = [self._forward(inputs, part, self._towers) for part in self._chunks(size, batch.num_views)]
        return joined(parts)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return unit-norm float32 features [N, D] of sentences, on the CPU."""
        assert self._tokenizer is not None
        with torch.no_grad(), self._autocast():
            tokens = torch.from_numpy(self._tokenizer.encode(texts)).to(self._world.device)
            return self._towers.clip.encode_text(tokens, normalize=True).float().cpu()

    def pairs(self, keys: np.ndarray, valid: np.ndarray) -> Pairs:
        """Return which pairs of samples are positives, and which samples take part, on the device.

        Args:
            keys: Keys of pairs, as `Batch.pair_keys`.
            valid: Samples that take part, as `Batch.valid`.
        """
        return each_of(self._pairs(keys, valid), lambda x: x.to(self._world.device))

    def _pairs(
        self, keys: np.ndarray, valid: np.ndarray, num_texts: int = 1, weights: np.ndarray | None = None
    ) -> Pairs:
        """Return the same on the CPU, of one or more captions of each sample."""
        o = self._recipe.objective
        stated = o.same_label == "stated"
        relations = {LABELS: "positive" if stated else o.same_label, TEXT: o.same_text, STUDY: o.same_study}
        if o.views is not None:  # what one caption says holds for one breast, so for some combinations: see `contrast`
            del relations[TEXT]
            keys, num_texts = keys[: len(keys) // num_texts], 1

        def of_relation(relation: str, of_labels: int = LABELS) -> Tensor | None:
            columns = [
                of_labels if column == LABELS else column for column, chosen in relations.items() if chosen == relation
            ]
            if not columns:
                return None
            # One column for each caption; labels and study are the same in all.
            return torch.from_numpy(np.concatenate([text[:, columns] for text in np.split(keys, num_texts)], axis=1))

        # Ranks must agree on what is given: one of them may have a bad sample that the others do not know of.
        taking_part = torch.tensor(valid) if self._world.group is not None or not valid.all() else None
        given_weights = None if weights is None else torch.tensor(weights)
        sources_B2 = None
        if o.other_source == "ignored":
            sources_B2 = torch.from_numpy(np.split(keys, num_texts)[0][:, [KIND, SOURCE]].copy())
        of_texts = of_relation("positive", STATED) if stated else None
        return Pairs(of_relation("positive"), of_relation("ignored"), given_weights, taking_part, sources_B2, of_texts)

    def contrast(self, outputs: TowerOutputs, pairs: Pairs, exams: Exams | None = None, group: Any = None) -> Tensor:
        """Return the contrastive loss of features: `loss_terms.contrast`."""
        return contrast(self._recipe.objective, self._towers.clip, outputs, pairs, exams, group)

    def _chunks(self, size: int, views: int = 1) -> list[slice]:
        """Cut samples into parts of at most so many images as go through the tower at once, at least one sample."""
        t = self._recipe.train
        most = max(1, t.micro_batch // views) if t.micro_batch else max(1, t.batch_size // self._world.size)
        return [slice(i, min(i + most, size)) for i in range(0, size, most)]

    def _forward(
        self, inputs: Inputs, part: slice, call: Callable[..., Any] | None = None, *, keeps: bool = True
    ) -> TowerOutputs:
        """Send some samples through the towers: of examinations the views that there are, and no black ones.

        Without `keeps` the old model is not asked: no gradient of a chunk that is encoded again flows there.
        """
        size, views, device = len(inputs), inputs.num_views, inputs.images.device
        given: dict[str, Any] = {}
        if inputs.exams is None or inputs.there_BV is None:
            rows = _rows(size, views, part, device)
        else:
            # Every rank sends something: a chunk without any view its first place, which then takes no part.
            places = np.flatnonzero(inputs.there_BV[part].ravel())
            places = torch.from_numpy(places if len(places) else np.zeros(1, np.int64))
            rows = torch.arange(size * views).view(views, size)[:, part].T.flatten()[places].to(device)
            types_BV3 = inputs.exams.view_types_BV3[part]
            given = {"view_types_BV3": types_BV3, "there_P": places.to(device, non_blocking=True)}
        if inputs.texts:
            given["texts"] = {
                role: (of.tokens_BKL[part], of.mask_BK[part], of.num_tokens)
                for role, of in inputs.texts.items()
                if of.tokens_BKL.shape[2]
            }
        if inputs.extra:
            given["prepared"] = {
                one.name: {key: inputs.extra[one.name][key][part] for key in one.sees}
                for one in self._losses
                if one.sees
            }
        masks = (None if mask_BL is None else mask_BL[rows] for mask_BL in (inputs.mask_BL, inputs.decoded_BL))
        mask_BL, decoded_BL = masks
        images_BCHW = self._normalised(inputs.images[rows])
        tokens_BL = inputs.tokens_BL[_rows(size, inputs.num_texts, part, device)]
        with self._autocast():
            outputs = (call or self._call)(images_BCHW, tokens_BL, mask_BL, inputs.num_tokens, decoded_BL, **given)
            if self._replay is None:
                return outputs
            kept_BD = self._replay.images(images_BCHW) if keeps else outputs.errors_B2[:, :0].detach()
            return outputs._replace(extra={**outputs.extra, "keep": kept_BD})

    def _cached(self, inputs: Inputs, chunks: Sequence[slice]) -> Tensor:
        """Compute the loss of all features, and add the gradients chunk by chunk."""
        like: list[TowerOutputs] = []

        def encode(part: slice) -> tuple[Tensor, ...]:
            like[:] = [self._forward(inputs, part, keeps=not torch.is_grad_enabled())]
            return like[0].tensors()

        def loss(*tensors: Tensor) -> Tensor:
            return self._loss(inputs, like[0].with_tensors(tensors))

        return cached_backward(chunks, encode, loss, no_sync=self._waiting)

    def _added_up(self, inputs: Inputs, chunks: Sequence[slice]) -> Tensor:
        """Add the gradients of a batch chunk by chunk, where no sample's loss needs another's features.

        So each chunk goes through the towers once, and not twice as with cached gradients; only what the sums are
        divided by must be known before.
        """
        sizes = self._sizes(inputs, chunks)
        losses = []
        for part in chunks:
            with nullcontext() if part == chunks[-1] else self._waiting():
                loss = self._loss(inputs, self._forward(inputs, part), part, sizes)
                loss.backward()
                losses.append(loss.detach())
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _sizes(self, inputs: Inputs, chunks: Sequence[slice]) -> Sizes:
        """Count over all ranks what the means of hidden patches and of known answers are over."""
        part, hidden = self._towers.masked, None
        if part is not None and inputs.mask_BL is not None:
            counts = []
            for part_of_batch in chunks:
                rows = _rows(len(inputs), inputs.num_views, part_of_batch, inputs.images.device)
                decoded_BL = None if inputs.decoded_BL is None else inputs.decoded_BL[rows]
                counts.append(
                    part.count(
                        self._towers.clip, self._normalised(inputs.images[rows]), inputs.mask_BL[rows], decoded_BL
                    )
                )
            count_B = torch.cat(counts)
            hidden = sum_values(weighted(count_B, image_weights(inputs)).sum(), self._world.group)
        known_answers = {name: num_known(target, self._world.group) for name, target in inputs.targets.items()}
        return Sizes(hidden, known_answers)

    def _loss(self, inputs: Inputs, outputs: TowerOutputs, part: slice = ALL, sizes: Sizes | None = None) -> Tensor:
        """Return the loss of a batch, or a chunk's share of it where losses add up.

        Args:
            inputs: Tensors of the batch.
            outputs: Features of the samples of the chunk.
            part: Slice of the samples of the chunk.
            sizes: Sizes of the batch; None where the samples are all of it.
        """
        step = Step(self._recipe, self._towers.clip, self._world, inputs, outputs, part, sizes or Sizes())
        every = (term for one in self._losses for term in one.terms(step, one.settings, one.state))
        terms = [weight * value for weight, value in every]
        return sum(terms[1:], terms[0])

    def kept_kl(self, outputs: TowerOutputs) -> float:
        """Return the divergence of images' similarities to random sentences from those of the start, mean over images.

        Args:
            outputs: Outputs of images, on any device.

        Returns:
            T^2 KL, 0 where nothing has moved, whatever `train.keep.target` is.
        """
        assert self._replay is not None
        sentences_VD = self._replay.sentences(0).to(outputs.image_BD.device)
        moved = replay_loss(
            outputs.image_BD, outputs.extra["keep"], sentences_VD, self._replay.scale, self._replay.keep.temperature
        )
        return moved.item()

    def _hidden_patches(self, batch: Batch, step: int) -> tuple[Tensor | None, Tensor | None]:
        """Draw what is hidden and what is guessed; in samples that take no part nothing is hidden: they count nothing.

        It is drawn for the batch of all ranks, so that it is the same for any number of them.
        """
        part = self._towers.masked
        if part is None:
            return None, None
        views, size, rank = batch.num_views, len(batch.keys), self._world.rank
        every = views * size * self._world.size
        rows = torch.arange(every).view(views, -1)[:, rank * size : (rank + 1) * size].flatten()
        foreground_BL = part.foreground(torch.from_numpy(batch.images))
        if foreground_BL is not None:  # of the images of other ranks nothing is known, and nothing is taken
            foreground_BL = torch.ones(every, part.num_patches, dtype=torch.bool).index_copy(0, rows, foreground_BL)
        mask_BL, decoded_BL = part.draw(every, self._chance(step, _MASK_STREAM), foreground_BL)
        mask_BL = mask_BL[rows] & torch.from_numpy(np.tile(batch.valid, views))[:, None]
        return mask_BL, None if decoded_BL is None else decoded_BL[rows]

    def _fixed_masks(self, rows: range, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Draw the same as `_hidden_patches` for rows of the validation split, on the device."""
        part = self._towers.masked
        if part is None:
            return None, None
        foregrounds = [None] * len(rows) if (front_BL := part.foreground(images)) is None else front_BL.split(1)
        drawn = (
            part.draw(1, self._chance(row, _FIXED_MASK_STREAM), foreground_BL)
            for row, foreground_BL in zip(rows, foregrounds, strict=True)
        )
        masks, decoded = zip(*drawn, strict=True)
        decoded_rows = [x for x in decoded if x is not None]
        on_device = torch.cat(masks).to(self._world.device)
        return on_device, torch.cat(decoded_rows).to(self._world.device) if decoded_rows else None

    def _chance(self, which: int, stream: int) -> torch.Generator:
        seed = np.random.default_rng((self._recipe.seed, which, stream)).integers(2**62)
        return torch.Generator().manual_seed(int(seed))

    def _normalised(self, images: Tensor) -> Any:
        if self._preprocess.budget is not None:  # patches of images at their own aspect ratio
            return unpack_batch(images, self._mean, self._std)
        return normalise_with(self._preprocess, images, self._mean, self._std)


def _rows(size: int, several: int, part: slice, device: torch.device) -> slice | Tensor:
    """Return where images or captions of some samples lie in a batch, those of one sample together."""
    if several == 1:
        return part
    return torch.arange(size * several).view(several, size)[:, part].T.flatten().to(device, non_blocking=True)
