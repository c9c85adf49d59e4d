"""`train`: optimisation, the machine it runs on, and what a model that learns something new is held to (`keep`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medclip.errors import MedclipError
from medclip.text.vocabulary.load import load_task
from medclip.training.recipe.section import Section


class Keep(Section):
    """VR-LwF: similarities of the batch's images to random sentences stay what they were in the model of `model.start`.

    It needs no image of what was learned before, only a second pass of each image through the frozen old tower.
    """

    method: Literal["vr-lwf"] = "vr-lwf"
    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=2.0, gt=0)
    symmetric: bool = False
    """Hold each sentence's similarities to the images of the batch as well."""
    target: Literal["old", "new"] = "old"
    """Whose distribution over the sentences is followed: that of the old model, or that of the new one, as WildCLIP has
    it (with temperature 1)."""
    sentences: int = Field(default=1000, ge=2)
    """How many are drawn."""
    length: Annotated[int, Field(ge=1)] = 10
    """Tokens of a sentence between its begin and its end; with `words`, words of it."""
    words: Path | None = None
    """A text file with one word or term a line, of which sentences are made; None draws token ids, special ones left
    out."""
    resample_every: int | None = Field(default=None, ge=1)
    """Steps after which sentences are drawn anew; None keeps those of the start."""


class Train(Section):
    """Optimisation, and the machine it runs on."""

    epochs: int = Field(default=20, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=2)
    """Samples in one step, over all ranks together; another number of ranks changes nothing of what is learned from."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples of a rank that go through the towers at once. The loss still sees the whole batch (cached gradients):
    memory of a small batch, gradient of the large one, for about a third more time. Without words it takes none: no
    sample's loss needs another sample."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With torchrun: a copy of the model on each rank, or parameters and optimizer sharded over the ranks (FSDP2)."""
    shard_size: int | None = Field(default=None, ge=1)
    """With fsdp: ranks that hold one copy of the parameters together, all of them where None. On machines of eight
    GPUs, 8 keeps the gathering of parameters inside a machine (HSDP)."""
    lr: float = Field(default=1e-3, gt=0)
    image_lr_factor: float = Field(default=0.3, ge=0)
    """Factor on the learning rate of the image trunk, which starts from ImageNet."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate for each layer further away from the output."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Not applied to norms, biases, the logit scale and, but with `decay_embeddings`, embeddings."""
    decay_embeddings: bool = False
    """Apply weight decay to the tables of tokens and positions too, as open_clip's training does."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(default=1e-6, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: a cosine to zero, or constant with a linear cool-down to zero at the end."""
    cooldown_steps: int = Field(default=0, ge=0)
    """Length of the cool-down of the constant schedule."""
    min_lr: float = Field(default=0.0, ge=0)
    """Where the schedule ends."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the averaged weights that are validated and exported; 0 turns averaging off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What the towers compute with; losses, weights and moments are float32 always. "auto" is bf16 on cards that have
    it and fp32 on CPUs; a run that goes on keeps what it began with, wherever that is. Cards multiply fp32 in TF32."""
    compile: bool = False
    """Compile each block of the towers (torch.compile); the first steps take a minute."""
    device: str = "cpu"
    threads: int | None = Field(default=None, ge=1)
    """Torch threads; torch's own choice where None. Another number may change last bits."""
    checkpoint_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)
    sync_every: int | None = Field(default=None, ge=1)
    """Steps after which the host looks at what the device computed: losses that are not finite, and what other ranks
    want. It also does at logged steps, validations and checkpoints. None: 1 on CPUs, log_every on cards."""
    tensorboard: bool = False
    """Write the log for TensorBoard too (needs the extra `tensorboard`)."""
    zero_shot: tuple[str, ...] = ()
    """Tasks that are measured on the validation split, in words, each time it is used."""
    max_bad_steps: int = Field(default=5, ge=0)
    """Steps in a row with a loss that is not finite; they are left out, one more stops the run as soon as the host
    looks (sync_every)."""
    export: Literal["last", "best"] = "last"
    """Weights in the pack: those of the last step, or of the best epoch on the validation split: with the lowest loss
    or, with a supervised part, the highest mean AUROC of its classes."""
    best_by: Literal["loss", "within_sources"] = "loss"
    """What the best epoch of `export: best` is best by: as said there, or the mean over the tasks of `zero_shot` of
    their figures within single sources, where knowing the source helps nothing."""
    patience: int | None = Field(default=None, ge=1)
    """End the run after so many validations in a row of which none was better than the best; None takes all epochs. The
    learning rate falls as if the run went on to its end."""
    keep: Keep | None = None
    """Go on from `model.start` without forgetting it: `vr-lwf`, or a section with its weight and vocabulary. None holds
    the new model to nothing."""
    image_hashes: bool = False
    """List perceptual hashes of the training images in the pack, so that an audit finds copies of them that were stored
    again, from the pack alone. They say of an image that one has whether the model has seen it."""

    @model_validator(mode="after")
    def _check(self) -> Train:
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; both must be at least 0 and below 1")
        if self.shard_size is not None and self.parallel != "fsdp":
            raise ValueError("shard_size does nothing without parallel: fsdp")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}")
        if self.cooldown_steps and self.schedule == "cosine":
            raise ValueError("cooldown_steps does nothing with the cosine schedule")
        return self

    @field_validator("keep", mode="before")
    @classmethod
    def _in_a_word(cls, values: Any) -> Any:
        """Take the name of the method for the section with its usual values."""
        return {"method": values} if isinstance(values, str) else values

    @field_validator("zero_shot")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                task = load_task(name)
            except MedclipError as e:
                raise ValueError(f"{e.message} {e.hint}".strip()) from None
            if not task.has_words:
                raise ValueError(f"{name} is a risk, which words do not ask: measure it with a head")
        return names
