"""A strict reader of BibTeX for tests: entries with braced values, text between them passed over as BibTeX does."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    type: str
    key: str
    fields: dict[str, str]


def read_entries(text: str) -> list[Entry]:
    """Read all entries; an @ outside of them begins one, as in BibTeX, so a stray one fails here."""
    entries, place = [], 0
    while (at := text.find("@", place)) >= 0:
        head = re.compile(r"@([a-z]+)\{([^\s,{}]+),\n").match(text, at)
        assert head is not None, text[at : at + 80]
        fields, place = {}, head.end()
        while not text.startswith("}", place):
            name = re.compile(r"  ([a-z]+) = \{").match(text, place)
            assert name is not None, text[place : place + 80]
            depth, end = 1, name.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            value = text[name.end() : end - 1]
            assert "\n" not in value, value
            assert name[1] not in fields, name[1]
            fields[name[1]] = value
            assert text.startswith(",\n", end), text[end : end + 20]
            place = end + 2
        entries.append(Entry(head[1], head[2], fields))
    assert len({entry.key.lower() for entry in entries}) == len(entries)
    return entries
