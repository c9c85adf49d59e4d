"""A run over a real PACS: the scores of a folder, nothing left behind, the same end after kills and pauses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.files.dicomweb.spool import DicomwebFiles
from medclip.progress import Silent
from medclip.settings import Settings
from tests.kits.kills import left_behind, run_anew
from tests.kits.loaded_python import Programs
from tests.kits.pacs import INSTALL, ORTHANC, ask, dicomweb, fill, free_port, orthanc
from tests.kits.scoring import PLANTED, STUDY_UID, write_dicom
from tests.kits.size import sized

pytest.importorskip("dicomweb_client")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.skipif(ORTHANC is None, reason=INSTALL),
]
QUERY = "ModalitiesInStudy=DX"
NUM_STUDIES = sized(12, least=6)
MOMENTS = (0.4, 0.8, 1.0, 0.2, 0.6, 0.9, 1.1)[: sized(7, least=3)]
"""When runs are killed, as parts of what one takes that sends nothing."""


def write_studies(folder: Path, studies: range = range(NUM_STUDIES)) -> list[Path]:
    """Write studies of two images."""
    return [
        write_dicom(folder / f"{study}" / f"{image}.dcm", 10 * study + image, study_uid=f"{STUDY_UID}.{study}")
        for study in studies
        for image in (1, 2)
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies. Read only."""
    folder = tmp_path_factory.mktemp("images")
    write_studies(folder)
    return folder


@pytest.fixture
def pacs(images: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a PACS with those studies, and one that the query does not match."""
    (tmp_path / "pacs").mkdir()
    with orthanc(tmp_path / "pacs") as url:
        fill(url, sorted(images.rglob("*.dcm")))
        fill(url, [write_dicom(tmp_path / "other.dcm", 99, modality="MG", study_uid=f"{STUDY_UID}.99")])
        yield url


def run(url: str, out: Path, pack: Path, **options: Any) -> Any:
    return score(
        dicomweb(url), out, query=QUERY, model=pack, prompt=["a fracture"], min_confidence=0.0, workers=2, **options
    )


def probabilities(scored: Any) -> dict[str, list[tuple[str, float]]]:
    answers: dict[str, list[tuple[str, float]]] = {}
    for row in scored.scores.to_pylist():
        answers.setdefault(row["study"], []).append((row["class"], row["probability"]))
    return answers


def test_a_pacs_is_scored_as_a_folder_of_its_files_is_and_nothing_of_it_stays(
    pacs: str, images: Path, pack: Path, tmp_path: Path
) -> None:
    scored = run(pacs, tmp_path / "out", pack)
    of_folder = score(images, tmp_path / "folder", model=pack, prompt=["a fracture"], min_confidence=0.0)
    assert probabilities(scored) == probabilities(of_folder)
    assert scored.counts == of_folder.counts == {**scored.counts, "scored": 2 * NUM_STUDIES, "studies": NUM_STUDIES}
    assert all(re.fullmatch(r"[0-9a-f]{16}/[0-9a-f]{16}\.dcm", path) for path in scored.files["path"].to_pylist())
    assert not (tmp_path / "out" / "spool").exists()
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [value for value in (*PLANTED.values(), STUDY_UID) if value.encode() in content], path.name
    before = left_behind(tmp_path / "out")
    assert run(pacs, tmp_path / "out", pack).already_finished
    assert left_behind(tmp_path / "out") == before


def test_a_pacs_is_embedded_as_a_folder_of_its_files_is_and_counted_before(
    pacs: str, images: Path, pack: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"model": pack, "min_confidence": 0.0, "workers": 2}
    seen = embed(dicomweb(pacs), tmp_path / "out", query=QUERY, dry_run=True, **options)
    assert seen.planned["listed"]["modalities"] == {"DX": NUM_STUDIES}
    assert seen.counts == {**seen.counts, "files": 2 * NUM_STUDIES, "studies": NUM_STUDIES}
    assert not (tmp_path / "out").exists()
    vectors = embed(dicomweb(pacs), tmp_path / "out", query=QUERY, **options)
    of_folder = embed(images, tmp_path / "folder", **options)
    assert vectors.counts == of_folder.counts
    both = [
        dict(zip(each.studies.column("study").to_pylist(), each.vectors("studies").tolist(), strict=True))
        for each in (vectors, of_folder)
    ]
    assert both[0] == both[1]
    assert not (tmp_path / "out" / "spool").exists()
    asked = {"model": pack, "prompt": ["a fracture"]}
    assert probabilities(score(vectors, **asked)) == probabilities(run(pacs, tmp_path / "scores", pack))


def test_results_go_back_once_and_a_study_that_grew_is_scored_anew_with_add(
    pacs: str, pack: Path, tmp_path: Path
) -> None:
    to = {"export": f"sr={dicomweb(pacs)}"}
    first = run(pacs, tmp_path / "out", pack, **to)
    assert first.exported["stored"] == {"stored": NUM_STUDIES, "refused": 0}
    reports = ask(f"{pacs}/tools/find", b'{"Level": "Series", "Query": {"Modality": "SR"}}')
    assert len(reports) == NUM_STUDIES
    heat_map = {"study_uid": f"{STUDY_UID}.5", "SeriesInstanceUID": f"{STUDY_UID}.5.2", "Manufacturer": "medclip"}
    fill(pacs, [write_dicom(tmp_path / "map.dcm", 8, **heat_map)])
    again = run(pacs, tmp_path / "out", pack, **to)  # the reports in the studies are not taken for images that came
    assert again.already_finished
    assert len(ask(f"{pacs}/tools/find", b'{"Level": "Series", "Query": {"Modality": "SR"}}')) == NUM_STUDIES

    fill(pacs, [write_dicom(tmp_path / "late.dcm", 7, study_uid=f"{STUDY_UID}.3")])
    with pytest.raises(MedclipError) as refused:
        run(pacs, tmp_path / "out", pack, **to)
    assert refused.value.reason is Reason.OUTPUT_IN_USE
    grown = run(pacs, tmp_path / "out", pack, add=True, **to)
    assert grown.counts["scored"] == 2 * NUM_STUDIES + 1
    assert grown.counts["studies"] == NUM_STUDIES
    changed = [study for study, values in probabilities(grown).items() if values != probabilities_of(first, study)]
    assert len(changed) <= 1
    assert len(ask(f"{pacs}/tools/find", b'{"Level": "Series", "Query": {"Modality": "SR"}}')) == NUM_STUDIES + 1


def probabilities_of(scored: Any, study: str) -> list[tuple[str, float]] | None:
    return probabilities(scored).get(study)


def test_another_query_is_another_run(pacs: str, pack: Path, tmp_path: Path) -> None:
    run(pacs, tmp_path / "out", pack)
    with pytest.raises(MedclipError) as refused:
        score(dicomweb(pacs), tmp_path / "out", query="ModalitiesInStudy=MG", model=pack, prompt=["a fracture"])
    assert "the query" in str(refused.value)


def test_a_small_spool_changes_no_byte(pacs: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medclip.runs.planning import listing, look

    monkeypatch.setattr(listing, "WINDOW_FILES", 4)
    monkeypatch.setattr(look, "WINDOW_FILES", 4)
    run(pacs, tmp_path / "large", pack)
    run(pacs, tmp_path / "small", pack, settings=Settings(spool_bytes=1))
    assert left_behind(tmp_path / "small") == left_behind(tmp_path / "large")


_SETUP = """
from medclip.runs.planning import look
from medclip.runs.planning import listing
from medclip.runs.planning import plan
from medclip.runs.units import chunk
listing.WINDOW_FILES = look.WINDOW_FILES = 4
plan.CHUNK_FILES, chunk.READ_AHEAD = 2, 3
from medclip.api.score import score
import dicomweb_client, medclip.models.packs.pack, medclip.reports.score.report, medclip.scoring.scoring_run
import open_clip, pyarrow.parquet, torch
def run(url, out, pack, query, forms):
    to = [f"{form}={url}" for form in forms.split()]
    score(url, out, query=query, model=pack, prompt=["a fracture"], min_confidence=0.0, workers=2, export=to)
"""


def assert_kills_change_no_byte_and_send_each_result_once(
    programs: Programs, pacs: str, pack: Path, folder: Path, forms: dict[str, str]
) -> None:
    """Kill a run at moments of it, from its first look at the archive to the sending.

    Args:
        programs: What starts the runs.
        pacs: URL of the archive.
        pack: The model.
        folder: For outputs.
        forms: What is sent, and its modality in the archive.
    """

    def num_sent() -> dict[str, int]:
        queries = {form: f'{{"Level": "Instance", "Query": {{"Modality": "{of}"}}}}' for form, of in forms.items()}
        return {form: len(ask(f"{pacs}/tools/find", query.encode())) for form, query in queries.items()}

    def has_ended(name: str, seconds: float = 300, sent: str = " ".join(forms)) -> bool:
        values = (dicomweb(pacs), folder / name, pack, QUERY, sent)
        return run_anew(_SETUP, *values, seconds=seconds, python=programs.python)

    began = time.monotonic()
    assert has_ended("timed", sent="")
    seconds = time.monotonic() - began
    num_kills = sum(not has_ended("killed", part * seconds) for part in MOMENTS)
    assert num_kills
    assert has_ended("killed")
    assert not (folder / "killed" / "spool").exists()
    assert num_sent() == dict.fromkeys(forms, NUM_STUDIES)
    assert has_ended("undisturbed")
    assert left_behind(folder / "killed") == left_behind(folder / "undisturbed")
    assert num_sent() == dict.fromkeys(forms, NUM_STUDIES)


def test_runs_that_are_killed_go_on_to_the_same_bytes_and_send_each_report_once(
    programs: Programs, pacs: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764288000")
    assert_kills_change_no_byte_and_send_each_result_once(programs, pacs, pack, tmp_path, {"sr": "SR"})


def test_a_server_that_was_away_is_gone_on_with(
    images: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.05, 0.1))
    (tmp_path / "pacs").mkdir()
    port = free_port()
    with orthanc(tmp_path / "pacs", port) as url:
        fill(url, sorted(images.rglob("*.dcm")))
        run(url, tmp_path / "undisturbed", pack)
    with pytest.raises(MedclipError) as away:
        run(url, tmp_path / "out", pack)
    assert away.value.reason is Reason.UNREACHABLE
    assert not (tmp_path / "out").exists()
    with orthanc(tmp_path / "pacs", port) as url:
        run(url, tmp_path / "out", pack)
    assert left_behind(tmp_path / "out") == left_behind(tmp_path / "undisturbed")


@pytest.mark.shared
def test_files_of_the_field_come_out_of_a_pacs_as_they_went_in(shared: Path, pack: Path, tmp_path: Path) -> None:
    files = sorted((shared / "data" / "field_dev").rglob("*.dcm"))
    (tmp_path / "pacs").mkdir()
    with orthanc(tmp_path / "pacs") as url:
        kept = []
        for file in files:
            try:
                kept += [file] if ask(f"{url}/instances", file.read_bytes())["Status"] == "Success" else []
            except OSError:  # what is no DICOM file is refused
                continue
        scored = score(
            dicomweb(url), tmp_path / "out", query="StudyDate=19000101-21001231", model=pack, prompt=["a fracture"]
        )
    assert len(kept) > 50
    known = {row["sha256"] for row in scored.files.to_pylist()}
    stored = [file for file in kept if _sha256(file) in known]
    assert len(stored) == scored.counts["files"]
    assert scored.counts["files"] > 50


def _sha256(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def export_as_folder(pacs: str, folder: Path) -> Path:
    """Write the files of a PACS into a folder, under the names that a run over it has for them."""
    from medclip.files.pseudonyms import keyed_hash, load_key

    key = load_key(Settings())
    for instance in ask(f"{pacs}/instances?expand"):
        study = ask(f"{pacs}/instances/{instance['ID']}/study")["MainDicomTags"]["StudyInstanceUID"]
        uid = instance["MainDicomTags"]["SOPInstanceUID"]
        path = folder / keyed_hash("study", f"uid\0{study}", key) / f"{keyed_hash('instance', uid, key)}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(f"{pacs}/instances/{instance['ID']}/file") as answer:
            path.write_bytes(answer.read())
    return folder


MAPS = ["sr", "sc"]


def results_of(out: Path) -> dict[str, bytes]:
    folder = out / "results"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def test_heat_maps_of_a_pacs_are_those_of_a_folder_of_its_files_and_go_back_with_the_reports(
    pacs: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764288000")
    folder = export_as_folder(pacs, tmp_path / "folder")
    asked: dict[str, Any] = {"model": pack, "prompt": ["a fracture"], "min_confidence": 0.0, "workers": 2}
    dx = score(folder, tmp_path / "of_folder", export=MAPS, report={"explain": "top"}, **asked)
    to = [f"{form}={dicomweb(pacs)}" for form in MAPS]
    scored = run(pacs, tmp_path / "out", pack, export=to, report={"explain": "top"})
    of_pacs, of_folder = results_of(tmp_path / "out"), results_of(tmp_path / "of_folder")
    assert len(of_pacs) == 2 * NUM_STUDIES
    assert of_pacs == {name: content for name, content in of_folder.items() if name in of_pacs}
    assert dx.exported is not None
    assert dx.exported["written"] == {"sr": NUM_STUDIES + 1, "sc": NUM_STUDIES + 1}
    assert scored.exported["stored"] == {"stored": NUM_STUDIES, "refused": 0}
    assert not (tmp_path / "out" / "spool").exists()
    assert "heat map: a fracture" in scored.report_path.read_text()
    maps = ask(f"{pacs}/tools/find", b'{"Level": "Series", "Query": {"Modality": "OT"}}')
    assert len(maps) == NUM_STUDIES
    with monkeypatch.context() as patch:  # nothing of it is kept: each image is fetched once more
        patch.setattr(DicomwebFiles, "keep", lambda *_: None)
        run(pacs, tmp_path / "fetched", pack, export=MAPS)
    assert results_of(tmp_path / "fetched") == of_pacs
    assert run(pacs, tmp_path / "out", pack, export=to).already_finished, "maps in the studies are no images that came"


def test_runs_that_are_killed_while_they_draw_go_on_to_the_same_bytes_and_send_each_map_once(
    programs: Programs, pacs: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764288000")
    assert_kills_change_no_byte_and_send_each_result_once(programs, pacs, pack, tmp_path, {"sr": "SR", "sc": "OT"})


def test_a_report_of_a_study_that_grew_names_the_one_that_was_sent(pacs: str, pack: Path, tmp_path: Path) -> None:
    to = {"export": f"sr={dicomweb(pacs)}"}
    run(pacs, tmp_path / "out", pack, **to)
    fill(pacs, [write_dicom(tmp_path / "late.dcm", 7, study_uid=f"{STUDY_UID}.3")])
    run(pacs, tmp_path / "out", pack, add=True, **to)
    query = f'{{"Level": "Instance", "Query": {{"Modality": "SR", "StudyInstanceUID": "{STUDY_UID}.3"}}}}'
    tags = [ask(f"{pacs}/instances/{one}/simplified-tags") for one in ask(f"{pacs}/tools/find", query.encode())]
    assert len(tags) == 2
    (new,) = [report for report in tags if report.get("PredecessorDocumentsSequence")]
    (old,) = [report for report in tags if report is not new]
    (series,) = new["PredecessorDocumentsSequence"][0]["ReferencedSeriesSequence"]
    assert series["ReferencedSOPSequence"][0]["ReferencedSOPInstanceUID"] == old["SOPInstanceUID"]


class _Look(Silent):
    """Counts the reports of a PACS when the tables are about to be written."""

    def __init__(self, url: str) -> None:
        self.url, self.num_reports = url, -1

    def stage(self, name: str, total: int, done: int = 0) -> None:
        if name == "Writing the results":
            self.num_reports = len(ask(f"{self.url}/tools/find", b'{"Level": "Series", "Query": {"Modality": "SR"}}'))


def test_reports_are_in_the_pacs_before_the_run_is_complete(pacs: str, pack: Path, tmp_path: Path) -> None:
    look = _Look(pacs)
    scored = run(pacs, tmp_path / "out", pack, export=f"sr={dicomweb(pacs)}", progress=look)
    assert look.num_reports == NUM_STUDIES
    assert scored.exported["stored"] == {"stored": NUM_STUDIES, "refused": 0}


def test_a_query_without_a_match_is_an_empty_run(pacs: str, pack: Path, tmp_path: Path) -> None:
    quiet = {"query": "ModalitiesInStudy=DX,StudyDate=19000101", "model": pack, "prompt": ["a fracture"]}
    scored = score(dicomweb(pacs), tmp_path / "out", **quiet)
    assert (scored.counts["files"], scored.exit_code) == (0, 0)
    assert score(dicomweb(pacs), tmp_path / "out", **quiet).already_finished


def test_an_address_for_results_where_nobody_answers_ends_the_call_in_seconds(
    images: Path, pack: Path, tmp_path: Path
) -> None:
    nowhere = f"dicomweb://127.0.0.1:{free_port()}/dicom-web"
    begun = time.monotonic()
    with pytest.raises(MedclipError) as away:
        score(images, tmp_path / "out", model=pack, prompt=["x"], export=f"sr={nowhere}")
    assert away.value.reason is Reason.UNREACHABLE
    assert time.monotonic() - begun < 10
    assert not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_a_pacs_is_scored_on_ray_to_the_bytes_of_a_run_here_and_nothing_of_it_stays(
    pacs: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    to = {"export": f"sr={dicomweb(pacs)}", "settings": Settings(spool_bytes=1)}
    run(pacs, tmp_path / "here", pack)
    on_ray = run(pacs, tmp_path / "on_ray", pack, engine="ray", **to)
    assert on_ray.exported["stored"] == {"stored": NUM_STUDIES, "refused": 0}
    here = left_behind(tmp_path / "here")
    assert {name: content for name, content in left_behind(tmp_path / "on_ray").items() if name in here} == here
    assert not (tmp_path / "on_ray" / "spool").exists()
