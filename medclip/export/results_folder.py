"""The results of a scoring run in the forms that other systems take, one file a study, in a folder of their own.

They are written as the rows of their study are committed (`running_results`), and what is lacking then, once the ledger
is complete. The folder's note, results.json, has the run, the hashes of its tables and the time that the results count
as made at: whoever is stopped goes on, and what is there then equals, byte for byte, what an undisturbed call writes.
The ledger knows which files are of the answers that it has; where a study is scored anew (files were added, or tried
again), its files are removed first: an old result must not be taken for a new one. Those that may have gone out are
kept in a folder of their own until the new ones name them as what they replace.

These files name patients. They are written where they are asked for, to a folder of mode 0700, and nowhere else.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from medclip.errors import MedclipError, Reason
from medclip.export.earlier_results import RESULTS_NOTE as NOTE
from medclip.export.earlier_results import was_sent, written_at
from medclip.export.formats import FORMATS, check_formats, formats_of
from medclip.export.source_headers import encode_study
from medclip.export.structured_report import require_highdicom
from medclip.export.study_result import Algorithm, DrawnMap, StudyResult, StudyRows, algorithm_of, read_result, rows_of
from medclip.files.output import (
    claim_folder,
    digest_of,
    disk_errors,
    make_folder,
    read_own_note,
    refuse_other,
    remove_drafts,
    write_file,
    write_note,
)
from medclip.files.readers.pool import ReadingPool
from medclip.models.packs.manifest import file_sha256
from medclip.progress import Progress, Silent
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import FILES, SCORES
from medclip.settings import Settings
from medclip.wording import by_reason, count, number

_WHAT = "folder of results"
_PLACE = "results_in"
"""What a ledger remembers of the folder: what it knows to be written was written there."""
_AT_ONCE = 64
"""Files after which the ledger is told of them."""
_REPLACED = "replaced"
"""Folder of results that new ones are about to replace."""
_KEY = re.compile(r"[0-9a-f]{16}")
"""Stems of results: keys of studies."""


@dataclass(frozen=True)
class Stored:
    """What became of the results."""

    stored: int
    """Studies whose results the server has, from this call or an earlier one."""
    refused: int
    """Studies whose results it does not take, or not all of them; the next call sends them again."""
    resources: int = 0
    """Resources of those that a FHIR server did not take."""

    def sentence(self, to: str = "PACS") -> str:
        """Write it in words."""
        parts = f" ({count(self.resources, 'resource')})" if self.resources else ""
        refused = f"; {count(self.refused, 'study', 'studies')} refused by it{parts}" if self.refused else ""
        return f"Sent to the {to}: results of {count(self.stored, 'study', 'studies')}{refused}"

    def to_json(self) -> dict[str, int]:
        """Return JSON values."""
        return {"stored": self.stored, "refused": self.refused, **_stated(resources=self.resources)}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    written: Mapping[str, int]
    """Files by form."""
    without: Mapping[str, Mapping[str, int]]
    """Studies by form and by why they have none."""
    replaced: Mapping[str, int] | None = None
    """Files by form that stand in the place of one in the folder of earlier results, where one was named."""
    stored: Mapping[str, int] | None = None
    """Studies whose results a PACS has (`stored`) and does not take (`refused`), where they were sent to one."""
    posted: Mapping[str, int] | None = None
    """The same of a FHIR server, with the resources that it does not take (`resources`)."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        without = {name: dict(reasons) for name, reasons in self.without.items()}
        both = {"stored": self.stored, "posted": self.posted}
        sent = {name: dict(counts) for name, counts in both.items() if counts is not None}
        replaced = {} if self.replaced is None else {"replaced": dict(self.replaced)}
        return {"folder": str(self.folder), "written": dict(self.written), "without": without, **replaced, **sent}

    def sentences(self) -> list[str]:
        """Write in words what is there, and what is not and why."""
        lines = []
        for name, num in self.written.items():
            title, without = FORMATS[name].title, self.without.get(name) or {}
            lines.append(f"{title}: {count(num, 'study', 'studies')}")
            if self.replaced is not None:
                lines[-1] += f", {number(self.replaced.get(name, 0))} in the place of an earlier one"
            if total := sum(without.values()):
                lines[-1] += f"; {number(total)} without ({by_reason(without)})"
        if self.replaced is not None and any(self.written.values()) and not any(self.replaced.values()):
            lines.append("No study has an earlier result there: is it of these studies, and of the same identity key?")
        for counts, to in ((self.stored, "PACS"), (self.posted, "FHIR server")):
            if counts is not None:
                lines.append(Stored(**counts).sentence(to))
        return lines

    @property
    def num_refused(self) -> int:
        """Studies whose results a server does not take."""
        return sum((counts or {}).get("refused", 0) for counts in (self.stored, self.posted))


class Drawer(Protocol):
    """Draws heat maps."""

    @property
    def named(self) -> str:
        """What of each study is drawn: "top", TASK or TASK:CLASS."""
        ...

    def keep_files(self, rows: StudyRows) -> None:
        """Have the files kept that a study's map is drawn of, until it is."""
        ...

    def draw_large(self, studies: Iterable[StudyRows]) -> Generator[DrawnMap | None, None, None]:
        """Yield the heat map of each study; None for one that has none."""
        ...


@dataclass(frozen=True)
class ResultsFolder:
    """Writes the results of a run."""

    folder: Path
    formats: tuple[str, ...]
    """Names of `FORMATS` of studies."""
    path_of: Callable[[str], Path]
    """From a name in the tables to where the file lies."""
    settings: Settings = field(default_factory=Settings)
    """Limits of the reading processes, and how many there are."""
    progress: Progress = field(default_factory=Silent)
    drawer: Drawer | None = None
    """Draws heat maps, for forms that hold them."""
    earlier: Path | None = None
    """Folder of earlier results that these replace; it may be this one, and hold those of another run."""

    def check(self, inputs: Mapping[str, Path]) -> None:
        """Refuse what cannot be written, before any work is done.

        Args:
            inputs: Paths that are read, by what they are called.

        Raises:
            MedclipError: WRONG_USE for a form that there is not; MISSING_CODEC for an SR without highdicom;
                OUTPUT_IN_USE for a folder that holds anything else; as `claim_folder`.
        """
        check_formats(self.formats, "study")
        if any(FORMATS[name].is_dicom for name in self.formats):
            require_highdicom()
        for what, path in inputs.items():
            if path.is_dir() and self.folder.resolve().is_relative_to(path.resolve()):
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"the results would lie in {what}, and the next call would take them for new files.",
                    where=self.folder,
                    hint="Name a folder outside it.",
                )
        claim_folder(self.folder, _WHAT, marks=(NOTE,), inputs=inputs)
        read_own_note(self.folder / NOTE, _WHAT)

    def begin(self, ledger: Ledger, *, tables: Mapping[str, str] | None = None) -> datetime:
        """Take the folder for a run, and remove what is there of studies whose answers are others by now.

        Args:
            ledger: Ledger of the run, its identity known.
            tables: Hashes of the run's tables; None while there are none.

        Returns:
            When the results count as made: of a call that was stopped, what it said.

        Raises:
            MedclipError: OUTPUT_IN_USE for results of another run.
        """
        run, earlier = self._run(ledger), self._read_note(ledger)
        place = digest_of(str(self.folder.resolve()))
        is_ours = earlier is not None and earlier["run"] == run["run"] and ledger.get(_PLACE) == place
        with disk_errors(self.folder):
            make_folder(self.folder)
            if not is_ours:
                if self._is_earlier:
                    self._set_aside(path for name in formats_of("study") for path in self._own_files(name))
                else:
                    self._remove()
                ledger.forget_written()
            for folder in (self.folder, *(self.folder / name for name in formats_of("study"))):
                if folder.is_dir():
                    remove_drafts(folder)
        noted = earlier if earlier is not None and is_ours else {}
        replaces = self._replaces_by_form(noted)
        others = _differing(replaces, noted.get("replaces"))
        if others:
            ledger.forget_written(others)
        is_complete = earlier is not None and earlier["tables"] is not None
        is_new = not is_ours or (is_complete and (noted["tables"] != tables or bool(others)))
        created = _now() if is_new or earlier is None else datetime.fromisoformat(earlier["created"])
        if is_new and earlier is not None and (is_ours or self._is_earlier):
            # Results of before are told from drafts of these by their time.
            created = max(created, datetime.fromisoformat(earlier["created"]) + timedelta(seconds=1))
        note = {**run, "tables": None, "created": created.isoformat(), "done": {}}
        earlier_maps = noted.get("heat_maps")
        drawn_of = earlier_maps if self.drawer is None else self.drawer.named
        note |= _stated(heat_maps=drawn_of, replaces=replaces)
        if earlier_maps not in (None, drawn_of):
            ledger.forget_written(_with_maps())
            with disk_errors(self.folder):
                self._remove(_with_maps())
        if note != earlier:
            write_note(self.folder / NOTE, _WHAT, note)
        ledger.remember({_PLACE: place})
        with disk_errors(self.folder):
            self._remove_unknown(ledger, created)
        return created

    def write(self, ledger: Ledger, card: Any, run_folder: Path) -> Exported:
        """Write the results of a complete run; what is there of the same answers already stays as it is.

        Args:
            ledger: A complete ledger, its files numbered.
            card: The pack's card.
            run_folder: The folder of the run's tables.

        Raises:
            MedclipError: OUTPUT_IN_USE for results of another run.
        """
        tables = {name: file_sha256(run_folder / name) for name in (SCORES, FILES)}
        earlier = self._read_note(ledger)
        noted = {} if earlier is None or earlier["run"] != self._run(ledger)["run"] else earlier
        drawn_of = noted.get("heat_maps") if self.drawer is None else self.drawer.named
        replaces = self._replaces_by_form(noted)
        others = _differing(replaces, noted.get("replaces"))
        others += _with_maps() if noted.get("heat_maps") not in (None, drawn_of) else []
        done = dict(noted["done"]) if noted.get("tables") == tables else {}
        done = {name: entry for name, entry in done.items() if name not in others}
        if set(self.formats) <= set(done) and noted.get("heat_maps") == drawn_of:
            return self._exported(done)
        created = self.begin(ledger, tables=tables)
        note = {**self._run(ledger), "tables": tables, "created": created.isoformat()}
        note |= _stated(heat_maps=drawn_of, replaces=replaces)
        names = [name for name in self.formats if name not in done]
        write_note(self.folder / NOTE, _WHAT, {**note, "tables": None, "done": {}})
        self._write_all(ledger, card, created, names)
        for name in names:
            shutil.rmtree(self.folder / _REPLACED / name, ignore_errors=True)  # the new ones name them
        with suppress(OSError):  # earlier ones of other forms wait for theirs
            (self.folder / _REPLACED).rmdir()
        done |= {name: _counted(ledger, name) for name in names}
        write_note(self.folder / NOTE, _WHAT, {**note, "done": done})
        return self._exported(done)

    @property
    def early_forms(self) -> list[str]:
        """The forms of a study that need no heat map: they are written as soon as it is scored."""
        return [name for name in self.formats if not FORMATS[name].needs_map]

    @property
    def map_forms(self) -> list[str]:
        """The forms that hold a heat map: they are written in time that is to spare, and else at the end."""
        return [name for name in self.formats if FORMATS[name].needs_map and self.drawer is not None]

    def place(self, name: str, key: str) -> Path:
        """Return where the file of a form and a study lies."""
        return self.folder / name / f"{key}{FORMATS[name].file}"

    def job(
        self, result: StudyResult, names: Sequence[str], algorithm: Algorithm, created: datetime
    ) -> tuple[Any, ...]:
        """Return the arguments of `encode_study`; a file that may have gone out is set aside for it."""
        paths = {file.path: self.path_of(file.path) for file in result.files}
        earlier: dict[str, list[Path]] = {}
        for name in (name for name in names if FORMATS[name].names_earlier):
            place = self.place(name, result.key)
            with disk_errors(self.folder):
                if self._went_out(place, created):
                    self._set_aside([place])
            own, named = self.folder / _REPLACED / name / place.name, self._place_of_earlier(place)
            earlier[name] = [path for path in (own, named) if path is not None and path.is_file()]
        return result, paths, {name: FORMATS[name] for name in names}, algorithm, created, earlier

    def keep(self, key: str, contents: Mapping[str, bytes | str]) -> list[tuple[str, str, str]]:
        """Write the files of a study, from the content of each form or why there is none; return the ledger's rows."""
        rows = []
        for name, content in contents.items():
            if isinstance(content, bytes):
                write_file(self.place(name, key), content)
            else:
                with disk_errors(self.folder):
                    self.place(name, key).unlink(missing_ok=True)
            rows.append((key, name, "" if isinstance(content, bytes) else content))
        return rows

    def _run(self, ledger: Ledger) -> dict[str, Any]:
        return {"run": digest_of(ledger.get("identity"))}

    def _read_note(self, ledger: Ledger) -> dict[str, Any] | None:
        """Return the folder's note; None for a new one.

        Raises:
            MedclipError: OUTPUT_IN_USE for results of another run.
        """
        note = read_own_note(self.folder / NOTE, _WHAT)
        if note is not None and not self._is_earlier:
            refuse_other(self.folder, _WHAT, note, self._run(ledger), titles={"run": "the run"})
        return note

    def _write_all(self, ledger: Ledger, card: Any, created: datetime, names: Sequence[str]) -> None:
        """Write what is lacking of some forms, and have the ledger know of it some studies at a time."""
        algorithm, keys = algorithm_of(ledger), ledger.studies(-1)
        missing = {key: lacking for key in keys if (lacking := self._lacking(ledger, key, names))}
        self.progress.stage("Writing results for other systems", len(keys), len(keys) - len(missing))
        if not missing:
            return
        jobs = (
            self.job(result, missing[result.key], algorithm, created) for result in self._results(ledger, missing, card)
        )
        written: list[tuple[str, str, str]] = []
        with ReadingPool.of(self.settings, note=self.progress.note) as pool:
            encoded = pool.map(encode_study, jobs, ahead=2 * self.settings.workers)
            try:
                for key, future in zip(missing, encoded, strict=True):
                    written += self.keep(key, contents_of(future, missing[key]))
                    if len(written) >= _AT_ONCE:
                        ledger.wrote(written)
                        written = []
                    self.progress.step()
            finally:
                ledger.wrote(written)

    def _lacking(self, ledger: Ledger, key: str, names: Sequence[str]) -> list[str]:
        """Return the forms of a study that are not there as its answers are."""
        written = ledger.files_written(key)
        return [n for n in names if n not in written or (not written[n] and not self.place(n, key).exists())]

    def _results(self, ledger: Ledger, missing: Mapping[str, Sequence[str]], card: Any) -> Iterator[StudyResult]:
        """Yield the answers of each study, with a heat map where a form of it is missing that holds one."""
        drawn = {key for key, names in missing.items() if any(FORMATS[name].needs_map for name in names)}
        maps = (
            iter(())
            if self.drawer is None
            else self.drawer.draw_large(rows_of(ledger, k) for k in missing if k in drawn)
        )
        for key in missing:
            result = read_result(ledger, key, card)
            yield replace(result, drawn=next(maps)) if self.drawer is not None and key in drawn else result

    def _exported(self, done: Mapping[str, Any]) -> Exported:
        names = [name for name in formats_of("study") if name in self.formats]
        return Exported(
            self.folder,
            {name: done[name]["written"] for name in names},
            {name: done[name]["without"] for name in names if done[name]["without"]},
            None if self.earlier is None or self._is_earlier else {name: self._num_replaced(name) for name in names},
        )

    @property
    def _is_earlier(self) -> bool:
        """Whether what is replaced is what lies here."""
        return self.earlier is not None and self.earlier.resolve() == self.folder.resolve()

    def _replaces_by_form(self, note: Mapping[str, Any]) -> dict[str, str]:
        """Return the hash of the folder that the results of each form replace, where another one was named."""
        named: dict[str, str] = {}
        if self.earlier is not None and not self._is_earlier:
            names = [name for name in self.formats if FORMATS[name].names_earlier]
            named = dict.fromkeys(names, digest_of(str(self.earlier.resolve())))
        return {**(note.get("replaces") or {}), **named}

    def _place_of_earlier(self, place: Path) -> Path | None:
        if self.earlier is None or self._is_earlier:
            return None
        return self.earlier / place.parent.name / place.name

    def _num_replaced(self, name: str) -> int:
        earlier = (self._place_of_earlier(place) for place in self._own_files(name))
        return sum(path is not None and path.is_file() for path in earlier)

    def _went_out(self, place: Path, created: datetime) -> bool:
        """Whether a file is none of the results that are being written: those of before were there to be sent."""
        if not place.is_file():
            return False
        return written_at(place) != created.replace(tzinfo=None) or was_sent(self.folder, place)

    def _set_aside(self, places: Iterable[Path]) -> None:
        for place in places:
            aside = self.folder / _REPLACED / place.parent.name
            make_folder(aside)
            os.replace(place, aside / place.name)

    def _remove(self, names: Sequence[str] = ()) -> None:
        """Remove results of earlier tables: files of our names in folders of our names, and nothing else.

        Args:
            names: Names of forms; all of them, and the note, where none is named.
        """
        if not names:
            (self.folder / NOTE).unlink(missing_ok=True)
        for name in names or formats_of("study"):
            for file in self._own_files(name):
                os.unlink(file)

    def _remove_unknown(self, ledger: Ledger, created: datetime) -> None:
        """Remove the files of studies that the ledger does not know to be written as they are now."""
        for name, form in formats_of("study").items():
            for file in self._own_files(name):
                if ledger.files_written(file.stem).get(name) == "":
                    continue
                if form.names_earlier and self._went_out(file, created):
                    self._set_aside([file])
                else:
                    os.unlink(file)

    def _own_files(self, name: str) -> Iterator[Path]:
        with suppress(FileNotFoundError), os.scandir(self.folder / name) as entries:
            paths = [Path(entry.path) for entry in entries]
            yield from [one for one in paths if one.suffix == FORMATS[name].file and _KEY.fullmatch(one.stem)]


def _with_maps() -> list[str]:
    return [name for name, form in formats_of("study").items() if form.needs_map]


def _stated(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _differing(replaces: Mapping[str, str], noted: Mapping[str, str] | None) -> list[str]:
    return [name for name, folder in replaces.items() if (noted or {}).get(name) != folder]


def contents_of(future: Future[Any], names: Sequence[str]) -> dict[str, bytes | str]:
    """Return what a reading process made of a study; where it died of it or took too long, that."""
    try:
        return future.result()
    except MedclipError as error:
        return dict.fromkeys(names, str(error.reason))


def _counted(ledger: Ledger, name: str) -> dict[str, Any]:
    """Return how many studies have a file of a form, and how many have none and why."""
    counts = ledger.count_written(name)
    written = counts.pop("", 0)
    return {"written": written, "without": counts}


def _now() -> datetime:
    """Return this second, or that of SOURCE_DATE_EPOCH (reproducible-builds.org) for whoever wants equal bytes."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    if fixed.isdigit():
        return datetime.fromtimestamp(int(fixed), UTC)
    return datetime.now().astimezone().replace(microsecond=0)
