"""What a card says of the works behind a pack, in parts that become BibTeX: its data, what it began with, itself.

A card of a stranger is read, and what is printed of it goes into somebody's bibliography and through LaTeX. So values
are plain text, in which a pair of braces keeps capitals as they are; a value with a backslash, a line break or braces
that do not close is refused when the card is read, and what LaTeX takes for its own (& % # _ $ ~ ^) is escaped when it
is written. The form is BibTeX's (Patashnik, BibTeXing, 1988); `dataset`, `online` and `software` are types of biblatex,
and of styles that do not know them, entries like `misc`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medclip.errors import printable

EntryType = Literal[
    "article",
    "book",
    "dataset",
    "incollection",
    "inproceedings",
    "misc",
    "online",
    "phdthesis",
    "software",
    "techreport",
]
_VERBATIM = frozenset({"doi", "url", "eprint"})
"""Fields that LaTeX does not typeset as text."""
_FIRST = ("author", "editor", "title", "booktitle", "journal")
"""Fields in the order in which a person looks for them; the others follow as the card has them."""
_ESCAPES = str.maketrans({c: f"\\{c}" for c in "&%#_$"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})
_HARMLESS = str.maketrans("{}\\\n", "()/ ")


class Citation(BaseModel):
    """One work to cite, and what of the pack it stands behind."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """The entry's key in BibTeX."""
    type: EntryType = "misc"
    of: tuple[str, ...] = ()
    """Names of the card's data (`data[].name`), keys of `created_from`, or "NAME VERSION" of a pack that this one goes
    back to; empty for the pack itself, where its makers say how they want it to be cited."""
    fields: dict[str, str]
    """Field to value, in plain text; authors as "Family, Given and Family, Given"."""

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[str, str]) -> dict[str, str]:
        if not fields.get("title", "").strip():
            raise ValueError("an entry needs a title")
        for name, value in fields.items():
            if not re.fullmatch(r"[a-z]{1,40}", name):
                raise ValueError("a field is named with small letters, such as author")
            if not value.strip() or not value.isprintable():
                raise ValueError(f"{name} must be one line of text")
            if "\\" in value or not _closes(value):
                raise ValueError(f"{name} must be plain text without a backslash, its braces in pairs")
        return fields

    def bibtex(self) -> str:
        r"""Write the entry, with a line break at its end.

        Example:
            >>> work = Citation(key="lee2017", type="article", fields={"title": "Lines & {CBIS}", "doi": "10.1/a_b"})
            >>> print(work.bibtex(), end="")
            @article{lee2017,
              title = {Lines \& {CBIS}},
              doi = {10.1/a_b},
            }
        """
        names = [name for name in _FIRST if name in self.fields]
        names += [name for name in self.fields if name not in names]
        lines = "".join(f"  {name} = {{{_escaped(name, self.fields[name])}}},\n" for name in names)
        return f"@{self.type}{{{self.key},\n{lines}}}\n"

    def of_ancestor(self, name: str, *, version: str, digest: str) -> Citation:
        """Return the entry as the card of a pack that goes back to this one has it, where this pack is an ancestor.

        Args:
            name: Name under which the other card knows this pack; see `of`.
            version: Version of this pack.
            digest: sha256 of its manifest.json.
        """
        if self.of:
            return self
        fields = self.fields | {"version": harmless(version), "note": pack_note(digest)}
        return self.model_copy(update={"of": (name,), "fields": fields})


def pack_note(digest: str, *facts: str) -> str:
    """Return the note of an entry that is of a pack.

    Example:
        >>> pack_note("5ba691b4", "licence of the weights: MIT")
        'Model pack; licence of the weights: MIT; SHA-256 of its manifest.json: 5ba691b4'
    """
    return "; ".join(["Model pack", *facts, *([f"SHA-256 of its manifest.json: {digest}"] if digest else [])])


def united(citations: Iterable[Citation]) -> tuple[Citation, ...]:
    """Return every work once, for all that it stands behind; works that share a key get keys of their own.

    Example:
        >>> one = Citation(key="a", of=("ptbxl",), fields={"title": "PTB-XL"})
        >>> other = Citation(key="a", of=("glas",), fields={"title": "GlaS"})
        >>> [(c.key, c.of) for c in united([one, one.model_copy(update={"of": ("ptbxl_z",)}), other])]
        [('a', ('ptbxl', 'ptbxl_z')), ('a-2', ('glas',))]
    """
    by_work: dict[tuple[str, tuple[tuple[str, str], ...]], Citation] = {}
    for citation in citations:
        work = citation.type, tuple(sorted(citation.fields.items()))
        before = by_work.get(work)
        names = (*(() if before is None else before.of), *citation.of)
        by_work[work] = (before or citation).model_copy(update={"of": tuple(dict.fromkeys(names))})
    keys: set[str] = set()
    every = []
    for citation in by_work.values():
        key, number = citation.key, 1
        while key.lower() in keys:  # BibTeX takes keys that differ in capitals alone for one
            number += 1
            key = f"{citation.key}-{number}"
        keys.add(key.lower())
        every.append(citation.model_copy(update={"key": key}))
    return tuple(every)


def harmless(text: str) -> str:
    """Return any text as a value of a field: one line, without braces and backslashes.

    Example:
        >>> harmless("a {b} of" + chr(10) + "c")
        'a (b) of c'
    """
    return " ".join(printable(text.translate(_HARMLESS)).translate(_HARMLESS).split())


def key_of(text: str) -> str:
    """Return a key that says what the entry is of.

    Example:
        >>> key_of("medclip-mini 1.2"), key_of("…")
        ('medclip-mini_1.2', 'work')
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.-")[:90] or "work"


def _escaped(name: str, value: str) -> str:
    return value if name in _VERBATIM else value.translate(_ESCAPES)


def _closes(value: str) -> bool:
    """Whether every brace has its other one."""
    depth = 0
    for c in value:
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return False
    return depth == 0
