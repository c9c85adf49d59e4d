from __future__ import annotations

import errno
import gc
import io
import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Problem, Reason
from medclip.settings import Settings
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing import build as build_module
from medclip.shards.writing.build import Form, build_shards, sample_key
from medclip.shards.writing.exam_groups import ReadResult, read_row
from medclip.shards.writing.splits import plan_shards
from tests.kits.progress import Recorded
from tests.kits.shards import KEY, NUM_PATIENTS, write

SETTINGS = Settings(workers=1)


@pytest.fixture(scope="module")
def shards(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "shards"
    report = build_shards(table, out, Form(key=KEY, samples_per_shard=20), settings=SETTINGS)
    return out, report


def test_every_row_is_a_sample_or_a_reject_with_its_reason(shards, table):
    out, report = shards
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert report.num_samples == 2 * NUM_PATIENTS + 3
    assert sum(report.counts_by_split.values()) == report.num_samples
    assert {r["reason"] for r in rejects} >= {"empty_file", "truncated", "missing_file"}
    assert len(rejects) == sum(report.counts_by_reason.values()) == 4
    assert report.counts_by_modality == {"fundus": 1, "xray": report.num_samples - 1}
    assert set(report.preprocessing) == {"fundus", "generic", "xray"}


def test_the_folder_passes_its_own_check(shards):
    result = check_shards(shards[0])
    assert result.problems == ()
    assert result.ok
    assert result.labels["chest_xray_findings"]["pneumonia"] == NUM_PATIENTS
    assert sum(result.patients_by_split.values()) == NUM_PATIENTS + 1


def test_the_same_input_gives_the_same_bytes(shards, table, tmp_path):
    out, report = shards
    again = build_shards(
        table, tmp_path / "b", Form(key=KEY, samples_per_shard=20), settings=replace(SETTINGS, workers=2)
    )
    assert again.shard_sha256 == report.shard_sha256
    for name in ("index.json", "samples.parquet", "rejects.parquet"):
        assert (tmp_path / "b" / name).read_bytes() == (out / name).read_bytes()


def test_another_seed_gives_other_splits(shards, table, tmp_path):
    other = build_shards(table, tmp_path / "b", Form(key=KEY, samples_per_shard=20, seed=1), settings=SETTINGS)
    assert other.shard_sha256 != shards[1].shard_sha256


def test_no_patient_is_in_two_splits_and_none_is_named(shards):
    out, _ = shards
    sides: dict[str, set[str]] = {}
    for row in pq.read_table(out / "samples.parquet").to_pylist():
        sides.setdefault(row["patient"], set()).add(row["split"])
    assert len(sides) == NUM_PATIENTS + 1
    assert all(len(s) == 1 for s in sides.values())
    for path in out.iterdir():
        assert b"Doe^Jane" not in path.read_bytes()


def test_samples_read_back_in_any_order(shards, table):
    out, report = shards
    seen = {}
    for split, count in report.counts_by_split.items():
        with ShardReader(out, split) as reader:
            assert len(reader) == count
            for i in reversed(range(count)):
                sample = reader[i]
                assert sample.image.dtype == np.uint8
                assert sample.image.ndim == 3
                assert max(sample.image.shape) <= 288
                assert sample.image.shape[2] == 3
                assert sample.key == sample.meta["key"] == reader.key(i)
                assert reader.record(i)[0] == sample.record
                seen[sample.key] = sample
    assert len(seen) == report.num_samples
    records = [s.record for s in seen.values()]
    assert sum(r.generic for r in records) == 1
    assert sum(r.labels.get("chest_xray_findings", {}).get("pneumonia") == 1 for r in records) == NUM_PATIENTS
    assert any(r.texts == ("The disc is well seen.",) for r in records)
    with pytest.raises(IndexError):
        ShardReader(out, "train")[10_000]


def test_a_reader_works_in_threads_and_travels(shards):
    reader = pickle.loads(pickle.dumps(ShardReader(shards[0], "train")))
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda i: reader[i].key, range(len(reader))))
    assert keys == [reader.key(i) for i in range(len(reader))]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdataset_reads_the_tars(shards):
    import webdataset

    out, _ = shards
    urls = sorted(str(p) for p in out.glob("train-*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    gc.collect()
    with ShardReader(out, "train") as reader:
        assert len(samples) == len(reader)
        by_key = {s["__key__"]: s for s in samples}
        for i in range(0, len(reader), 7):
            assert np.array_equal(by_key[reader.key(i)]["png"], reader[i].image)
            assert by_key[reader.key(i)]["txt"]


def test_a_sample_is_a_image_a_record_and_a_caption_without_times(shards):
    with tarfile.open(next(shards[0].glob("train-*.tar"))) as tar:
        infos = tar.getmembers()
    assert {i.name.partition(".")[2] for i in infos} == {"png", "json", "txt"}
    assert {(i.mtime, i.uid, i.gid, i.uname) for i in infos} == {(0, 0, 0, "")}


def test_keys_tell_renderings_and_copies_apart_but_not_names():
    keys = [
        sample_key("a" * 64, generic=g, view=v, occurrence=o) for g in (False, True) for v in (0, 1) for o in (0, 1)
    ]
    assert len(set(keys)) == 8
    assert all(len(k) == 16 for k in keys)


def test_equal_files_of_different_patients_in_two_splits_are_a_problem_and_a_warning(table, tmp_path, capsys):
    folder = table.parent
    rows = [
        {"file": "x0_0.png", "patient": "a", "modality": "xray", "split": "train"},
        {"file": "copy.png", "patient": "b", "modality": "xray", "split": "test"},
    ]
    path = write(tmp_path / "t.csv", rows)
    report = build_shards(path, tmp_path / "s", Form(key=KEY), settings=SETTINGS, images=folder)
    result = check_shards(tmp_path / "s")
    assert report.num_duplicates_across_splits == result.num_duplicates_across_splits == 2
    assert not result.ok
    (problem,) = result.problems
    assert "2 samples lie in another split too, byte for byte, under another patient" in problem
    key = tmp_path / "key"
    key.write_bytes(KEY)
    options = ["--images", str(folder), "--key-file", str(key), "--workers", "1", "--json"]
    assert main(["shards", "build", str(path), "--out", str(tmp_path / "t"), *options]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["num_duplicates_across_splits"] == 2
    assert "warning: 2 samples" in said.err
    rows[1]["split"] = "train"
    write(path, rows)
    build_shards(path, tmp_path / "u", Form(key=KEY), settings=SETTINGS, images=folder)
    assert check_shards(tmp_path / "u").ok


def test_a_folder_with_something_in_it_is_refused_and_left_alone(table, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MedclipError) as e:
        build_shards(table, tmp_path, Form(key=KEY), settings=SETTINGS)
    assert e.value.reason is Reason.OUTPUT_IN_USE
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_when_nothing_can_be_read_nothing_is_left(tmp_path):
    path = write(tmp_path / "t.csv", [{"file": "gone.png", "patient": "p", "modality": "xray"}])
    with pytest.raises(MedclipError, match="missing_file 1") as e:
        build_shards(path, tmp_path / "s", Form(key=KEY), settings=SETTINGS)
    assert e.value.reason is Reason.NOTHING_TO_DO
    assert "--images names another folder" in e.value.hint
    with pytest.raises(MedclipError) as e:
        build_shards(path, tmp_path / "s", Form(key=KEY), settings=SETTINGS, images=tmp_path)
    assert "without it, beside the table" in e.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_nothing_behind(table, tmp_path, monkeypatch, stop):
    def fail(*_):
        raise stop

    monkeypatch.setattr(build_module.TarShard, "add", fail)
    monkeypatch.setattr(build_module, "read_rows", in_this_process)
    with pytest.raises((MedclipError, KeyboardInterrupt)) as e:
        build_shards(table, tmp_path / "s", Form(key=KEY), settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []
    if isinstance(stop, OSError):
        assert e.value.reason is Reason.DISK_FULL


def test_a_crashed_decoder_is_one_reject(table, tmp_path, monkeypatch):
    def crash_at_first(jobs, settings):
        for number, job in enumerate(jobs):
            died = ReadResult("", problem=Problem(Reason.DECODER_CRASHED, "died"))
            yield read_row(job, settings) if number else died

    monkeypatch.setattr(build_module, "read_rows", crash_at_first)
    rows = [{"file": f"x{i}_0.png", "patient": str(i), "modality": "xray", "split": "train"} for i in range(3)]
    path = write(tmp_path / "t.csv", rows)
    report = build_shards(path, tmp_path / "s", Form(key=KEY), settings=SETTINGS, images=table.parent)
    assert report.counts_by_reason == {"decoder_crashed": 1}
    assert report.num_samples == 2


def in_this_process(jobs, settings):
    return (read_row(job, settings) for job in jobs)


def test_a_fault_of_a_decoder_is_told_by_its_kind_only(monkeypatch, table):
    from medclip.adapters import registry
    from medclip.shards.writing.exam_groups import ReadJob

    def fail(*_):
        raise RuntimeError("Jane Doe")

    monkeypatch.setattr(registry, "read_unit", fail)
    result = read_row(ReadJob(table.parent / "x0_0.png", None, 64), SETTINGS)
    assert result.problem is not None
    assert result.problem.reason is Reason.CORRUPT
    assert "RuntimeError" in result.problem.message
    assert "Jane" not in result.problem.message


def test_progress_counts_every_row(table, tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "read_rows", in_this_process)
    shown = Recorded()
    build_shards(table, tmp_path / "s", Form(key=KEY), settings=SETTINGS, progress=shown)
    assert shown.stages == [("Rows", 2 * NUM_PATIENTS + 7, 0)]
    assert len(shown.steps) == 2 * NUM_PATIENTS + 7


def test_the_plan_counts_without_reading(table):
    plan = plan_shards(table)
    assert plan.num_rows == 2 * NUM_PATIENTS + 7
    assert plan.num_patients == NUM_PATIENTS + 1
    assert plan.num_missing_files == 1
    assert plan.rows_by_modality["generic"] == 1
    assert plan.labels["chest_xray_findings"]["pneumonia"] == {"present": NUM_PATIENTS, "absent": NUM_PATIENTS}


def copy_of(shards, folder):
    folder.mkdir()
    for path in shards[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_the_check_finds_a_flipped_byte_a_missing_shard_and_a_foreign_file(shards, tmp_path):
    folder = copy_of(shards, tmp_path / "s")
    first, second = sorted(folder.glob("*.tar"))[:2]
    data = bytearray(first.read_bytes())
    data[600] ^= 1
    first.write_bytes(data)
    second.unlink()
    (folder / "notes.txt").write_text("x")
    problems = " ".join(check_shards(folder).problems)
    assert f"{first.name} was changed" in problems
    assert f"{second.name} is missing" in problems
    assert "notes.txt" in problems


def test_the_check_finds_a_patient_on_two_sides_and_wrong_counts(shards, tmp_path):
    folder = copy_of(shards, tmp_path / "s")
    table = pq.read_table(folder / "samples.parquet")
    rows = table.to_pylist()
    other = next(i for i, r in enumerate(rows) if r["split"] != rows[0]["split"])
    rows[other]["patient"] = rows[0]["patient"]
    pq.write_table(table.from_pylist(rows[:-1], schema=table.schema), folder / "samples.parquet")
    problems = " ".join(check_shards(folder).problems)
    assert "samples.parquet was changed" in problems
    assert "more than one split" in problems
    assert "The index counts" in problems
    assert "cannot be read" in problems


def test_a_truncated_shard_and_table_are_problems_not_crashes(shards, tmp_path):
    folder = copy_of(shards, tmp_path / "s")
    first = sorted(folder.glob("*.tar"))[0]
    first.write_bytes(first.read_bytes()[:1000])
    assert any("cannot be read" in p for p in check_shards(folder).problems)
    reader = ShardReader(folder, first.name.split("-")[0])
    with pytest.raises(MedclipError) as e:
        [reader[i] for i in range(len(reader))]
    assert e.value.reason is Reason.CORRUPT
    (folder / "samples.parquet").write_bytes(b"PAR1")
    assert not check_shards(folder).ok


@pytest.mark.parametrize(
    "lost", ["tables", "counts", "shards", "preprocessing", "counts.by_split", "shards.name", "shards.samples"]
)
def test_an_index_that_lacks_something_is_refused_with_its_name(shards, tmp_path, capsys, lost):
    folder = copy_of(shards, tmp_path / "s")
    index = json.loads((folder / "index.json").read_text())
    whole, _, part = lost.partition(".")
    for holder in [index] if not part else index[whole] if whole == "shards" else [index[whole]]:
        del holder[part or whole]
    (folder / "index.json").write_text(json.dumps(index))
    assert main(["shards", "check", str(folder)]) == 2
    said = capsys.readouterr().err
    assert lost in said or "entry 1 of 'shards'" in said
    assert "Build again." in said


def test_a_table_of_the_folder_that_lacks_a_column_is_a_problem(shards, tmp_path):
    folder = copy_of(shards, tmp_path / "s")
    for name in ("samples.parquet", "rejects.parquet"):
        pq.write_table(pq.read_table(folder / name).drop(["sha256"]), folder / name)
    problems = " ".join(check_shards(folder).problems)
    assert "samples.parquet has no column sha256" in problems
    assert "rejects.parquet has no column sha256" in problems


def test_folders_without_shards_and_unknown_splits_are_refused(shards, tmp_path):
    with pytest.raises(MedclipError) as e:
        check_shards(tmp_path)
    assert e.value.reason is Reason.MISSING_FILE
    with pytest.raises(MedclipError, match="train"):
        ShardReader(shards[0], "nope")
    (tmp_path / "index.json").write_text(json.dumps({"format": "medclip-shards", "version": 99}))
    with pytest.raises(MedclipError) as e:
        ShardReader(tmp_path, "train")
    assert e.value.reason is Reason.TABLE_INVALID


def test_stored_images_are_plain_png(shards):
    with ShardReader(shards[0], "train") as reader:
        data = reader.members(0)["png"]
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.info == {}


@pytest.mark.shared
def test_the_shared_sets_become_shards(shared, tmp_path):
    import csv

    rows = []
    for name, modality in (("nih_cxr", "xray"), ("csdi_fundus", "fundus"), ("brain_mri", "mri")):
        with (shared / "data" / name / "labels.csv").open(newline="", encoding="utf-8") as f:
            listed = list(csv.DictReader(f))[:6]
        rows += [
            {"file": str(shared / "data" / name / r["file"]), "patient": r["file"], "modality": modality}
            for r in listed
        ]
    report = build_shards(write(tmp_path / "t.csv", rows), tmp_path / "s", Form(key=KEY), settings=SETTINGS)
    assert report.num_samples == 18
    assert check_shards(tmp_path / "s").ok


def test_a_image_without_a_finite_value_is_rejected_and_single_gaps_are_black(tmp_path):
    import tifffile

    rng = np.random.default_rng(0)
    whole = rng.normal(100, 30, (64, 64)).astype(np.float32)
    gaps, nan, inf = whole.copy(), np.full_like(whole, np.nan), np.full_like(whole, np.inf)
    gaps[:8, :8], gaps[8:10, 8:10] = np.nan, np.inf
    for name, pixels in {"whole": whole, "gaps": gaps, "nan": nan, "inf": inf}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
    names = ("whole", "gaps", "nan", "inf")
    rows = [{"file": f"{n}.tif", "patient": f"patient {n}", "modality": "dermatology", "split": "train"} for n in names]
    report = build_shards(write(tmp_path / "t.csv", rows), tmp_path / "s", Form(key=KEY), settings=SETTINGS)
    assert report.counts_by_reason == {"non_finite": 2}
    assert report.num_samples == 2
    with ShardReader(tmp_path / "s", "train") as reader:
        darkest = sorted(int(reader[i].image[:8, :8].max()) for i in range(2))
    assert darkest[0] == 0 < darkest[1]


def test_jpeg_shards_are_smaller_and_nearly_the_same(table, tmp_path):
    reports = {
        form: build_shards(table, tmp_path / form, Form(key=KEY, stored=form, quality=90), settings=SETTINGS)
        for form in ("png", "jpeg")
    }
    assert check_shards(tmp_path / "jpeg").problems == ()
    assert reports["jpeg"].num_samples == reports["png"].num_samples
    readers = [ShardReader(tmp_path / form, "train") for form in reports]
    sizes = [sum(s.num_bytes or 0 for s in r.shards) for r in readers]
    assert sizes[1] < 0.8 * sizes[0]
    assert [readers[0].key(i) for i in range(9)] == [readers[1].key(i) for i in range(9)]
    png, jpeg = (r[0].image.astype(int) for r in readers)
    assert np.abs(png - jpeg).mean() < 12  # noise is the worst case
    with pytest.raises(MedclipError, match="image_format is one of png and jpeg, not 'gif'"):
        medclip.shards.build(table, tmp_path / "x", image_format="gif")
    with pytest.raises(MedclipError, match="quality is 1 to 100, not 0"):
        medclip.shards.build(table, tmp_path / "x", quality=0)
