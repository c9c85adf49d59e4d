"""Watching finished runs: what changed is found and named, what did not is left alone, and two packs are paired."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import medclip
from medclip.errors import MedclipError, Reason
from medclip.monitoring.changes import Change
from medclip.monitoring.read_results import missing_weeks, periods_of
from tests.kits.size import is_nightly, sized
from tests.kits.stores import memory_store, put
from tests.kits.watched import write_run

__all__ = ["memory_store"]

WEEKS = [f"2024-W{number:02}" for number in range(1, 9)]


def nights(root: Path, *, last: dict[str, float] | None = None, num: int = 60) -> list[Path]:
    """Write one run for each week; the last one may be another."""
    folders = []
    for place, week in enumerate(WEEKS):
        values = last if last is not None and week == WEEKS[-1] else {}
        patients = range(place * num, (place + 1) * num)
        folders.append(write_run(root / week, patients=patients, week=week, **values))  # pyright: ignore
    return folders


def found(changes: tuple[Change, ...]) -> set[tuple[str, str, str]]:
    return {(one.period, one.about, one.subject) for one in changes if one.size in ("clear", "large")}


def test_a_week_in_which_the_scores_rise_is_found_and_named(tmp_path: Path) -> None:
    watched = medclip.monitor(nights(tmp_path, last={"shift": 1.5}), num_resamples=400)
    assert watched.by == "week"
    assert watched.reference.startswith("the first 4 weeks: 2024-W01")
    assert found(watched.changes) == {(WEEKS[-1], "scores", "chest: pneumonia")}
    alarm, first = watched.findings[:2]
    assert alarm.size == "alarm"
    assert alarm.text.startswith("Everything, since 2024-W08: mean probability of chest: pneumonia")
    assert first.text.startswith("Chest: pneumonia: mean probability")
    assert "in 1 of 4 weeks that could be compared, 2024-W08" in first.text
    assert watched.exit_code == 3


def test_weeks_that_are_alike_give_no_finding_and_say_so(tmp_path: Path) -> None:
    watched = medclip.monitor(nights(tmp_path), num_resamples=400)
    assert not found(watched.changes)
    assert watched.exit_code == 0
    (only,) = watched.findings
    assert "none differs from the reference by more than chance" in only.text


def test_files_that_fail_and_another_scanner_are_found_in_the_week_in_which_they_come(tmp_path: Path) -> None:
    watched = medclip.monitor(nights(tmp_path, last={"failed": 0.4, "scanner": 0.95}), num_resamples=400)
    assert {(WEEKS[-1], "files", "reason"), (WEEKS[-1], "mix", "scanner")} <= found(watched.changes)
    (failing,) = [one for one in watched.changes if one.about == "files" and one.period == WEEKS[-1]]
    assert (failing.name, failing.measure) == ("truncated", "share")
    assert failing.low < failing.difference < failing.high
    counted = watched.periods[-1]
    assert counted.num_units == counted.num_scored + counted.num_failed
    assert counted.num_failed > 10


def test_results_of_before_may_be_named_and_are_then_compared_with_every_run(tmp_path: Path) -> None:
    before = write_run(tmp_path / "january", patients=range(1000, 1200))
    now = write_run(tmp_path / "june", patients=range(100), seed=1, shift=1.0)
    watched = medclip.monitor(now, before=before, num_resamples=400)
    assert watched.by == "run"
    assert [(row.period, row.is_reference) for row in watched.periods] == [("january", 1), ("june", 0)]
    assert ("june", "scores", "chest: pneumonia") in found(watched.changes)


def test_a_patient_s_images_are_not_taken_for_as_many_patients(tmp_path: Path) -> None:
    one = medclip.monitor(
        write_run(tmp_path / "a", patients=range(60), seed=1, images=1),
        before=write_run(tmp_path / "b", patients=range(100, 160), images=1),
    )
    many = medclip.monitor(
        write_run(tmp_path / "c", patients=range(60), seed=1, images=9),
        before=write_run(tmp_path / "d", patients=range(100, 160), images=9),
    )

    def width(changes: tuple[Change, ...]) -> float:
        (scanner,) = [c for c in changes if c.subject == "scanner" and c.name == "GE"]
        return scanner.high - scanner.low

    assert width(many.changes) == pytest.approx(width(one.changes), rel=0.25)


def test_a_week_with_few_patients_is_counted_and_not_compared(tmp_path: Path) -> None:
    folders = nights(tmp_path)
    folders.append(write_run(tmp_path / "few", patients=range(900, 905), week="2024-W11", shift=5.0))
    watched = medclip.monitor(folders, num_resamples=100)
    assert "2024-W11" not in {one.period for one in watched.changes}
    assert watched.periods[-1].num_patients == 5
    assert any("Too few patients" in note and "2024-W11" in note for note in watched.notes)
    assert any(note == "No unit at all in 2024-W09 and 2024-W10." for note in watched.notes)


def test_a_week_that_begins_in_one_month_and_has_its_thursday_in_the_next_is_of_the_next() -> None:
    weeks = np.array(["2024-W05", "2024-W09", "2025-W01"])  # begin on 29 January, 26 February and 30 December
    assert periods_of(weeks, ["a"], "month").names == ("2024-02", "2025-01")
    assert periods_of(weeks, ["a"], "month").codes(weeks, np.zeros(3, int)).tolist() == [0, 0, 1]


def test_months_have_the_weeks_whose_thursday_they_have(tmp_path: Path) -> None:
    watched = medclip.monitor(nights(tmp_path), period="month", num_resamples=100)
    assert [row.period for row in watched.periods] == ["2024-01", "2024-02"]


def test_a_wish_for_weeks_where_no_run_wrote_them_says_how_to_get_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", patients=range(30))
    with pytest.raises(MedclipError, match="--weeks") as refused:
        medclip.monitor(folder, period="week")
    assert refused.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="week, month and run"):
        medclip.monitor(folder, period="monthly")
    with pytest.raises(MedclipError, match="one run only") as alone:
        medclip.monitor(folder)
    assert alone.value.reason is Reason.NOTHING_TO_DO


def test_results_are_not_compared_with_themselves(tmp_path: Path) -> None:
    january, june = (write_run(tmp_path / name, patients=range(9)) for name in ("january", "june"))
    for others in ({"before": [june, january]}, {"compare": tmp_path / "june" / ".." / "january"}):
        with pytest.raises(MedclipError, match="a folder that is among the results") as error:
            medclip.monitor(january, **others)  # pyright: ignore[reportArgumentType]
        assert error.value.reason == Reason.WRONG_USE


def test_a_folder_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "night", patients=range(4), week=WEEKS[0])
    with pytest.raises(MedclipError, match="named twice") as refused:
        medclip.monitor([folder, tmp_path / "." / "night"])
    assert refused.value.reason is Reason.WRONG_USE


def test_a_folder_without_a_finished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="no finished scoring run") as refused:
        medclip.monitor(tmp_path)
    assert refused.value.reason is Reason.MISSING_FILE
    with pytest.raises(MedclipError, match="no such folder"):
        medclip.monitor(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["files.parquet", "scores.parquet", "run.json"])
def test_a_table_that_is_cut_is_one_sentence_that_names_the_folder(name: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "june", patients=range(30))
    body = (folder / name).read_bytes()
    (folder / name).write_bytes(body[: len(body) // 2])
    with pytest.raises(MedclipError) as refused:
        medclip.monitor([folder, folder])
    assert refused.value.reason is Reason.CORRUPT
    assert str(folder) in str(refused.value)


def test_a_description_of_nothing_but_brackets_is_one_sentence(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "june", patients=range(30))
    (folder / "run.json").write_text("[" * 100_000)
    with pytest.raises(MedclipError) as refused:
        medclip.monitor([folder, folder])
    assert refused.value.reason is Reason.CORRUPT


def test_a_night_in_which_nothing_could_be_scored_is_counted_and_its_failures_are_found(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", patients=range(60))
    broken = write_run(tmp_path / "b", patients=range(100, 160), failed=1.0)
    pq.write_table(pq.read_table(broken / "scores.parquet").slice(0, 0), broken / "scores.parquet")
    watched = medclip.monitor(broken, before=before, num_resamples=100)
    assert watched.periods[-1].num_scored == watched.periods[-1].num_studies == 0
    assert found(watched.changes) == {("b", "files", "reason")}


def test_two_packs_are_compared_on_the_same_studies_with_the_decisions_that_differ(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", patients=range(100))
    new = write_run(tmp_path / "new", patients=range(120), shift=0.7, pack="medclip-mini 2.0")
    watched = medclip.monitor(new, compare=old, num_resamples=400)
    assert watched.num_paired == (100, 20, 0)
    assert (watched.reference, watched.changes) == ("", ())
    by_name = {one.name: one for one in watched.compared}
    raised = by_name["pneumonia"]
    assert raised.low > 0
    assert raised.num_to_yes > 5
    assert raised.num_to_no == 0
    assert raised.rank_correlation == pytest.approx(1.0)
    assert by_name["effusion"].largest == 0.0
    assert not by_name["pa"].num_to_yes
    assert abs(watched.changed_studies[0].difference) == max(abs(one.difference) for one in watched.changed_studies)
    assert {one.class_ for one in watched.changed_studies} == {"pneumonia"}
    assert watched.exit_code == 3


def test_decisions_of_a_question_with_one_answer_are_its_likeliest_class(tmp_path: Path) -> None:
    old, new = (write_run(tmp_path / name, patients=range(50)) for name in ("old", "new"))
    table = pq.read_table(new / "scores.parquet").to_pandas()
    asked = (table.task == "view") & (table.study == table.study[0])
    table.loc[asked, "probability"] = 1 - table.loc[asked, "probability"]
    table.to_parquet(new / "scores.parquet")
    watched = medclip.monitor(new, compare=old, num_resamples=100)
    turned = {one.name: one.num_to_yes + one.num_to_no for one in watched.compared}
    assert turned == {"effusion": 0, "pneumonia": 0, "ap": 1, "pa": 1}


def test_packs_that_answered_no_common_study_are_refused(tmp_path: Path) -> None:
    old, new = (write_run(tmp_path / f"{n}", patients=range(n, n + 30)) for n in (0, 100))
    with pytest.raises(MedclipError, match="share no study") as refused:
        medclip.monitor(new, compare=old)
    assert refused.value.reason is Reason.NOTHING_TO_DO


def test_page_and_tables_are_written_the_same_way_each_time_and_name_no_study_s_file(tmp_path: Path) -> None:
    folders = nights(tmp_path / "in", last={"shift": 1.0})
    out = tmp_path / "out"
    written = []
    for _ in range(2):
        medclip.monitor(folders, out=out, num_resamples=100)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {
        "alarm_charts.csv",
        "alarm_charts.parquet",
        "alarms.csv",
        "alarms.parquet",
        "changes.csv",
        "changes.parquet",
        "monitor.json",
        "periods.csv",
        "periods.parquet",
        "report.html",
    }
    assert b".dcm" not in b"".join(written[0].values())
    assert b"patient:" not in b"".join(written[0].values())
    read = json.loads(written[0]["monitor.json"])
    assert read["exit_code"] == 3
    assert len(read["changes"]) == len(pq.read_table(out / "changes.parquet"))


def test_another_folder_s_files_are_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(MedclipError) as refused:
        medclip.monitor(nights(tmp_path / "in"), out=out)
    assert refused.value.reason is Reason.OUTPUT_IN_USE


def test_weeks_are_counted_over_the_end_of_a_year() -> None:
    assert missing_weeks(["2020-W52", "2021-W01"]) == ["2020-W53"]
    assert missing_weeks([]) == []


@pytest.mark.slow
def test_without_any_drift_pages_with_a_change_are_about_as_rare_as_is_said_and_a_real_one_is_found(
    tmp_path: Path,
) -> None:
    false, power = [], []
    for seed in range(number := sized(40, least=8)):
        folders = []
        for place, week in enumerate(WEEKS):
            patients = range(place * 60, place * 60 + 60)
            folders.append(write_run(tmp_path / f"{seed}" / week, patients=patients, week=week, seed=seed))
        changed = write_run(tmp_path / f"{seed}" / "x", patients=range(900, 960), week="2024-W09", seed=seed, shift=1.0)
        watched = medclip.monitor([*folders, changed], num_resamples=300)
        false.append(any(one.size for one in watched.changes if one.period != "2024-W09"))
        power.append(("2024-W09", "scores", "chest: pneumonia") in found(watched.changes))
    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / number)
    assert np.mean(power) >= 0.8 - (0 if is_nightly() else 3 * np.sqrt(0.8 * 0.2 / number))


@pytest.mark.usefixtures("memory_store")
def test_runs_of_a_store_are_watched_as_those_of_a_disk(tmp_path: Path) -> None:
    folders = nights(tmp_path / "nights", last={"shift": 1.5}, num=25)
    before = write_run(tmp_path / "before", patients=range(500, 540), week="2023-W50")
    urls = [put(folder, f"memory://results/patient-77/{folder.name}") for folder in folders]
    asked = {"period": "run", "num_resamples": 200}
    of_disk = medclip.monitor(folders, before=before, out=tmp_path / "disk", **asked)
    of_store = medclip.monitor(urls, before=put(before, "memory://results/before"), out=tmp_path / "store", **asked)
    assert of_store.changes == of_disk.changes
    pages = {path.name: path.read_bytes() for path in (tmp_path / "disk").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == pages
    with pytest.raises(MedclipError, match="among the results"):
        medclip.monitor(urls, before=urls[:1])
