"""What is merged: packs, read, compared and refused where no average of them means anything; and what merging gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import ANCESTORS, Card, read_card
from medclip.models.packs.manifest import (
    CONFIG_NAME,
    TEXT_FOLDER,
    WEIGHTS_NAME,
    Manifest,
    pack_digest,
    read_config,
    read_manifest,
    weights_digest,
)
from medclip.models.packs.pack import find_pack, read_preprocess, verify_pack
from medclip.models.packs.words import has_text_tower
from medclip.wording import list_of

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
STATISTICS = ("running_mean", "running_var")
"""Ends of the names of running statistics, which are measured and not learned."""
_WORDS = ("tokenizer.json", "vocab.txt", f"{TEXT_FOLDER}/config.json")
"""Files by which two packs read the same words in the same way."""
_HINT = "Only packs that began with the same weights and take the same pixels and words can be merged."


@dataclass(frozen=True)
class Ingredient:
    """One pack, checked."""

    path: Path
    card: Card
    manifest: Manifest
    weights: str
    """Head of the sha256 of its weights."""

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.card.name} {self.card.version}"

    @property
    def ancestry(self) -> list[str]:
        """Weights of all packs that it says it goes back to, the oldest first, and at the end its own."""
        return [*self.card.created_from.get(ANCESTORS, ()), self.weights]

    @property
    def line(self) -> frozenset[str]:
        """The same, in no order."""
        return frozenset(self.ancestry)

    @property
    def states_start(self) -> bool:
        """Whether its card says what its training began with."""
        return ANCESTORS in self.card.created_from

    def reference(self) -> dict[str, str]:
        """Return what a card says of it."""
        return {
            "name": self.card.name,
            "version": self.card.version,
            "manifest": pack_digest(self.path),
            "weights": self.weights,
        }

    @property
    def model_cfg(self) -> dict[str, Any]:
        """Its architecture, with the text tower in a module of its own, as training has it."""
        config = read_config(self.path)["model_cfg"]
        return config | {"custom_text": True} if has_text_tower(config) else config

    def state(self) -> dict[str, Tensor]:
        """Load its weights, float32, by the names that training gives them."""
        from medclip.models.towers.state_dict import read_weights

        state = _own_text(read_weights(self.path / WEIGHTS_NAME))
        return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


Figure = Callable[[Ingredient, "nn.Module"], float]
"""Returns the figure of towers with the words and pixels of a pack; higher is better."""
Lesson = Callable[["nn.Module", "Tensor"], "Tensor"]
"""Returns the loss of towers on one batch of held-out data, with gradients; the tensor is a factor of the logits."""
Lessons = Callable[[Ingredient, int], Iterable[Lesson]]
"""Returns the batches of an epoch, with the words and pixels of a pack."""


@dataclass(frozen=True)
class Plan:
    """What is to be merged, checked before any weight is loaded."""

    method: str
    """Of `MERGES`."""
    ingredients: tuple[Ingredient, ...]
    base: Ingredient | None
    alpha: float
    min_gain: float
    notes: tuple[str, ...]

    @property
    def every(self) -> tuple[Ingredient, ...]:
        """The packs, and the base."""
        return self.ingredients if self.base is None else (*self.ingredients, self.base)


@dataclass(frozen=True)
class Tried:
    """One model that was offered to a greedy soup."""

    name: str
    alone: float
    """Figure of the model by itself."""
    soup: float
    """Figure of the soup with it."""
    accepted: bool
    midpoint: float | None = None
    """Figure halfway between the best model and this one, for those that were refused: far below both, they lie in
    different basins, and no average of them is of use."""


@dataclass(frozen=True, eq=False)
class MergedWeights:
    """What merging gave."""

    state: dict[str, Tensor]
    used: tuple[Ingredient, ...]
    """The packs whose training is in it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the card: method, its settings, and what it needs to go on."""
    trace: tuple[Tried, ...] = ()
    figure: float | None = None
    """Of a greedy soup, on the data that chose it."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of a learned soup, of each pack."""


def towers_of(one: Ingredient, state: Mapping[str, Tensor]) -> nn.Module:
    """Build the towers of a pack with other weights; float32."""
    from medclip.models.towers.build import build_clip

    clip = build_clip(one.model_cfg, one.path)
    clip.load_state_dict(dict(state), strict=True)
    return clip


def read_ingredient(pack: str | Path) -> Ingredient:
    """Read a pack and check its files.

    Raises:
        MedclipError: What `verify_pack` raises; WRONG_USE for a pack with heads of its own, which would not hold for
            other towers.
    """
    path = find_pack(pack)
    verify_pack(path)
    card = read_card(path)
    heads = [name for name in read_manifest(path).files if name in ("adapted.safetensors", "heads.safetensors")]
    if heads:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this pack answers with a head of its own ({heads[0]}), which would not hold for merged towers.",
            where=path,
            hint="Merge the packs without heads, and adapt or fine-tune the merged one.",
        )
    return Ingredient(path, card, read_manifest(path), weights_digest(path))


def refuse_different(ingredients: Sequence[Ingredient]) -> None:
    """Refuse packs whose towers, pixels or words are not those of the first one.

    Raises:
        MedclipError: PACK_INVALID naming the first tensor, key or file that differs.
    """
    from safetensors import safe_open

    first = ingredients[0]
    forms = []
    for one in ingredients:
        with safe_open(one.path / WEIGHTS_NAME, framework="numpy") as file:
            forms.append(_own_text({name: list(file.get_slice(name).get_shape()) for name in file.keys()}))  # noqa: SIM118
    pixels = replace(read_preprocess(first.path), adapters={})
    for one, form in zip(ingredients[1:], forms[1:], strict=True):
        for name in sorted(forms[0].keys() | form.keys()):
            if forms[0].get(name) != form.get(name):
                sizes = (
                    str(shape) if shape is not None else "absent" for shape in (forms[0].get(name), form.get(name))
                )
                raise _differ(one, f"{name} is {next(sizes)} in {first.name} and {next(sizes)} in {one.name}")
        key = _first_key(first.model_cfg, one.model_cfg)
        if key is not None:
            raise _differ(one, f"{key} in {CONFIG_NAME} is not that of {first.name}")
        if replace(read_preprocess(one.path), adapters={}) != pixels:
            raise _differ(one, f"its images are treated in another way than those of {first.name}")
        for file_name in _WORDS:
            if first.manifest.files.get(file_name) != one.manifest.files.get(file_name):
                raise _differ(one, f"{file_name} is not that of {first.name}")


def refuse_other_tensors(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], name_of_one: str, name_of_other: str
) -> None:
    """Refuse state dicts that differ in a tensor's name or shape.

    Raises:
        MedclipError: PACK_INVALID naming the first such tensor, in the order of the first state dict.
    """
    for name in [*one, *(n for n in other if n not in one)]:
        if name in one and name in other and one[name].shape == other[name].shape:
            continue
        shapes = [str(list(state[name].shape)) if name in state else "absent" for state in (one, other)]
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the towers differ: {name} is {shapes[0]} in {name_of_one} and {shapes[1]} in {name_of_other}.",
            hint="Only models that began with the same weights can be merged.",
        )


def check_line(ingredients: Sequence[Ingredient], base: Ingredient | None) -> tuple[str, ...]:
    """Refuse packs that say they began with different weights; return what is not known of it, in sentences.

    Raises:
        MedclipError: WRONG_USE naming the pack that began with something else.
    """
    starts = [one for one in ingredients if one.states_start]
    for one in starts:
        others = [base] if base is not None else [other for other in starts if other is not one]
        strangers = [other for other in others if not one.line & (other.line if base is None else {other.weights})]
        if strangers:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{one.name} did not begin with the weights {'of' if base is not None else 'that'} {strangers[0].name}"
                f"{'' if base is not None else ' began with'}: an average of both would be of no use.",
                where=one.path,
                hint="Merge packs that were trained from one pack (model.start), and name that one with --base.",
            )
    silent = [one.name for one in ingredients if not one.states_start and (base is None or one.weights != base.weights)]
    if not silent or len(ingredients) + (base is not None) == 1:
        return ()
    ends = "does not say what it" if len(silent) == 1 else "do not say what they"
    return (f"{list_of(silent)} {ends} began with: whether an average is of any use, only figures tell.",)


def _own_text(state: dict[str, T]) -> dict[str, T]:
    """Rename the weights of a text tower that lies in CLIP itself to those of one in a module of its own."""
    if "text_projection" not in state:
        return state
    from open_clip.model import convert_to_custom_text_state_dict

    return convert_to_custom_text_state_dict(state)


def _first_key(one: Mapping[str, Any], other: Mapping[str, Any], place: str = "") -> str | None:
    """Name the first key of two configs that differs."""
    for name in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            if (key := _first_key(mine, theirs, f"{place}{name}.")) is not None:
                return key
        elif mine != theirs:
            return f"{place}{name}"
    return None


def _differ(one: Ingredient, how: str) -> MedclipError:
    return MedclipError(Reason.PACK_INVALID, f"the towers differ: {how}.", where=one.path, hint=_HINT)
