"""Images that are sent to `medclip watch dicom://...`: scored as those of a folder are, and gone once that is done."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom")

from medclip.api import watch as watch_module
from medclip.api.score import score
from medclip.api.watch import watch
from medclip.errors import MedclipError, Reason
from medclip.files.dimse.address import Entity
from medclip.progress import Silent
from medclip.runs.ledger.ledger import Ledger
from tests.kits.dimse import REFUSED_CONNECTION, archive, send, wait_for
from tests.kits.pacs import free_port
from tests.kits.scoring import PLANTED, STUDY_UID, write_dicom

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings(REFUSED_CONNECTION),
]
OPTIONS: dict[str, Any] = {"prompt": "a fracture", "min_confidence": 0.0, "workers": 1}
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
_IDENTIFIERS = (*PLANTED.values(), STUDY_UID, "SCANNER")


class Notes(Silent):
    """Keeps the sentences that are shown."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def note(self, text: str) -> None:
        self.sentences.append(text)


@contextmanager
def watching(out: Path, pack: Path, port: int, **options: Any) -> Iterator[tuple[Entity, Notes]]:
    """Watch in a thread of its own."""
    stops, notes, faults = threading.Event(), Notes(), list[BaseException]()

    class Time:
        @staticmethod
        def sleep(seconds: float) -> None:
            if stops.wait(min(seconds, 0.05)):
                raise KeyboardInterrupt

    def work() -> None:
        try:
            watch(
                f"dicom://MEDCLIP@127.0.0.1:{port}",
                out,
                model=pack,
                progress=notes,
                **{**OPTIONS, "settle_s": 0.2, **options},
            )
        except BaseException as e:
            faults.append(e)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_module, "time", Time)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            wait_for(lambda: faults or any(text.startswith("Listening") for text in notes.sentences))
            yield Entity("MEDCLIP", "127.0.0.1", port), notes
        finally:
            stops.set()
            thread.join(120)
    assert not faults, faults


def studies(folder: Path, num: int = 2) -> list[Path]:
    return [
        write_dicom(folder / f"{study}_{image}.dcm", 10 * study + image, study_uid=f"{STUDY_UID}.{study}")
        for study in range(num)
        for image in (1, 2)
    ]


def num_done(out: Path) -> int:
    if not (out / "run.json").exists():
        return 0
    with Ledger(out, create=False) as ledger:
        return ledger.num_done()


def received(out: Path) -> list[Path]:
    walked = os.walk(out / "received" / "studies")  # folders may go meanwhile
    return [Path(folder, name) for folder, _, names in walked for name in names]


def answers(run: Any) -> list[tuple[str, str, float]]:
    return sorted((row["study"], row["class"], row["probability"]) for row in run.scores.to_pylist())


@pytest.mark.slow
def test_what_is_sent_is_scored_as_a_folder_of_it_is_and_goes_once_it_is_done(tmp_path: Path, pack: Path) -> None:
    from medclip.runs.outputs.score_run import read_run

    files = studies(tmp_path / "in")
    with watching(tmp_path / "out", pack, free_port(), keep_s=0) as (entity, notes):
        assert send(entity, files) == [0] * 4
        wait_for(lambda: num_done(tmp_path / "out") == 4)
        wait_for(lambda: not received(tmp_path / "out"))
        assert send(entity, files[:1]) == [0]  # again, of a study whose files are gone: nothing is new in it
        wait_for(lambda: not received(tmp_path / "out"))
    of_folder = score(tmp_path / "in", tmp_path / "folder", model=pack, **OPTIONS)
    assert answers(read_run(tmp_path / "out")) == answers(of_folder)
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [value for value in (*PLANTED.values(), STUDY_UID, "SCANNER") if value.encode() in content], (
            path.name
        )
    assert not [value for value in (*PLANTED.values(), STUDY_UID, "SCANNER") if value in " ".join(notes.sentences)]


@pytest.mark.slow
def test_a_late_image_is_scored_with_those_that_are_still_there_and_waits_for_those_that_are_gone(
    tmp_path: Path, pack: Path
) -> None:
    out, files = tmp_path / "out", studies(tmp_path / "in", 1)
    late, later = (write_dicom(tmp_path / f"{n}.dcm", n, study_uid=f"{STUDY_UID}.0") for n in (7, 8))
    port = free_port()
    with watching(out, pack, port) as (entity, _):
        send(entity, files)
        wait_for(lambda: num_done(out) == 2)
        send(entity, [late])
        wait_for(lambda: num_done(out) == 3)
        assert len(received(out)) == 3
    with watching(out, pack, port, keep_s=0) as (entity, notes):
        wait_for(lambda: not received(out))
        send(entity, [later])
        wait_for(lambda: any("wait until the whole study is sent again" in text for text in notes.sentences))
        assert num_done(out) == 3
        assert len(received(out)) == 1
    assert watch("dicom://MEDCLIP@:11112", out, model=pack, once=True, settle_s=0, **OPTIONS) is None
    with watching(out, pack, port, keep_s=0) as (entity, _):
        send(entity, [*files, late])
        wait_for(lambda: num_done(out) == 4)
        wait_for(lambda: not received(out))
    with Ledger(out, create=False) as ledger:
        assert ledger.counts()["failed"] == 0


@pytest.mark.slow
def test_images_stay_while_an_archive_for_results_is_away_and_each_result_is_stored_once(
    tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    from medclip.files import stores

    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.01,))
    monkeypatch.setattr(watch_module, "_LONGEST_S", 0.1)
    out = tmp_path / "out"
    with archive([REPORT]) as there:
        to = {"export": f"sr={there.entity}", "keep_s": 0}
    with watching(out, pack, free_port(), **to) as (entity, notes):
        send(entity, studies(tmp_path / "in"))
        wait_for(lambda: any("could not be reached" in text for text in notes.sentences))
        assert len(received(out)) == 4
        with archive([REPORT], there.entity.port) as there:
            wait_for(lambda: len(there.kept) == 2)
            wait_for(lambda: not received(out))
            send(entity, [write_dicom(tmp_path / "new.dcm", 99, study_uid=f"{STUDY_UID}.9")])
            wait_for(lambda: len(there.kept) == 3)
            wait_for(lambda: not received(out))
    assert len({str(each.SOPInstanceUID) for each in there.kept}) == 3


def test_what_cannot_be_asked_is_refused_before_anything_is_listened_to(tmp_path: Path) -> None:
    images = tmp_path / "in"
    write_dicom(images / "1.dcm", 1)
    own = "dicom://MEDCLIP@:11112"
    refusals: list[tuple[Any, dict[str, Any], str]] = [
        (images, {"allow_ae": "CT1"}, "a folder is named"),
        (own, {"hash_paths": True}, "keyed hashes already"),
        (own, {"allow_ae": "A\\B"}, "no application entity"),
        ("dicom://MEDCLIP", {}, "no application entity"),
    ]
    for path, options, sentence in refusals:
        with pytest.raises(MedclipError, match=sentence) as refused:
            watch(path, tmp_path / "out", **options)
        assert refused.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError) as unknown:
        watch(own, tmp_path / "out", model=tmp_path / "none")
    assert unknown.value.reason is Reason.PACK_NOT_FOUND
    with pytest.raises(MedclipError, match="other file") as in_use:
        watch(own, images)
    assert in_use.value.reason is Reason.OUTPUT_IN_USE
    assert not (tmp_path / "out").exists()
