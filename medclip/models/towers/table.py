"""The towers that a model can be built of: one row each. No torch here.

A row says by which key a config names the tower, and what builds it; its functions are "module:function". `build_clip`
(`medclip.models.towers.build`) goes by the rows, and knows no tower itself. Of several that a config has the keys of,
one in front of another tower comes first, and then one with a key of its own, that of timm, and one for any config;
among equals their order counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.lazy import Table

Takes = Literal["images", "volumes", "signals", "texts"]
Target = Callable[..., Any] | str
_TOWERS = "medclip.models.towers"


@dataclass(frozen=True)
class Tower:
    """One kind of tower."""

    title: str
    """What it is, as a noun with its article."""
    key: str
    """Key of `vision_cfg`, or of `text_cfg` for a tower of texts, that a config of this tower has; "": any config."""
    takes: tuple[Takes, ...]
    build: Target | None = None
    """(section, dim) -> module: builds the tower with random weights; `dim` is the width of the shared space, None for
    a tower without words, whose features stay as they are (`module.dim` of them). Its `forward` returns [B, D], and its
    `encode_tokens` what `medclip.models.towers.tokens` says. None: open_clip builds it, out of `prepare`'s section."""
    alone: Target | None = None
    """(model_cfg) -> module: builds it for a model without words, where that is another thing than `build` with None;
    a tower with neither has no such model."""
    prepare: Target | None = None
    """(section, model_cfg, base) -> section that open_clip builds it from; for towers that open_clip builds."""
    finish: Target | None = None
    """(tower, model_cfg) -> tower: changes what was built, or puts something in front of it."""
    inner: Target | None = None
    """(section) -> section of the tower behind this one, which is built first and handed to `finish`."""
    name: str = ""
    """Keys that name the architecture in the section, divided by a dot; that of the row where ""."""


_ROWS: dict[str, Tower] = {
    "lens": Tower(
        "a lens in front of a vision transformer of images",
        "lens",
        ("signals", "volumes"),
        inner=f"{_TOWERS}.lens_tower:behind_lens",
        finish=f"{_TOWERS}.lens_tower:finish_lens",
        name="timm_model_name",
    ),
    "native_aspect": Tower(
        "a vision transformer of images at their own aspect ratio",
        "native_aspect",
        ("images",),
        inner=f"{_TOWERS}.native_aspect:plain_section",
        finish=f"{_TOWERS}.native_aspect:finish_native",
        name="timm_model_name",
    ),
    "tubelet": Tower(
        "a vision transformer of clips",
        "tubelet",
        ("volumes",),
        inner=f"{_TOWERS}.timm_tower:section_of_squares",
        finish=f"{_TOWERS}.timm_tower:finish_tubelets",
        name="timm_model_name",
    ),
    "signal": Tower(
        "a transformer or residual network of ECGs",
        "signal",
        ("signals",),
        build=f"{_TOWERS}.signal_tower:build_section",
        name="signal.tower",
    ),
    "timm": Tower(
        "a tower of timm",
        "timm_model_name",
        ("images",),
        alone=f"{_TOWERS}.timm_tower:build_timm_tower",
        prepare=f"{_TOWERS}.timm_tower:timm_section",
        finish=f"{_TOWERS}.timm_tower:finish_timm",
        name="timm_model_name",
    ),
    "bert": Tower(
        "a text model of transformers",
        "hf_model_name",
        ("texts",),
        prepare=f"{_TOWERS}.bert:ready",
        name="hf_model_name",
    ),
    "rotary": Tower(
        "a text transformer of open_clip with rotary positions",
        "rotary",
        ("texts",),
        prepare=f"{_TOWERS}.rotary_text:table_section",
        finish=f"{_TOWERS}.rotary_text:finish_rotary",
    ),
    "text": Tower("a text transformer of open_clip", "", ("texts",)),
    "open_clip": Tower("a vision transformer or ResNet of open_clip", "", ("images",)),
}
TOWERS = Table("medclip.towers", _ROWS)
"""A new tower is one file and one line here."""


def image_tower_of(vision_cfg: Mapping[str, Any]) -> Tower:
    """Return the row of a model's image tower, or what stands in its place."""
    return min((t for t in TOWERS.values() if "texts" not in t.takes and _is_one(t, vision_cfg)), key=_rank)


def text_tower_of(text_cfg: Mapping[str, Any]) -> Tower:
    """Return the row of a model's text tower."""
    return min((t for t in TOWERS.values() if "texts" in t.takes and _is_one(t, text_cfg)), key=_rank)


def _is_one(tower: Tower, section: Mapping[str, Any]) -> bool:
    return not tower.key or section.get(tower.key) not in (None, False, "")


def _rank(tower: Tower) -> tuple[bool, bool, bool]:
    """Return the key that sorts rows that fit: in front of another tower, own key, key of timm, any config."""
    return not tower.key, tower.key == tower.name, tower.inner is None


def architecture_of(vision_cfg: Mapping[str, Any]) -> str:
    """Return the name of an image tower's architecture, such as timm's; "" for one of open_clip, which has none."""
    tower = image_tower_of(vision_cfg)
    value: Any = vision_cfg
    for key in (tower.name or tower.key).split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else tower.key


def tower_named(name: str) -> Tower | None:
    """Return the row that a recipe's `model.image_tower` names: of images, built by its own function; else None."""
    tower = TOWERS.get(name)
    return tower if tower is not None and tower.build is not None and "images" in tower.takes else None


def refuse_alone(tower: Tower) -> MedclipError:
    """Return the refusal of a model without words that has such a tower."""
    return MedclipError(
        Reason.PACK_INVALID,
        f"its image tower is {tower.title}, which no model without words can have.",
        hint="Name a tower of timm.",
    )


def refuse_keys(part: str, section: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a section with a key that neither open_clip nor any row has.

    Args:
        part: Name of the section, such as "vision_cfg".
        section: Section as open_clip would get it.
        known: Keys that open_clip has.

    Raises:
        MedclipError: PACK_INVALID, naming the key.
    """
    keys = [row.key for row in TOWERS.values() if row.key and ("texts" in row.takes) == (part == "text_cfg")]
    right = [*keys, *known]
    unknown = next((key for key in section if key not in right), None)
    if unknown is not None:
        hint = "If it is of a tower of your own, install the package that brings it (entry points medclip.towers)."
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's {part} has the key {unknown!r}, which no tower has.",
            hint=f"{did_you_mean(str(unknown), right)} {hint}".strip(),
        )


ROTARY = "rotary"
"""Key of `text_cfg` of a rotary text tower: a mapping of `base` and `scaled_from`, either of which may lack."""
ARGUMENTS = "timm_model_args"
"""Key of `vision_cfg` with timm's arguments of a tower. open_clip has no such key."""
OF_TIMM = ("token", "avg", "map")
"""Those that timm's towers do themselves (`global_pool`)."""
POOLINGS: Mapping[str, str] = {
    "token": "the class token",
    "avg": "the mean of the patch tokens (or of the last feature map), then the norm that follows it in timm",
    "map": "timm's attention pooling",
    "mean": "the mean of the patch tokens, without class and register tokens, after the last norm",
    "token+mean": "the class token beside the mean of the patch tokens (without register tokens), twice as wide",
}
"""`timm_pool` of an image tower alone, and what each one means."""


def check_pooling(name: str) -> None:
    """Refuse a name that no pooling has.

    Raises:
        MedclipError: WRONG_USE, naming those that there are.
    """
    if name not in POOLINGS:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no pooling {name!r}.", hint=did_you_mean(name, POOLINGS, "Poolings are")
        )
