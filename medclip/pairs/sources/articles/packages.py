"""Packages of articles: where they lie, what their list says of them, and what is in one.

A package is a folder with an article in XML and its figures, or a tar of such a folder, as PMC's open-access subset is
published. A tar is read in memory and never unpacked: what it may hold is bounded, and one that names places outside of
itself is refused as a whole.
"""

from __future__ import annotations

import gzip
import io
import os
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.pairs.sources.articles.jats import IMAGE_SUFFIXES, MAX_XML_BYTES
from medclip.wording import count

TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
XML_SUFFIXES = (".nxml", ".xml")
MAX_IMAGE_BYTES = 256 << 20
"""Of one figure in a tar."""
MAX_IMAGES_BYTES = 1 << 30
"""Of all figures of a tar, which are held in memory until the article has been read."""
MAX_UNPACKED_BYTES = 8 << 30
"""Of a tar, with what is passed over in it: films of some articles have gigabytes."""
_LIST_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "citation": ("Citation", "Article Citation"),
    "accession_id": ("Accession_ID", "Accession ID", "AccessionID", "PMCID"),
    "date": ("Date", "Last Updated (YYYY-MM-DD HH:MM:SS)", "Last Updated"),
    "license": ("License", "Licence"),
    "pmid": ("PMID",),
}
"""What a list may say of an article, by the names that PMC and others give its columns."""


@dataclass(frozen=True)
class Package:
    """One package, not yet opened."""

    name: str
    """Relative to the folder, or to that of the list."""
    path: Path
    number: int
    """1 for the first."""
    stated: Mapping[str, str] = field(default_factory=dict)
    """What the list says of the article, by field; empty cells are left out."""

    @property
    def stem(self) -> str:
        """Name without folders and suffixes, which stands for the article where it has no accession number."""
        return _stem(posixpath.basename(self.name))

    @property
    def stamp(self) -> list[Any]:
        """What changes when the package does: what the list says, and sizes and times of its files."""
        try:
            paths = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
            states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]
        except OSError:
            states = []
        return [dict(self.stated), [list(state) for state in states]]


def list_packages(place: Path) -> tuple[Package, ...]:
    """List the packages of a folder, or of a list.

    Args:
        place: Folder that is looked through, or one package; or a table with the column File and, where it has them,
            Citation, Accession_ID, Date, License and PMID, whose files lie relative to it.

    Returns:
        The packages, by name; those of a list in its order.

    Raises:
        MedclipError: MISSING_FILE; NOTHING_TO_DO for a folder without packages; TABLE_INVALID for a list without File.
    """
    if not place.exists():
        raise MedclipError(Reason.MISSING_FILE, "there is no such file or folder.", where=place, hint="Check the path.")
    if place.is_dir():
        names = sorted(_packages_below(place))
        packages = tuple(Package(name, place / name, n) for n, name in enumerate(names, 1))
    elif place.name.lower().endswith(TAR_SUFFIXES):
        packages = (Package(place.name, place, 1),)
    else:
        packages = tuple(_listed(place))
    if not packages:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "there is no package of an article here.",
            where=place,
            hint="A package is a .tar.gz, or a folder with one .nxml or .xml file and its figures.",
        )
    return packages


def _packages_below(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        relative = os.path.relpath(folder, root)
        if any(name.lower().endswith(XML_SUFFIXES) for name in files):
            folders.clear()  # what lies below belongs to the article
            yield relative
            continue
        yield from (os.path.normpath(os.path.join(relative, n)) for n in files if n.lower().endswith(TAR_SUFFIXES))


def _listed(place: Path) -> Iterator[Package]:
    table = read_table(place)
    files = table.texts(table.need("File", "the package of each article"))
    columns = {name: table.find(*names) for name, names in _LIST_COLUMNS.items()}
    values = {name: table.texts(column) for name, column in columns.items() if column is not None}
    for number, file in enumerate(files, 1):
        stated = {name: texts[number - 1].strip() for name, texts in values.items()}
        yield Package(file, place.parent / file, number, {name: text for name, text in stated.items() if text})


def _stem(name: str) -> str:
    suffix = next((s for s in (*TAR_SUFFIXES, *XML_SUFFIXES) if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


# What is in one.


@dataclass(frozen=True)
class Opened:
    """The files of a package that are of use."""

    article: bytes
    """The XML."""
    images: Mapping[str, Path | bytes]
    """Figures by their base name: a file, or the bytes of a member."""

    def find(self, hrefs: tuple[str, ...]) -> str | None:
        """Find the file of a figure: JPEG before PNG, TIFF and GIF, whichever of them the article names.

        Args:
            hrefs: Base names, with or without a suffix.
        """
        by_name = {name.lower(): name for name in sorted(self.images, reverse=True)}
        stems = [href[: -len(s)] if (s := _image_suffix(href)) else href for href in hrefs if href]
        for suffix in IMAGE_SUFFIXES:
            for stem in (*stems, *hrefs):
                if stem and (name := by_name.get((stem + suffix).lower())) is not None:
                    return name
        return None


def _image_suffix(name: str) -> str:
    return next((suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), "")


def open_package(package: Package) -> Opened:
    """Read the article of a package, and find its figures.

    Raises:
        MedclipError: MISSING_FILE where there is no package or no article in it; LINK_OUTSIDE for one that leads
            outside of its folder or that of the list; CORRUPT, TRUNCATED or TOO_LARGE for a tar; OTHER_INPUT for
            several articles; READ_ERROR.
    """
    if package.name.startswith(("/", "~")) or ".." in Path(package.name).parts:
        raise MedclipError(Reason.LINK_OUTSIDE, "the list names a file outside of its own folder.")
    try:
        if package.path.is_dir():
            return _of_folder(package.path)
        if not package.path.is_file():
            raise MedclipError(Reason.MISSING_FILE, "the package is not there.")
        with package.path.open("rb") as file:
            return _of_tar(file)
    except OSError as e:
        raise MedclipError(Reason.READ_ERROR, f"the package cannot be read ({type(e).__name__}).") from None


def _of_folder(folder: Path) -> Opened:
    articles: dict[str, Path] = {}
    images: dict[str, Path | bytes] = {}
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(base, name)
            if not path.resolve().is_relative_to(folder.resolve()):
                continue  # a link to elsewhere is no file of the package
            if name.lower().endswith(XML_SUFFIXES):
                articles[os.path.relpath(path, folder)] = path
            elif _image_suffix(name):
                images.setdefault(name, path)
    path = articles[_only_article(articles)]
    if path.stat().st_size > MAX_XML_BYTES:
        raise _too_large("article", MAX_XML_BYTES)
    return Opened(path.read_bytes(), images)


def _only_article(articles: Mapping[str, Any]) -> str:
    """Return the name of the article: the only .nxml file, else the only .xml file."""
    for suffix in XML_SUFFIXES:
        names = [name for name in articles if name.lower().endswith(suffix)]
        if len(names) == 1:
            return names[0]
        if names:
            raise MedclipError(Reason.OTHER_INPUT, f"the package holds {count(len(names), 'article')}, not one.")
    raise MedclipError(Reason.MISSING_FILE, "the package holds no article (.nxml or .xml).")


def _of_tar(file: IO[bytes]) -> Opened:
    articles: dict[str, bytes] = {}
    images: dict[str, Path | bytes] = {}
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file) if packed else file)
    num_bytes = 0
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Bounded(stream)), mode="r:") as tar:
            for info in tar:
                _refuse_outside(info)
                name = posixpath.basename(info.name)
                if not info.isfile() or name.startswith("._"):  # what a Mac writes beside each file
                    continue
                if info.name.lower().endswith(XML_SUFFIXES):
                    articles[info.name] = _content(tar, info, "article", MAX_XML_BYTES)
                elif _image_suffix(name) and name not in images:
                    images[name] = data = _content(tar, info, "figure", MAX_IMAGE_BYTES)
                    num_bytes += len(data)
                    if num_bytes > MAX_IMAGES_BYTES:
                        raise _too_large("package", MAX_IMAGES_BYTES)
    except EOFError:
        raise MedclipError(Reason.TRUNCATED, "the package ends early.") from None
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile) as e:
        raise MedclipError(Reason.CORRUPT, f"the package is no whole tar ({type(e).__name__}).") from None
    return Opened(articles[_only_article(articles)], images)


def _refuse_outside(info: tarfile.TarInfo) -> None:
    """Refuse a tar that no publisher writes."""
    if info.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", info.name):
        raise MedclipError(Reason.LINK_OUTSIDE, "the package names a file outside of itself.")
    if not (info.isfile() or info.isdir()) or info.issparse():
        raise MedclipError(Reason.LINK_OUTSIDE, "the package holds a link or a device.")


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo, what: str, most: int) -> bytes:
    if info.size > most:
        raise _too_large(what, most)
    member = tar.extractfile(info)
    data = b"" if member is None else member.read()
    if len(data) < info.size:
        raise MedclipError(Reason.TRUNCATED, "the package ends early.")
    return data


def _too_large(what: str, most: int) -> MedclipError:
    return MedclipError(Reason.TOO_LARGE, f"the {what} takes more than {most >> 20} MB.")


class _Bounded(io.RawIOBase):
    """A tar of which no piece and no whole is read that is larger than a package may be, however well it is packed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check(offset)
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if size > MAX_IMAGE_BYTES:
            raise _too_large("header of a file", MAX_IMAGE_BYTES)
        self._check(self._file.tell() + max(size, 0))
        return self._file.read(size)

    @staticmethod
    def _check(end: int) -> None:
        if end > MAX_UNPACKED_BYTES:
            raise _too_large("package", MAX_UNPACKED_BYTES)
