"""What one step computes: a batch becomes features, features and pairs become a loss, the loss becomes gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medclip.models.model import normalise_clips, normalise_square
from medclip.models.towers.native_aspect import unpack_batch
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.distill import relational_loss
from medclip.objectives.multi_view import multi_view_clip_loss
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import sum_values
from medclip.objectives.sigmoid import siglip_loss
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.loader import LABELS, STUDY, TEXT, Batch
from medclip.training.ranks.sharding import no_sync
from medclip.training.ranks.world import World
from medclip.training.recipe.schema import Recipe
from medclip.training.steps.cached_gradients import cached_backward
from medclip.training.steps.inputs import Inputs, each_of, empty_batch
from medclip.training.steps.supervised import num_known, supervised_loss, targets_of
from medclip.training.steps.teacher import SentenceTeacher
from medclip.training.steps.towers import TowerOutputs, Towers

_MASK_STREAM, _FIXED_MASK_STREAM = 11, 13
_ALL = slice(None)


class _Sizes(NamedTuple):
    """What the means of a batch of all ranks are over; None where the rows at hand are counted."""

    hidden: Tensor | None = None
    """Weight of its hidden patches."""
    known: Tensor | None = None
    """Known answers of a supervised part."""


class StepComputer:
    """Computes losses and gradients of batches; knows no optimizer, schedule or file.

    Args:
        recipe: Its objective and micro-batch.
        towers: The model.
        call: What `spread` gave for it.
        tokenizer: Its tokenizer; None without words.
        mean: Per channel, in units of [0, 1].
        std: The same.
        world: The ranks.
        teacher: Frozen sentence encoder, where the recipe has one.
        bf16: Compute the towers in bfloat16; losses stay in float32.
    """

    def __init__(
        self,
        recipe: Recipe,
        towers: Towers,
        call: Callable[..., Any],
        tokenizer: Tokenizer | None,
        mean: Sequence[float],
        std: Sequence[float],
        world: World,
        teacher: SentenceTeacher | None,
        *,
        bf16: bool = False,
    ) -> None:
        self._recipe, self._towers, self._call, self._world = recipe, towers, call, world
        self._tokenizer, self._teacher = tokenizer, teacher
        supervised = recipe.objective.supervised
        self._asked = None if supervised is None else (supervised.asked, supervised.names)
        sharded = world.group is not None and recipe.train.parallel == "fsdp"  # FSDP casts by itself
        self._autocast = lambda: torch.autocast(world.device.type, torch.bfloat16, enabled=bf16 and not sharded)
        self._mean = torch.tensor(mean, device=world.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=world.device).view(1, 3, 1, 1)
        self._waiting = no_sync(call, towers)

    def prepare(self, batch: Batch, step: int) -> Inputs:
        """Make a batch's tensors on the CPU; the images are the batch's own memory. Draws no random number but its own.

        Args:
            batch: This rank's share of the batch.
            step: Number of the step, from 0; hidden patches depend on it.
        """
        return Inputs(
            torch.from_numpy(batch.images),
            torch.from_numpy(batch.tokens).long(),
            batch.num_tokens,
            self._pairs(batch.pair_keys, batch.valid, batch.num_views, batch.weights),
            batch.num_views,
            torch.tensor(batch.valid) if self._world.group is not None or not batch.valid.all() else None,
            *self._hidden_patches(batch, step),
            {} if self._teacher is None else self._teacher.tokens(batch.texts),
            None if self._asked is None else targets_of(*self._asked, batch.label_keys),
        )

    def nothing(self, image_shape: tuple[int, ...], step: int) -> Inputs:
        """Make inputs on the device of which no sample takes part, with the fields that those of other ranks have.

        Args:
            image_shape: As `Batches.image_shape`.
            step: As in `prepare`.
        """
        o, size = self._recipe.objective, self._recipe.train.batch_size // self._world.size
        views, length = 2 if o.two_views else 1, 0 if self._tokenizer is None else self._tokenizer.context_length
        batch = empty_batch(size, image_shape, length, num_views=views, weighted=bool(o.source_weights))
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
            elif not self._recipe.needs_words:
                loss = self._added_up(inputs, chunks)
            else:
                loss = cached_backward(
                    chunks,
                    lambda part: self._forward(inputs, part),
                    lambda *outputs: self._loss(inputs, TowerOutputs(*outputs)),
                    no_sync=self._waiting,
                )
        return loss.detach()

    def encode(self, batch: Batch, row: int = 0) -> TowerOutputs:
        """Return what the towers return for a batch of validation, no more at once than in a step.

        Args:
            batch: Rows of the split.
            row: Number of the first one in its split; what is hidden of each sample depends on it alone.
        """
        parts = []
        tokens_BL = torch.from_numpy(batch.tokens).to(self._world.device).long()
        for part in self._chunks(len(batch.texts)):
            images = torch.from_numpy(batch.images[part])
            masks = self._fixed_masks(range(row + part.start, row + part.start + len(images)), images)
            images_BCHW = self._normalised(images.to(self._world.device))
            with self._autocast():
                parts.append(self._towers(images_BCHW, tokens_BL[part], masks[0], batch.num_tokens, masks[1]))
        return TowerOutputs(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return unit-norm float32 features [N, D] of sentences, on the CPU."""
        assert self._tokenizer is not None
        with torch.no_grad(), self._autocast():
            tokens = torch.from_numpy(self._tokenizer.encode(texts)).to(self._world.device)
            return self._towers.clip.encode_text(tokens, normalize=True).float().cpu()

    def pairs(self, keys: np.ndarray, valid: np.ndarray) -> Pairs:
        """Return which pairs of samples are positives, and which samples take part, on the device.

        Args:
            keys: As `Batch.pair_keys`.
            valid: As `Batch.valid`.
        """
        return each_of(self._pairs(keys, valid), lambda x: x.to(self._world.device))

    def _pairs(
        self, keys: np.ndarray, valid: np.ndarray, num_views: int = 1, weights: np.ndarray | None = None
    ) -> Pairs:
        """Return the same on the CPU, of one or more views."""
        o = self._recipe.objective
        relations = {LABELS: o.same_label, TEXT: o.same_text, STUDY: o.same_study}

        def of_relation(relation: str) -> Tensor | None:
            columns = [column for column, chosen in relations.items() if chosen == relation]
            if not columns:
                return None
            # One column for each view; labels and study are the same in all.
            return torch.from_numpy(np.concatenate([view[:, columns] for view in np.split(keys, num_views)], axis=1))

        # Ranks must agree on what is given: one of them may have a bad sample that the others do not know of.
        taking_part = None
        if self._world.group is not None or not valid.all():
            taking_part = torch.from_numpy(np.logical_and.reduce(np.split(valid, num_views)))
        given_weights = None if weights is None else torch.tensor(weights)
        return Pairs(of_relation("positive"), of_relation("ignored"), given_weights, taking_part)

    def contrastive(self, image_BD: Tensor, text_BD: Tensor, pairs: Pairs, group: Any = None) -> Tensor:
        """Return the contrastive loss of features.

        Args:
            image_BD: Unit-norm image features.
            text_BD: Unit-norm text features.
            pairs: Of the same rows.
            group: The ranks whose features are each other's negatives; None looks at these rows alone.
        """
        scale = self._towers.clip.logit_scale.exp()
        if self._recipe.objective.loss == "siglip":
            return siglip_loss(image_BD, text_BD, scale, self._towers.clip.logit_bias, pairs, group=group)
        return clip_loss(image_BD, text_BD, scale, pairs, group=group)

    def _chunks(self, size: int, views: int = 1) -> list[slice]:
        t = self._recipe.train
        most = t.micro_batch or max(1, views * t.batch_size // self._world.size)
        return [slice(i, i + most) for i in range(0, size, most)]

    def _forward(self, inputs: Inputs, part: slice) -> TowerOutputs:
        masks = (None if mask_BL is None else mask_BL[part] for mask_BL in (inputs.mask_BL, inputs.decoded_BL))
        mask_BL, decoded_BL = masks
        images_BCHW = self._normalised(inputs.images[part])
        with self._autocast():
            return self._call(images_BCHW, inputs.tokens_BL[part], mask_BL, inputs.num_tokens, decoded_BL)

    def _added_up(self, inputs: Inputs, chunks: Sequence[slice]) -> Tensor:
        """Add the gradients of a batch chunk by chunk: without words no sample's loss needs another's features.

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
    def _sizes(self, inputs: Inputs, chunks: Sequence[slice]) -> _Sizes:
        """Count over all ranks what the means of hidden patches and of known answers are over."""
        part, hidden, known = self._towers.masked, None, None
        if part is not None and inputs.mask_BL is not None:
            counts = []
            for own in chunks:
                decoded_BL = None if inputs.decoded_BL is None else inputs.decoded_BL[own]
                counts.append(part.count(self._normalised(inputs.images[own]), inputs.mask_BL[own], decoded_BL))
            count_B = torch.cat(counts)
            hidden = sum_values(_weighted(count_B, self._weights(inputs)).sum(), self._world.group)
        if inputs.target is not None:
            known = num_known(inputs.target, self._world.group)
        return _Sizes(hidden, known)

    def _loss(self, inputs: Inputs, outputs: TowerOutputs, part: slice = _ALL, sizes: _Sizes | None = None) -> Tensor:
        """Return the loss of a batch, or, without words, a chunk's share of it.

        Args:
            inputs: Of the batch.
            outputs: Of the rows of the chunk.
            part: These rows.
            sizes: Of the batch; None where the rows are all of it.
        """
        o, sizes = self._recipe.objective, sizes or _Sizes()
        terms = []
        if o.needs_words:
            terms.append(o.contrastive * self._contrast(inputs, outputs))
        if self._teacher is not None and o.text_teacher is not None:
            known = relational_loss(
                outputs.text_BD,
                self._teacher(inputs.sentences),
                o.text_teacher.temperature,
                valid_B=inputs.valid_B,
                group=self._world.group,
            )
            terms.append(o.text_teacher.weight * known)
        if o.masked is not None:
            terms.append(o.masked.weight * self._hidden(inputs, outputs.errors_B2, part, sizes.hidden))
        if o.supervised is not None and self._asked is not None and inputs.target is not None:
            wrong = supervised_loss(
                outputs.logits_BC, inputs.target[part], self._asked[0].kind, smoothing=o.supervised.smoothing,
                known=sizes.known, group=self._world.group,
            )  # fmt: skip
            terms.append(o.supervised.weight * wrong)
        return sum(terms[1:], terms[0])

    def _contrast(self, inputs: Inputs, outputs: TowerOutputs) -> Tensor:
        views, group = self._recipe.objective.two_views, self._world.group
        if views is None:
            return self.contrastive(outputs.image_BD, outputs.text_BD, inputs.pairs, group)
        return multi_view_clip_loss(
            outputs.image_BD.chunk(2), outputs.text_BD.chunk(2), self._towers.clip.logit_scale.exp(),
            w_vv=views.images, w_tt=views.texts, pairs=inputs.pairs, group=group,
        )  # fmt: skip

    def _hidden(
        self, inputs: Inputs, errors_B2: Tensor, part: slice = _ALL, num_hidden: Tensor | None = None
    ) -> Tensor:
        """Return the mean error of the hidden patches of the whole batch: the mean over ranks is that."""
        total, count = _weighted(errors_B2, self._weights(inputs)[part, None]).sum(0)
        if num_hidden is None:
            num_hidden = sum_values(count.detach(), self._world.group)
        return total * (self._world.size / num_hidden.clamp_min(1e-30))

    def _weights(self, inputs: Inputs) -> Tensor:
        """Return how much each sample's hidden patches count, float32 [b]."""
        size, device = len(inputs), inputs.images.device
        weights_B = torch.ones(size, device=device) if inputs.valid_B is None else inputs.valid_B.float()
        if inputs.pairs.weights_B is not None:
            weights_B = weights_B * inputs.pairs.weights_B.repeat(inputs.num_views)
        return weights_B

    def _hidden_patches(self, batch: Batch, step: int) -> tuple[Tensor | None, Tensor | None]:
        """Draw what is hidden and what is guessed; in samples that take no part nothing is hidden: they count nothing.

        It is drawn for the batch of all ranks, so that it is the same for any number of them.
        """
        part = self._towers.masked
        if part is None:
            return None, None
        views, size, rank = batch.num_views, len(batch.texts) // batch.num_views, self._world.rank
        every = views * size * self._world.size
        rows = torch.arange(every).view(views, -1)[:, rank * size : (rank + 1) * size].flatten()
        foreground_BL = part.foreground(torch.from_numpy(batch.images))
        if foreground_BL is not None:  # of the images of other ranks nothing is known, and nothing is taken
            foreground_BL = torch.ones(every, part.num_patches, dtype=torch.bool).index_copy(0, rows, foreground_BL)
        mask_BL, decoded_BL = part.draw(every, self._chance(step, _MASK_STREAM), foreground_BL)
        mask_BL = mask_BL[rows] & torch.from_numpy(batch.valid)[:, None]
        return mask_BL, None if decoded_BL is None else decoded_BL[rows]

    def _fixed_masks(self, rows: range, images: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Draw the same as `_hidden_patches` for rows of the validation split, on the device."""
        part = self._towers.masked
        if part is None:
            return None, None
        shown = [None] * len(rows) if (front_BL := part.foreground(images)) is None else front_BL.split(1)
        drawn = (
            part.draw(1, self._chance(row, _FIXED_MASK_STREAM), foreground_BL)
            for row, foreground_BL in zip(rows, shown, strict=True)
        )
        masks, decoded = zip(*drawn, strict=True)
        asked = [x for x in decoded if x is not None]
        on_device = torch.cat(masks).to(self._world.device)
        return on_device, torch.cat(asked).to(self._world.device) if asked else None

    def _chance(self, which: int, stream: int) -> torch.Generator:
        seed = np.random.default_rng((self._recipe.seed, which, stream)).integers(2**62)
        return torch.Generator().manual_seed(int(seed))

    def _normalised(self, images: Tensor) -> Any:
        if images.ndim == 3:  # patches of images at their own aspect ratio
            return unpack_batch(images, self._mean, self._std)
        if images.ndim == 5:
            return normalise_clips(images, self._mean, self._std)
        return normalise_square(images, self._mean, self._std)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Weigh values; where, not a product: a sample that takes no part may hold anything, also NaN."""
    return torch.where(weights > 0, values * weights, 0)
