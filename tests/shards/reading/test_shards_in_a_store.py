"""Shard folders behind S3 and HTTP: read, checked and indexed as those on a disk are, with one read of each file."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.api.shards import check
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.reading.foreign import ForeignSet
from medclip.shards.reading.index_tars import index_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.reading.shard_cache import ShardCache
from medclip.shards.writing.build import Form, build_shards
from tests.kits.shards import KEY, write
from tests.kits.stores import WebStore, upload

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's folder with the shards "own" and the foreign tars "tars"."""
    out = tmp_path_factory.mktemp("store")
    images = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (90, 80), dtype=np.uint8)).save(images / f"{i}.png")
        split = "train" if i < 6 else "test"
        rows.append({"file": f"{i}.png", "patient": f"p{i}", "modality": "xray", "split": split, "caption": f"No {i}."})
    table = write(images / "table.csv", rows)
    build_shards(table, out / "own", Form(key=KEY, max_side=64, samples_per_shard=3), settings=Settings(workers=1))
    (out / "tars").mkdir()
    for number in range(2):
        with tarfile.open(out / "tars" / f"{number}.tar", "w") as tar:
            for i in range(3):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (40, 50), dtype=np.uint8)).save(buffer, "JPEG")
                for extension, data in (("jpg", buffer.getvalue()), ("txt", b"A film.")):
                    info = tarfile.TarInfo(f"{i:06d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return out


@pytest.fixture
def web(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.05,))
    shutil.copytree(folder, tmp_path / "web")
    with WebStore(tmp_path / "web") as server:
        yield server


@pytest.mark.parametrize("kind", ["s3", "http"])
def test_a_folder_in_a_store_reads_as_the_one_on_a_disk(folder, web, s3, tmp_path, capsys, kind):
    url = upload(folder / "own", "own-shards", s3) if kind == "s3" else f"{web.url}/own"
    cache = ShardCache.at(tmp_path / "cache")
    with ShardReader(url, "train", cache=cache) as away, ShardReader(folder / "own", "train") as near:
        assert len(away) == len(near) == 6
        assert away.shard_hashes == near.shard_hashes
        for i in range(6):
            assert np.array_equal(away[i].image, near[i].image)
            assert away.record(i) == near.record(i)
    assert check(url).problems == check(folder / "own").problems == ()
    capsys.readouterr()
    assert main(["shards", "check", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == url


def test_each_file_of_a_store_is_fetched_once(web: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDCLIP_HOME", str(tmp_path))  # where no rows are mapped yet
    cache = ShardCache.at(tmp_path / "cache")
    for _ in range(3):
        with ShardReader(f"{web.url}/own", "train", cache=cache) as reader:
            reader.want(range(len(reader.shards)))
            assert all(reader.raw(i) for i in range(len(reader)))
    counts = Counter(path.rpartition("/")[2] for path, _, _ in web.requests)
    assert counts == {"index.json": 3, "samples.parquet": 1, "train-000000.tar": 1, "train-000001.tar": 1}


def test_a_changed_table_or_shard_in_a_store_is_named(web: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = web.folder / "own"
    tar = own / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[-1] = 1
    tar.write_bytes(data)
    assert check(f"{web.url}/own").problems == ("train-000000.tar was changed since the build.",)
    cache = ShardCache.at(tmp_path / "cache")
    with ShardReader(f"{web.url}/own", "train", cache=cache) as reader, pytest.raises(MedclipError) as e:
        reader.want([0])
    assert (e.value.reason, e.value.where) == (Reason.CORRUPT, f"{web.url}/own/train-000000.tar")
    tar.unlink()
    assert "train-000000.tar is missing." in check(f"{web.url}/own").problems
    (own / "samples.parquet").write_bytes((own / "rejects.parquet").read_bytes())
    monkeypatch.setenv("MEDCLIP_HOME", str(tmp_path))  # where no rows are mapped yet
    with pytest.raises(MedclipError, match="table of samples was changed") as e:
        ShardReader(f"{web.url}/own", "train", cache=cache.at(tmp_path / "empty"))
    assert e.value.reason is Reason.TABLE_INVALID
    with pytest.raises(MedclipError, match="there are no shards here") as e:
        ShardReader(f"{web.url}/tars", "train")
    assert e.value.reason is Reason.MISSING_FILE


def test_tars_in_a_bucket_are_indexed_where_they_lie(folder: Path, s3: str, tmp_path: Path, capsys):
    url = upload(folder / "tars", "foreign-tars", s3)
    (tmp_path / "key").write_bytes(KEY)
    options = ["--source", "set", "--license", "CC0", "--modality", "xray", "--key-file", str(tmp_path / "key")]
    assert main(["shards", "index", url, *options]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["shards", "index", url, *options, "--out", str(tmp_path / "index")]) == 0
    assert json.loads((tmp_path / "index" / "index.json").read_text())["foreign"]["base"] == url
    index_shards(folder / "tars", ForeignSet("set", "CC0", Modality.XRAY), key=KEY, out=tmp_path / "near")
    for name in ("samples.parquet", "rejects.parquet"):
        assert (tmp_path / "index" / name).read_bytes() == (tmp_path / "near" / name).read_bytes()
    reader = ShardReader(tmp_path / "index", "train", cache=ShardCache.at(tmp_path / "cache"))
    near = ShardReader(tmp_path / "near", "train")
    assert [reader.raw(i) for i in range(6)] == [near.raw(i) for i in range(6)]
    assert check(tmp_path / "index").ok


def test_a_tar_is_indexed_with_one_read_from_front_to_back(web: WebStore, tmp_path: Path):
    index_shards(f"{web.url}/tars", ForeignSet("set", "CC0", Modality.XRAY), key=KEY, out=tmp_path / "index")
    sizes = {f"/tars/{i}.tar": (web.folder / "tars" / f"{i}.tar").stat().st_size for i in range(2)}
    assert {path: (start, sent) for path, start, sent in web.requests} == {p: (0, s) for p, s in sizes.items()}
    assert len(web.requests) == 2
