"""Units that a folder of embeddings answers for, in the place of their files: no image is read a second time."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.registry import slot
from medclip.embeddings.open_embeddings import Embeddings, is_embeddings, open_embeddings
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.pseudonyms import hashed_path, load_key
from medclip.models.encoding.unit_reader import NO_PIXELS, ReadUnit, UnitReader
from medclip.models.packs.image_tower import image_tower_digest, pixels_digest
from medclip.models.packs.manifest import pack_digest
from medclip.sample import Kind, Modality, spoken

if TYPE_CHECKING:
    from medclip.models.encoding.unit_reader import NamedUnit
    from medclip.models.model import Model
    from medclip.settings import Settings

NOT_EMBEDDED = Problem(
    Reason.MISSING_FILE,
    "the file is not among those that were embedded; paths are relative to the folder that was.",
)
_ONE_OF_SEVERAL = Problem(
    Reason.WRONG_USE, "the file was embedded together with others of its series; name the series by its folder."
)
_HASHED = Problem(
    Reason.MISSING_FILE,
    "the file is not among those that were embedded; paths are relative to the folder that was, and since they are "
    "hashed, a series is known by its folder only where that is still there.",
)
_ROOT = "."
_HASHED_FILES, _HASHED_BYTES = 64, 1 << 30
"""Files that lie where the table is are compared by size, and so many of them, spread over the table, by hash."""


def needs_images(what: str, hint: str = "") -> MedclipError:
    """Return the refusal of what needs pixels where there are vectors only.

    Args:
        what: Statement of what needs them, as it begins a sentence: "LoRA learns in the towers".
        hint: Hint at what else could be done.
    """
    return MedclipError(
        Reason.WRONG_USE,
        f"{what}, and a folder of embeddings holds no images.",
        hint=f"Name the folder of the images themselves with --images{hint}.",
    )


def open_reader(
    model: Model,
    settings: Settings,
    images: str | Path | Embeddings | None = None,
    *,
    root: Path | None = None,
    originals: Path | None = None,
) -> UnitReader | EmbeddingsReader:
    """Return what reads units: from files, or from embeddings where these are named.

    Args:
        model: Loaded model.
        settings: Limits and number of reading processes.
        images: A folder of embeddings; anything else is read from files.
        root: Folder that units' paths are below, which is the one that was embedded; `images` itself where None.
        originals: Folder in which the files may lie still: those that do are compared with what was embedded.

    Raises:
        MedclipError: What `open_embeddings` raises; WRONG_USE for embeddings of another pack.
    """
    if not isinstance(images, Embeddings) and (images is None or not is_embeddings(images)):
        return UnitReader(model, settings)
    embeddings = open_for(images, model.path, settings)
    return EmbeddingsReader(embeddings, root or embeddings.folder, originals)


def open_for(
    images: str | Path | Embeddings, pack: Path, settings: Settings, key_file: Path | None = None
) -> Embeddings:
    """Open embeddings for a pack; no torch.

    Args:
        images: Folder of the embeddings.
        pack: The folder of the pack.
        settings: `settings.home` has the identity key, which is needed where paths are hashed.
        key_file: Another key file.

    Raises:
        MedclipError: WRONG_USE for another key than the one that paths are hashed with.
    """
    embeddings, digest = open_embeddings(images), pack_digest(pack)
    if digest != embeddings.pack.digest:  # perhaps it was adapted without changing the image tower
        tower, preprocessing = image_tower_digest(pack), pixels_digest(pack)
        embeddings.check_pack(digest, image_tower=tower, preprocessing=preprocessing)
    if embeddings.hashes_paths and embeddings.path_key is None:
        key = load_key(settings, path=key_file)
        embeddings.check_key(key)
        return replace(embeddings, path_key=key)
    return embeddings


@dataclass(frozen=True)
class _Answer:
    """What is known of one unit."""

    sha256: str = ""
    row: int | None = None
    """Of the embedded unit's first file."""
    way: str = ""
    problem: Problem | None = None


class EmbeddingsReader:
    """Answers in the place of `UnitReader`, with the same features for the same files. Use as a context manager.

    Args:
        embeddings: The folder.
        root: Folder that paths of units are below.
        originals: Folder in which the files may lie still.
    """

    at_once = sys.maxsize
    """Units to ask for at once: as many as there are, since vectors are picked in one pass over all of them."""

    def __init__(self, embeddings: Embeddings, root: Path, originals: Path | None = None) -> None:
        self._embeddings, self._root, self._originals = embeddings, root, originals

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(
        self,
        units: Sequence[NamedUnit],
        step: Callable[[int], None],
        *,
        keep_pixels: bool = True,
        others: Sequence[Any] = (),
        render: Any = None,
        otherwise: Modality | None = None,
        ahead: int = 0,
    ) -> list[ReadUnit]:
        """Return the features of units as they were embedded; what was not carries its problem.

        Args:
            units: The units.
            step: Function called with the number of units.
            keep_pixels: Flag without effect: no pixels are kept.
            others: Further models, which would need the images.
            render: Maker of what is shown, without effect: nothing is rendered.
            otherwise: Modality of units that name none; None takes the one they were embedded as.
            ahead: Number of units, without effect: nothing is read ahead.

        Returns:
            One entry for each unit, in their order, without pixels.

        Raises:
            MedclipError: WRONG_USE where images are needed; CHANGED for files that are not those that were embedded.
        """
        if others or render is not None:
            raise needs_images("images are to be shown to a model anew")
        names = [self._name(unit.path) for unit in units]
        answers = self._answers(names, [unit.modality or otherwise for unit in units])
        features = self._features({answer.row for answer in answers if answer.row is not None})
        nothing = np.empty((0, self._embeddings.dim), np.float32)
        step(len(units))
        return [
            ReadUnit(
                answer.sha256,
                NO_PIXELS,
                nothing if answer.row is None else features[answer.row],
                answer.problem,
                answer.way,
            )
            for answer in answers
        ]

    def facts(self, paths: Sequence[Path | None], column: str) -> list[Any]:
        """Return what the store knows of units besides their vectors: a column of `Embeddings.units`.

        Args:
            paths: Path of each unit; None where there is none.
            column: Name of a column, such as headers or look.

        Returns:
            One value for each path; None for a path that was not embedded.
        """
        named = [None if path is None else self._name(path) for path in paths]
        answers = iter(self._answers([name for name in named if name is not None], None))
        rows = [None if name is None else next(answers).row for name in named]
        if column == "look":
            pairs = self._embeddings.looks()
        else:
            table = self._embeddings.units.select(["row", column]).to_pydict()
            pairs = zip(table["row"], table[column], strict=True)
        wanted = set(rows)
        of_row = {row: value for row, value in pairs if row in wanted}
        return [of_row.get(row) for row in rows]

    def _name(self, path: Path) -> str:
        if self._at(name := path.as_posix()) is not None:  # files that were embedded by their absolute names
            return name
        return Path(os.path.relpath(path, self._root)).as_posix()

    def _at(self, name: str) -> int | None:
        """Return the place of a file in the table of files, whose paths may be hashed."""
        key = self._embeddings.path_key
        return self._place.get(name if key is None else hashed_path(name, key))

    @cached_property
    def _files(self) -> dict[str, list[Any]]:
        names = ["row", "path", "sha256", "size_bytes", "format", "reason", "message", "unit", "copy_of"]
        return self._embeddings.files.select(names).to_pydict()

    @cached_property
    def _place(self) -> dict[str, int]:
        return {path: place for place, path in enumerate(self._files["path"])}

    @cached_property
    def _units(self) -> dict[int, tuple[str, str, str]]:
        """Modality, kind and hash by the row of a unit's first file."""
        columns = self._embeddings.units.select(["row", "modality", "kind", "sha256"]).to_pydict()
        return {row: tuple(facts) for row, *facts in zip(*columns.values(), strict=True)}

    def _answers(self, names: Sequence[str], modalities: Sequence[Modality | str | None] | None) -> list[_Answer]:
        places = [self._at(name) for name in names]
        files_of = self._in_folders({name for name, place in zip(names, places, strict=True) if place is None})
        self._refuse_changed(names)
        answers = []
        for name, place, modality in zip(names, places, modalities or [None] * len(names), strict=True):
            answer = self._of_folder(files_of[name]) if place is None else self._of_file(place)
            answers.append(self._checked(answer, modality))
        return answers

    def _of_file(self, place: int) -> _Answer:
        sha256 = self._files["sha256"][place] or ""
        first = self._files["copy_of"][place] or self._files["unit"][place]
        if first not in self._units:
            return _Answer(sha256, problem=self._problem(place))
        # A DICOM file lies beside the other parts of its unit.
        is_unit = self._files["row"][place] == first and self._files["format"][place] != "dicom"
        if not is_unit and self._files["copy_of"][place] is None and self._units[first][2] != sha256:
            return _Answer(sha256, problem=_ONE_OF_SEVERAL)
        return _Answer(sha256, first)

    def _of_folder(self, places: Sequence[int]) -> _Answer:
        """Answer for a folder with the files of one series, slide or record."""
        rows = sorted({row for place in places if (row := self._files["unit"][place]) in self._units})
        if len(rows) == 1:
            return _Answer(self._units[rows[0]][2], rows[0])
        if rows:
            sentence = f"this folder holds {len(rows)} things that were embedded; a folder in a table is one."
            return _Answer(problem=Problem(Reason.WRONG_USE, sentence))
        if self._embeddings.path_key is not None:
            return _Answer(problem=_HASHED)
        return _Answer(problem=self._problem(places[0]) if places else NOT_EMBEDDED)

    def _problem(self, place: int) -> Problem:
        reason, message = self._files["reason"][place], self._files["message"][place]
        return NOT_EMBEDDED if reason is None else Problem(Reason(reason), message)

    def _checked(self, answer: _Answer, modality: Modality | str | None) -> _Answer:
        if answer.row is None:
            return answer
        embedded, kind, _ = self._units[answer.row]
        if modality is not None and modality != embedded:
            sentence = f"the file was embedded as {spoken(embedded)}, and is asked for as {spoken(modality)}."
            return _Answer(answer.sha256, problem=Problem(Reason.PREPROCESSING_MISMATCH, sentence))
        return _Answer(answer.sha256, answer.row, slot(Modality(embedded), Kind(kind)))

    def _in_folders(self, names: set[str]) -> dict[str, list[int]]:
        """Return the files below each of these names, of which none is a file."""
        files_of: dict[str, list[int]] = {name: [] for name in names}
        if self._embeddings.path_key is not None:  # a hash does not tell what folder it lies in
            base = self._originals or self._root
            for name in names:
                paths = (path.relative_to(base).as_posix() for path in (base / name).rglob("*"))
                files_of[name] = [place for path in paths if (place := self._at(path)) is not None]
        elif names:
            for path, place in self._place.items():
                if _ROOT in files_of:
                    files_of[_ROOT].append(place)
                end = path.rfind("/")
                while end > 0:
                    if (name := path[:end]) in files_of:
                        files_of[name].append(place)
                    end = path.rfind("/", 0, end)
        return files_of

    def _features(self, rows: set[int]) -> dict[int, NDArray[np.float32]]:
        """Return the features of some units, float32 [V, D]."""
        if not rows:
            return {}
        row_V = self._embeddings.columns("views", ["row"]).column("row").to_numpy()
        wanted = np.flatnonzero(np.isin(row_V, np.fromiter(rows, np.int64, len(rows))))
        vectors_ND, kept = self._embeddings.take("views", wanted), row_V[wanted]
        first = np.flatnonzero(np.diff(kept, prepend=-1))
        return dict(zip(kept[first].tolist(), np.split(vectors_ND, first[1:]), strict=True))

    def _refuse_changed(self, names: Iterable[str]) -> None:
        """Refuse files that lie where the table is and are not those that were embedded.

        Raises:
            MedclipError: CHANGED.
        """
        if self._originals is None:
            return
        present: list[tuple[Path, int]] = []
        for name in names:
            place, path = self._at(name), self._originals / name
            try:
                num_bytes = -1 if place is None else path.stat().st_size
            except (OSError, ValueError):  # it is elsewhere, or gone: the vectors are all there is
                continue
            if place is None:
                continue
            if num_bytes != self._files["size_bytes"][place]:
                raise _changed(path)
            present.append((path, place))
        num_bytes = 0
        for path, place in present[:: max(1, len(present) // _HASHED_FILES)]:
            num_bytes += self._files["size_bytes"][place]
            if num_bytes > _HASHED_BYTES:
                return
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self._files["sha256"][place]:
                    raise _changed(path)


def _changed(path: Path) -> MedclipError:
    return MedclipError(
        Reason.CHANGED,
        "this file is not the one that was embedded.",
        where=path,
        hint="Embed the folder again; medclip embed --add reads what changed alone.",
    )
