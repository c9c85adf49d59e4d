from __future__ import annotations

import json
import pickle
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.settings import Settings
from medclip.shards.reading import shard_files
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from tests.kits.shards import KEY, write


def build(folder, name, *, rows=8, seed=0, **options):
    """Shards of made-up films, two to a study: rows of patients named by the folder."""
    images = folder / f"{name}-images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    table = []
    for i in range(rows):
        Image.fromarray(rng.integers(0, 255, (90, 80), dtype=np.uint8)).save(images / f"{i}.png")
        table.append(
            {
                "file": f"{i}.png",
                "patient": f"{name}{i // 2}",
                "modality": "xray",
                "study": f"s{i // 2}",
                "source": name,
            }
            | {"split": "train" if i < rows - 2 else "test", "report": "Clear lungs. No effusion." if i % 2 else ""}
        )
    path = write(images / "table.csv", table)
    form = Form(key=KEY, max_side=64, samples_per_shard=3, **options)
    build_shards(path, folder / name, form, settings=Settings(workers=1))
    return folder / name


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("read")
    return build(folder, "a"), build(folder, "b", seed=1, stored="jpeg", quality=90)


def copy(folder, to):
    shutil.copytree(folder, to)
    return to


def test_several_folders_are_one_numbered_set(folders):
    alone = [ShardReader(f, "train") for f in folders]
    both = ShardReader(folders, "train")
    assert len(both) == sum(map(len, alone))
    for i in range(len(both)):
        reader, j = (alone[0], i) if i < len(alone[0]) else (alone[1], i - len(alone[0]))
        assert both.key(i) == reader.key(j)
        assert both.row(i) == both.rows[i] == reader.row(j)
        assert np.array_equal(both[i].image, reader[j].image)
        assert both.record(i) == reader.record(j)
    assert both.shard_hashes == alone[0].shard_hashes + alone[1].shard_hashes
    assert both.preprocessing == alone[0].preprocessing
    assert both.columns.sources == ("a", "b")
    assert [both.columns.sources[s] for s in both.columns.source_N] == [r["source"] for r in both.rows]
    assert [both.shards[s].name for s in both.columns.shard_N] == [r["shard"] for r in both.rows]


def test_jpeg_shards_pass_the_check_and_say_so_in_their_index(folders):
    assert check_shards(folders[1]).problems == ()
    assert json.loads((folders[1] / "index.json").read_text())["options"]["format"] == "jpeg"
    assert "format" not in json.loads((folders[0] / "index.json").read_text())["options"]
    reader = ShardReader(folders[1], "train")
    assert reader.members(0)["jpg"].startswith(b"\xff\xd8")


def test_studies_are_hashed_and_reports_kept(folders):
    reader = ShardReader(folders[0], "train")
    found = [reader.record(i) for i in range(len(reader))]
    by_patient: dict[str, set[str]] = {}
    for _, meta in found:
        by_patient.setdefault(meta["patient"], set()).add(meta["study"])
    assert all(len(s) == 1 and len(next(iter(s))) == 16 for s in by_patient.values())
    assert len({s for studies in by_patient.values() for s in studies}) == len(by_patient) == 3
    assert {record.report for record, _ in found} == {None, "Clear lungs. No effusion."}


def test_folders_that_do_not_go_together_are_refused(folders, tmp_path):
    with pytest.raises(MedclipError, match="only once"):
        ShardReader([folders[0], folders[0]], "train")
    with pytest.raises(MedclipError, match="at least one"):
        ShardReader([], "train")
    other = copy(folders[1], tmp_path / "other")
    index = json.loads((other / "index.json").read_text())
    index["preprocessing"]["xray"] = "0" * 16
    (other / "index.json").write_text(json.dumps(index))
    with pytest.raises(MedclipError) as e:
        ShardReader([folders[0], other], "train")
    assert e.value.reason is Reason.PREPROCESSING_MISMATCH
    moved = build(tmp_path, "a", rows=6)  # patient a2 is in test here, and in train there
    with pytest.raises(MedclipError) as e:
        ShardReader([folders[0], moved], "train")
    assert e.value.reason is Reason.PATIENT_OVERLAP
    assert "a2" not in str(e.value)


def test_a_split_that_one_of_the_folders_lacks_is_taken_from_the_others(folders, tmp_path):
    rows = [{"file": str(folders[0].parent / "a-images" / "0.png"), "patient": "x", "modality": "xray"}]
    table = write(tmp_path / "t.csv", [r | {"split": "extra"} for r in rows])
    build_shards(table, tmp_path / "c", Form(key=KEY), settings=Settings(workers=1))
    assert len(ShardReader([folders[0], tmp_path / "c"], "extra")) == 1
    with pytest.raises(MedclipError, match="extra, test, train"):
        ShardReader([folders[0], tmp_path / "c"], "nope")


@pytest.mark.parametrize(
    ("change", "verify", "said"),
    [
        ("byte", "full", "sha256"),
        ("byte", "size", None),
        ("longer", "size", "bytes"),
        ("longer", "none", None),
        ("gone", "none", "gone"),
        ("short", "none", "ends before"),
    ],
)
def test_a_shard_that_is_not_what_the_index_says_is_named(folders, tmp_path, change, verify, said):
    folder = copy(folders[0], tmp_path / "s")
    tar = folder / "train-000000.tar"
    data = tar.read_bytes()
    changed = {"byte": data[:-1] + b"\1", "longer": data + b"\0", "gone": b"", "short": data[:600]}[change]
    tar.write_bytes(changed)
    if change == "gone":
        tar.unlink()
    reader = ShardReader(folder, "train", verify=verify)
    if said is None:
        assert reader[0].image.size
        return
    with pytest.raises(MedclipError, match=said) as e:
        reader[0]
    assert "train-000000.tar" in str(e.value)
    assert e.value.reason is (Reason.MISSING_FILE if change == "gone" else Reason.CORRUPT)
    assert reader[4].image.size  # another shard


def test_a_changed_table_of_samples_is_told_when_everything_is_verified(folders, tmp_path):
    folder = copy(folders[0], tmp_path / "s")
    table = folder / "samples.parquet"
    table.write_bytes((folders[1] / "samples.parquet").read_bytes())
    with pytest.raises(MedclipError, match="changed"):
        ShardReader(folder, "train", verify="full")
    table.write_bytes(b"PAR1")
    for verify in ("full", "size"):
        with pytest.raises(MedclipError) as e:
            ShardReader(folder, "train", verify=verify)
        assert e.value.reason is Reason.TABLE_INVALID


def test_each_shard_is_hashed_once_and_few_stay_open(folders, monkeypatch):
    hashed = []
    real = shard_files.hashlib.sha256
    monkeypatch.setattr(shard_files.hashlib, "sha256", lambda *data: hashed.append(1) or real(*data))
    monkeypatch.setattr(shard_files, "MAX_OPEN", 1)
    reader = ShardReader(folders[0], "train", verify="full")
    threads = [threading.Thread(target=lambda: [reader.raw(i) for i in range(len(reader))]) for _ in range(4)]
    hashed.clear()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(hashed) == len(reader.shards)
    assert len(reader._files._open) == 1
    reader.close()
    assert reader[0].key == reader.key(0)
    again = pickle.loads(pickle.dumps(reader))
    assert again.verify == "full"
    assert np.array_equal(again[1].image, reader[1].image)


def test_numbers_beyond_the_end_are_no_samples(folders):
    reader = ShardReader(folders[0], "train")
    for number in (len(reader), -len(reader) - 1):
        with pytest.raises(IndexError):
            reader.raw(number)
