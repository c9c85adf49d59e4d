"""Which runs a few-shot comparison is made of: methods, shots, seeds of the draw and of the initialisation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.adaptation.methods import METHODS, Method, choose_method, find_method, of_labels, without_words
from medclip.errors import MedclipError, Reason
from medclip.files.key_value import key_value, read_value

SHOTS = (1, 2, 4, 8, 16)
SEEDS = 5
REFERENCES = ("zero-shot", "linear-probe")
FROM = 4
"""Averages are over this many shots and more."""
ALL, NOVEL = "all", "novel"
"""Parts: all classes; base classes to learn from and novel ones to ask for."""
NOVEL_SHOTS = 16
_NEEDS_NO_SHOTS = "zero-shot"
_VERSIONS: Mapping[str, int] = {
    **dict.fromkeys(("lp++", "linear-probe", "tip-f", "clip-adapter", "coop", "biomedcoop", "cocoop"), 2),
    **dict.fromkeys(("svd", "lora", "norm", "full"), 2),
}
"""Method to the version of its code, where that is not the first. Raise it when the same shots, options and seeds give
other predictions: runs that were kept by the code of before are then made anew."""
_TRANSFER = ("zero-shot", "coop", "biomedcoop", "cocoop", "svd", "lora", "norm", "full")
"""Methods that keep an answer for classes they never saw: towers and prompts do, classifiers do not."""


@dataclass(frozen=True)
class Variant:
    """A method with options: `svd`, or `svd:lr=0.01:layers=top`."""

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    pack: Path | None = None
    """Another pack, whose image features it learns from; None for the base's."""
    pack_name: str = ""

    @property
    def entry(self) -> Method:
        """Its row in the table of methods."""
        return find_method(self.method)

    @property
    def title(self) -> str:
        """What a page calls it."""
        if self.pack is not None:
            return f"{self.entry.title} on {self.pack_name}"
        options = ", ".join(f"{k} {v}" for k, v in self.options.items())
        return f"{self.entry.title} ({options})" if options else self.entry.title

    @property
    def version(self) -> int:
        """Of the method's code; runs of another version are not kept."""
        return _VERSIONS.get(self.method, 1)

    @property
    def constant(self) -> bool:
        """Whether it learns from no example: one run then stands for all shots and seeds."""
        return self.method == _NEEDS_NO_SHOTS

    @property
    def transfers(self) -> bool:
        """Whether it can answer for classes that it was not shown."""
        return self.method in _TRANSFER


@dataclass(frozen=True)
class RunKey:
    """One run. Equal keys on equal data give equal predictions."""

    label: str
    shots: int
    """K; 0 for a method that looks at none."""
    seed: int
    """Of the draw of shots."""
    init: int
    """Of the method."""
    part: str = ALL

    @property
    def file(self) -> str:
        """A name for its file."""
        readable = re.sub(r"[^A-Za-z0-9.+=-]", "_", self.label)
        return f"{readable}-{self.part}-k{self.shots}-s{self.seed}-i{self.init}.safetensors"


@dataclass(frozen=True)
class Protocol:
    """What is compared."""

    variants: tuple[Variant, ...]
    shots: tuple[int, ...] = SHOTS
    seeds: tuple[int, ...] = tuple(range(SEEDS))
    inits: tuple[int, ...] = (0,)
    references: tuple[str, ...] = REFERENCES
    novel: bool = False

    def keys(self) -> Iterator[RunKey]:
        """Yield the runs, cheap methods first and few shots before many, so that most are done when it is stopped."""
        order = list(METHODS)
        for v in sorted(self.variants, key=lambda v: (v.entry.trains_towers, order.index(v.method))):
            if v.constant:
                yield RunKey(v.label, 0, 0, 0)
            else:
                for shots in self.shots:
                    yield from (RunKey(v.label, shots, s, i) for s in self.seeds for i in self.inits)
            if self.novel and v.transfers:
                yield from self.novel_keys(v)

    def key_of(self, variant: Variant, shots: int, seed: int, init: int) -> RunKey:
        """Return the run that stands for a method at K shots."""
        return RunKey(variant.label, 0, 0, 0) if variant.constant else RunKey(variant.label, shots, seed, init)

    def novel_keys(self, variant: Variant) -> Iterator[RunKey]:
        """Yield a method's runs from base classes to novel ones, seed by seed and initialisation by initialisation."""
        if variant.constant:
            yield RunKey(variant.label, 0, 0, 0, NOVEL)
        else:
            yield from (RunKey(variant.label, NOVEL_SHOTS, s, i, NOVEL) for s in self.seeds for i in self.inits)

    @property
    def drawn_shots(self) -> tuple[int, ...]:
        """Every K that shots are drawn for."""
        return tuple(sorted({*self.shots, *((NOVEL_SHOTS,) if self.novel else ())}))

    @property
    def averaged(self) -> tuple[int, ...]:
        """Shots that averages are over: 4 and more, all where there are none."""
        return tuple(k for k in self.shots if k >= FROM) or self.shots

    def variant(self, label: str) -> Variant:
        """Return a method of the comparison by its label."""
        return next(v for v in self.variants if v.label == label)


@dataclass(frozen=True)
class Design:
    """What somebody wants compared."""

    methods: Sequence[str] | None = None
    """Names, with options after colons (`svd:lr=0.01`); all where None."""
    quick: bool = False
    """Leave out those that train towers, where `methods` is None."""
    shots: Sequence[int] = SHOTS
    """K, each at least 1."""
    seeds: int | Sequence[int] = SEEDS
    """How many draws of shots (0, 1, …), or their seeds: draw 0 has the shots of `adapt --seed 0`."""
    inits: int = 1
    """How many initialisations for each draw (0, 1, …), likewise those of `adapt --init-seed`."""
    references: Sequence[str] = REFERENCES
    """What every method is compared with, as far as it takes part; a pack's name or folder is one, too."""
    novel: bool = False
    """Also learn from base classes and ask for novel ones."""


def pack_baseline(pack: Path, name: str) -> Variant:
    """Return the logistic regression on the image features of another pack, without its words."""
    return Variant(f"linear-probe on {name}", "linear-probe", {"start": "zeros"}, pack, name)


def make_protocol(
    design: Design, *, has_text: bool = True, ordered: bool = False, packs: Mapping[str, Variant] | None = None
) -> Protocol:
    """Check what was asked for.

    Args:
        design: Methods, shots and draws that are wanted.
        has_text: Whether the base understands words; where no method is named, those that need them are left out else.
        ordered: Whether the classes are steps of a scale; where no method is named, those that learn steps are left
            out else.
        packs: The references of the design that are packs, by what it calls them, from `pack_baseline`.

    Raises:
        MedclipError: WRONG_USE for a method that there is none of, one that needs words where the base has none, an
            option that cannot be read, or counts below one.
    """
    methods, shots, seeds = design.methods, design.shots, design.seeds
    every = [m.name for m in of_labels() if not (design.quick and m.trains_towers) and ordered >= m.of_steps]
    names = every if methods is None else list(methods)
    if not has_text:
        names = [n for n in names if n in without_words(ordered=ordered)] if methods is None else names
    for name in names:
        choose_method(parse_variant(name).method, has_text=has_text)
    packs = packs or {}
    variants = {v.label: v for v in [*map(parse_variant, names), *packs.values()]}
    chosen = tuple(sorted(set(shots)))
    drawn = tuple(range(seeds)) if isinstance(seeds, int) else tuple(dict.fromkeys(seeds))
    if not variants or not chosen or chosen[0] < 1 or not drawn or design.inits < 1:
        raise MedclipError(
            Reason.WRONG_USE, "a comparison takes at least one method, one shot, one seed and one initialisation."
        )
    references = [packs[r].label if r in packs else r for r in design.references]
    if packs.keys() >= set(design.references):  # packs come beside the usual ones
        references += REFERENCES
    strange = [r for r in references if r not in variants and r not in REFERENCES]
    if strange:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{strange[0]!r} cannot be the baseline: it is not compared.",
            hint="Name it with --method, too.",
        )
    kept = tuple(r for r in dict.fromkeys(references) if r in variants)
    return Protocol(tuple(variants.values()), chosen, drawn, tuple(range(design.inits)), kept, design.novel)


def parse_variant(text: str) -> Variant:
    """Read a method with its options.

    Example:
        >>> parse_variant("svd:lr=0.01:layers=top").options
        {'lr': 0.01, 'layers': 'top'}

    Raises:
        MedclipError: WRONG_USE.
    """
    name, *parts = text.strip().split(":")
    find_method(name)  # said before what is wrong with its options
    options = {}
    for part in parts:
        key, value = key_value(part, name, f"{name}:option=value")
        options[key] = read_value(value, name)
    find_method(name).check(options)
    return Variant(text.strip(), name, options)
