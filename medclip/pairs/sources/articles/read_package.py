"""What a reading process does with a package: read the article, find its figures, shrink and encode them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from medclip.adapters.base import Source, source_of
from medclip.adapters.generic import GenericAdapter
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.temporary_folder import TemporaryFolder
from medclip.imaging.geometry import fit
from medclip.imaging.intensity import to_uint8
from medclip.imaging.raster import read_raster
from medclip.pairs.sources.articles.jats import Article, Figure, read_article
from medclip.pairs.sources.articles.licenses import LICENSE_CLASSES, class_of_license, license_of
from medclip.pairs.sources.articles.packages import Opened, Package, open_package
from medclip.sample import Kind
from medclip.settings import Settings
from medclip.shards.stored_data import Format, encode

MIN_SIDE_PX = 20
"""Both sides of a figure are longer."""
_ADAPTER = GenericAdapter()


@dataclass(frozen=True)
class ReadForm:
    """How figures are read, and of which articles."""

    max_side_px: int = 288
    stored: Format = "png"
    quality: int = 95
    licenses: tuple[str, ...] = LICENSE_CLASSES
    """Classes that are kept."""


@dataclass(frozen=True)
class ReadFigure:
    """A figure, ready to be written."""

    facts: Mapping[str, Any]
    """What the JSON says of it: words, file, hash and sizes."""
    sha256: str
    """Of the file."""
    image: bytes


@dataclass(frozen=True)
class Reject:
    """A figure, or a package, that gave no sample."""

    figure: str
    """Id of the image; "" for the package as a whole."""
    sha256: str
    problem: Problem


@dataclass(frozen=True)
class ReadPackage:
    """What became of a package."""

    article: Mapping[str, Any]
    """Fields of the article; nothing where it could not be read."""
    figures: tuple[ReadFigure, ...] = ()
    rejects: tuple[Reject, ...] = ()

    @classmethod
    def rejected(cls, problem: Problem) -> Self:
        """Return the result of a package of which nothing can be read."""
        return cls({}, (), (Reject("", "", problem),))


def preprocessing() -> str:
    """Return the hash of what decides the pixels of figures."""
    return _ADAPTER.preprocessing_of(Kind.IMAGE)


def read_package(package: Package, form: ReadForm, settings: Settings) -> ReadPackage:
    """Read a package. What cannot be read has its problem: nothing is raised.

    Args:
        package: Package to read.
        form: Form of the figures, and the licences that are kept.
        settings: Limits of what is read.

    Returns:
        Figures in the order of the article, and a reject for each that is none, or one for a package of which nothing
        can be read.
    """
    try:
        if (stated := package.stated.get("license")) and (problem := _not_kept(license_of(stated), form)):
            return ReadPackage.rejected(problem)  # it need not be opened
        opened = open_package(package)
        article = read_article(opened.article)
    except MedclipError as e:
        return ReadPackage.rejected(e.problem())
    except MemoryError:
        return ReadPackage.rejected(Problem(Reason.TOO_LARGE, "the package does not fit into memory."))
    facts = _facts(package, article)
    if not article.figures:
        return ReadPackage(facts, (), (Reject("", "", Problem(Reason.NO_PIXELS, "the article has no figure.")),))
    problem = _not_kept(facts["license"], form)
    figures: list[ReadFigure] = []
    rejects: list[Reject] = []
    with TemporaryFolder("articles") as folder:
        for result in _read_figures(article.figures, problem, opened, folder, form, settings):
            rejects.append(result) if isinstance(result, Reject) else figures.append(result)
    return ReadPackage(facts, tuple(figures), tuple(rejects))


NOT_KEPT = "is not among those that are kept."
"""How the problem of a licence ends."""


def _not_kept(license_name: str, form: ReadForm) -> Problem | None:
    kind = class_of_license(license_name)
    if kind in form.licenses:
        return None
    stated = f"licence {license_name!r}, {kind}," if license_name else "article states no licence, which"
    return Problem(Reason.OTHER_INPUT, f"the {stated} {NOT_KEPT}")


def _facts(package: Package, article: Article) -> dict[str, Any]:
    """Return the fields of an article; what the list states goes before what the article says."""
    facts = {**article.facts, "citation": "", **package.stated}
    facts["accession_id"] = facts["accession_id"] or package.stem
    facts["license"] = license_of(facts["license"])
    facts["license_class"] = class_of_license(facts["license"])
    facts["image_set"] = [figure.image_id for figure in article.figures if figure.label or figure.caption]
    return facts


def _read_figures(
    figures: Sequence[Figure],
    not_kept: Problem | None,
    opened: Opened,
    folder: Path,
    form: ReadForm,
    settings: Settings,
) -> Iterator[ReadFigure | Reject]:
    for number, figure in enumerate(figures, 1):
        problem = figure.problem or not_kept
        name = None if problem is not None else opened.find(figure.hrefs)
        if problem is None and name is None:
            problem = Problem(Reason.MISSING_FILE, "the package does not hold the figure's image.")
        if problem is not None or name is None:
            assert problem is not None
            yield Reject(figure.image_id, "", problem)
            continue
        sha256 = ""
        try:
            source = source_of(_file_of(opened.images[name], folder / f"{number}{Path(name).suffix.lower()}"), settings)
            sha256 = source.first.sha256
            yield _read_figure(figure, number, name, source, form, settings)
        except MedclipError as e:
            yield Reject(figure.image_id, sha256, e.problem())
        except MemoryError:
            yield Reject(figure.image_id, sha256, Problem(Reason.TOO_LARGE, "the image does not fit into memory."))
        except Exception as e:  # a decoder's own error
            problem = Problem(Reason.CORRUPT, f"the image could not be decoded ({type(e).__name__}).")
            yield Reject(figure.image_id, sha256, problem)


def _file_of(image: Path | bytes, place: Path) -> Path:
    """Return a file with an image; the name of a member names no file of this machine."""
    if isinstance(image, Path):
        return image
    place.write_bytes(image)
    return place


def _read_figure(
    figure: Figure, number: int, name: str, source: Source, form: ReadForm, settings: Settings
) -> ReadFigure:
    """Read the pixels of a figure as the generic adapter renders them, but on white paper.

    Depth, palettes, CMYK and transparency become 8 bits of grey or RGB, by what `read_raster` and the adapter state.

    Raises:
        MedclipError: TOO_SMALL; as `read_raster`.
    """
    if source.first.problem is not None:
        raise source.first.problem.error(name)
    decoded = read_raster(source.path, source.first.format, settings, paper=True)
    height, width = decoded.pixels.shape[:2]
    if min(height, width) <= MIN_SIDE_PX:
        raise MedclipError(
            Reason.TOO_SMALL, f"the image has {width} x {height} pixels; both sides are more than {MIN_SIDE_PX}."
        )
    view, _ = _ADAPTER.render(decoded, source.first, cropped=False)
    pixels = fit(to_uint8(view), form.max_side_px)
    words = {key: value for key, value in asdict(figure).items() if key not in ("hrefs", "problem")}
    sizes = {"size": [pixels.shape[1], pixels.shape[0]], "source_size": [width, height]}
    sha256 = source.first.sha256
    facts = {**words, "position": number, "file": name, "hash": sha256, **sizes}
    return ReadFigure(facts, sha256, encode(pixels, form.stored, form.quality))
