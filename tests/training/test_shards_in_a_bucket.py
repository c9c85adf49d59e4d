"""Training on shards in a bucket: the same batches and losses as on a disk, whatever the cache, a kill or the ranks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.models.inputs.preprocess import Preprocess
from medclip.settings import Settings
from medclip.shards.reading import shard_files as read_ahead
from medclip.shards.reading.samples import ShardReader
from medclip.shards.reading.shard_cache import ShardCache
from medclip.shards.writing.build import Form, build_shards
from medclip.training.batches.loader import Batch, Batches, preflight
from medclip.training.batches.order import epoch_plan, windows_of_epoch
from medclip.training.loop import run_recipe
from medclip.training.recipe.augment import Augment
from medclip.training.recipe.schema import load_recipe
from medclip.training.result import read_log
from tests.kits.loaded_python import Programs
from tests.kits.stores import WebStore, upload
from tests.kits.training import batches_of

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(scope="session")
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 films in seven tars: 18 to train on in five, the last of which has two, and 6 for validation in two."""
    images, rows = tmp_path_factory.mktemp("images"), []
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (48, 40 + i), dtype=np.uint8)).save(images / f"{i}.png")
        row = {"file": f"{i}.png", "patient": str(i), "modality": "xray", "split": "train" if i < 18 else "val"}
        rows.append(row | {"label:chest_xray_findings:pneumonia": str(i % 2), "source": "made", "license": "CC0"})
    out = tmp_path_factory.mktemp("shards") / "s"
    form = Form(max_side=64, samples_per_shard=4, key=b"k" * 32)
    build_shards(pd.DataFrame(rows), out, form, images=images, settings=Settings(workers=1))
    return out


@pytest.fixture
def web(near: Path) -> Any:
    with WebStore(near) as server:
        yield server


def held_bytes(folder: Path) -> int:
    """The size of the shards in a cache; one that is moved or thrown out meanwhile has none by its old name."""
    sizes = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            sizes += [path.stat().st_size] if len(path.name) > 60 else []
    return sum(sizes)


def batches(place: Path | str, cache: ShardCache | None = None, **options: Any) -> Batches:
    given: dict[str, Any] = {
        "batch_size": 2,
        "preprocess": Preprocess(32),
        "seed": 1,
        "augment": Augment(),
        "window_shards": 2,
    }
    return batches_of(ShardReader(place, "train", cache=cache), **given | options)


def content(batch: Batch) -> tuple[Any, ...]:
    return batch.images.tobytes(), batch.texts, batch.keys, batch.valid.tolist()


def test_the_windows_are_those_of_the_plan(near: Path) -> None:
    columns = ShardReader(near, "train").columns
    for epoch in range(3):
        plan = epoch_plan(columns, batch_size=1, seed=4, epoch=epoch, window_shards=2)[:, 0]
        begin = 0
        for end, shards in windows_of_epoch(columns, "shard_mixed", seed=4, epoch=epoch, window_shards=2):
            assert set(columns.shard_N[plan[begin:end]]) == set(shards)
            begin = end
        assert begin == len(columns)


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize("num_kept", [100, 3, 0])
def test_batches_from_a_store_are_those_from_a_disk(
    near: Path, web: WebStore, tmp_path: Path, kind: str, num_kept: int
) -> None:
    """The cache holds all shards, three (one window has two), or none."""
    size = max(s.num_bytes or 0 for s in ShardReader(near, "train").shards)
    cache = ShardCache(tmp_path / "cache", num_kept * size + 100)
    whole = batches(near)
    away = batches(web.url, cache, worker_kind=kind)
    steps = 3 * whole.steps_per_epoch
    for one, other in zip(whole.training(0, steps), away.training(0, steps), strict=True):
        assert content(one) == content(other)
        assert held_bytes(cache.folder) <= cache.max_bytes
    away.close()
    tars = Counter(path for path, _, _ in web.requests if path.endswith(".tar"))
    if num_kept == 100:
        assert set(tars.values()) == {1}
    assert not list(cache.folder.glob("wanted-*"))


def test_a_cache_that_is_too_small_for_a_window_is_told(near: Path, web: WebStore, tmp_path: Path) -> None:
    sizes = sorted(s.num_bytes or 0 for s in ShardReader(near, "train").shards)
    room: dict[str, Any] = {"world_size": 1, "workers": 1, "batch_size": 2, "window_shards": 2}
    reader = ShardReader(web.url, "train", cache=ShardCache(tmp_path / "cache", sum(sizes[-2:])))
    assert preflight(reader, **room)[-1].endswith("2 shards of up to 6.14e-05 GB are needed at once")
    reader = ShardReader(web.url, "train", cache=ShardCache(tmp_path / "cache", sum(sizes[-2:]) - 1))
    assert "1 of them are read sample by sample" in preflight(reader, **room)[-1]
    assert "4 of them" in preflight(reader, **room, policy="proportional")[-1]


def test_ranks_of_a_node_share_one_download_of_each_shard(near: Path, web: WebStore, tmp_path: Path) -> None:
    cache = ShardCache.at(tmp_path / "cache")
    web.latency_s = 0.02
    whole = [b.keys for b in batches(near).training(0, 10)]
    keys: dict[int, list[tuple[str, ...]]] = {}
    waits: list[float] = []

    def take(rank: int) -> None:
        share = batches(web.url, cache, rank=rank, world_size=2)
        taken = list(share.training(0, 10))
        keys[rank] = [b.keys for b in taken]
        waits.append(sum(b.wait_s for b in taken))
        share.close()

    threads = [threading.Thread(target=take, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a + b for a, b in zip(keys[0], keys[1], strict=True)] == whole
    tars = Counter(path for path, _, _ in web.requests if path.endswith(".tar"))
    assert set(tars.values()) == {1}
    assert len(tars) == 5
    assert min(waits) >= 0.02  # what the first window took is told with the batches


def test_a_window_is_streamed_and_not_sought(
    near: Path, web: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two windows each epoch reads each shard once, whole, in the order of the windows."""
    monkeypatch.setattr(read_ahead, "AT_ONCE", 1)
    size = max(s.num_bytes or 0 for s in ShardReader(near, "train").shards)
    away = batches(web.url, ShardCache(tmp_path / "cache", 4 * size + 100))
    steps = away.steps_per_epoch
    assert len(list(away.training(0, steps))) == steps
    away.close()
    windows = windows_of_epoch(away.reader.columns, "shard_mixed", seed=1, epoch=0, window_shards=2)
    order = [s for _, shards in windows for s in shards]
    names = [path.removeprefix("/") for path, _, _ in web.requests if path.endswith(".tar")]
    wanted = [away.reader.shards[s].name for s in order]
    assert Counter(names[:5]) == Counter(wanted)
    assert [set(names[i : i + 2]) for i in (0, 2)] == [set(wanted[i : i + 2]) for i in (0, 2)]
    assert all(start == 0 for path, start, _ in web.requests if path.endswith(".tar"))
    assert len(names) == 5  # nothing of the next epoch, which is none of this run


def test_faults_of_the_network_change_no_batch_and_a_store_that_stays_away_ends_the_run(
    near: Path, web: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.05, 0.1, 0.2))
    wanted = [content(b) for b in batches(near).training(0, 5)]
    away = batches(web.url, ShardCache.at(tmp_path / "cache"))
    web.faults = ["500", "cut", "", "500", "short", "cut"]
    assert [content(b) for b in away.training(0, 5)] == wanted
    away.close()
    gone = batches(web.url, ShardCache.at(tmp_path / "other"))
    web.stop()
    with pytest.raises(MedclipError, match=r"train-\d+\.tar.*could not be read") as e:
        list(gone.training(0, 5))
    assert e.value.reason is Reason.READ_ERROR
    web.start()


def _recipe(place: object, cache: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "seed": 3,
        "data": {"shards": str(place), "window_shards": 2, "shard_cache": str(cache), "shard_cache_gb": 0.00015},
        "text": {"vocab_size": 600, "context_length": 24, "captions_per_sample": 1},
        "model": {
            "image_tower": "test_efficientnet",
            "image_weights": None,
            "size_px": 32,
            "embed_dim": 16,
            "text_width": 16,
            "text_heads": 2,
            "text_layers": 1,
        },
        "train": {"epochs": 4, "batch_size": 4, "warmup_steps": 2, "log_every": 1, "checkpoint_every": 3, "threads": 1},
    }


def _losses(out: Path) -> list[tuple[int, float]]:
    return [(e["step"], e["loss"]) for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


@pytest.mark.slow
def test_a_training_on_a_bucket_that_is_killed_goes_on_with_the_same_losses(
    near: Path, s3: str, programs: Programs, tmp_path: Path
) -> None:
    run_recipe(_recipe(near, tmp_path / "unused"), out=tmp_path / "straight")
    url = upload(near, "killed-runs", s3)
    recipe = _recipe(url, tmp_path / "cache")
    recipe["data"]["worker_kind"] = "process"
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe))
    command = [programs.python, "-m", "medclip.cli.main", "pretrain", str(file), "--out", str(out), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if any(e.get("step", 0) >= 8 for e in read_log(out / "log.jsonl")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    run_recipe(recipe, out=out)
    assert _losses(out) == _losses(tmp_path / "straight")
    kept = [p for p in (tmp_path / "cache").iterdir() if len(p.name) > 60]
    assert sum(p.stat().st_size for p in kept) <= 150_000
    written = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in written


@pytest.mark.parametrize("url", ["s3://me:hidden@bucket/s", "https://host/s?X-Amz-Signature=hidden"])
def test_a_recipe_with_a_secret_in_a_url_is_refused_before_anything_is_written(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(url, tmp_path / "cache")
    with pytest.raises(MedclipError, match=r"data\.shards") as e:
        load_recipe(recipe)
    assert "hidden" not in str(e.value)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["pretrain", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "hidden" not in "".join(capsys.readouterr())
    assert not (tmp_path / "run").exists()


def test_urls_of_a_recipe_stay_as_they_are_and_folders_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    recipe = _recipe("s", tmp_path / "cache")
    recipe["data"]["shards"] = ["s3://bucket/s/", "s"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert load_recipe(tmp_path / "recipe.yaml").data.shards == ("s3://bucket/s", str(tmp_path / "s"))
    moved = load_recipe(recipe, ["data.shards=[s]", "data.shard_cache_gb=7"])
    assert load_recipe(recipe).digest() == moved.digest()
