"""`augment`: what is done to a training image."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from medclip.training.recipe.section import Section, Share


class RandAugment(Section):
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


class SignalAugment(Section):
    """What is done to a training ECG; 0 (or null) turns a part off. No sign is turned, and nothing runs backwards."""

    lead_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of leads that are left out; one at least stays."""
    amplitude: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of all leads together. Voltages carry diagnosis: keep it small for hypertrophy."""
    wander: float = Field(default=0.05, ge=0, le=2)
    """Largest amplitude of the baseline's wander at each electrode, in mV, at 0.05 to 0.5 Hz."""
    noise_db: tuple[float, float] | None = (20.0, 40.0)
    """Limits of the ratio of signal to white noise, in dB; 10 is the noise of a bad electrode."""
    shift: float = Field(default=0.5, ge=0, le=60)
    """Seconds by which the part that is shown is moved at most, either way; zeros where the record ends."""
    crop_seconds: tuple[float, float] | None = None
    """Limits of the length that is kept, such as 2.5 to 5 s, in the middle of zeros; null keeps all."""

    @model_validator(mode="after")
    def _check(self) -> SignalAugment:
        for name, least in (("noise_db", -20.0), ("crop_seconds", 0.1)):
            limits = getattr(self, name)
            if limits is not None and not least <= limits[0] <= limits[1]:
                raise ValueError(f"{name} is {list(limits)}; it must be [low, high] with {least:g} <= low <= high")
        return self


class MedicalAugment(Section):
    """What scanners do differently, in the place of changes of colour; 0 turns a part off. Black stays black."""

    share: Share = 0.5
    """How often each of them is made."""
    level: float = Field(default=0.1, ge=0, lt=0.5)
    """Largest shift of the window's level, as a share of all grey values."""
    bias_field: float = Field(default=0.3, ge=0, lt=1)
    """Largest logarithm of a smooth factor across the image, as of a coil or a heel effect."""
    noise: float = Field(default=0.03, ge=0, lt=0.5)
    """Largest standard deviation of Gaussian noise, as a share of all grey values."""
    blur: float = Field(default=0.005, ge=0, lt=0.1)
    """Largest standard deviation of a blur, as a share of the side."""


class Augment(Section):
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
    """Share of images mirrored left to right, never where a text or the record names a side."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Largest turn of the hue of colour images, as a share of the circle; never of stained tissue."""
    saturation: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative change of the saturation of colour images; never of stained tissue."""
    stain_jitter: bool = False
    """Change hue and saturation of stained tissue too."""
    rand_augment: RandAugment | None = None
    """A few changes of grey values and shape, drawn among fifteen (RandAugment): for fine-tuning."""
    medical: MedicalAugment | None = None
    """A shift of the window, a bias field, noise and blur: what `medclip pairs reinforce` draws beside the rest."""
    signal: SignalAugment | None = None
    """What is done to ECGs, for a model of them, to which nothing else here is done; null: the usual."""

    @model_validator(mode="after")
    def _check(self) -> Augment:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale is {list(self.crop_scale)}; it must be [low, high] with 0 < low <= high <= 1")
        if self.stretch > 1 and self.rotate_deg:
            raise ValueError("stretch goes with rotate_deg: 0 only")
        return self
