"""Metadata of files that the user has: MeSH, RadLex, UMLS, SNOMED CT, and plain lists of entries.

What a file is, is told from its beginning, never from its name. None of these vocabularies comes with medclip: UMLS and
SNOMED CT need a licence of their own. Files of many gigabytes are read line by line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from medclip.errors import MedclipError, Reason, opening, refuse_missing
from medclip.files.tables.read_table import read_table
from medclip.pairs.selection.steps import FilterSettings
from medclip.text.checks.metadata import BUILT_IN, Metadata, built_in_metadata, medical_metadata, plain_metadata

Concepts = Iterable[tuple[str, list[str]]]
MESH_TREES = ("A", "C", "E01", "E02", "E03", "E04")
"""Anatomy, diseases, diagnosis, therapeutics, anaesthesia and surgical procedures."""
UMLS_TYPES = frozenset(
    {
        "Disease or Syndrome",
        "Finding",
        "Body Part, Organ, or Organ Component",
        "Diagnostic Procedure",
        "Neoplastic Process",
        "Injury or Poisoning",
        "Medical Device",
    }
)
SNOMED_KINDS = frozenset(
    {"disorder", "finding", "body structure", "morphologic abnormality", "procedure", "physical object"}
)
"""The same kinds, as fully specified names have them in brackets at their end."""
_FSN = "900000000000003001"
_CONCEPTS, _TYPES = "MRCONSO.RRF", "MRSTY.RRF"
_RF2 = ("id", "effectiveTime", "active", "moduleId", "conceptId", "languageCode", "typeId", "term")
_PREFERRED, _SYNONYMS = ("Preferred Label", "Preferred name", "Name or Synonym"), ("Synonyms", "Synonym")
_HEAD_BYTES = 4096
_FORMS = "Forms are MeSH (XML), RadLex (CSV), UMLS (MRCONSO.RRF), SNOMED CT (RF2 descriptions), and lists of entries."


class MetadataSettings(FilterSettings):
    """What a step is asked that matches texts with metadata."""

    metadata: str = BUILT_IN

    def places(self) -> tuple[str, ...]:
        """Return the file of the metadata, where it is one."""
        return () if self.metadata == BUILT_IN else (self.metadata,)


def read_metadata(place: str, folder: Path | None = None, *, reference: bool = False) -> Metadata:
    """Read metadata.

    Args:
        place: "built-in", a file, or the folder of a UMLS release.
        folder: Folder that a relative path is relative to.
        reference: Take a list of entries as it stands, as MetaCLIP does.

    Raises:
        MedclipError: MISSING_FILE; TABLE_INVALID for a file of none of the forms; NOTHING_TO_DO for one of which no
            entry is fit; WRONG_USE for a vocabulary of concepts in the reference's mode.
    """
    if place == BUILT_IN:
        built_in = built_in_metadata()
        return plain_metadata(built_in.entries, BUILT_IN) if reference else built_in
    path = (folder or Path()) / place
    refuse_missing(path)
    path = path / _CONCEPTS if path.is_dir() else path
    refuse_missing(path)
    read_concepts = _reader_of(path)
    if read_concepts is None:
        entries = read_list(path)
        return plain_metadata(entries, path.name) if reference else medical_metadata(_alone(entries), path.name)
    if reference:
        raise MedclipError(
            Reason.WRONG_USE,
            "the reference matches a list of entries, and this is a vocabulary of concepts.",
            where=path,
            hint="Leave out reference, or name a text file with one entry a line.",
        )
    return medical_metadata(read_concepts(path), path.name)


def _alone(entries: Iterable[str]) -> Concepts:
    return ((entry, [entry]) for entry in entries)


def _reader_of(path: Path) -> Callable[[Path], Concepts] | None:
    """Return what reads the concepts of a file, by its first bytes; None for a list of entries."""
    with opening(), path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].rstrip(b"\r")
    if b"\0" in head:
        raise _no_form(path)
    if b"<DescriptorRecord" in head:
        return read_mesh
    if first.split(b"\t")[:8] == [name.encode() for name in _RF2]:
        return read_snomed
    if first.count(b"|") >= 17:
        return read_umls
    if any(name.lower().encode() in first.lower() for name in _PREFERRED):
        return read_radlex
    if first.lstrip().startswith(b"<") or first.count(b"\t") > 1 or first.count(b"|") > 1:
        raise _no_form(path)
    return None


def _no_form(path: Path) -> MedclipError:
    return MedclipError(Reason.TABLE_INVALID, "this is no metadata that medclip reads.", where=path, hint=_FORMS)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text in UTF-8, one after the other."""
    try:
        with opening(), path.open(encoding="utf-8-sig", newline="\n") as stream:
            for line in stream:
                yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise MedclipError(
            Reason.TABLE_INVALID, "this is not UTF-8 text.", where=path, hint="Convert it to UTF-8."
        ) from None


def read_list(path: Path) -> list[str]:
    """Read entries: one a line, or a JSON list of texts, as MetaCLIP's metadata.json is.

    Raises:
        MedclipError: TABLE_INVALID.
    """
    lines = list(_lines(path))
    if not (lines and lines[0].lstrip().startswith("[")):
        return lines
    try:
        values = json.loads("\n".join(lines))
    except (ValueError, RecursionError):
        raise MedclipError(Reason.TABLE_INVALID, "this is no JSON list of entries.", where=path) from None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise MedclipError(Reason.TABLE_INVALID, "a JSON list of entries holds texts alone.", where=path)
    return values


def read_mesh(path: Path) -> Concepts:
    """Read MeSH descriptors (desc2026.xml): the name and the entry terms of those in `MESH_TREES`.

    Raises:
        MedclipError: TABLE_INVALID for XML that is damaged or declares entities.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    try:
        with opening(), path.open("rb") as stream:
            root = None
            for event, element in iterparse(stream, events=("start", "end")):
                root = element if root is None else root
                if event != "end" or element.tag != "DescriptorRecord":
                    continue
                name = element.findtext("DescriptorName/String", "")
                trees = [tree.text or "" for tree in element.iterfind("TreeNumberList/TreeNumber")]
                if name and any(tree.startswith(MESH_TREES) for tree in trees):
                    terms = element.iterfind("ConceptList/Concept/TermList/Term/String")
                    yield name, [name, *(term.text or "" for term in terms)]
                root.clear()  # a release has 30,000 records, and no other is needed any more
    except DefusedXmlException:
        raise MedclipError(Reason.TABLE_INVALID, "the XML declares entities, which are not read.", where=path) from None
    except ParseError:
        raise MedclipError(
            Reason.TABLE_INVALID, "the XML is damaged, or cut off.", where=path, hint="Copy it again."
        ) from None


def read_radlex(path: Path) -> Concepts:
    """Read RadLex as a table: the preferred name and synonyms, which bars part; obsolete terms are left out."""
    table = read_table(path, "the table of RadLex")
    preferred, synonyms = table.find(*_PREFERRED), table.find(*_SYNONYMS)
    obsolete = table.find("Obsolete")
    for row in table.rows():
        name = row[preferred] if preferred else ""
        if name and not (obsolete and row[obsolete].lower() in ("true", "1")):
            yield name, [name, *(row[synonyms].split("|") if synonyms else ())]


def read_umls(path: Path) -> Concepts:
    """Read MRCONSO.RRF: English names that are not suppressed, of concepts of `UMLS_TYPES` if MRSTY.RRF lies beside it.

    Raises:
        MedclipError: TABLE_INVALID for a row with too few fields.
    """
    types = path.with_name(_TYPES)
    of_type: set[str] | None = None
    if types.exists():
        fields = (_fields(line, 4, types) for line in _lines(types) if line)
        of_type = {row[0] for row in fields if row[3] in UMLS_TYPES}
    cui, name, wordings = "", "", list[str]()
    for line in _lines(path):  # sorted by concept
        row = _fields(line, 17, path) if line else []
        if not row or row[1] != "ENG" or row[16] != "N" or (of_type is not None and row[0] not in of_type):
            continue
        if row[0] != cui:
            if wordings:
                yield name or wordings[0], wordings
            cui, name, wordings = row[0], "", []
        if not name and (row[2], row[4], row[6]) == ("P", "PF", "Y"):
            name = row[14]
        wordings.append(row[14])
    if wordings:
        yield name or wordings[0], wordings


def _fields(line: str, least: int, path: Path) -> list[str]:
    row = line.split("|")
    if len(row) < least:
        raise MedclipError(
            Reason.TABLE_INVALID, f"a row has {len(row)} fields, and {least} or more are expected.", where=path
        )
    return row


def read_snomed(path: Path) -> Concepts:
    """Read SNOMED CT's descriptions (RF2): active English terms of concepts whose name says one of `SNOMED_KINDS`.

    Raises:
        MedclipError: TABLE_INVALID for a row with too few fields.
    """
    names: dict[str, str] = {}
    other: set[str] = set()
    wordings: dict[str, list[str]] = {}
    rows = _lines(path)
    next(rows, None)
    for line in rows:
        row = line.split("\t")
        if len(row) < len(_RF2):
            if line:
                raise MedclipError(Reason.TABLE_INVALID, f"a row has {len(row)} fields, and not 9.", where=path)
            continue
        active, concept, language, kind, term = row[2], row[4], row[5], row[6], row[7]
        if active != "1" or not language.startswith("en"):
            continue
        if kind != _FSN:
            wordings.setdefault(concept, []).append(term)
            continue
        bare, _, tag = term.removesuffix(")").rpartition(" (")
        names[concept] = bare or term
        if bare and tag not in SNOMED_KINDS:
            other.add(concept)
        wordings.setdefault(concept, []).append(bare or term)
    return [(names.get(c, terms[0]), terms) for c, terms in wordings.items() if c not in other]
