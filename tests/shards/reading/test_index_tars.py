from __future__ import annotations

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.foreign import ForeignSet, is_empty_record, read_foreign
from medclip.shards.reading.index_tars import MAX_SAMPLE_BYTES, index_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import to_json
from medclip.text.captions.record import CaptionRecord
from medclip.training.loop import run_recipe
from medclip.training.result import read_log
from tests.kits.shards import KEY
from tests.kits.training import masked_recipe


def image(seed, form="JPEG", mode="L"):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def tar(path, samples, form=tarfile.USTAR_FORMAT):
    with tarfile.open(path, "w", format=form) as file:
        for key, members in samples:
            for extension, data in members.items():
                data = data.encode() if isinstance(data, str) else data
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return path


CUT = Reason.CORRUPT
PACKED = "".join(f"Caption {i} of the film._chexpert_" for i in range(12))


@pytest.fixture
def folder(tmp_path):
    """Two tars as UniMed has them, with what is known to go wrong: .jpeg members, packed texts, keys that repeat."""
    out = tmp_path / "foreign"
    out.mkdir()
    tar(
        out / "00000.tar",
        [
            ("000000", {"jpg": image(0), "txt": PACKED}),
            ("000001", {"jpeg": image(1), "txt": "A second film."}),
            ("000002", {"png": image(2, "PNG", "RGB"), "json": '{"captions": ["One.", " "], "modality": "ct"}'}),
            ("000003", {"jpg": image(3), "txt": "  \n"}),
            ("000004", {"txt": "No image at all."}),
        ],
    )
    tar(
        out / "00001.tar",
        [
            ("000000", {"jpg": image(0), "txt": "The first film again, in another tar."}),
            ("000005", {"webp": image(5, "WEBP"), "json": '{"caption": "Five.", "report": "IMPRESSION: Clear."}'}),
            ("000006", {"jpg": b"\xff\xd8 broken", "txt": "Broken."}),
            ("000007", {"jpg": image(7), "json": "[1]"}),
        ],
        tarfile.PAX_FORMAT,
    )
    (out / "README.md").write_text("about")
    return out


def indexed(folder, **options):
    of = ForeignSet("set", "CC BY 4.0", Modality.XRAY)
    return index_shards(folder, options.pop("of", of), **{"key": KEY} | options)


def test_every_sample_is_indexed_or_left_out_with_its_reason(folder):
    before = {p: p.read_bytes() for p in folder.iterdir()}
    report = indexed(folder)
    assert (report.num_shards, report.num_samples) == (2, 5)
    assert report.counts_by_modality == {"ct": 1, "xray": 4}
    assert report.counts_by_reason == {"corrupt": 2, "empty_caption": 1, "no_pixels": 1}
    assert (report.num_duplicate_keys, report.num_duplicate_images) == (1, 1)
    assert all(p.read_bytes() == data for p, data in before.items())
    assert check_shards(folder).problems == ()


def test_samples_read_like_those_of_our_own_shards(folder):
    indexed(folder)
    with ShardReader(folder, "train", verify="full") as reader:
        samples = [reader[i] for i in range(len(reader))]
    assert [s.image.shape for s in samples] == [(40, 50, 3)] * 5
    assert len({s.key for s in samples}) == 5
    first, second, third, again, fifth = (s.record for s in samples)
    assert first.texts == tuple(f"Caption {i} of the film." for i in range(10))
    assert second.texts == ("A second film.",)
    assert (third.texts, third.modality) == (("One.",), Modality.CT)
    assert again.texts == ("The first film again, in another tar.",)
    assert (fifth.texts, fifth.report) == (("Five.",), "IMPRESSION: Clear.")
    assert {(s.meta["source"], s.meta["license"], s.meta["study"]) for s in samples} == {("set", "CC BY 4.0", "")}
    assert len({s.meta["patient"] for s in samples}) == 5
    assert [s.meta["key"] for s in samples] == [s.key for s in samples]


def test_the_index_may_lie_elsewhere(folder, tmp_path):
    indexed(folder, out=tmp_path / "x" / "index")
    assert not (folder / "index.json").exists()
    assert len(ShardReader(tmp_path / "x" / "index", "train")) == 5
    assert check_shards(tmp_path / "x" / "index").ok
    with pytest.raises(MedclipError) as e:
        indexed(folder, out=tmp_path / "x" / "index")
    assert e.value.reason is Reason.OUTPUT_IN_USE


def test_the_same_tars_give_the_same_index(folder, tmp_path):
    names = ("index.json", "samples.parquet", "rejects.parquet")
    for name in "ab":
        indexed(folder, out=tmp_path / name)
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_patients_come_from_the_json_where_it_names_them(tmp_path):
    record = [("a", {"jpg": image(i), "json": json.dumps({"caption": "x y z", "who": w})}) for i, w in enumerate("ppq")]
    tar(tmp_path / "0.tar", [(f"{i}", members) for i, (_, members) in enumerate(record)])
    assert indexed(tmp_path, patient_field="who").patient_from == "who"
    patients = [r["patient"] for r in ShardReader(tmp_path, "train").rows]
    assert patients[0] == patients[1] != patients[2]
    (tmp_path / "index.json").unlink()
    with pytest.raises(MedclipError, match="'name'") as e:
        indexed(tmp_path, patient_field="name")
    assert e.value.reason is Reason.TABLE_INVALID


def test_our_own_samples_without_their_index_keep_record_and_patient(tmp_path):
    record = CaptionRecord(Modality.FUNDUS, laterality="L", labels={"fundus_cataract": {"cataract": 1}})
    meta = {"key": "k", "sha256": "s", "patient": "p" * 16, "adapter": "fundus", "source": "old", "license": "none"}
    tar(tmp_path / "0.tar", [("k", {"png": image(0, "PNG"), "json": to_json(record, meta), "txt": "x"})])
    indexed(tmp_path)
    reader = ShardReader(tmp_path, "train")
    said, about = reader.record(0)
    assert said == record
    assert (about["patient"], about["adapter"], about["source"]) == ("p" * 16, "fundus", "set")
    assert reader.row(0)["patient"] == "p" * 16


def test_samples_that_say_that_they_are_synthetic_stay_marked_and_are_of_no_split_of_evaluation(tmp_path):
    (tmp_path / "tars").mkdir()
    made = {"synthetic": True, "caption": "A made film."}
    samples = [
        ("0", {"jpg": image(0), "json": json.dumps(made)}),
        ("1", {"jpg": image(1), "json": json.dumps(made | {"synthetic": "pasted"})}),
        ("2", {"jpg": image(2), "json": json.dumps(made | {"synthetic": False})}),
        ("3", {"jpg": image(3), "txt": "A film."}),
    ]
    tar(tmp_path / "tars/0.tar", samples)
    with pytest.raises(MedclipError, match="2 of the samples of the split 'test' are synthetic") as refused:
        indexed(tmp_path / "tars", split="test")
    assert refused.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "tars/index.json").exists()
    report = indexed(tmp_path / "tars")
    assert report.num_synthetic == 2
    assert pq.read_table(tmp_path / "tars/samples.parquet").column("synthetic").null_count == 2
    check = check_shards(tmp_path / "tars")
    assert check.ok
    assert check.num_synthetic == 2
    assert "synthetic" in str(check)
    reader = ShardReader(tmp_path / "tars", "train")
    assert [bool(reader.record(i)[1].get("synthetic")) for i in range(4)] == [True, True, False, False]


def test_a_tar_that_was_added_or_changed_is_a_problem(folder):
    indexed(folder)
    tar(folder / "00002.tar", [("x", {"jpg": image(0), "txt": "x"})])
    assert any("00002.tar" in p for p in check_shards(folder).problems)
    (folder / "00002.tar").unlink()
    data = bytearray((folder / "00001.tar").read_bytes())
    data[-1] = 1
    (folder / "00001.tar").write_bytes(data)
    assert any("00001.tar was changed" in p for p in check_shards(folder).problems)
    with pytest.raises(MedclipError, match=r"00001\.tar"):
        ShardReader(folder, "train", verify="full")[3]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: None, Reason.NOTHING_TO_DO),
        (lambda f: (f / "0.tar.gz").write_bytes(b"x"), Reason.NOTHING_TO_DO),
        (lambda f: (f / "0.tar").write_bytes(b"x" * 700), Reason.CORRUPT),
        (
            lambda f: (f / "0.tar").write_bytes(tar(f / "1.tar", [("a", {"jpg": image(0)})]).read_bytes()[:900]),
            Reason.CORRUPT,
        ),
        (lambda f: tar(f / "0.tar", [("a", {"txt": "x"})]), Reason.NOTHING_TO_DO),
    ],
)
def test_folders_that_cannot_be_indexed_are_refused_and_left_alone(tmp_path, make, reason):
    make(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(MedclipError) as e:
        indexed(tmp_path)
    assert e.value.reason is reason
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_an_index_is_not_written_over(folder):
    indexed(folder)
    with pytest.raises(MedclipError) as e:
        indexed(folder)
    assert e.value.reason is Reason.OUTPUT_IN_USE


def test_the_command_indexes_tells_repeats_and_names_what_it_does_not_know(folder, tmp_path, capsys):
    key = tmp_path / "key"
    key.write_bytes(KEY)
    options = ["--source", "set", "--license", "CC0", "--key-file", str(key)]
    assert main(["shards", "index", str(folder), *options, "--modality", "xrai"]) == 2
    assert "Did you mean 'xray'?" in capsys.readouterr().err
    assert main(["shards", "index", str(folder), *options, "--modality", "xray", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["num_samples"] == 5
    assert "1 sample with a key that another one has" in said.err
    assert main(["shards", "check", str(folder)]) == 0


def test_extensions_in_capitals_are_read_as_webdataset_does(tmp_path):
    tar(
        tmp_path / "0.tar",
        [
            ("IMG_1", {"JPG": image(0), "TXT": "A film."}),
            ("IMG_2", {"Png": image(1, "PNG"), "Json": '{"caption": "x"}'}),
        ],
    )
    report = indexed(tmp_path)
    assert (report.num_samples, report.counts_by_reason) == (2, {})
    with ShardReader(tmp_path, "train") as reader:
        assert [reader[i].record.texts for i in range(2)] == [("A film.",), ("x",)]
    assert check_shards(tmp_path).ok


def test_samples_that_are_left_out_are_counted_from_1(tmp_path):
    tar(tmp_path / "0.tar", [("a", {"txt": "no image"}), ("b", {"jpg": image(0), "json": '{"caption": "x"}'})])
    indexed(tmp_path)
    (row,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert (row["row"], row["message"]) == (1, "sample 1 of 0.tar")
    (tmp_path / "index.json").unlink()
    tar(tmp_path / "0.tar", [("b", {"jpg": image(0), "json": '{"caption": "x"}'})])
    with pytest.raises(MedclipError, match="sample 1 has no field 'who'"):
        indexed(tmp_path, patient_field="who")


@pytest.mark.parametrize("out", ["rec.yaml/x", "x" * 300, "/proc/x"])
def test_a_place_where_nothing_can_be_written_is_one_sentence(folder, tmp_path, capsys, out):
    (tmp_path / "rec.yaml").touch()
    (tmp_path / "key").write_bytes(KEY)
    options = ["--source", "s", "--license", "l", "--modality", "xray", "--key-file", str(tmp_path / "key")]
    assert main(["shards", "index", str(folder), *options, "--out", str(tmp_path / out)]) == 2
    said = capsys.readouterr().err
    assert "bug" not in said
    assert len(said.strip().splitlines()) == 1
    assert not (folder / "index.json").exists()


def test_a_record_of_nothing_but_a_modality_says_nothing():
    of = ForeignSet("s", "l", Modality.XRAY)
    row = {"key": "k", "sha256": "s", "patient": "p"}
    for found in ({"txt": b" "}, {"json": b'{"captions": []}'}, {"txt": b"noreportpresent"}):
        assert is_empty_record(read_foreign(found, of, row)[0])
    record, meta = read_foreign({"txt": b"Words.", "json": b'{"modality": "weather"}'}, of, row)
    assert (record.texts, record.modality, meta["adapter"]) == (("Words.",), Modality.XRAY, "foreign")
    assert ForeignSet.from_dict(of.to_dict()) == of


def rejected(folder):
    return pq.read_table(folder / "rejects.parquet").to_pylist()


def test_a_member_beyond_the_limit_is_stepped_over_and_its_sample_left_out(tmp_path):
    """The tar has a hole, as a file system makes it, so that the member takes no room."""
    path = tmp_path / "holes.tar"
    big = tarfile.TarInfo("000000.jpg")
    big.size = MAX_SAMPLE_BYTES + 1
    with path.open("wb") as file:
        file.write(big.tobuf(tarfile.USTAR_FORMAT))
        file.seek(-(-big.size // 512) * 512, io.SEEK_CUR)
        small = tarfile.open(fileobj=file, mode="w")  # noqa: SIM115
        for extension, data in (("jpg", image(1)), ("txt", b"A film.")):
            info = tarfile.TarInfo(f"000001.{extension}")
            info.size = len(data)
            small.addfile(info, io.BytesIO(data))
        small.close()
    tracemalloc.start()
    report = indexed(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.num_samples, report.counts_by_reason) == (1, {"too_large": 1})
    assert peak < 50e6
    with ShardReader(tmp_path, "train", verify="full") as reader:
        assert reader[0].record.texts == ("A film.",)


@pytest.mark.parametrize("kind", ["the member", "a long name", "a pax header"])
def test_a_size_that_is_forged_is_one_sentence(tmp_path, kind: str):
    info = tarfile.TarInfo("000000.jpg")
    info.type = {
        "the member": tarfile.REGTYPE,
        "a long name": tarfile.GNUTYPE_LONGNAME,
        "a pax header": tarfile.XHDTYPE,
    }[kind]
    info.size = 1 << 45
    (tmp_path / "forged.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(MedclipError, match="this is not a whole tar") as caught:
        indexed(tmp_path)
    assert caught.value.reason is Reason.CORRUPT


def test_a_sparse_member_is_left_out(tmp_path):
    """GNU's form: the header says where data lies; what is read between are zeros, as many as it likes."""
    real = 7 << 30
    head = bytearray(512)
    head[:12] = b"000000.jpg\0\0"
    head[100:108], head[108:116], head[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    head[124:136], head[136:148], head[156:157] = b"00000001000\0", b"00000000000\0", b"S"
    head[257:265] = b"ustar  \0"
    head[386:398], head[398:410] = b"00000000000\0", b"00000001000\0"  # one block of data at 0
    head[483:495] = b"%011o\0" % real
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    rest = tar(tmp_path / "rest", [("000001", {"jpg": image(1), "txt": "A film."})]).read_bytes()
    (tmp_path / "sparse.tar").write_bytes(bytes(head) + bytes(512) + rest)
    report = indexed(tmp_path)
    assert (report.num_samples, report.counts_by_reason) == (1, {"not_supported_yet": 1})


def test_json_that_is_nested_without_end_is_left_out(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    samples = [
        ("0", {"jpg": image(0), "json": f'{{"caption": {deep}}}'}),
        ("1", {"jpg": image(1), "json": deep}),
        ("2", {"jpg": image(2), "txt": "A film."}),
    ]
    tar(tmp_path / "deep.tar", samples)
    report = indexed(tmp_path)
    assert (report.num_samples, report.counts_by_reason) == (1, {"corrupt": 2})
    assert {row["sha256"] is None for row in rejected(tmp_path)} == {False}


def of_one_source(folder, seed, split, **options):
    """A folder with a 000000.tar and no patients in it, as every set of one source has them."""
    folder.mkdir()
    tar(folder / "000000.tar", [(f"{i:06d}", {"jpg": image(seed + i), "txt": f"Film {seed}."}) for i in range(3)])
    indexed(folder, split=split, **options)
    return folder


def test_tars_of_one_name_are_not_the_same_patients(tmp_path):
    folders = [of_one_source(tmp_path / "a", 0, "train"), of_one_source(tmp_path / "b", 10, "val")]
    with ShardReader(folders, "train") as train, ShardReader(folders, "val") as val:
        assert not {r["patient"] for r in train.rows} & {r["patient"] for r in val.rows}
        assert not {r["key"] for r in train.rows} & {r["key"] for r in val.rows}


def test_it_is_known_of_each_set_whether_it_names_patients(tmp_path):
    nobody = of_one_source(tmp_path / "a", 0, "train")
    (tmp_path / "b").mkdir()
    tar(tmp_path / "b" / "1.tar", [("1", {"jpg": image(1), "json": '{"caption": "A film.", "who": "P1"}'})])
    indexed(tmp_path / "b", patient_field="who")
    with ShardReader([nobody, tmp_path / "b"], "train") as reader:
        assert [row["names_patient"] for row in reader.provenance()] == [False] * 3 + [True]


@pytest.mark.parametrize("source", ["set", "another"])
def test_a_tar_that_stands_in_two_splits_is_refused_whoever_indexed_it(tmp_path, source):
    folders = [
        of_one_source(tmp_path / "a", 0, "train"),
        of_one_source(tmp_path / "b", 0, "val", of=ForeignSet(source, "CC BY 4.0", Modality.XRAY)),
    ]
    with pytest.raises(MedclipError, match=r"000000\.tar of the split 'val' is 000000\.tar of the split 'train'") as e:
        ShardReader(folders, "train")
    assert e.value.reason is Reason.PATIENT_OVERLAP
    patients = [pq.read_table(f / "samples.parquet")["patient"].to_pylist() for f in folders]
    assert patients[0] == patients[1]  # so that an audit finds them, too
    other = json.loads((folders[0] / "index.json").read_text())
    other["shards"].append(other["shards"][0] | {"split": "val", "name": "copy.tar"})
    (folders[0] / "index.json").write_text(json.dumps(other))
    assert "1 tars stand in more than one split, byte for byte." in check_shards(folders[0]).problems


def test_copies_of_a_tar_in_one_folder_are_samples_of_their_own(tmp_path):
    of_one_source(tmp_path / "a", 0, "train")
    (tmp_path / "a" / "copy.tar").write_bytes((tmp_path / "a" / "000000.tar").read_bytes())
    (tmp_path / "a" / "index.json").unlink()
    report = indexed(tmp_path / "a")
    assert (report.num_samples, report.num_duplicate_images) == (6, 3)
    assert check_shards(tmp_path / "a").ok


def test_images_without_a_text_are_kept_to_train_without_words(folder, tmp_path):
    report = indexed(folder, keep_textless=True)
    assert report.counts_by_reason == {"corrupt": 2, "no_pixels": 1}
    assert report.num_samples == 6
    recipe = masked_recipe(folder) | {"data": {"shards": str(folder), "val_split": None}}
    recipe["train"] |= {"epochs": 1, "ema": 0}
    result = run_recipe(recipe, out=tmp_path / "run")
    assert (result.steps, result.finished) == (1, True)
    assert not [entry for entry in read_log(tmp_path / "run" / "log.jsonl") if entry["kind"] == "bad"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_devices_and_folders_in_a_tar_are_stepped_over_and_nothing_is_unpacked(tmp_path, kind):
    """A tar is read where it lies: no member is written, whatever it is called, and no link is followed."""
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(image(9))
    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as file:
        special = tarfile.TarInfo("000.jpg")
        special.type, special.linkname = kind, str(outside)
        file.addfile(special)
        for name, data in (("000.txt", b"A text."), ("../../up.jpg", image(1)), ("../../up.txt", b"Up.")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("/abs/olute.jpg")
        info.size = len(image(2))
        file.addfile(info, io.BytesIO(image(2)))
        info = tarfile.TarInfo("/abs/olute.txt")
        info.size = 5
        file.addfile(info, io.BytesIO(b"Away."))
    before = set(tmp_path.rglob("*"))
    report = indexed(folder)
    assert report.counts_by_reason == {"no_pixels": 1}, "the text whose image is a link"
    with ShardReader(folder, "train", verify="full") as reader:
        texts = [reader[i].record.texts for i in range(len(reader))]
    assert texts == [("Up.",), ("Away.",)]
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {
        "index.json",
        "samples.parquet",
        "rejects.parquet",
    }


@pytest.mark.parametrize("name", ["../000000.tar", "/etc/passwd", "a/../../b.tar", "..", "a\\b.tar", ""])
def test_an_index_that_names_a_tar_elsewhere_is_refused(tmp_path, name):
    of_one_source(tmp_path / "a", 0, "train")
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    index["shards"][0]["name"] = name
    (tmp_path / "a" / "index.json").write_text(json.dumps(index))
    with pytest.raises(MedclipError, match="called like a place elsewhere"):
        ShardReader(tmp_path / "a", "train")
