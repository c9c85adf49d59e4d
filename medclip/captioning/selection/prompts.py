"""What patches are looked for: attributes of an organ, and findings of one slide's report.

The attributes are ours; a file of your own in the same form (organ: list of phrases) adds organs or replaces them.
Names of TCGA projects are understood, with hyphen or underscore. A slide's findings are its own: nothing that is asked
of one slide is asked of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from medclip.errors import MedclipError, Reason, did_you_mean

ANY = "any"
"""What is asked of every organ."""
_FILE = Path(__file__).parent / "attributes.yaml"
_OF_PROJECT = {
    "BLCA": "bladder",
    "BRCA": "breast",
    "COAD": "colon",
    "DLBC": "lymph node",
    "GBM": "brain",
    "KICH": "kidney",
    "KIRC": "kidney",
    "KIRP": "kidney",
    "LGG": "brain",
    "LIHC": "liver",
    "LUAD": "lung",
    "LUSC": "lung",
    "OV": "ovary",
    "PAAD": "pancreas",
    "PRAD": "prostate",
    "READ": "colon",
    "SKCM": "skin",
    "STAD": "stomach",
    "THCA": "thyroid",
    "UCEC": "uterus",
}
"""TCGA's projects of the organs that we have attributes of; others are asked for what is asked of any."""


@dataclass(frozen=True)
class SelectionPrompts:
    """What is asked of one slide."""

    organ: str
    attributes: tuple[str, ...]
    findings: tuple[str, ...] = ()
    """Of this slide's report."""


@cache
def own_attributes() -> Mapping[str, tuple[str, ...]]:
    """Return the attributes that come with medclip, by organ."""
    return read_attributes(_FILE)


def read_attributes(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a file of attributes.

    Args:
        path: YAML: a list of phrases for each organ.

    Raises:
        MedclipError: MISSING_FILE; RECIPE_INVALID for anything else than lists of texts.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "there is no such file.", where=path, hint="Check the path.") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"this is no YAML ({type(e).__name__}).", where=path) from None
    if not isinstance(values, dict) or not values or not all(map(_is_phrases, values.values())):
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "a file of attributes holds a list of phrases for each organ.",
            where=path,
            hint='Write for instance "colon:" and below it lines such as "  - crypt abscess - neutrophils in a crypt".',
        )
    return {organ_of(str(organ)): tuple(dict.fromkeys(phrases)) for organ, phrases in values.items()}


def prompts_for(
    organ: str | None, findings: Iterable[str] = (), attributes: Mapping[str, tuple[str, ...]] | None = None
) -> SelectionPrompts:
    """Return what is asked of one slide.

    Args:
        organ: An organ, or a TCGA project; None asks what is asked of any.
        findings: Findings of this slide's report.
        attributes: Attributes by organ, which replace those of medclip for the organs that they name.

    Raises:
        MedclipError: WRONG_USE for an organ that has no attributes.

    Example:
        >>> prompts_for("TCGA_BRCA", ["mucin pools"]).organ
        'breast'
    """
    known = {**own_attributes(), **(attributes or {})}
    name = organ_of(organ or ANY)
    if name not in known:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there are no attributes of the organ {name!r}.",
            hint=did_you_mean(name, sorted(known), "Organs are") + " A file of your own adds others: --attributes.",
        )
    phrases = dict.fromkeys([*known[name], *known.get(ANY, ())])
    return SelectionPrompts(name, tuple(phrases), tuple(dict.fromkeys(f.strip() for f in findings if f.strip())))


def organ_of(name: str) -> str:
    """Return the organ that a name stands for: in small letters, TCGA's projects as organs.

    Example:
        >>> organ_of("TCGA-KIRC"), organ_of("Lymph_Node"), organ_of("TCGA-ACC")
        ('kidney', 'lymph node', 'any')
    """
    plain = " ".join(name.replace("_", " ").replace("-", " ").split())
    words = plain.upper().split()
    if words[:1] == ["TCGA"]:
        return _OF_PROJECT.get(words[-1], ANY)
    return plain.lower()


def _is_phrases(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) and v.strip() for v in value)
