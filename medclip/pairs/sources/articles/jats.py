"""Read an article in JATS XML: its figures, their captions, and the paragraphs that cite them.

Reference: Lozano et al., "BIOMEDICA: An Open Biomedical Image-Caption Archive, Dataset, and Vision-Language Models
Derived from Scientific Literature", CVPR 2025. Unlike its own extraction, a caption is looked for at the nearest figure
above a graphic (`alternatives` stand between them), a reference may be nested in other markup and name several figures,
a title and the paragraph behind it are two words apart, and nothing is repeated.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Problem, Reason

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_XML_BYTES = 64 << 20
"""Refuse larger texts: parsed, they take ten times as much. The longest articles of PMC have some megabytes."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif")
"""Of image files, the one that is read before others first."""
_BLOCKS = frozenset({"p", "title", "label", "list-item", "list", "break", "sec", "td", "th", "tr", "disp-quote", "def"})
"""Elements with room around them; all others stand in the middle of a word as often as not."""
_SILENT = frozenset({"tex-math", "annotation", "annotation-xml", "alt-text", "long-desc", "object-id"})
"""Elements whose text says again, in another form, what stands beside them."""
_FLOATS = frozenset({"fig", "fig-group", "table-wrap", "boxed-text", "disp-formula-group", "supplementary-material"})
"""What may stand within a paragraph and is no part of its text."""
_FORMULAE = frozenset({"disp-formula", "inline-formula"})
_DASH = "[-\u2013\u2014]"
_PANELS = re.compile(rf"\d\s*[(\[]?([A-Za-z](?:\s*(?:,|and|&)?\s*[A-Za-z]\b)*(?:\s*{_DASH}\s*[A-Za-z]\b)?)[)\]]?$")
_PANELS_BEHIND = re.compile(rf"^([A-Z](?:\s*,\s*[A-Z]\b)*(?:\s*{_DASH}\s*[A-Z]\b)?)(?![A-Za-z])")
_RANGE = re.compile(rf"([A-Za-z])\s*{_DASH}\s*([A-Za-z])")


@dataclass(frozen=True)
class Figure:
    """One image of an article that is to become a sample, or the reason why it can't."""

    image_id: str
    """Base name of the reference to its file, as the article writes it."""
    hrefs: tuple[str, ...] = ()
    """Base names that its file may have: those of all `alternatives`."""
    label: str = ""
    caption: str = ""
    """Title and paragraphs, one blank between them."""
    context: tuple[str, ...] = ()
    """Paragraphs that cite it, once each, with references to figures as `[FIG:image_id|words]`."""
    plain_context: tuple[str, ...] = ()
    """The same as a reader sees them."""
    panels: tuple[str, ...] = ()
    """Letters of the parts that the paragraphs name: "A" of "Figure 1A"."""
    problem: Problem | None = None


@dataclass(frozen=True)
class Article:
    """What an article says of itself, and its figures in their order."""

    facts: Mapping[str, Any]
    """Fields of the article by name, as JSON can hold them; `license` as the article words it."""
    figures: tuple[Figure, ...]


def read_article(data: bytes) -> Article:
    """Read an article.

    Args:
        data: JATS XML. A document type is passed over; it is not looked for, nor may it declare entities.

    Returns:
        The article. Equations, images outside of figures, figures that were shown already and those without a caption
        carry their problem.

    Raises:
        MedclipError: TOO_LARGE beyond `MAX_XML_BYTES`; CORRUPT for what is not well-formed, declares entities or refers
            to any outside; NOT_AN_IMAGE for XML that is no article.
    """
    try:
        root = _parse(data)
        parents = {child: parent for parent in root.iter() for child in parent}
        return Article(_facts(root), _figures(root, parents))
    except RecursionError:
        raise MedclipError(Reason.CORRUPT, "the elements of the article are nested too deep.") from None


def _parse(data: bytes) -> Element:
    """Parse, and name every element and attribute without its namespace."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if len(data) > MAX_XML_BYTES:
        raise MedclipError(
            Reason.TOO_LARGE, f"the text of the article has {len(data) >> 20} MB; {MAX_XML_BYTES >> 20} are read."
        )
    try:
        root: Element = fromstring(data, forbid_dtd=False, forbid_entities=True, forbid_external=True)
    except DefusedXmlException:
        raise MedclipError(Reason.CORRUPT, "the article declares entities, which are not expanded.") from None
    except (ParseError, ValueError, LookupError) as e:  # an encoding that nobody has is a LookupError
        raise MedclipError(Reason.CORRUPT, f"the article is not well-formed XML ({type(e).__name__}).") from None
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    if root.tag != "article":
        inner = root.find(".//article")
        if inner is None:
            raise MedclipError(Reason.NOT_AN_IMAGE, "the XML is no article of JATS.")
        root = inner
    return root


# Figures.


def _figures(root: Element, parents: Mapping[Element, Element]) -> tuple[Figure, ...]:
    """Return every image of an article, in its order."""
    images: list[tuple[Element | None, Figure]] = []
    ids_of: dict[str, list[str]] = {}
    seen: set[str] = set()
    for graphic in _first_of_alternatives(root, parents):
        hrefs = tuple(dict.fromkeys(_href(other) for other in _alternatives(graphic, parents)))
        image_id = next(filter(None, hrefs), "")
        above = _nearest(graphic, parents, _FORMULAE | {"fig"})
        problem = _problem(above, image_id, seen)
        if above is None or problem is not None:
            images.append((None, Figure(image_id, hrefs, problem=problem)))
            continue
        seen.add(image_id)
        ids_of.setdefault(above.get("id", ""), []).append(image_id)
        images.append((above, Figure(image_id, hrefs)))
    citing = _citations(root, parents, ids_of)
    return tuple(figure if above is None else _with_words(figure, above, citing) for above, figure in images)


def _problem(above: Element | None, image_id: str, seen: set[str]) -> Problem | None:
    if above is None:
        return Problem(Reason.OTHER_INPUT, "the image stands in no figure, so that nothing is its caption.")
    if above.tag in _FORMULAE:
        return Problem(Reason.NOT_AN_IMAGE, "the image is an equation.")
    if not image_id:
        return Problem(Reason.MISSING_FILE, "the figure names no file.")
    if image_id in seen:
        return Problem(Reason.DUPLICATE, "the article shows this image in an earlier figure, too.")
    return None


def _with_words(figure: Figure, above: Element, citing: Mapping[str, Sequence[_Citation]]) -> Figure:
    """Return a figure with its words."""
    caption = next((child for child in above if child.tag == "caption"), None)
    label = next((child for child in above if child.tag == "label"), None)
    text = "" if caption is None else _text(caption)
    # Its own caption is no context, also where that cites the figure itself.
    citations = [one for one in citing.get(figure.image_id, ()) if one.figure is not above]
    return Figure(
        figure.image_id,
        figure.hrefs,
        "" if label is None else _text(label),
        text,
        tuple(dict.fromkeys(one.marked for one in citations)),
        tuple(dict.fromkeys(one.plain for one in citations)),
        tuple(dict.fromkeys(letter for one in citations for letter in one.panels)),
        None if text else Problem(Reason.EMPTY_CAPTION, "the figure has no caption."),
    )


def _first_of_alternatives(root: Element, parents: Mapping[Element, Element]) -> Iterator[Element]:
    for element in root.iter():
        is_image = element.tag == "graphic" or (
            element.tag == "inline-graphic" and _nearest(element, parents, _FORMULAE) is not None
        )
        if is_image and _alternatives(element, parents)[0] is element:
            yield element


def _alternatives(graphic: Element, parents: Mapping[Element, Element]) -> list[Element]:
    """Return the graphics that show the same as one, itself included."""
    parent = parents.get(graphic)
    if parent is None or parent.tag != "alternatives":
        return [graphic]
    return [child for child in parent if child.tag == graphic.tag]


def _href(graphic: Element) -> str:
    """Return the base name of the file that an element refers to, whatever prefix the attribute has."""
    for name, value in graphic.attrib.items():
        if name.rpartition("}")[2] == "href":
            return posixpath.basename(unicodedata.normalize("NFC", value.strip()).replace("\\", "/"))
    return ""


def _nearest(element: Element, parents: Mapping[Element, Element], tags: frozenset[str]) -> Element | None:
    at = parents.get(element)
    while at is not None and at.tag not in tags:
        at = parents.get(at)
    return at


# The paragraphs that cite them.


@dataclass(frozen=True)
class _Citation:
    figure: Element | None
    """The figure in whose caption the paragraph stands."""
    marked: str
    plain: str
    panels: tuple[str, ...]


def _citations(
    root: Element, parents: Mapping[Element, Element], ids_of: Mapping[str, Sequence[str]]
) -> dict[str, list[_Citation]]:
    """Return the citations of each image, in the order of the text."""
    citing: dict[str, list[_Citation]] = {}
    texts: dict[Element, tuple[str, str]] = {}
    for xref in root.iter("xref"):
        images = _images_of(xref, ids_of)
        paragraph = _nearest(xref, parents, frozenset({"p"})) if images else None
        if paragraph is None:
            continue
        if paragraph not in texts:
            texts[paragraph] = _text(paragraph, ids_of), _text(paragraph, {})
        figure = _nearest(paragraph, parents, frozenset({"fig"}))
        one = _Citation(figure, *texts[paragraph], _panels(_text(xref), xref.tail or ""))
        for image_id in images:
            citing.setdefault(image_id, []).append(one)
    return citing


def _images_of(xref: Element, ids_of: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the images that a reference names; none for one to anything but figures."""
    if xref.get("ref-type") != "fig":
        return []
    return list(dict.fromkeys(image for rid in xref.get("rid", "").split() for image in ids_of.get(rid, ())))


def _panels(words: str, behind: str) -> tuple[str, ...]:
    """Return the letters of a reference to parts of a figure, which may stand behind it: "Figure 1" and "A"."""
    match = _PANELS.search(words)
    if match is None and words[-1:].isdigit():
        match = _PANELS_BEHIND.match(behind)
    if match is None:
        return ()
    letters: list[str] = []
    text = _RANGE.sub(lambda m: ",".join(map(chr, range(ord(m[1].upper()), ord(m[2].upper()) + 1))), match[1])
    for part in re.split(r"[\s,&]+|and", text):
        letters += [part.upper()] if len(part) == 1 else []
    return tuple(dict.fromkeys(letters))


# Words.


def _text(element: Element, ids_of: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the text of an element, once, in NFC, with single blanks.

    Args:
        element: The element.
        ids_of: Images by the ids of their figures. References to them are marked, and floats within the text are left
            out; None for a caption, which has all its text.
    """
    pieces: list[str] = []

    def take(at: Element) -> None:
        images = _images_of(at, ids_of) if ids_of and at.tag == "xref" else []
        pieces.append(f"[FIG:{' '.join(images)}|" if images else " " if at.tag in _BLOCKS else "")
        pieces.append(at.text or "")
        for child in at:
            if child.tag not in _SILENT and (ids_of is None or child.tag not in _FLOATS):
                take(child)
            pieces.append(child.tail or "")
        pieces.append("]" if images else " " if at.tag in _BLOCKS else "")

    take(element)
    return " ".join(unicodedata.normalize("NFC", "".join(pieces)).split())


# The article itself.


def _facts(root: Element) -> dict[str, Any]:
    front = root.find("front")
    meta = None if front is None else front.find("article-meta")
    ids = {kind.get("pub-id-type", ""): _text(kind) for kind in ([] if meta is None else meta.findall("article-id"))}
    accession = next((ids[kind] for kind in ("pmcid", "pmc", "pmc-id") if ids.get(kind)), "")
    references = root.findall(".//ref-list//ref")
    pmids = (_text(one) for ref in references for one in ref.iter("pub-id") if one.get("pub-id-type") == "pmid")
    return {
        "accession_id": f"PMC{accession}" if accession.isdigit() else accession,
        "pmid": ids.get("pmid", ""),
        "doi": ids.get("doi", ""),
        "title": _first(meta, "title-group/article-title"),
        "journal": _first(front, "journal-meta//journal-title"),
        "date": _date(meta),
        "abstract": _abstract(meta),
        "keywords": _all(meta, "kwd-group", "kwd", lambda group: not _is_mesh(group)),
        "mesh": _all(meta, "kwd-group", "kwd", _is_mesh),
        "subjects": _all(meta, "article-categories", "subject"),
        "reference_ids": list(dict.fromkeys(filter(None, pmids))),
        "reference_count": len(references),
        "license": _license(meta),
    }


def _first(at: Element | None, path: str) -> str:
    element = None if at is None else at.find(path)
    return "" if element is None else _text(element)


def _all(meta: Element | None, group: str, name: str, wanted: Any = lambda _: True) -> list[str]:
    """Return the texts of elements within groups, once each."""
    groups = [] if meta is None else [one for one in meta.findall(group) if wanted(one)]
    return list(dict.fromkeys(filter(None, (_text(element) for one in groups for element in one.iter(name)))))


def _is_mesh(group: Element) -> bool:
    return "mesh" in group.get("kwd-group-type", "").lower()


def _abstract(meta: Element | None) -> str:
    """Return the abstract, and not the graphical one, nor highlights."""
    kinds = [] if meta is None else meta.findall("abstract")
    return next((_text(one) for one in kinds if not one.get("abstract-type")), "")


def _date(meta: Element | None) -> str:
    """Return the earliest day of publication, as far as it is stated: 2024, 2024-06 or 2024-06-01."""
    days = []
    for one in [] if meta is None else meta.findall("pub-date"):
        parts = [_first(one, name) for name in ("year", "month", "day")]
        stated = parts[: next((i for i, part in enumerate(parts) if not part.isdecimal()), len(parts))]
        days += ["-".join(f"{int(part):02}" for part in stated)] if stated else []
    return min(days, default="")


def _license(meta: Element | None) -> str:
    """Return all that the article states of its licence: addresses, then words."""
    stated = [] if meta is None else [*meta.findall("permissions//license"), *meta.findall("permissions//license_ref")]
    links = [_link(inner) for one in stated for inner in one.iter()]
    kinds = (one.get("license-type", "") for one in stated)
    return " ".join(dict.fromkeys(filter(None, (*links, *kinds, *(_text(one) for one in stated)))))


def _link(element: Element) -> str:
    return next((value.strip() for name, value in element.attrib.items() if name.rpartition("}")[2] == "href"), "")
