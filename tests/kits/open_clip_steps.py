"""Steps of a run beside those of open_clip's own `train_one_epoch`: same start, same batches, one process or ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from open_clip.loss import ClipLoss
from open_clip_train.params import parse_args
from open_clip_train.scheduler import cosine_lr
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn

from medclip.training.checkpoints.start import begin
from medclip.training.ranks import World, joined
from medclip.training.recipe.schema import Recipe, load_recipe
from medclip.training.result import read_log
from medclip.training.sharding import full_weights
from medclip.training.trainer import Trainer

STEPS = 8
CLOSE = 5e-6
"""Largest difference of a weight that rounding may make in so many steps; measured: 1e-6 in one process and two."""
TRAIN = {
    "lr": 2e-3,
    "image_lr_factor": 0.25,
    "betas": [0.6, 0.7],
    "eps": 0.01,
    "weight_decay": 0.3,
    "clip_norm": 200.0,
    "warmup_steps": 2,
    "batch_size": 4,
    "max_steps": STEPS,
    "ema": 0.0,
    "log_every": 1,
    "threads": 1,
}
"""Nobody's defaults. The scale begins at 101 and must be brought to 100; norms of gradients are 120 to 510."""


class Beside(NamedTuple):
    """Two models after the same steps."""

    apart: dict[str, float]
    """Largest difference of each parameter."""
    scales: list[float]
    """exp(logit_scale) of open_clip's model after each step."""
    norms: list[float]
    """Of our gradients in each step, before they were clipped."""


def steps_plan(shards: str | Path) -> dict[str, Any]:
    """Return the recipe whose steps are compared: as open_clip's, no augmentation, a ViT without drop-out."""
    return {
        "name": "beside",
        "seed": 5,
        "compat": "open_clip",
        "data": {"shards": str(shards), "workers": 1, "val_split": None},
        "text": {"vocab_size": 600, "context_length": 24, "captions_per_sample": 1},
        "model": {
            "image_tower": "test_vit",
            "image_weights": None,
            "size_px": 32,
            "embed_dim": 16,
            "text_width": 16,
            "text_heads": 2,
            "text_layers": 2,
            "logit_scale": 101.0,
        },
        "augment": {"crop_scale": [1.0, 1.0], "stretch": 1},
        "train": TRAIN,
    }


def train_both(plan: dict[str, Any], overrides: list[str], folder: Path) -> Beside | None:
    """Train one model with our trainer, and its copy with open_clip's loop on the same batches. Every rank calls it.

    Returns:
        How they compare, on the first rank; None on the others.
    """
    recipe = load_recipe(plan, overrides)
    with joined("cpu") as world:
        trainer = Trainer(recipe, folder, world)
        model: Any = begin(recipe, folder, trainer.reader).model
        scales = _run_open_clip(model, recipe, world, list(_inputs(trainer)))
        trainer.run(lambda step: False)
        ours = full_weights(trainer.towers, world)
        if not world.is_first:
            return None
        theirs = {name: p.detach() for name, p in model.named_parameters()}
        apart = {name: float((ours[name] - value).abs().max()) for name, value in theirs.items()}
        norms = [e["grad_norm"] for e in read_log(folder / "log.jsonl") if e["kind"] == "step"]
        return Beside(apart, scales, norms)


def _inputs(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Make this rank's images and tokens of each step as open_clip's loader would."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in trainer.normalisation)
    for batch in trainer.data.training(0, STEPS):
        images = torch.from_numpy(batch.images.copy()).permute(0, 3, 1, 2).float() / 255
        yield (images - mean) / std, torch.from_numpy(trainer.tokenizer.encode(batch.texts))


def _run_open_clip(model: Any, recipe: Recipe, world: World, inputs: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Let open_clip's loop train a model as its command line would have set it up; return the scale after each step."""
    t = recipe.train
    args = parse_args(
        (
            f"--lr {t.lr} --beta1 {t.betas[0]} --beta2 {t.betas[1]} --eps {t.eps} --wd {t.weight_decay} --device cpu "
            f"--grad-clip-norm {t.clip_norm} --precision fp32 --batch-size {len(inputs[0][0])} --local-loss "
            "--gather-with-grad"
        ).split()
    )
    args.rank, args.world_size, args.distill, args.wandb = world.rank, world.size, False, False
    torch.set_num_threads(t.threads or 1)
    model.output_dict = True
    optimizer = torch.optim.AdamW(_groups(model, recipe), lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps)
    schedule = cosine_lr(optimizer, args.lr, t.warmup_steps, STEPS)
    scales: list[float] = []

    def scheduler(step: int) -> None:
        scales.append(float(model.logit_scale.detach().exp()))
        schedule(step)
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_scale"]

    loss = ClipLoss(args.local_loss, args.gather_with_grad, cache_labels=True, rank=args.rank, world_size=world.size)
    loader = _Loader(inputs)
    data = {"train": SimpleNamespace(set_epoch=lambda epoch: None, dataloader=loader)}
    call = nn.parallel.DistributedDataParallel(model) if world.group is not None else model
    train_one_epoch(call, data, loss, 0, optimizer, None, scheduler, None, args)
    return [*scales[1:], float(model.logit_scale.detach().exp())]


class _Loader(list[tuple[Tensor, Tensor]]):
    """Batches with the two counts that open_clip's loop asks of a loader."""

    @property
    def num_batches(self) -> int:
        return len(self)

    @property
    def num_samples(self) -> int:
        return sum(len(images) for images, _ in self)


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Group parameters as open_clip_train.main does; only the image trunk has a rate of its own."""
    exclude: Callable[[str, Tensor], bool] = lambda n, p: (  # noqa: E731
        p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    )
    groups = []
    for in_trunk in (False, True):
        named = [(n, p) for n, p in model.named_parameters() if n.startswith("visual.trunk.") == in_trunk]
        factor = recipe.train.image_lr_factor if in_trunk else 1.0
        for decay in (0.0, recipe.train.weight_decay):
            params = [p for n, p in named if exclude(n, p) == (decay == 0)]
            groups.append({"params": params, "weight_decay": decay, "lr_scale": factor})
    return groups
