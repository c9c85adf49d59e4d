"""Arguments that the verbs over files share: paths, reasons of failure, a folder that nobody named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason, refuse_missing
from medclip.files.given_images import as_files, given_images, is_frame, is_several
from medclip.files.temporary_folder import TemporaryFolder
from medclip.sample import FileRef
from medclip.slides.slide_store import is_slide_store


@dataclass(frozen=True)
class Inputs:
    """What a run is over."""

    root: Path
    """File or folder."""
    given: tuple[FileRef, ...] | None
    """Files that were named one by one, or written of arrays; `root` is then of no meaning."""
    table: Any
    """Path or data frame that names study, patient and modality of files."""
    keep: TemporaryFolder | None = None
    """Arrays live as long as this does."""


def inputs_of(images: Any, table: Any, what: str, *, follow_links: bool = False) -> Inputs:
    """Return what a caller means: a path, or images themselves.

    Args:
        images: A path; or a list of paths and arrays, an array, or a data frame, which is then the table, too.
        table: The caller's table.
        what: Phrase for the images in sentences: "what is scored".
        follow_links: Whether links in folders of a list may lead out of them.

    Raises:
        MedclipError: MISSING_FILE for a path where there is nothing; WRONG_USE for anything else, for a file that is
            given twice and for two tables; TABLE_INVALID.
    """
    table = table_of(table)
    if not is_several(images):
        root = path_of(images, what)
        refuse_missing(root)
        refuse_slide_store(root)
        return Inputs(root, None, table)
    if is_frame(images):
        if table is not None:
            raise MedclipError(Reason.WRONG_USE, f"{what} is a data frame, and there is a table beside it.")
        table = images
    keep = TemporaryFolder("arrays")
    return Inputs(Path(), as_files(given_images(images), keep.path, follow_links=follow_links), table, keep)


def table_of(table: Any) -> Any:
    """Return a table that a caller named: its path, or what it is."""
    refuse_missing(table, "table")
    return Path(table) if isinstance(table, (str, os.PathLike)) else table


def local_of(path: Any) -> Any:
    """Return the path that a file:// URL names, also as `Path` shortens it, and everything else as it is."""
    text = str(path) if isinstance(path, (str, Path)) else ""
    if not text.startswith("file:/") or (isinstance(path, Path) and path.exists()):
        return path
    return Path(unquote("/" + text.removeprefix("file:").lstrip("/")))


def path_of(value: object, what: str) -> Path:
    """Return a path that a caller named.

    Args:
        value: Value that was given.
        what: Phrase for what it should be, for the sentence.

    Raises:
        MedclipError: WRONG_USE for what is no path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise MedclipError(Reason.WRONG_USE, f"{what} is named by a path, not by a {type(value).__name__}.")
    return Path(value)


def folder_of(images: str | Path | Embeddings | None) -> str | Path | None:
    """Return the folder of images, which may be that of embeddings, opened or not.

    Raises:
        MedclipError: WRONG_USE for a folder of vectors of slides.
    """
    if images is not None and not isinstance(images, Embeddings):
        refuse_slide_store(images)
    return images.folder if isinstance(images, Embeddings) else images


def refuse_slide_store(folder: str | Path) -> None:
    """Refuse a folder of vectors of slides where images, or vectors of units, are asked for.

    Raises:
        MedclipError: WRONG_USE.
    """
    if is_slide_store(folder):
        raise MedclipError(
            Reason.WRONG_USE,
            "this folder holds vectors of patches of slides, and images or what medclip embed wrote is asked for.",
            where=folder,
            hint="Ask it with medclip search, medclip slides predict or medclip slides learn.",
        )
