"""`model.signal`: a tower of ECGs, and how it takes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from medclip.models.inputs.signal_input import MEAN_MV, STD_MV, Normalise, SignalInput, signal_input
from medclip.training.recipe.sections.section import Section

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
