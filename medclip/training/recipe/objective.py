"""`objective`: the losses, their weights, and words that stand for a whole way to train. No torch here."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_serializer, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from medclip.errors import MedclipError, did_you_mean
from medclip.text.vocabulary.find_task import find_task
from medclip.text.vocabulary.task import Task
from medclip.training.losses import Loss, loss_named
from medclip.training.recipe.section import Section

MEDICAL_RATIO = 0.9
"""Share of hidden patches for chest films; photographs want 0.75."""
_BATCH_SIZE = 64
"""`train.batch_size` of a recipe without one."""
_LR, _PER = 1.5e-4, 256
"""Learning rate for so many samples in a batch."""

_MASKED: dict[str, Any] = {
    "objective": {
        "contrastive": 0,
        "masked": {"weight": 1, "ratio": MEDICAL_RATIO, "decoder": "dec128d2", "normalise": False},
    },
    "augment": {
        "crop_scale": (0.5, 1.0),
        "stretch": 4 / 3,
        "flip": 0.5,
        "rotate_deg": 0,
        "brightness": 0,
        "contrast": 0,
    },
    "model": {"image_tower": "vit_small_patch16_224", "image_weights": None},
    "train": {"betas": (0.9, 0.95), "weight_decay": 0.05, "image_lr_factor": 1, "schedule": "cosine"},
}
"""Of Xiao et al., Delving into masked autoencoders for multi-label thorax disease classification, WACV 2023: medical
images want more hidden and less cut away than photographs."""
_NATURAL: dict[str, Any] = {
    "objective": {
        "contrastive": 0,
        "masked": {"weight": 1, "ratio": 0.75, "decoder": "dec512d8", "normalise": True},
    },
    "augment": {"crop_scale": (0.2, 1.0)},
}
"""Of He et al., Masked autoencoders are scalable vision learners, CVPR 2022; all else as above."""
_OF_TUBES: dict[str, Any] = {"weight": 1, "decoder": "video", "normalise": True, "decode_ratio": 0.5}
"""Of Wang et al., VideoMAE V2, CVPR 2023; nothing is mirrored, for left and right of a body differ."""
_TUBE_RATIOS = {"volume": 0.8, "cine": 0.9}
"""Anatomy changes faster along slices than a scene in time: at 0.9 too little is left to guess from."""
_MERL: dict[str, Any] = {
    "objective": {"contrastive": 2, "temperature": 0.07, "unimodal": {"weight": 2, "dropout": 0.1}},
    "augment": {},
    "model": {"image_weights": None},
    "train": {"lr": 1e-3, "weight_decay": 1e-8, "batch_size": 128, "image_lr_factor": 1, "schedule": "cosine"},
}
"""Of Liu et al., MERL, ICML 2024: both terms add their two directions up. Records of the same report are no negatives
here, which one ECG in three would have (sinus rhythm, normal ECG)."""
_OF_SIGNALS: dict[str, Any] = {"weight": 1, "decoder": "dec128d2", "ratio": 0.75, "normalise": False}
"""Of ECGs: a beat is a second long, and at 0.9 some go by unseen; plain values, for amplitude is what is read."""
SHORTHANDS: dict[str, dict[str, Any]] = {
    "masked": _MASKED,
    "masked_natural": {part: _MASKED[part] | _NATURAL.get(part, {}) for part in _MASKED},
    "merl": _MERL,
}
"""What `objective: NAME` stands for."""


def written_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write out what the word under `objective` stands for, and leave any other recipe as it is.

    For ECGs (`model.signal`) three quarters are hidden, nothing is cut away or mirrored, and the tower is the
    section's own. For volumes and loops (`model.volume`) tubes are hidden and half of them guessed, whatever the masked
    word. The learning rate of these follows the batch: 1.5e-4 for 256 samples. What the recipe says itself has the last
    word; towers that `model.start` or a pack under `model.image_weights` brings stay as they are.

    Args:
        values: A recipe as it was read.

    Raises:
        ValueError: For a word that is not known.

    Example:
        >>> recipe = written_out({"objective": "masked", "train": {"batch_size": 512}})
        >>> recipe["train"]["lr"], recipe["augment"]["crop_scale"]
        (0.0003, (0.5, 1.0))
    """
    name = values.get("objective")
    if not isinstance(name, str):
        return dict(values)
    if name not in SHORTHANDS:
        raise ValueError(f"objective is {name!r}. {did_you_mean(name, SHORTHANDS, 'Known are')}".rstrip("."))
    parts = copy.deepcopy(SHORTHANDS[name])
    stated = {part: values.get(part, {}) for part in parts if part != "objective"}
    train, model = stated["train"], stated["model"]
    size = train.get("batch_size", _BATCH_SIZE) if isinstance(train, dict) else _BATCH_SIZE
    parts["train"].setdefault("lr", _LR * size / _PER if isinstance(size, int | float) else _LR)
    if isinstance(model, dict) and model.get("start") is not None:
        parts["model"] = {}
    elif isinstance(model, dict) and model.get("image_weights") not in (None, "imagenet"):
        parts["model"].pop("image_tower", None)
    if isinstance(model, dict) and isinstance(model.get("signal"), dict):
        parts["model"], parts["augment"] = {}, {}
        if "masked" in parts["objective"]:
            parts["objective"]["masked"] = dict(_OF_SIGNALS)
    if "masked" in parts["objective"] and isinstance(model, dict) and isinstance(volume := model.get("volume"), dict):
        parts["objective"]["masked"] = _OF_TUBES | {"ratio": _TUBE_RATIOS.get(volume.get("kind", "volume"), 0.9)}
        parts["augment"] |= {"flip": 0, "stretch": 1}
    chosen = {part: parts[part] | keys if isinstance(keys, dict) else keys for part, keys in stated.items()}
    return dict(values) | chosen | {"objective": parts["objective"]}


Decoder = Literal["linear", "dec128d2", "dec512d2", "dec512d8", "video"]
Relation = Literal["positive", "ignored", "negative"]
Fusion = Literal["attention", "mean", "concat"]


class TextTeacher(Section):
    """A frozen sentence encoder that teaches the text tower."""

    folder: str
    """A Hugging Face folder, or `package:NAME/PATH` for one inside an installed package."""
    weight: float = Field(default=0.5, ge=0)
    temperature: float = Field(default=0.1, gt=0)


class Masked(Section):
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


class Supervised(Section):
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
    sources: tuple[str, ...] = ()
    """Those whose labels are learned and validated with; all where empty. Where only one class is known of a further
    source, a classifier over both would learn to tell the sources."""
    in_pack: bool = True
    """Whether the pack answers with it. False: it teaches the image tower and stays behind, and the pack is asked in
    words."""

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
            MedclipError: NO_TASK, MISSING_FILE; TABLE_INVALID, also for a class that the task does not have.
        """
        task = self.asked
        return tuple(task.class_named(c).name for c in self.classes) or tuple(c.name for c in task.classes)


class TwoViews(Section):
    """Each sample gives two images, changed anew, and two captions, drawn anew, and all of them are contrasted.

    The loss of Mammo-CLIP, with views that are made by augmentation: a step costs twice as much.
    """

    images: float = Field(default=1.0, ge=0)
    """Weight of image with image; that of image with text is 1."""
    texts: float = Field(default=0.5, ge=0)
    """Weight of text with text."""


class Views(Section):
    """Samples are examinations of several views, or breasts (`medclip shards build --group`), which are fused into one
    vector; a sample of one image is an examination of one view.

    Contrasted are images with captions, images of one breast with each other, captions about one breast with each
    other, and the fused vector with captions. Images of one examination are never each other's negatives, nor is what
    shows one breast compared with a caption about the other. Heads read the fused vector.
    """

    max: Literal[2, 4, 8] = 4
    """Views of a sample; further ones, in hanging order, are left out. A breast has 2, an examination 4, and twice as
    many with contrast-enhanced pairs. Views that are missing cost nothing."""
    fusion: Fusion = "attention"
    """How views become one vector: weighted by what each shows; by a matrix for each place (concat); or the mean."""
    image_text: float = Field(default=1.0, ge=0)
    """Weight of each image with the captions of its breast."""
    images: float = Field(default=1.0, ge=0)
    """Weight of the images of a breast with each other."""
    texts: float = Field(default=0.5, ge=0)
    """Weight of the captions of a breast with each other."""
    joint: float = Field(default=1.0, ge=0)
    """Weight of the fused vector with captions."""


class Unimodal(Section):
    """The second term of MERL: two views of each image's or ECG's pooled feature, made by two linear maps with
    drop-out, are contrasted with those of the others of the batch.
    """

    weight: float = Field(default=1.0, gt=0)
    """As `contrastive`, the weight of the mean of both directions. MERL adds the directions up: 2 for both."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


def _loss_named(name: str) -> Loss:
    try:
        return loss_named(name)
    except MedclipError as e:
        raise ValueError(f"{e.message.rstrip('.')}. {e.hint}") from e


def _placed(error: ValidationError, name: str, section: type[Section]) -> ValidationError:
    """Return the faults of a loss's section at their place below `objective.losses`, with the keys that it has."""
    lines = []
    for fault in error.errors(include_url=False):
        kind: Any = fault["type"]
        if kind == "extra_forbidden" and len(fault["loc"]) == 1:
            hint = did_you_mean(str(fault["loc"][0]), section.model_fields, "Its keys are")
            kind = PydanticCustomError("value_error", f"is not a key of the loss {name}. {hint}")  # type: ignore[arg-type]
        place = (name, *fault["loc"])
        lines.append(InitErrorDetails(type=kind, loc=place, input=fault["input"], ctx=fault.get("ctx", {})))
    return ValidationError.from_exception_data("losses", lines)


class Objective(Section):
    """Weighted sum of losses."""

    loss: Literal["clip", "siglip"] = "clip"
    """Softmax over the batch, or a sigmoid for each pair."""
    contrastive: float = Field(default=1.0, ge=0)
    temperature: float | None = Field(default=None, ge=0.01)
    """Temperature of the cosines that stays as it is, such as 0.07 of MERL; None learns it, and begins with
    `model.logit_scale`."""
    same_label: Relation | Literal["stated"] = "positive"
    """What two records that carry the same labels are to each other: positives, negatives, or ignored (a pair of which
    it is not known whether it fits). "stated": an image is a positive of a caption that states its labels, whosever it
    is, and a text that is quoted fits its own image alone; for sets with labels and texts. Where relations differ,
    positive goes before ignored."""
    same_text: Relation = "positive"
    """The same for two records with the same caption."""
    same_study: Relation = "positive"
    """The same for two images of one study. With `views` it is about samples of one patient, the other breast or
    another examination, and they are ignored where the recipe says nothing."""
    other_source: Literal["negative", "ignored"] = "negative"
    """What two records of one kind of image (modality, and how a mammogram was made) but of different sources are where
    nothing makes them positives: negatives, or left out of the loss. Where findings go with sources, a negative of
    another source can be told by where it is from; ignored, only what differs within a source is learned."""
    two_views: TwoViews | None = None
    views: Views | None = None
    unimodal: Unimodal | None = None
    """A second term for images or ECGs alone; it needs the contrastive one beside it."""
    source_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """How much a sample of a source counts in the loss; 1 where a source is not named."""
    masked: Masked | None = None
    supervised: tuple[Supervised, ...] = ()
    """One classifier, or a list of several, each by the name of its task."""
    text_teacher: TextTeacher | None = None
    losses: dict[str, Any] = Field(default_factory=dict)
    """Further losses of `medclip.training.losses.LOSSES` by their names, each with the keys of its section."""

    @property
    def needs_words(self) -> bool:
        """Whether a part of the loss reads captions; without words an image tower alone is trained."""
        reads_captions = self.contrastive > 0 or self.text_teacher is not None or self.two_views is not None
        return reads_captions or any(_loss_named(name).reads_words for name in self.losses)

    @property
    def answering(self) -> tuple[Supervised, ...]:
        """The classifiers that the pack answers with."""
        return tuple(head for head in self.supervised if head.in_pack)

    @property
    def num_views(self) -> int:
        """Images of a sample."""
        return self.views.max if self.views is not None else 2 if self.two_views is not None else 1

    @property
    def num_texts(self) -> int:
        """Captions of a sample: two of each breast."""
        if self.two_views is not None:
            return 2
        return 1 if self.views is None or not self.needs_words else min(4, self.views.max)

    @property
    def of_views(self) -> dict[str, Any]:
        """How samples of examinations are drawn, as arguments of batches; empty where samples are single images."""
        if self.views is None:
            return {}
        return {"num_views": self.num_views, "num_texts": self.num_texts, "of_exam": True}

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        """Take one classifier without brackets, and set what views stand for, so that it is seen in recipe.json."""
        if not isinstance(values, dict):
            return values
        given = values.get("supervised")
        several = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
        ignored = {"same_study": "ignored"} if values.get("views") is not None else {}
        return ignored | values | {"supervised": several}

    @field_validator("losses")
    @classmethod
    def _of_the_table(cls, losses: dict[str, Any]) -> dict[str, Any]:
        """Read the section of each loss."""
        read = {}
        for name, values in losses.items():
            section = _loss_named(name).section
            if section is None:
                raise ValueError(f"the loss {name} has a place of its own in a recipe")
            try:
                read[name] = section.model_validate(values or {})
            except ValidationError as e:
                raise _placed(e, name, section) from e
        return read

    @field_serializer("supervised")
    def _without_brackets(self, heads: tuple[Supervised, ...]) -> Any:
        """Write one classifier without brackets: recipes and digests of runs stay what they were."""
        several = [head.model_dump(mode="json") for head in heads]
        return several if len(several) > 1 else several[0] if several else None

    @model_validator(mode="after")
    def _check(self) -> Objective:
        weights = [part.weight for part in (self.masked, *self.supervised) if part is not None]
        twice = [name for name, number in Counter(head.task for head in self.supervised).items() if number > 1]
        if twice:
            raise ValueError(f"supervised names the task {twice[0]} twice")
        if self.views is not None:
            others = [name for name in ("two_views", "masked") if getattr(self, name) is not None]
            if others:
                raise ValueError(f"views does not go with {others[0]}")
            if self.loss != "clip":
                raise ValueError("views goes with loss: clip")
            v = self.views
            if self.contrastive and not (v.image_text or v.images or v.texts or v.joint):
                raise ValueError("all weights of views are 0; say contrastive: 0 to learn from heads alone")
        if self.same_label == "stated" and (self.two_views is not None or self.views is not None):
            raise ValueError("same_label: stated is for one image and one caption of each sample")
        if self.unimodal is not None:
            others = [name for name in ("two_views", "views") if getattr(self, name) is not None]
            if others or not self.contrastive:
                raise ValueError(f"unimodal does not go with {others[0] if others else 'contrastive: 0'}")
        if not self.needs_words and not any(weights) and not self.losses:
            raise ValueError("nothing is learned with contrastive: 0 and neither a masked nor a supervised part")
        return self
