"""What `medclip watch dicom://AET@HOST:PORT` looks at in the place of a folder: objects that others send, as files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from medclip.files.dimse.address import Entity, protocol
from medclip.files.dimse.commitments import Commitments
from medclip.files.dimse.received import Received
from medclip.files.dimse.receiver import Receiver
from medclip.files.discover import LEDGER, RECEIVED, Look, Stillness
from medclip.files.locks import lock_folder
from medclip.files.output import claim_folder, disk_errors, make_folder
from medclip.models.packs.manifest import file_sha256
from medclip.progress import Progress
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import DONE
from medclip.sample import Stamp
from medclip.settings import Settings
from medclip.wording import count

_AT_ONCE = 500


class Reception:
    """Receives objects while it is a context manager, and says which may be scored.

    An object is settled once a call has succeeded that it was part of: its rows are committed, and what was to be sent
    of its study is sent. Its file goes some time later, or earlier where room is needed. A study whose files are gone
    and that gets another object waits until it is sent again with all of them: scored without them it would lose
    their answers.

    Args:
        out: Output folder, where the ledger lies.
        entity: Own AE title, and the address that is listened at; None for a call that ends with what there is.
        senders: Titles that may send, with the address that results of storage commitment go to; empty: any may.
        key: Key of the identity hashes.
        settings: Limits.
        settle_s: Seconds without a change after which a study has come.
        keep_s: Seconds that files of a study stay once they are settled.
        progress: Object that is told what should be known.

    Raises:
        MedclipError: OUTPUT_IN_USE; MISSING_CODEC.
    """

    def __init__(
        self,
        out: Path,
        entity: Entity | None,
        senders: Mapping[str, Entity | None],
        *,
        key: bytes,
        settings: Settings,
        settle_s: float,
        keep_s: float,
        progress: Progress,
    ) -> None:
        protocol()
        claim_folder(out, "run of medclip", marks=(LEDGER, RECEIVED))
        self._out, self._keep_s, self._progress = out, keep_s, progress
        self._received = Received(out / RECEIVED, key, settings)
        self._news = self._received.news
        self._receiver = None
        if entity is not None:
            commitments = Commitments(self._received.folder, entity.title, senders, self._safe, self._news)
            self._receiver = Receiver(entity, self._received, senders, commitments)
        self._is_open_to_all = not senders
        self._stillness = Stillness(self.folder, settle_s)
        self._settled: dict[str, Stamp] = {}
        self._looked_at: dict[str, Stamp] = {}
        self._waiting: set[str] = set()
        self._stack = ExitStack()

    @property
    def folder(self) -> Path:
        """Where the objects lie, a folder for each study."""
        return self._received.studies

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            MedclipError: BUSY for a port or folder that is in use; WRONG_USE for an address of another machine.
        """
        with ExitStack() as stack:
            with disk_errors(self._received.folder):
                make_folder(self._received.folder)
            lock = lock_folder(self._received.folder)
            if lock is not None:
                stack.callback(os.close, lock)
            self._received.begin()
            if self._receiver is not None:
                stack.enter_context(self._receiver)
                self._progress.note(f"Listening: {self._sentence(self._receiver.entity)}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more. What came stays, for the same command."""
        self._stack.close()
        self._note_news()

    def _sentence(self, entity: Entity) -> str:
        host = entity.host or "127.0.0.1, this machine alone"
        anybody = " Whoever reaches it may send; --allow-ae AET names those who may." if self._is_open_to_all else ""
        return f"AE title {entity.title}, port {entity.port} of {host}.{anybody}"

    def look(self) -> Look:
        """Look at what came, as `Stillness.look` does; what is done with and old goes."""
        self._note_news()
        self._received.release_older(self._keep_s)
        still = self._stillness.look()
        moving = {path.name for path in still.moving}
        self._looked_at, waiting = {}, set[str]()
        settled: dict[str, Stamp] = {}
        for study, files in self._received.files():
            new = {name: stamp for name, stamp in files.items() if self._settled.get(name) != stamp}
            settled |= {name: stamp for name, stamp in files.items() if name not in new}
            if not new or study in moving:
                continue
            if self._lacks(study, files, new):
                waiting.add(study)
            else:
                self._looked_at |= new
        self._settled = settled
        if waiting - self._waiting:
            self._progress.note(
                f"{count(len(waiting - self._waiting), 'study')} got more images after the earlier ones were scored "
                "and removed: they wait until the whole study is sent again."
            )
        self._waiting = waiting
        waiting_folders = tuple(self.folder / study for study in sorted(waiting))
        return Look(len(self._looked_at), _digest(self._looked_at), still.moving, waiting_folders)

    def settle(self) -> None:
        """Take note that a call has succeeded: its rows are committed, and its results are sent."""
        with Ledger(self._out, create=False) as ledger:
            for names in _some(self._looked_at):
                for name, file in ledger.known(names).items():
                    if file.state >= DONE and file.stamp == self._looked_at[name]:
                        self._settled[name] = file.stamp
        for study, files in self._received.files():
            if files and all(self._settled.get(name) == stamp for name, stamp in files.items()):
                self._received.may_go(study, files)

    def _lacks(self, study: str, files: Mapping[str, Stamp], new: Mapping[str, Stamp]) -> bool:
        """Whether files of a study are gone, and some of those that are here say anything that is not known."""
        if not (self._out / LEDGER).exists():
            return False
        with Ledger(self._out, create=False) as ledger:
            names = ledger.names_below(f"{study}/")
            if set(names) <= set(files):
                return False
            known = {name: file for some in _some(new) for name, file in ledger.known(some).items()}
        for name, stamp in new.items():
            file = known.get(name)
            if file is None or file.state < DONE:
                return True
            if file.stamp != stamp and file.sha256 != file_sha256(self.folder / name):
                return True
        return False

    def _safe(self, uids: Iterable[str]) -> dict[str, str]:
        """Return the instances that lie on the disk, with their SOP classes, and those whose rows are done."""
        uids = list(uids)
        safe = self._received.on_disk(uids)
        names = {self._received.file_of(uid): uid for uid in uids if uid not in safe}
        if names and (self._out / LEDGER).exists():
            with Ledger(self._out, create=False) as ledger:
                safe |= {names[name]: "" for name in ledger.done_among(names)}
        return safe

    def _note_news(self) -> None:
        news = self._news
        for sentence in list(news):
            number = news.pop(sentence)
            self._progress.note(sentence if number == 1 else f"{sentence} ({number:,} times)")


def _some(names: Iterable[str]) -> Iterable[list[str]]:
    listed = list(names)
    return (listed[at : at + _AT_ONCE] for at in range(0, len(listed), _AT_ONCE))


def _digest(files: Mapping[str, Stamp]) -> str:
    state = hashlib.sha256()
    for name, stamp in sorted(files.items()):
        state.update(f"{name}\0{stamp}\n".encode())
    return state.hexdigest()
