"""The training loop of methods that change the towers: images and prompts through both, cross-entropy over the classes.

A unit's images are augmented `pool` times from the seed, and each pass over the shots takes the next of them. Where
the first stages of a timm convolutional trunk do not learn, they run once per augmented image, not once per step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from medclip.adaptation.budget import BATCH
from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.task_loss import batches, finite, task_logits, task_loss
from medclip.errors import MedclipError, Reason
from medclip.models.towers.layers import fold_batch_norm
from medclip.training.batches.augment import apply_change, draw_change
from medclip.training.batches.augment_signals import apply_signal_change, draw_signal_change
from medclip.training.recipe.augment import Augment, SignalAugment
from medclip.training.steps.fast_towers import encode_short
from medclip.training.steps.optimizer import training_mode

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images
    from medclip.models.model import Model

FLOOR = 1e-6
"""What the cosine ends at."""


def cosine_rate(step: int, lr: float, period: int, floor: float = FLOOR) -> float:
    """Return the learning rate of a step.

    Args:
        step: Step, from 0.
        lr: Learning rate of step 0.
        period: Steps until the floor is reached. Later steps climb back, as a cosine does.
        floor: The lowest rate.
    """
    return floor + (lr - floor) * (1 + math.cos(math.pi * step / period)) / 2


def learning_rates(
    num_steps: int, lr: float, *, num_epochs: int | None = None, compat: str | None = None
) -> list[float]:
    """Return the learning rate of every step.

    Args:
        num_steps: Number of steps of the whole training.
        lr: Learning rate of the first step.
        num_epochs: Passes over the examples; only `compat` looks at it.
        compat: Name of a schedule to be compatible with. "upstream": the period is the number of epochs though it
            counts steps, as in the reference's biomedical runs. With two steps an epoch the rate is at its floor after
            half of the training and back at its maximum at the end.

    Raises:
        MedclipError: WRONG_USE for another word, or without `num_epochs`.
    """
    if compat is None:
        period = num_steps
    elif compat == "upstream" and num_epochs:
        period = num_epochs
    else:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no schedule for compat={compat!r} and {num_epochs} epochs.",
            hint='Leave compat out, or give compat="upstream" with the number of epochs.',
        )
    return [cosine_rate(step, lr, period) for step in range(num_steps)]


BETAS = (0.9, 0.999)
_CHUNK = 4
Spread = Callable[[Tensor], Tensor]
Extra = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loop:
    """How long and how fast towers learn. Defaults of steps and rates are each method's own."""

    steps: int
    lr: float
    """Of AdamW, without weight decay; a cosine to 1e-6 over all steps."""
    text_lr: float = 1.0
    """Factor on the rate of the text tower."""
    batch_size: int = BATCH
    """Units in a step."""
    sentences: int = 4
    """Prompts of each class that are drawn for a step; their mean stands for the class. 0: all."""
    pool: int = 8
    """Augmented images of each unit; 0: the unit's own images, unchanged."""
    crop: float = 0.7
    """The smallest share of the area that augmentation keeps."""
    rotate_deg: float = 10.0
    brightness: float = 0.2
    contrast: float = 0.25
    flip: float = 0.0
    """Share of images mirrored. 0: a mirrored chest is another patient's."""
    compat: str | None = None
    """"upstream": the schedule of the reference code, see `schedule`."""
    dropout: bool = False
    """Drop-out where the towers have it (BERT). Running statistics of batch normalisation never change."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.sentences < 0 or self.pool < 0:
            raise MedclipError(
                Reason.WRONG_USE,
                f"steps={self.steps}, batch_size={self.batch_size}, sentences={self.sentences} and pool={self.pool} "
                "cannot be.",
                hint="At least one step and one unit in it; 0 sentences stand for all, 0 images for no augmentation.",
            )

        if self.compat not in (None, "upstream"):
            raise MedclipError(Reason.WRONG_USE, f"compat is {self.compat!r}.", hint='It is "upstream", or left out.')

    def passes(self, count: int) -> int:
        """Return the number of passes over so many units, the last one counted whole."""
        return -(-self.steps // -(-count // self.batch_size))

    def num_images(self, count: int) -> int:
        """Return how many images of so many units all steps see together."""
        passes, steps_left = divmod(self.steps, -(-count // self.batch_size))
        return passes * count + steps_left * min(self.batch_size, count)

    def augment(self) -> Augment:
        """Return the limits of augmentation."""
        return Augment(
            crop_scale=(self.crop, 1.0),
            rotate_deg=self.rotate_deg,
            brightness=self.brightness,
            contrast=self.contrast,
            flip=self.flip,
        )


@dataclass(frozen=True, eq=False)
class Further:
    """What a method puts between the image features and the loss."""

    spread: Callable[[Tensor, Tensor, torch.Generator], Tensor] | None = None
    """(features, targets, chance) to the features that the loss sees."""
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    """(features, targets) to a further term."""


def train_towers(
    clip: nn.Module,
    base: Model,
    text: ClassText,
    train_images: TrainImages,
    targets: Tensor,
    loop: Loop,
    *,
    method: str,
    seed: int,
    further: Further | None = None,
) -> None:
    """Train, in place, the parameters of a copy of the base's towers that require a gradient.

    Args:
        clip: The copy.
        base: The base model, for its normalisation, tokenizer and logit scale; the scale stays fixed.
        text: The classes' words.
        train_images: Images of the shots, through this copy.
        targets: int64 [N], or float32 [N, C] with NaN for unknown.
        loop: Settings of the training.
        method: Name of the method, for errors.
        seed: Seed of order, prompts and drop-out. Torch's global source of chance is left as it was.
        further: Further terms of the loss.

    Raises:
        MedclipError: NON_FINITE for a loss that is no number.
    """
    generator = torch.Generator().manual_seed(seed)
    image_part = [p for n, p in clip.named_parameters() if p.requires_grad and n.startswith("visual.")]
    text_part = [p for n, p in clip.named_parameters() if p.requires_grad and not n.startswith("visual.")]
    groups = [{"params": image_part, "factor": 1.0}, {"params": text_part, "factor": loop.text_lr}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=loop.lr, betas=BETAS, weight_decay=0.0)
    count = len(targets)
    rates = learning_rates(loop.steps, loop.lr, num_epochs=loop.passes(count), compat=loop.compat)
    further = further or Further()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if loop.dropout:
            training_mode(clip, freeze_bn=True)
        else:
            clip.eval()
        sentences = Sentences(base, text, loop.sentences)
        for rate, (rows, turn) in zip(rates, _draws(count, loop, generator), strict=False):
            image_BD = normalize(train_images.encode(rows, turn).float(), dim=-1)
            text_RD = sentences.encode(clip, generator)
            goal = targets[rows]
            seen_BD = image_BD if further.spread is None else further.spread(image_BD, goal, generator)
            loss = task_loss(task_logits(seen_BD, text_RD, base.logit_scale, len(text.names)), goal)
            if further.loss is not None:
                loss = loss + further.loss(image_BD, goal)
            finite(loss, method)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    clip.eval()


def _draws(count: int, loop: Loop, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """Yield the rows of each step and the number of the pass, without end."""
    turn = 0
    while True:
        for rows in batches(count, loop.batch_size, generator):
            yield rows, turn
        turn += 1


class Sentences:
    """The prompts of every class, and of what denies it, as ids.

    Args:
        base: Base model whose tokenizer it is.
        text: The classes' words.
        count: Prompts of each class in a step; 0: all of them.
    """

    def __init__(self, base: Model, text: ClassText, count: int) -> None:
        lists = (*text.positive(), *text.negative())
        self._pad_id = base.tokenizer.pad_id
        self._tokens = [torch.from_numpy(base.tokenizer.encode(list(sentences))).to(base.device) for sentences in lists]
        self._count = count

    def encode(self, clip: nn.Module, generator: torch.Generator) -> Tensor:
        """Draw prompts and give one vector for each row, float [R, D] of unit norm."""
        drawn = [t[torch.randperm(len(t), generator=generator)[: self._count or None]] for t in self._tokens]
        each_ND = normalize(encode_short(clip, torch.cat(drawn), self._pad_id).float(), dim=-1)
        return normalize(torch.stack([v.mean(dim=0) for v in each_ND.split([len(d) for d in drawn])]), dim=-1)


class TrainImages:
    """Augmented images through the image tower; the part of it that does not learn runs once for each.

    Args:
        clip: Dual encoder that learns, with `requires_grad` set.
        base: Base model whose normalisation it is.
        examples: The shots.
        loop: Settings of the training, of which the augmentation is used.
        seed: Seed of augmentation.
        passes: Passes over the shots that there will be.
    """

    def __init__(self, clip: nn.Module, base: Model, examples: Examples, loop: Loop, seed: int) -> None:
        self._base, self._examples, self._seed = base, examples, seed
        self._augment = loop.augment() if loop.pool else None
        self._pool = max(1, min(loop.pool, loop.passes(len(examples))))
        visual: Any = clip.visual
        if any(isinstance(m, nn.Conv2d) and m.kernel_size != m.stride for m in visual.modules()):
            visual.to(memory_format=torch.channels_last)
        for module in visual.modules():
            if hasattr(module, "inplace"):
                # An activation may not write into what a decomposed layer keeps for its gradient.
                module.inplace = False
        self._rest: Spread = visual
        self._stored: list[Tensor] | None = None
        front, rest = frozen_front(visual, base.preprocess.size_px)
        if front is not None:
            self._rest = rest
            everyone = np.arange(len(examples))
            self._stored = [self._run(front, self.draw(everyone, turn)) for turn in range(self._pool)]

    def encode(self, rows: Tensor, turn: int) -> Tensor:
        """Return features of some units, [B, D], not normalised."""
        turn %= self._pool
        if self._stored is None:
            return self._rest(self._base.normalise(self.draw(rows.numpy(), turn)))
        return self._rest(self._stored[turn][rows].contiguous(memory_format=torch.channels_last))

    def draw(self, rows: np.ndarray, turn: int) -> Images:
        """Return one image of each unit, at the model's size: a view drawn, then changed."""
        images = []
        for row in rows.tolist():
            rng = np.random.default_rng((self._seed, row, turn))
            views = self._examples.pixels[row]
            image = views[int(rng.integers(len(views)))]
            images.append(image if self._augment is None else self._changed(image, self._augment, rng))
        return self._base.preprocess.together(images)

    def _changed(self, image: NDArray[Any], augment: Augment, rng: np.random.Generator) -> NDArray[Any]:
        """Change an image or an ECG; a clip, of which another one is drawn each time, stays as it is."""
        pixels = self._base.preprocess
        if pixels.signal is not None:
            change = draw_signal_change(augment.signal or SignalAugment(), rng)
            return apply_signal_change(image, change, pixels.signal.num_samples, pixels.signal.sampling_hz)
        if pixels.volume is not None:
            return image
        size = image.shape[0] if pixels.budget is None else image.shape[:2]
        return apply_change(image, draw_change(augment, rng, may_flip=True), size)

    @torch.no_grad()
    def _run(self, front: nn.Module, images: Images) -> Tensor:
        parts = [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]
        return torch.cat([front(self._base.normalise(part)) for part in parts])


def frozen_front(visual: Any, size_px: int) -> tuple[nn.Module | None, Spread]:
    """Split a timm convolutional tower before the first stage that learns.

    Returns:
        The first part with its normalisation folded, or None where the tower is of another kind or its stem learns; and
        what gives the features of that part's output.
    """
    trunk: Any = getattr(visual, "trunk", None)
    parts = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    if not all(hasattr(trunk, part) for part in parts) or _learns(trunk.conv_stem) or _learns(trunk.bn1):
        return None, visual
    count = next((i for i, stage in enumerate(trunk.blocks) if _learns(stage)), len(trunk.blocks))
    front = nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[:count])
    device = next(front.parameters()).device
    example = torch.randn(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(0)).to(device)

    def rest(h_BCHW: Tensor) -> Tensor:
        last_BCHW = trunk.bn2(trunk.conv_head(trunk.blocks[count:](h_BCHW)))
        return visual.head(trunk.forward_head(last_BCHW))

    return fold_batch_norm(front.eval(), example), rest


def _learns(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
