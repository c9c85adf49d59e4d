"""A training recipe: one YAML file, checked before anything starts. Unknown keys are errors. No torch here.

Each of its sections is a file beside this one; here are what holds between them, what decides the weights, and how a
recipe is read, with overrides.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from medclip.errors import MedclipError, Reason
from medclip.files.key_value import Overrides, read_overrides
from medclip.files.stores import is_url
from medclip.models.packs.card import Card
from medclip.recipe import invalid_recipe, read_yaml
from medclip.schema_faults import faults_of
from medclip.training.batches.sample_texts import DrawnRole
from medclip.training.losses import losses_of
from medclip.training.recipe.augment import Augment
from medclip.training.recipe.data import Data, Text
from medclip.training.recipe.model import OF_WORDS, LensPart, ModelPart
from medclip.training.recipe.objective import SHORTHANDS, Objective, written_out
from medclip.training.recipe.section import Section
from medclip.training.recipe.train import Train
from medclip.wording import list_of

_FREE = (
    "out",
    "card",
    "data.shard",
    "data.selection",
    "data.reinforced",
    "data.cache_mb",
    "data.worker",
    "data.verify",
    "data.timeout_s",
    "data.max_bad_share",
    "data.test_split",
    "data.max_test",
    "train.micro_batch",
    "train.parallel",
    "train.shard_size",
    "train.sync_every",
    "train.device",
    "train.checkpoint_every",
    "train.log_every",
    "train.tensorboard",
    "train.zero_shot",
    "train.max_bad_steps",
    "train.image_hashes",
    "objective.supervised.in_pack",
)
"""What may be another when a run goes on; `decisive` leaves out every key that begins so."""
_PLACES = (
    "text.tokenizer",
    "model.start",
    "model.architecture",
    "model.preset",
    "model.text_folder",
    "model.image_weights",
    "model.lens.trunk",
    "objective.supervised.task",
    "objective.text_teacher.folder",
    "objective.losses.distilled_captions.teacher",
    "objective.losses.distilled_long.teacher",
    "train.keep.words",
)
"""Paths of which only the last name decides."""
_CAME_LATER = (
    ("train.keep", None),
    ("train.best_by", "loss"),
    ("objective.other_source", "negative"),
    ("data.source_power", 0.5),
    ("data.max_repeats", 4.0),
    ("data.together", 1),
    ("objective.supervised.sources", []),
    ("train.patience", None),
    ("objective.losses", {}),
    ("model.image_pooling", None),
    ("data.num_negatives", 1),
    ("data.negatives", "stored"),
    ("data.tags", []),
    ("data.num_repeats", 1),
    ("data.selected", None),
    ("model.experts", None),
    ("data.candidates", None),
    ("model.lens.token_anchor", 0.0),
    ("model.lens.anchor_form", "mse"),
    ("model.text", None),
    ("augment.medical", None),
)
"""Keys that older recipes lack, with the values that change nothing: digests of runs stay what they were."""
_NUMBER = re.compile(r"\.\d+\.")
"""Of one section in a list of them."""


_AS_OPEN_CLIP: dict[str, dict[str, Any]] = {
    "data": {"decode": "full"},
    "model": {"freeze_bn": False},
    "augment": {"crop_scale": (0.9, 1.0), "stretch": 4 / 3, "rotate_deg": 0, "brightness": 0, "contrast": 0},
    "objective": {"same_label": "negative", "same_text": "negative", "same_study": "negative"},
    "train": {"decay_embeddings": True, "image_lr_factor": 1.0},
}
"""Of open_clip 3.3: `image_transform`, `ClipLoss` and the parameter groups of its training."""


class Recipe(Section):
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
    a masked autoencoder for medical images, `masked_natural` the one for photographs, `merl` ECGs with their reports
    (`medclip.training.recipe.objective`)."""
    train: Train = Train()
    card: dict[str, Any] = Field(default_factory=dict)
    """Fields of the pack's card: summary, intended_use, licence, limits, and citations of the works behind its data
    (`medclip.models.packs.card_citations.Citation`)."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_reference(cls, values: Any) -> Any:
        """Set what `objective` and `compat` stand for, so that it is seen in the run's recipe.json."""
        if not isinstance(values, dict):
            return values
        values = written_out(values)
        if values.get("compat") != "open_clip":
            return values
        stated = {part: values.get(part, {}) for part in _AS_OPEN_CLIP}
        return values | {
            part: _AS_OPEN_CLIP[part] | chosen if isinstance(chosen, dict) else chosen
            for part, chosen in stated.items()
        }

    @field_validator("card")
    @classmethod
    def _check_card(cls, card: dict[str, Any]) -> dict[str, Any]:
        """Refuse now what the card could not be written with once the model is trained."""
        try:
            Card.model_validate({"name": "a pack", **card})
        except ValidationError as e:
            raise ValueError(faults_of(e, Card, "a card")[0]) from e
        return card

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
        if self.train.best_by == "within_sources" and not (self.train.zero_shot and self.train.export == "best"):
            raise ValueError("train.best_by: within_sources needs train.zero_shot and train.export: best")
        if self.objective.loss != "siglip" and "logit_bias" in self.model.model_fields_set:
            raise ValueError("model.logit_bias is for objective.loss: siglip")
        if self.train.compile and self.model.freeze_blocks:
            raise ValueError("train.compile goes with lock_image, not with model.freeze_blocks")
        if self.objective.temperature is not None and self.model.logit_scale is not None:
            raise ValueError("objective.temperature is fixed, and model.logit_scale begins a learned one: choose one")
        self._check_repeats()
        if not self.needs_words:
            self._check_without_words()
        elif self.model.image_pooling in ("mean", "token+mean"):
            pooling = self.model.image_pooling
            raise ValueError(f"model.image_pooling: {pooling} is of a tower without words: say token or avg")
        if self.train.keep is not None:
            self._check_keep()
        self._check_inputs()
        self._check_roles()
        return self

    def _check_roles(self) -> None:
        if bool(self.data.reinforced) != ("distill" in self.objective.losses):
            raise ValueError("data.reinforced and objective.losses.distill go together: name both or neither")
        if self.data.candidates is not None and not self.needs_words:
            raise ValueError("data.candidates does nothing: no loss of the recipe reads captions")
        reading = {role: name for name, row, settings in losses_of(self) for role in row.texts_read(settings)}
        for role, key in (("negative", "num_negatives"), ("negative", "negatives"), ("tags", "tags")):
            if role not in reading and key in self.data.model_fields_set:
                raise ValueError(f"data.{key} does nothing: no loss of the recipe reads texts of the role {role!r}")
        of_tags = reading.get("tags", reading.get("absent"))
        if of_tags is not None and not self.data.tags:
            raise ValueError(f"objective.losses.{of_tags} reads tags: say in data.tags which words there are")
        if len({word.casefold() for word in self.data.tags}) < len(self.data.tags):
            raise ValueError("data.tags names a word twice")

    def _check_keep(self) -> None:
        if self.model.start is None:
            raise ValueError("train.keep holds to the model that a run goes on from: say model.start")
        if not self.needs_words or self.objective.views is not None:
            other = "objective.views" if self.needs_words else "objective.contrastive: 0"
            raise ValueError(f"train.keep compares single images with sentences and does not go with {other}")

    def _check_inputs(self) -> None:
        if self.model.volume is not None:
            self._check_volume()
        if self.model.signal is not None:
            self._check_signal()
        if self.model.lens is not None:
            self._check_lens(self.model.lens)

    def _check_volume(self) -> None:
        if self.objective.views is not None:
            raise ValueError("objective.views is of images, and model.volume takes volumes or loops")
        if self.needs_words and self.model.lens is None:
            raise ValueError("model.volume trains an image tower alone, without words: say objective.contrastive: 0")
        a = self.augment
        unused = [n for n in ("rotate_deg", "hue", "saturation", "rand_augment") if getattr(a, n, None)]
        if unused:
            raise ValueError(f"augment.{unused[0]} is not done to volumes: leave it out, or say 0")

    def _check_lens(self, lens: LensPart) -> None:
        o = self.objective
        unused = [f"text.{name}" for name in ("tokenizer", "vocab_size") if name in self.text.model_fields_set]
        unused += [f"objective.{n}" for n in ("masked", "two_views", "views") if getattr(o, n) is not None]
        if unused:
            raise ValueError(f"{unused[0]} does not go with model.lens, whose towers are the pack's")
        if o.loss != "clip" or (lens.image_anchor and not o.contrastive):
            raise ValueError("model.lens is trained with objective.loss: clip; its image_anchor stands beside words")

    def _check_repeats(self) -> None:
        if self.data.num_repeats > 1 and self.needs_words:
            raise ValueError("data.num_repeats is for objectives without words: masked pixels, or a classifier")
        if self.train.batch_size % self.data.num_repeats:
            size, times = self.train.batch_size, self.data.num_repeats
            raise ValueError(f"train.batch_size is {size}, which data.num_repeats, {times}, does not divide")

    def _check_signal(self) -> None:
        o, of_images = self.objective, sorted(self.augment.model_fields_set - {"signal"})
        if of_images:
            raise ValueError(f"augment.{of_images[0]} is not done to ECGs: leave it out, and say augment.signal")
        if o.views is not None:
            raise ValueError("objective.views is of images, and model.signal takes ECGs")
        if o.masked is not None and (o.masked.decoder in ("linear", "video") or o.masked.foreground):
            raise ValueError(
                "objective.masked of ECGs takes decoder: dec128d2, dec512d2 or dec512d8, and no foreground"
            )
        if o.masked is not None and self.model.signal is not None and self.model.signal.tower == "resnet1d":
            raise ValueError("objective.masked needs a tower of patches: model.signal.tower is resnet1d")

    def _check_without_words(self) -> None:
        unused = [f"text.{name}" for name in sorted(self.text.model_fields_set)]
        unused += [f"model.{name}" for name in OF_WORDS if name in self.model.model_fields_set]
        unused += ["train.zero_shot"] * bool(self.train.zero_shot)
        unused += [f"objective.{name}" for name in ("loss", "temperature") if name in self.objective.model_fields_set]
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
    def roles(self) -> tuple[DrawnRole, ...]:
        """Texts that losses read beside captions, and how many of each a sample has in a step."""
        reading = {role for _, row, settings in losses_of(self) for role in row.texts_read(settings)}
        drawn = (
            DrawnRole("negative", self.data.num_negatives),
            DrawnRole("long", 1),
            DrawnRole("tags", len(self.data.tags), self.data.tags),
            DrawnRole("absent", len(self.data.tags), self.data.tags),
            DrawnRole("pair", 1),
            DrawnRole("synthetic", 1),
            DrawnRole("summary", 1),
            DrawnRole("attributes", 1),
        )
        return tuple(role for role in drawn if role.name in reading)

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
        flat = {k: (_NUMBER.sub(".", k), v) for k, v in _flat(self.model_dump(mode="json")).items()}
        return {
            k: Path(v).name if path in _PLACES and v is not None else v
            for k, (path, v) in flat.items()
            if not path.startswith(_FREE) and (path, v) not in _CAME_LATER
        }


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, list) and node and isinstance(node[0], dict):
        node = dict(enumerate(node))
    if isinstance(node, dict) and node:
        return {k: v for name, child in node.items() for k, v in _flat(child, f"{prefix}{name}.").items()}
    return {prefix[:-1]: node}


RecipeSource = Path | str | Mapping[str, Any] | Recipe
"""A recipe that somebody names: its file, its values, or itself."""


def load_recipe(source: RecipeSource, overrides: Overrides = ()) -> Recipe:
    """Read a recipe and change what the overrides name by its path, such as `train.lr`.

    Relative folders in it are taken from the current folder or, where nothing lies there, from the recipe's.

    Raises:
        MedclipError: MISSING_FILE; RECIPE_INVALID, naming the key; WRONG_USE for an override of another form.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if isinstance(source, Recipe):
        values: Any = source.model_dump(mode="json", exclude_unset=True)
    else:
        values = read_yaml(path) if path else json.loads(json.dumps(source, default=str))
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a recipe is a YAML mapping of sections.", where=path)
    changes = read_overrides(overrides)
    for key in sorted(changes, key=_is_inside_objective):
        if _is_inside_objective(key) and isinstance(word := values.get("objective"), str) and word in SHORTHANDS:
            values = written_out(values)  # the word becomes the keys that are changed here
        _apply(values, key, changes[key])
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as e:
        raise invalid_recipe(e, Recipe, path) from e
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

    def placed(part: BaseModel, *names: str) -> Any:
        """Resolve the paths that are given; what is no path (a name of an architecture) stays as it is."""
        given = {n: v for n in names if n in part.model_fields_set and (v := getattr(part, n)) is not None}
        return part.model_copy(update={n: type(v)(place(Path(v))) for n, v in given.items()})

    lie: dict[str, Any] = {"shards": tuple(p if is_url(p) else str(place(Path(p))) for p in recipe.data.shards)}
    if recipe.data.selection:
        lie["selection"] = tuple(map(place, recipe.data.selection))
    data = recipe.data.model_copy(update=lie)
    kept = data.read_kept()
    parts: dict[str, Any] = {
        "data": data if kept is None else data.model_copy(update={"selected": kept.digest}),
        "text": placed(recipe.text, "tokenizer"),
        "model": placed(recipe.model, "text_folder", "start", "architecture", "image_weights", "preset"),
    }
    teacher, heads = recipe.objective.text_teacher, recipe.objective.supervised
    lying: dict[str, Any] = {} if teacher is None else {"text_teacher": placed(teacher, "folder")}
    lying |= {"supervised": tuple(placed(head, "task") for head in heads)} if heads else {}
    parts["objective"] = recipe.objective.model_copy(update=lying)
    return recipe.model_copy(update={k: v for k, v in parts.items() if k in recipe.model_fields_set})


def _is_inside_objective(key: str) -> bool:
    return key.startswith("objective.")


def _apply(values: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    node = values
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            if child is not None:
                raise MedclipError(Reason.RECIPE_INVALID, f"{part!r} in {key!r} is a value, not a section.")
            child = node[part] = {}
        node = child
    node[parts[-1]] = value
