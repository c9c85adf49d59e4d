from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.cli.main import main
from tests.kits.mammography_cohort import write_cohort
from tests.kits.shards import KEY, write, write_films


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("images"))


def test_a_dry_run_says_what_it_understood_and_writes_nothing(table, tmp_path, capsys):
    assert main(["shards", "build", str(table), "--out", str(tmp_path / "s"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "67 rows of 31 patients" in said
    assert "  label chest_xray_findings pneumonia: present " in said
    assert "num" not in said
    assert "Doe" not in said
    assert list(tmp_path.iterdir()) == []


def test_build_and_check_speak_json(table, tmp_path, capsys):
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY)
    rows = [{"file": str(table.parent / f"x{i}_0.png"), "patient": f"p{i}", "modality": "xray"} for i in range(6)] + [
        {"file": "gone.png", "patient": "p9", "modality": "xray"}
    ]
    path, out = write(tmp_path / "t.csv", rows), tmp_path / "s"
    options = ["--key-file", str(key_file), "--splits", "train=0.5,test=0.5", "--workers", "1", "--json"]
    assert main(["shards", "build", str(path), "--out", str(out), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_samples"] == 6
    assert report["counts_by_reason"] == {"missing_file": 1}
    assert main(["shards", "check", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    next(out.glob("*.tar")).write_bytes(b"")
    assert main(["shards", "check", str(out)]) == 3
    assert "problem:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"), [(["--splits", "train"], "--splits"), (["--splits", "train=0.5"], "sum to 1")]
)
def test_wrong_use_is_one_sentence(table, tmp_path, capsys, options, said):
    assert main(["shards", "build", str(table), "--out", str(tmp_path / "s"), "--dry-run", *options]) == 2
    assert said in capsys.readouterr().err


def test_without_patients_the_command_says_what_to_do(tmp_path, capsys):
    path = write(tmp_path / "t.csv", [{"file": "a.png", "modality": "xray"}])
    assert main(["shards", "build", str(path), "--out", str(tmp_path / "s")]) == 2
    assert "--patient file" in capsys.readouterr().err


def test_check_says_of_a_table_what_a_dry_run_says_and_writes_nothing(table, tmp_path, capsys):
    assert main(["shards", "build", str(table), "--out", str(tmp_path / "s"), "--dry-run", "--json"]) == 0
    dry = capsys.readouterr().out
    assert main(["shards", "check", str(table), "--json"]) == 3, "a file of the table is missing"
    assert capsys.readouterr().out == dry
    assert main(["shards", "check", str(table), "--splits", "train=0.5,test=0.5"]) == 3
    said = capsys.readouterr().out
    assert "67 rows of 31 patients; nothing was written" in said
    assert "Doe" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_check_names_the_mistake_in_a_table(tmp_path, capsys, suffix):
    rows = [{"file": "a.png", "patient": "p1", "modality": "moon"}]
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, rows, "\t" if suffix == "tsv" else ",")
    assert main(["shards", "check", str(path)]) == 2
    assert "row 1: `modality` is 'moon'" in capsys.readouterr().err


def test_shards_of_jpegs_are_built_and_other_formats_are_refused(table, tmp_path, capsys):
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY)
    rows = [{"file": str(table.parent / f"x{i}_0.png"), "patient": f"p{i}", "modality": "xray"} for i in range(3)]
    path, out = write(tmp_path / "t.csv", rows), tmp_path / "s"
    command = ["shards", "build", str(path), "--out", str(out), "--key-file", str(key_file), "--workers", "1"]
    assert main([*command, "--image-format", "gif"]) == 2
    assert "png and jpeg" in capsys.readouterr().err
    assert main([*command, "--image-format", "jpeg", "--quality", "80"]) == 0
    assert main(["shards", "check", str(out)]) == 0
    with tarfile.open(next(out.glob("*.tar"))) as tar:
        assert {n.partition(".")[2] for n in tar.getnames()} == {"jpg", "json", "txt"}


def test_check_of_a_table_says_missing_files_first_and_ends_with_1(tmp_path, capsys):
    rows = [{"file": f"{n}.png", "patient": f"p{n}", "modality": "xray"} for n in range(3)]
    path = write(tmp_path / "t.csv", rows)
    (tmp_path / "0.png").write_bytes(b"")
    assert main(["shards", "check", str(path)]) == 3
    first = capsys.readouterr().out.splitlines()[0]
    assert "2 of 3 files are not there, such as 1.png." in first
    assert "--images" in first
    dry_run = ["shards", "build", str(path), "--out", str(tmp_path / "s"), "--dry-run"]
    assert main(dry_run) == 0, "a build leaves such rows out"
    (tmp_path / "0.png").unlink()
    assert main(dry_run) == 3, "nothing could be built"
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(b"")
    assert main(["shards", "check", str(path)]) == 0


def test_a_group_makes_exams_and_another_word_is_refused(tmp_path, capsys):
    path, out = write_cohort(tmp_path / "cohort", 2, height=40), tmp_path / "s"
    build = ["shards", "build", str(path), "--out", str(out), "--workers", "1", "--group"]
    assert main([*build, "exam", "--dry-run"]) == 0
    assert "samples by number of views: 4 2" in capsys.readouterr().out
    assert main([*build, "breasts"]) == 2
    assert "Did you mean 'breast'?" in capsys.readouterr().err
    assert not out.exists()
    assert main([*build, "breast"]) == 0
    assert "samples by number of views: 2 4" in capsys.readouterr().out
    assert main(["shards", "check", str(out)]) == 0
