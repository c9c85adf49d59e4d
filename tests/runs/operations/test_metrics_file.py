"""Metrics in the text format of Prometheus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from medclip.errors import MedclipError, Reason
from medclip.runs.operations.watch import check_metrics_file, metrics_text, write_metrics

METRICS = [
    ("files", 'Files\nand "more" \\.', (({"status": 'a"b\\c\nd'}, 3.0), ({"status": "scored"}, 4.5))),
    ("seconds_total", "Seconds.", (({}, 1795861664.60698),)),
    ("exit_code", "Nothing yet.", ()),
]


def test_what_is_written_is_read_back_by_prometheus_itself():
    families = {f.name: f for f in text_string_to_metric_families(metrics_text(METRICS, run="night"))}
    files = {sample.labels["status"]: sample for sample in families["medclip_run_files"].samples}
    assert {name: sample.value for name, sample in files.items()} == {'a"b\\c\nd': 3.0, "scored": 4.5}
    assert {sample.labels["run"] for sample in files.values()} == {"night"}
    assert families["medclip_run_files"].documentation == 'Files\nand "more" \\.'
    (seconds,) = families["medclip_run_seconds"].samples
    assert seconds.value == pytest.approx(1795861664.60698, abs=1e-5)
    assert families["medclip_run_seconds"].type == "counter"


def test_the_file_is_for_all_to_read_and_is_named_in_its_values(tmp_path: Path):
    before = os.umask(0o077)
    try:
        write_metrics(tmp_path / "ward.prom", METRICS)
    finally:
        os.umask(before)
    assert (tmp_path / "ward.prom").stat().st_mode & 0o777 == 0o644
    assert 'run="ward"' in (tmp_path / "ward.prom").read_text()
    assert os.listdir(tmp_path) == ["ward.prom"]


def test_a_folder_is_no_file_of_metrics(tmp_path: Path):
    (tmp_path / "x.prom").mkdir()
    with pytest.raises(MedclipError, match="folder"):
        check_metrics_file(tmp_path / "x.prom")


def test_metrics_of_others_are_left_as_they_are_and_ours_are_replaced(tmp_path: Path):
    other = tmp_path / "smartmon.prom"
    other.write_text("# HELP smartmon_up 1\n# TYPE smartmon_up gauge\nsmartmon_up 1\n")
    with pytest.raises(MedclipError, match="did not write") as refused:
        check_metrics_file(other)
    assert refused.value.reason is Reason.WRONG_USE
    assert other.read_text().endswith("smartmon_up 1\n")
    other.write_text(metrics_text(METRICS, run="x") + "smartmon_up 1\n")
    with pytest.raises(MedclipError, match="did not write"):
        check_metrics_file(other)
    write_metrics(tmp_path / "ward.prom", METRICS)
    check_metrics_file(tmp_path / "ward.prom")
    (tmp_path / "empty.prom").touch()
    check_metrics_file(tmp_path / "empty.prom")
