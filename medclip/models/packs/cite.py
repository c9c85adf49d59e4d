"""BibTeX of a pack, of the data that it was trained on, and of what it began with; as `medclip models cite`.

All of it comes from the card. Works that the card names as such (`citations`) are written as they are; data and starts
that it names in words alone become entries of these words, and a note says that somebody has to look up the papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import printable
from medclip.models.packs.card import (
    ADAPTED_FROM,
    IMAGE_TOWER_OF,
    IMPORTED,
    MERGED_FROM,
    STARTED_FROM,
    Card,
    Source,
    read_card,
)
from medclip.models.packs.card_citations import Citation, harmless, key_of, pack_note, united
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import find_pack
from medclip.result import Result
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from medclip.models.model import Model

_STARTS = {
    STARTED_FROM: "training began with it",
    ADAPTED_FROM: "it was adapted to a task",
    IMAGE_TOWER_OF: "the image tower began as its own",
    "image_tower": "the image tower began with it",
    "text_teacher": "it taught the text tower",
}
"""Keys of `created_from` that name another model, and what the model was to the pack."""


@dataclass(frozen=True, repr=False)
class PackCitations(Result):
    """What to cite where a pack was used."""

    name: str
    version: str
    licence: str
    """Of the weights; blank where the card states none."""
    digest: str
    """sha256 of the pack's manifest.json, which has the hash of every file."""
    citations: tuple[Citation, ...]
    """The pack itself first, then its data and what it began with."""
    notes: tuple[str, ...] = ()
    """What the card does not say, in sentences."""
    remarks: Mapping[str, str] | None = None
    """By name of data: how much of it, under which licence, from where."""

    @property
    def bibtex(self) -> str:
        """The text of a .bib file: what must be known first, as text between entries, which BibTeX passes over."""
        head = "".join(f"% {_outside(note)}\n" for note in self.notes)
        return "\n".join([*([head] if head else []), *(self._entry(one) for one in self.citations)])

    def _entry(self, citation: Citation) -> str:
        remark_of = self.remarks or {}
        remarks = (f"% {_outside(name)}: {_outside(remark_of[name])}\n" for name in citation.of if name in remark_of)
        return f"{''.join(remarks)}{citation.bibtex()}"

    def _facts(self) -> Mapping[str, object]:
        return {
            "pack": f"{self.name} {self.version}",
            "licence of the weights": self.licence or "not stated",
            "digest": self.digest,
            "works": len(self.citations),
            "notes": " ".join(self.notes),
            "as text": "print(result.bibtex)",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [
            {
                "key": one.key,
                "type": one.type,
                "of": list_of(one.of) or "the pack itself",
                **{name: one.fields.get(name, "") for name in ("author", "title", "year", "doi")},
            }
            for one in self.citations[:most]
        ]


def cite_pack(model: str | Path | Model) -> PackCitations:
    """Return what to cite where a pack was used: the pack itself, its training data, and what it began with.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID.
    """
    path = find_pack(model)
    card, digest = read_card(path), pack_digest(path)
    named = {name for citation in card.citations for name in citation.of}
    in_words = [source for source in card.data if source.name not in named]
    stated = [one for one in card.citations if not one.of]
    of_pack = [_entry_of_pack(card, digest, one) for one in stated or [None]]
    works = united(
        [*of_pack, *(one for one in card.citations if one.of), *_of_data(in_words), *_of_starts(card, named)]
    )
    return PackCitations(
        card.name,
        card.version,
        card.licence,
        digest,
        works,
        tuple(_notes(card, of_pack, in_words)),
        _remarks(card.data),
    )


def _entry_of_pack(card: Card, digest: str, stated: Citation | None) -> Citation:
    """Return the entry of the pack itself, as its makers state it or from its name, with version and hash."""
    imported = card.created_from.get(IMPORTED)
    facts = [f"licence of the weights: {card.licence or 'not stated'}"]
    facts += [f"imported from {imported}"] if imported else []
    if stated is None:
        stated = Citation(
            key=key_of(f"{card.name}-{card.version}"), type="software", fields={"title": _text(card.name)}
        )
    added = _fields(version=card.version, note=pack_note(digest, *facts))
    return stated.model_copy(update={"fields": stated.fields | added})


def _of_data(sources: Iterable[Source]) -> Iterator[Citation]:
    """Yield an entry for each set of data that the card names in words alone."""
    for name in dict.fromkeys(source.name for source in sources):
        rows = [source for source in sources if source.name == name]
        words = "; ".join(dict.fromkeys(source.source for source in rows if source.source))
        fields = {"title": _text(words or name)} | _fields(note=f"Training data {name}")
        yield Citation(key=key_of(name), of=(name,), fields=fields)


def _of_starts(card: Card, named: set[str]) -> Iterator[Citation]:
    """Yield an entry for each model that the pack goes back to and no entry of the card is of."""
    base = card.adapted
    of_base = (ADAPTED_FROM,) if ADAPTED_FROM in card.created_from else (STARTED_FROM, IMAGE_TOWER_OF)
    of_base = () if base is None else of_base
    if base is not None and not named & set(of_base):
        yield _ancestor(base.base, base.base_version, base.base_digest, ADAPTED_FROM, _STARTS[ADAPTED_FROM])
    for key, what in _STARTS.items():
        text = card.created_from.get(key)
        if text and key not in named and key not in of_base:
            fields = {"title": _text(str(text)), "note": f"A model that the pack goes back to: {what}"}
            yield Citation(key=key_of(key), of=(key,), fields=fields)
    merged = card.created_from.get(MERGED_FROM)
    for part in merged if isinstance(merged, list) else ():
        if isinstance(part, dict):
            name, version, digest = (str(part.get(key, "")) for key in ("name", "version", "manifest"))
            if (label := f"{name} {version}") not in named:
                yield _ancestor(name, version, digest, label, "it was merged with others")


def _ancestor(name: str, version: str, digest: str, label: str, what: str) -> Citation:
    fields = {"title": _text(name)} | _fields(version=version, note=pack_note(digest, what))
    return Citation(key=key_of(f"{name}-{version}"), type="software", of=(label,), fields=fields)


def _notes(card: Card, of_pack: list[Citation], in_words: list[Source]) -> Iterator[str]:
    """Yield what somebody who cites the pack must know."""
    if not card.data:
        origin = card.created_from.get(IMPORTED)
        yield "Nothing is known of the data that it was trained on: its card names none." + (
            f" It was imported from {origin}; look there." if origin else ""
        )
    elif not card.citations:
        yield (
            "Its card names its data in words, and no works to cite: the entries below are these words. "
            "Look up the papers that they name."
        )
    elif in_words:
        names = list(dict.fromkeys(source.name for source in in_words))
        yield f"Of {list_of(names)} its card names no work to cite: the entry is what it says in words."
    if not card.licence:
        yield "Its card states no licence of the weights."
    if not any("year" in citation.fields for citation in of_pack):
        yield "Its card does not say in which year it was published."


def _remarks(data: Iterable[Source]) -> dict[str, str]:
    """Return how much there is of each set of data, its licences and where it is from, by name."""
    remarks = {}
    for name in dict.fromkeys(source.name for source in data):
        rows = [source for source in data if source.name == name]
        images = [source.num_images for source in rows]
        total = sum(number for number in images if number is not None)
        size = [] if None in images else [count(total, "image")]
        licences = dict.fromkeys(source.licence for source in rows)
        origins = dict.fromkeys(source.source for source in rows if source.source)
        remarks[name] = "; ".join([*size, f"licence: {' / '.join(licences)}", *origins])
    return remarks


def _fields(**values: str) -> dict[str, str]:
    """Return fields of any text, without blank ones."""
    return {name: text for name, value in values.items() if (text := harmless(value))}


def _text(value: str) -> str:
    return harmless(value) or "(without a name)"


def _outside(text: str) -> str:
    """Return a text that BibTeX passes over between entries: an @ there would begin one."""
    return " ".join(printable(text).replace("@", "at").split())
