"""The methods: one table of names, and what each of them takes and gives."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples, LookedAt, Unread
from medclip.adaptation.data.heads import Head
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.lazy import Table, import_name
from medclip.wording import list_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from medclip.models.model import Model

FURTHER: Mapping[str, str] = {
    "loop": "medclip.adaptation.towers.train_loop:Loop",
    "prompt": "medclip.adaptation.prompts.coop:PromptOptions",
    "mix": "medclip.adaptation.frozen.tip_adapter:MixOptions",
}
"""What a method calls its `**` parameter, to the class whose fields are further options of the method."""
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}


def options_of(fit: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the type of each option of a method, by name.

    Args:
        fit: Function of the method: the keyword-only parameters but `seed`, and the fields of the class of `FURTHER`
            behind `**`.
    """
    parameters = inspect.signature(fit).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "seed"]
    hints = dict(_hints(fit, names))
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            module, name = FURTHER[parameter.name].split(":")
            fields = get_type_hints(getattr(import_module(module), name))
            hints |= {name: hint for name, hint in fields.items() if name not in hints}
    return hints


def _hints(fit: Callable[..., Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Read the annotations of these parameters alone: those of the others name types that are not imported."""
    own = {n: a for n, a in inspect.get_annotations(fit).items() if n in names}
    return get_type_hints(types.SimpleNamespace(__annotations__=own), globalns=getattr(fit, "__globals__", {}))


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type, in the types that JSON has; one value stands for a sequence of one."""
    from pydantic import TypeAdapter, ValidationError

    try:
        text = json.dumps(value, default=lambda number: number.item())  # numpy's numbers are numbers
    except (AttributeError, TypeError, ValueError):
        return False
    form = TypeAdapter(hint)
    for candidate in (text, f"[{text}]"):
        with suppress(ValidationError):
            form.validate_json(candidate, strict=True)
            return True
    return False


def _said(hint: Any) -> str:
    """Return a type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return list_of(list(dict.fromkeys(_said(part) for part in inner)), "or")
    if origin is Literal:
        return list_of([str(v) for v in inner], "or")
    if origin is tuple and not (len(inner) == 2 and inner[1] is ...):
        return f"[{', '.join(map(_said, inner))}]"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each of it {_said(inner[0])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method learned."""

    head: Head
    num_trainable: int
    """Numbers that were learned or fitted."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters as used, chosen ones included; plain values that JSON can hold."""
    clip: nn.Module | None = None
    """The dense dual encoder with what was learned merged in; None where the towers are the base's."""
    delta: Mapping[str, Tensor] = field(default_factory=dict)
    """What was learned of the towers, in the method's own form (singular values, LoRA factors, norms)."""
    prompt: Tensor | None = None
    """The learned context of a prompt method, [M, W] or [C, M, W], so that other class names can be asked for."""
    notes: tuple[str, ...] = ()
    """Sentences that should be known: what was chosen is no better than the base."""

    def merged(self, base: Model) -> Model:
        """Return the model to encode with: the base, or one with what was learned merged into dense towers."""
        return base if self.clip is None else base.with_towers(self.clip)

    def logits(self, base: Model, examples: Examples, head: Head | None = None) -> NDArray[np.float32]:
        """Return the logits of units, the mean over each one's views; float32 [N, C].

        Features of the base are used as they are; a method that changed the towers encodes the pixels anew.

        Args:
            base: The base model.
            examples: The units, with the base's features.
            head: Head that is asked instead of its own: for other classes.
        """
        from medclip.adaptation.data.token_heads import answering
        from medclip.adaptation.data.unit_features import unit_logits
        from medclip.models.encoding.unit_reader import encode_units

        head = self.head if head is None else head
        model, encoder = self.merged(base), answering(self.merged(base), [head])
        if encoder is base:
            return unit_logits(head, base, examples.features)
        return unit_logits(head, model, encode_units(encoder, examples.pixels))


Fit = Callable[..., Fitted]
"""fit(base: Model, text: ClassText, train: Examples, val: Examples | None, *, seed: int, **options) -> Fitted"""


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    title: str
    target: str
    """module:function of its `Fit`."""
    trains_towers: bool = False
    """Gradients through the towers: much dearer than the others."""
    needs_words: bool = True
    """It starts from the classes' words, or learns them: nothing for an image-only pack."""
    of_steps: bool = False
    """It learns steps of a scale: nothing for a task whose classes have no order."""
    takes: Literal["features", "tokens"] = "features"
    """"tokens" where its head takes them; `fit` reads those of its shots from `token_heads.ShotTokens(base, train)`."""
    of_maps: bool = False
    """It learns maps from masks, `train` being `medclip.adaptation.maps.learn.MapExamples`: nothing for labels."""

    @property
    def needs_pixels(self) -> bool:
        """Whether images are read for it, since vectors alone would not do."""
        return self.trains_towers or self.takes == "tokens"

    def fit(
        self, base: Model, text: ClassText, train: Examples, val: Examples | None, *, seed: int, **options: Any
    ) -> Fitted:
        """Learn from `train`; `val`, where there is any, chooses hyper-parameters. Neither holds a test patient.

        Args:
            base: The loaded base model; not changed.
            text: The classes' words.
            train: The shots.
            val: Further examples of other patients to choose hyper-parameters with; None where there are none.
            seed: Seed of the initialisation, the order of batches and augmentation.
            options: Options of the method.

        Raises:
            MedclipError: As `check`; NON_FINITE for features or a loss that are none.
        """
        self.check(options)
        return self._function()(base, text, train, val, seed=seed, **options)

    def rehearse(self, base: Model, text: ClassText, options: Mapping[str, Any]) -> None:
        """Begin to fit, and stop where the first example would be looked at, so that refusals come before any reading.

        Raises:
            MedclipError: As `check`; for a missing package, values out of range, layers that the model does not have,
                words that do not fit its context.
        """
        with suppress(LookedAt):
            self.fit(base, text, Unread(), None, seed=0, **options)

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the method does not have, and values of another kind than it takes.

        Raises:
            MedclipError: WRONG_USE, with the options that there are, or with what the option takes.
        """
        known = options_of(self._function())
        if strange := sorted(set(options) - set(known)):
            raise MedclipError(
                Reason.WRONG_USE,
                f"{self.name} has no such option as {strange[0]!r}.",
                hint=did_you_mean(strange[0], known, "Its options are"),
            )
        for option, value in options.items():
            if not _fits(value, known[option]):
                takes = _said(known[option])
                raise MedclipError(
                    Reason.WRONG_USE, f"the option {option} of {self.name} is {value!r}; it takes {takes}."
                )

    def _function(self) -> Fit:
        return import_name(self.target)


_ROWS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("zero-shot", "Zero-shot", "medclip.adaptation.frozen.zero_shot:fit_zero_shot"),
        Method(
            "linear-probe",
            "Linear probe",
            "medclip.adaptation.frozen.linear_probe:fit_linear_probe",
            needs_words=False,
        ),
        Method("lp++", "LP++ (text-initialised probe)", "medclip.adaptation.frozen.lp_plus_plus:fit_lp_plus_plus"),
        Method("ridge", "Ridge", "medclip.adaptation.frozen.classical:fit_ridge", needs_words=False),
        Method("knn", "Nearest neighbours", "medclip.adaptation.frozen.classical:fit_knn", needs_words=False),
        Method("lda", "Linear discriminant", "medclip.adaptation.frozen.classical:fit_lda", needs_words=False),
        *(
            Method(name, title, f"medclip.adaptation.frozen.ordinal:fit_{fit}", needs_words=False, of_steps=True)
            for name, title, fit in (
                ("proportional-odds", "Proportional odds", "proportional_odds"),
                ("coral", "CORAL", "coral"),
                ("regression", "Regression of the step", "regression"),
            )
        ),
        Method(
            "ranking",
            "Ranking adapter",
            "medclip.adaptation.frozen.ranking_adapter:fit_ranking",
            of_steps=True,
            takes="tokens",
        ),
        Method(
            "map-probe",
            "Probe of places",
            "medclip.adaptation.maps.learn:fit_map_probe",
            needs_words=False,
            takes="tokens",
            of_maps=True,
        ),
        Method(
            "map-tuned",
            "Tuned tower and probe of places",
            "medclip.adaptation.maps.tuned_tower:fit_map_tuned",
            trains_towers=True,
            needs_words=False,
            takes="tokens",
            of_maps=True,
        ),
        Method("tip", "Tip-Adapter", "medclip.adaptation.frozen.tip_adapter:fit_tip"),
        Method("tip-f", "Tip-Adapter-F", "medclip.adaptation.frozen.tip_adapter:fit_tip_f"),
        Method("clip-adapter", "CLIP-Adapter", "medclip.adaptation.frozen.clip_adapter:fit_clip_adapter"),
        Method("coop", "CoOp", "medclip.adaptation.prompts.coop:fit_coop"),
        Method("biomedcoop", "BiomedCoOp loss", "medclip.adaptation.prompts.biomedcoop:fit_biomedcoop"),
        Method("cocoop", "CoCoOp", "medclip.adaptation.prompts.cocoop:fit_cocoop"),
        Method("svd", "CLIP-SVD", "medclip.adaptation.towers.methods:fit_svd", trains_towers=True),
        Method("lora", "LoRA", "medclip.adaptation.towers.methods:fit_lora", trains_towers=True),
        Method("norm", "LayerNorm tuning", "medclip.adaptation.towers.methods:fit_norm", trains_towers=True),
        Method("full", "Full fine-tuning", "medclip.adaptation.towers.methods:fit_full", trains_towers=True),
    )
}
METHODS = Table("medclip.methods", _ROWS)


DEFAULT, DEFAULT_WITHOUT_WORDS, DEFAULT_OF_MAPS = "svd", "linear-probe", "map-probe"
"""The method where none is named: of a pack with words, of an image-only one, and for maps."""


def without_words(*, ordered: bool = False) -> tuple[str, ...]:
    """Return the methods that an image-only pack can be adapted with; those that learn steps where there are any."""
    return tuple(m.name for m in of_labels() if not m.needs_words and ordered >= m.of_steps)


def of_labels() -> tuple[Method, ...]:
    """Return the methods that learn from labels of images: all but those of maps."""
    return tuple(m for m in METHODS.values() if not m.of_maps)


def choose_method(name: str | None, *, has_text: bool, of_maps: bool = False) -> Method:
    """Return a method that fits a pack: the one named, or the default.

    Args:
        name: Method, one of `METHODS`; None for the default.
        has_text: Whether the pack understands words.
        of_maps: Whether masks are learned from, and no labels.

    Raises:
        MedclipError: WRONG_USE for another name, for a method that needs words where the pack has none, and for one of
            labels where masks are learned from, or the other way round.
    """
    default = DEFAULT_OF_MAPS if of_maps else DEFAULT if has_text else DEFAULT_WITHOUT_WORDS
    method = find_method(name or default)
    if method.of_maps != of_maps:
        learns = "maps from masks, which --map asks for" if method.of_maps else "from labels of images, not from masks"
        fitting = [m.name for m in METHODS.values() if m.of_maps == of_maps]
        raise MedclipError(
            Reason.WRONG_USE,
            f"{method.title} ({method.name}) learns {learns}.",
            hint=f"Methods here are: {', '.join(fitting)}.",
        )
    if method.needs_words and not has_text:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{method.title} ({method.name}) needs the classes' words, and this pack is image only.",
            hint=f"Methods without words are: {', '.join(without_words())}.",
        )
    return method


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        MedclipError: WRONG_USE, naming those that there are.
    """
    if name not in METHODS:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no method named {name!r}.", hint=did_you_mean(name, METHODS, "Methods are")
        )
    return METHODS[name]
