"""Scoring a folder: one row per file, equal bytes however often it is stopped, nothing personal in any output."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from medclip.models.packs.card import Card, read_card
from medclip.runs.planning import plan as plan_module
from medclip.runs.planning.options import ScoreOptions
from medclip.scoring.tasks import asked_tasks
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand
from tests.kits.scoring import PLANTED, STUDY_UID, digests, rows, small_folder, write_dicom, write_png
from tests.kits.stops import Budget, Stopped


def test_every_file_has_one_row_with_its_status(pack: Path, studies: Path, tmp_path: Path) -> None:
    run = score(studies, tmp_path / "out", model=pack, workers=1)
    found = rows(run)
    expected = sorted(p.relative_to(studies).as_posix() for p in studies.rglob("*") if p.is_file())
    assert list(found) == expected
    assert [row["row"] for row in found.values()] == list(range(1, len(expected) + 1))
    assert run.counts["files"] == run.counts["scored"] + run.counts["skipped"] + run.counts["failed"] == len(expected)
    assert found["a/1.dcm"]["status"] == "scored"
    assert found["a/1.dcm"]["study"] == found["a/2.dcm"]["study"]
    assert (found["broken.png"]["status"], found["broken.png"]["reason"]) == ("failed", "truncated")
    assert (found["empty.dcm"]["status"], found["empty.dcm"]["reason"]) == ("failed", "empty_file")
    assert found["notes.txt"]["status"] == "skipped"
    assert run.exit_code == 3


def test_a_data_frame_names_a_file_of_each_row(pack: Path, studies: Path, tmp_path: Path) -> None:
    run = score(studies, tmp_path / "out", model=pack, workers=1)
    frame = run.to_pandas()
    assert len(frame) == run.scores.num_rows
    assert set(frame["path"]) < set(run.files["path"].to_pylist())
    studies_of = {row["path"]: row["study"] for row in run.files.to_pylist()}
    assert [studies_of[path] for path in frame["path"]] == frame["study"].tolist()


def test_study_scores_are_the_mean_logits_of_its_images(pack: Path, tmp_path: Path) -> None:
    both, first, second = tmp_path / "both", tmp_path / "first", tmp_path / "second"
    for folder, names in ((both, "12"), (first, "1"), (second, "2")):
        for name in names:
            write_dicom(folder / f"{name}.dcm", int(name))
    logits = {}
    for folder in (both, first, second):
        table = score(folder, model=pack, workers=1).scores.to_pylist()
        logits[folder] = {(r["task"], r["class"]): r["logit"] for r in table}
        assert {r["num_images"] for r in table} == {2 if folder == both else 1}
    for name, value in logits[both].items():
        assert value == pytest.approx((logits[first][name] + logits[second][name]) / 2, abs=1e-4)


def test_a_film_costs_the_sentences_of_questions_about_films_and_no_others(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack of eleven modalities is no slower on one of them than a pack of that one alone."""
    encoded: list[str] = []
    encode = Model.encode_text

    def noted(self: Model, texts: str | Sequence[str]) -> Any:
        encoded.extend([texts] if isinstance(texts, str) else texts)
        return encode(self, texts)

    monkeypatch.setattr(Model, "encode_text", noted)
    score(write_dicom(tmp_path / "1.dcm", 1), tmp_path / "out", model=pack, workers=1)
    card = read_card(pack)
    asked = ("chest_xray_view", "chest_xray_findings")
    assert set(asked) < set(card.tasks)
    prompts = [p for name in asked for p in expand(load_task(name), card.tasks[name].classes)]
    sentences = {text for p in prompts for text in (*p.positive, *p.negative)}
    assert set(encoded) - {""} == sentences


def test_questions_of_one_modality_come_before_those_of_several_unless_they_are_named() -> None:
    tasks = {"modality": {"classes": ["ct", "xray"]}, "body_region": {"classes": ["head", "thorax"]}}
    card = Card.model_validate({"name": "t", "tasks": {**tasks, "chest_xray_view": {"classes": ["ap", "pa"]}}})
    assert [asked.task.name for asked in asked_tasks(card, ScoreOptions())] == ["chest_xray_view", "body_region"]
    named = asked_tasks(card, ScoreOptions(tasks=("body_region", "chest_xray_view")))
    assert [asked.task.name for asked in named] == ["body_region", "chest_xray_view"]


@pytest.mark.parametrize(
    ("named", "hint"),
    [
        ("pneumonia", "pneumonia is a class of chest_xray_findings: --task chest_xray_findings."),
        ("Pleural  effusion", "Pleural  effusion is a class of chest_xray_findings: --task chest_xray_findings."),
        ("head", "head is a class of body_region: --task body_region."),
    ],
)
def test_a_class_in_the_place_of_a_task_is_answered_with_its_task_alone(named: str, hint: str) -> None:
    card = Card.model_validate({"name": "t", "tasks": {"body_region": {"classes": ["head", "thorax"]}}})
    with pytest.raises(MedclipError) as refused:
        asked_tasks(card, ScoreOptions(tasks=(named,)))
    assert refused.value.hint == hint


def test_of_several_tasks_with_a_class_those_of_the_card_are_named_first() -> None:
    card = Card.model_validate({"name": "t", "tasks": {"mammography_malignancy": {"classes": ["benign", "malignant"]}}})
    with pytest.raises(MedclipError) as refused:
        asked_tasks(card, ScoreOptions(tasks=("malignant",)))
    others = "breast_ultrasound_malignancy and histology_breast_malignancy"
    assert str(refused.value.hint).startswith(f"malignant is a class of mammography_malignancy, {others}: --task mamm")


def test_multiclass_probabilities_of_a_study_sum_to_one_and_tasks_fit_the_modality(
    pack: Path, studies: Path, tmp_path: Path
) -> None:
    table = score(studies, tmp_path / "out", model=pack, workers=1).scores.to_pylist()
    sums: dict[tuple[str, str], float] = {}
    for row in table:
        assert 0.0 <= row["probability"] <= 1.0
        if row["kind"] == "multiclass":
            key = (row["study"], row["task"])
            sums[key] = sums.get(key, 0.0) + row["probability"]
    assert sums
    assert np.allclose(list(sums.values()), 1.0, atol=1e-5)
    by_modality = {m: {r["task"] for r in table if r["modality"] == m} for m in ("xray", "mammography")}
    assert by_modality == {"xray": {"chest_xray_view", "chest_xray_findings"}, "mammography": {"breast_density"}}


def test_an_unsure_modality_is_skipped_and_a_believed_one_says_how_sure(pack: Path, studies: Path) -> None:
    careful = rows(score(studies, model=pack, workers=1, min_confidence=0.99))["png/0.png"]
    assert (careful["status"], careful["reason"]) == ("skipped", "modality_uncertain")
    assert "probability 0." in careful["message"]
    assert careful["modality"] is None
    run = score(studies, model=pack, workers=1, min_confidence=0.0, prompt="a bright blob")
    bold = rows(run)["png/0.png"]
    assert bold["status"] == "scored"
    assert bold["modality_source"] == "inferred"
    assert 0.2 < bold["modality_probability"] <= 1.0
    assert bold["adapter"] == bold["modality"]
    assert bold["study"] in set(run.scores.column("study").to_pylist())


def test_a_named_modality_is_not_inferred(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "x.png", 1)
    row = rows(score(tmp_path / "in", model=pack, workers=1, modality="xray"))["x.png"]
    assert (row["status"], row["modality"], row["modality_source"]) == ("scored", "xray", "option")
    assert row["modality_probability"] is None


def test_the_table_names_study_patient_and_modality_and_its_missing_files_have_rows(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("l.png", "r.png"):
        write_png(root / name, len(name))
    table = tmp_path / "table.csv"
    table.write_text(
        "file,study,patient,modality\nl.png,S1,P1,xray\nr.png,S1,P1,xray\ngone.png,S2,P1,xray\n", encoding="utf-8"
    )
    run = score(root, model=pack, workers=1, table=table)
    found = rows(run)
    assert found["l.png"]["study"] == found["r.png"]["study"] != "S1"
    assert found["l.png"]["modality_source"] == "table"
    assert found["gone.png"]["reason"] == "missing_file"
    assert len(set(run.scores.column("patient").to_pylist())) == 1


def test_a_modality_without_task_or_adapter_is_skipped_with_its_reason(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "x.png", 1)
    fundus = rows(score(tmp_path / "in", model=pack, workers=1, modality="fundus"))["x.png"]
    assert (fundus["status"], fundus["reason"]) == ("skipped", "no_task")
    ct = rows(score(tmp_path / "in", model=pack, workers=1, modality="ct"))["x.png"]
    assert (ct["status"], ct["reason"]) == ("skipped", "no_task")
    ecg = rows(score(tmp_path / "in", model=pack, workers=1, modality="ecg"))["x.png"]
    assert (ecg["status"], ecg["reason"]) == ("skipped", "no_task")


def test_a_modality_without_a_task_is_blamed_on_the_choice_only_where_someone_chose(pack: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "x.png", 1)
    listed = rows(score(tmp_path / "in", model=pack, workers=1, modality="fundus"))["x.png"]["message"]
    chosen = rows(score(tmp_path / "in", model=pack, workers=1, modality="fundus", task="chest_xray_view"))["x.png"]
    assert listed.startswith("The model lists no task for fundus images")
    assert chosen["message"].startswith("None of the tasks of this run is about fundus images")


def test_a_prompt_becomes_a_task_beside_the_named_ones(pack: Path, studies: Path) -> None:
    run = score(studies, model=pack, workers=1, task=["chest_xray_view"], prompt="a pacemaker", against="no device")
    assert set(run.scores.column("task").to_pylist()) == {"chest_xray_view", "prompt"}
    alone = score(studies, model=pack, workers=1, prompt="a pacemaker")
    assert set(alone.scores.column("task").to_pylist()) == {"prompt"}


@pytest.mark.parametrize(
    ("arguments", "reason", "said"),
    [
        ({"task": ["stroke"]}, Reason.WRONG_USE, "chest_xray_view"),
        ({"modality": "xrai"}, Reason.WRONG_USE, "xray"),
        ({"min_confidence": 1.5}, Reason.WRONG_USE, "min_confidence is 0 to 1"),
        ({"against": "nothing"}, Reason.WRONG_USE, "--prompt"),
        ({"group_by": "size"}, Reason.WRONG_USE, "folder"),
        ({"model": "no-such-pack"}, Reason.PACK_NOT_FOUND, "no-such-pack"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_written(
    pack: Path, studies: Path, tmp_path: Path, arguments: dict[str, Any], reason: Reason, said: str
) -> None:
    with pytest.raises(MedclipError, match=said) as caught:
        score(studies, tmp_path / "out", **{"model": pack, "workers": 1, **arguments})
    assert caught.value.reason is reason
    assert not (tmp_path / "out").exists()


def test_empty_and_missing_folders_are_told_in_one_sentence(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", Reason.NOTHING_TO_DO), ("gone", Reason.MISSING_FILE)):
        with pytest.raises(MedclipError) as caught:
            score(tmp_path / name, tmp_path / "out", model=pack, workers=1)
        assert caught.value.reason is reason
        assert name in str(caught.value)


def test_bad_inputs_get_rows_and_do_not_stop_the_run(pack: Path, tmp_path: Path) -> None:
    root = small_folder(tmp_path / "in")
    (root / "loop").symlink_to(root)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "pipe")
    locked = write_png(root / "locked.png", 30)
    locked.chmod(0)
    found = rows(score(root, model=pack, workers=1))
    assert found["loop"]["reason"] == "link_loop"
    assert found["dangling.png"]["reason"] == "missing_file"
    assert found["pipe"]["reason"] == "not_a_file"
    if os.geteuid() != 0:
        assert found["locked.png"]["reason"] == "permission_denied"
    locked.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert found["a/1.dcm"]["status"] == "scored"


def test_the_output_folder_may_lie_in_the_input_folder(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    out = tmp_path / "in" / "out"
    first = score(tmp_path / "in", out, model=pack, workers=1)
    again = score(tmp_path / "in", out, model=pack, workers=1)
    assert list(rows(first)) == ["1.dcm"]
    assert again.already_finished


def test_a_finished_run_is_not_computed_again_and_keeps_its_bytes(pack: Path, studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not score(studies, out, model=pack, workers=1).already_finished
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.iterdir() if p.suffix != ".sqlite"}
    assert score(studies, out, model=pack, workers=2).already_finished
    assert before == {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.iterdir() if p.suffix != ".sqlite"}


def test_another_run_in_the_folder_is_refused_and_says_what_differs(pack: Path, studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    score(studies, out, model=pack, workers=1)
    before = digests(out)
    with pytest.raises(MedclipError, match="the tasks and --min-confidence differ") as caught:
        score(studies, out, model=pack, workers=1, task=["chest_xray_view"], min_confidence=0.5)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert digests(out) == before


def test_a_folder_with_other_files_is_refused_and_left_alone(pack: Path, studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.docx").write_text("five years")
    with pytest.raises(MedclipError) as caught:
        score(studies, out, model=pack, workers=1)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert [p.name for p in out.iterdir()] == ["thesis.docx"]


def test_two_runs_and_any_number_of_workers_give_equal_bytes(pack: Path, studies: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 3)):
        score(studies, tmp_path / name, model=pack, workers=workers, min_confidence=0.0)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.slow
def test_a_run_stopped_at_any_commit_goes_on_and_ends_in_the_same_bytes(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "CHUNK_FILES", 2)
    root = small_folder(tmp_path / "in")
    score(root, tmp_path / "whole", model=pack, workers=1, min_confidence=0.0)
    budget = Budget(monkeypatch)
    out, stops = tmp_path / "out", 0
    while True:
        budget.num_left = 4 + stops % 3
        try:
            score(root, out, model=pack, workers=1, min_confidence=0.0)
            break
        except Stopped:
            stops += 1
            assert stops < 30
    assert stops >= 3
    assert digests(out) == digests(tmp_path / "whole")


def test_no_header_value_reaches_any_output(pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    write_dicom(root / "1.dcm", 1)
    write_dicom(root / "2.dcm", 2, modality="OT", study_uid=f"{STUDY_UID}.3")
    body = write_dicom(root / "3.dcm", 3).read_bytes()
    (root / "3.dcm").write_bytes(body[: len(body) // 2])
    write_png(root / "Curie Marie 18671107.png", 4)
    out = tmp_path / "out"
    run = score(root, out, model=pack, workers=1)
    texts = [path.read_bytes().decode("utf-8", "replace") for path in out.iterdir()]
    texts += [str(run.files.to_pylist()), str(run.scores.to_pylist()), *capfd.readouterr()]
    for secret in [*PLANTED.values(), "ROENTGEN", "Roentgen", "Wilhelm", STUDY_UID]:
        assert not any(secret in text for text in texts)
    report = (out / "report.html").read_text()
    for text in (report, (out / "run.json").read_text(), *capfd.readouterr()):
        assert "Curie" not in text
        assert str(tmp_path) not in text


def test_burned_in_text_keeps_the_thumbnail_out(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1, BurnedInAnnotation="YES")
    out = tmp_path / "out"
    score(tmp_path / "in", out, model=pack, workers=1)
    report = (out / "report.html").read_text()
    assert "data:image/jpeg" not in report
    assert "text is burned in" in report


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MedclipError, match="the disk is full") as caught:
        score(studies, out, model=pack, workers=1)
    assert caught.value.reason is Reason.DISK_FULL
    monkeypatch.setattr(os, "replace", replace)
    assert score(studies, out, model=pack, workers=1).counts["scored"] == 3


def test_without_an_output_folder_the_tables_live_as_long_as_the_result(pack: Path, studies: Path) -> None:
    run = score(studies / "a" / "1.dcm", model=pack, workers=1)
    folder = run.folder
    assert run.files.num_rows == 1
    assert run.report_path is not None
    del run
    assert not folder.exists()
