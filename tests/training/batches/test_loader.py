"""Batches are functions of (seed, epoch, index) and of nothing else; bad samples are counted, bad shards are errors."""

from __future__ import annotations

import gc
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import letterbox
from medclip.models.inputs.preprocess import Preprocess
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.reading.foreign import ForeignSet
from medclip.shards.reading.index_tars import index_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.stored_data import decode
from medclip.shards.writing.build import Form, build_shards
from medclip.text.captions.record import CaptionRecord
from medclip.text.tokenizers.clip import ClipTokenizer
from medclip.training.batches import samples as samples_module
from medclip.training.batches import workers as crew_module
from medclip.training.batches.loader import (
    KIND,
    LABELS,
    SOURCE,
    STATED,
    STUDY,
    TEXT,
    Batch,
    Batches,
    preflight,
    used_columns,
)
from medclip.training.batches.sample_texts import label_key
from medclip.training.batches.samples import Drawing, Room, Samples
from medclip.training.recipe.augment import Augment
from tests.kits.training import batches_of

TOKENIZER = ClipTokenizer(40)
SLOW_S = 1.5
BAD_EACH_EPOCH = {"corrupt": 2, "missing_file": 1, "empty_caption": 1}


def _batches(shards: Path, **options: Any) -> Batches:
    settings: dict[str, Any] = {"batch_size": 6, "preprocess": Preprocess(32), "seed": 1, "augment": Augment(flip=0.5)}
    settings |= {"tokenizer": TOKENIZER} | options
    return batches_of(ShardReader(shards, "train"), **settings)


def _same(a: Batch, b: Batch) -> bool:
    return (
        np.array_equal(a.images, b.images)
        and np.array_equal(a.tokens, b.tokens)
        and np.array_equal(a.pair_keys, b.pair_keys)
        and a.num_tokens == b.num_tokens
        and np.array_equal(a.valid, b.valid)
        and (a.texts, a.label_keys, a.studies, a.keys) == (b.texts, b.label_keys, b.studies, b.keys)
    )


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 foreign samples in two tars, four of them bad in a way that the index cannot see or was not told."""
    folder = tmp_path_factory.mktemp("broken")
    rng = np.random.default_rng(0)
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for i in range(12):
                buffer = io.BytesIO()
                pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(buffer, "JPEG")
                for extension, data in (("jpg", buffer.getvalue()), ("txt", f"Film {i} of set {number}.".encode())):
                    info = tarfile.TarInfo(f"{number}{i:03d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    index_shards(folder, ForeignSet("broken", "none", Modality.XRAY), key=bytes(32))
    first = bytearray((folder / "0.tar").read_bytes())
    with tarfile.open(folder / "0.tar") as tar:
        at = {m.name: m for m in tar.getmembers()}
    first[at["0001.jpg"].offset_data : at["0001.jpg"].offset_data + 99] = bytes(99)  # no image
    first[at["0003.txt"].offset + 2] ^= 1  # a damaged header
    first[at["0005.txt"].offset_data : at["0005.txt"].offset_data + at["0005.txt"].size] = b" " * at["0005.txt"].size
    stored = tarfile.TarInfo("0007.gif")  # of no kind that is known
    stored.size = at["0007.jpg"].size
    first[at["0007.jpg"].offset : at["0007.jpg"].offset + 512] = stored.tobuf(tarfile.USTAR_FORMAT)[:512]
    (folder / "0.tar").write_bytes(first)
    return folder


def test_batches_from_the_middle_equal_those_of_a_run_from_the_start(shards: Path) -> None:
    whole = list(_batches(shards).training(0, 7))
    late = list(_batches(shards, workers=1, cache_mb=0).training(4, 7))
    assert len(whole) == 7
    assert all(_same(a, b) for a, b in zip(whole[4:], late, strict=True))
    assert all(b.valid.all() for b in whole)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 1, "cache_mb": 0},
        {"workers": 3, "cache_mb": 0.02},
        {"worker_kind": "process", "workers": 2},
        {"worker_kind": "process", "workers": 1, "cache_mb": 0},
        {"worker_kind": "process", "workers": 3, "cache_mb": 0.02, "decode": "scaled"},
    ],
)
def test_workers_and_cache_change_no_number(shards: Path, broken: Path, options: dict[str, Any]) -> None:
    for folder in (shards, broken):
        one, other = _batches(folder, decode=options.get("decode", "auto")), _batches(folder, **options)
        for a, b in zip(one.training(0, 7), other.training(0, 7), strict=True):
            assert _same(a, b)
        assert (one.bad, one.seen) == (other.bad, other.seen)
        one.close()
        other.close()


def test_tokens_and_keys_are_those_of_the_strings(shards: Path, broken: Path) -> None:
    from medclip.objectives.pairs import keys_of  # imports torch; processes of tests below import this file

    for folder in (shards, broken):
        for batch in _batches(folder, native_share=1.0).training(0, 4):
            assert np.array_equal(batch.tokens, TOKENIZER.encode(batch.texts))
            assert batch.tokens.dtype == np.int32
            columns = {LABELS: batch.label_keys, TEXT: [t.strip().lower() for t in batch.texts], STUDY: batch.studies}
            if folder == shards:
                columns |= {KIND: ["xray"] * 6, SOURCE: ["made here"] * 6, STATED: batch.label_keys}
            for column, strings in columns.items():
                assert np.array_equal(batch.pair_keys[:, column], keys_of(strings)[:, 0].numpy())
            batch.release()
            batch.release()


@pytest.mark.parametrize(("words", "columns"), [(0, 8), (6, 8), (7, 16), (30, 32), (38, 40), (90, 40)])
def test_the_columns_in_use_reach_the_end_of_the_longest_caption(words: int, columns: int) -> None:
    tokens = TOKENIZER.encode(["a", "a " * words, "!"]).astype(np.int32)
    assert used_columns(tokens, TOKENIZER) == columns
    assert not tokens[:, columns:].any()


@pytest.mark.parametrize("policy", ["shard_mixed", "proportional", "per_modality", "balanced"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batch_of_a_single_process(shards: Path, policy: str, world_size: int) -> None:
    whole = list(_batches(shards, policy=policy).training(2, 5))
    parts = [
        list(_batches(shards, policy=policy, rank=r, world_size=world_size).training(2, 5)) for r in range(world_size)
    ]
    for step, batch in enumerate(whole):
        rows = [p[step] for p in parts]
        assert np.array_equal(np.concatenate([p.images for p in rows]), batch.images)
        assert tuple(t for p in rows for t in p.texts) == batch.texts
        assert tuple(k for p in rows for k in p.keys) == batch.keys
    with pytest.raises(MedclipError, match="divided among 4 ranks") as e:
        _batches(shards, world_size=4)
    assert e.value.reason is Reason.RECIPE_INVALID


def test_an_epoch_smaller_than_a_batch_is_refused(shards: Path) -> None:
    with pytest.raises(MedclipError, match="20 samples, fewer than one batch of 21") as e:
        _batches(shards, batch_size=21)
    assert e.value.reason is Reason.NOTHING_TO_DO
    (few,) = _batches(shards, batch_size=21, augment=None).validation(3)
    assert few.images.shape == (3, 32, 32, 3)


def test_a_sample_gets_new_words_and_pixels_in_each_epoch(shards: Path) -> None:
    made = [_samples(shards).make(epoch, 0) for epoch in range(6)]
    assert len({m.text for m in made}) > 1
    assert len({m.image.tobytes() for m in made if m.image is not None}) == 6
    assert len({m.label_key for m in made}) == 1


def test_a_sample_that_stands_again_in_its_epoch_is_drawn_anew(shards: Path) -> None:
    made = [_samples(shards).make(0, 0, repeat) for repeat in range(6)]
    assert len({m.text for m in made}) > 1
    assert len({m.image.tobytes() for m in made if m.image is not None}) == 6


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_repeated_samples_stand_side_by_side_are_changed_anew_and_decoded_once(
    shards: Path, cache_mb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[int] = Counter()
    read = ShardReader.raw
    monkeypatch.setattr(ShardReader, "raw", lambda self, index: decoded.update([index]) or read(self, index))
    batches = _batches(shards, num_repeats=3, keeps_recent=True, cache_mb=cache_mb, workers=3)
    plain = _batches(shards)
    num_steps = batches.steps_per_epoch
    assert num_steps == len(plain.reader) // (plain.batch_size // 3)
    whole = list(batches.training(0, num_steps))
    for batch in whole:
        assert batch.keys[::3] == batch.keys[1::3] == batch.keys[2::3]
        assert len({image.tobytes() for image in batch.images}) == len(batch.images)
    seen = Counter(key for batch in whole for key in batch.keys)
    assert set(seen.values()) == {3}
    assert max(decoded.values()) == 1
    late = list(_batches(shards, num_repeats=3, workers=1, cache_mb=0).training(num_steps - 2, num_steps))
    assert all(_same(a, b) for a, b in zip(whole[-2:], late, strict=True))
    ranks = [_batches(shards, num_repeats=3, rank=rank, world_size=2) for rank in range(2)]
    halves = [next(iter(one.training(0, 1))).images for one in ranks]
    np.testing.assert_array_equal(np.concatenate(halves), whole[0].images)
    for one in (batches, plain, *ranks):
        one.close()


def test_turning_augmentation_off_does_not_change_the_captions(shards: Path) -> None:
    off = Augment(crop_scale=(1, 1), rotate_deg=0, brightness=0, contrast=0)
    texts = [[t for b in _batches(shards, augment=a).training(0, 3) for t in b.texts] for a in (Augment(), off)]
    assert texts[0] == texts[1]


def test_validation_is_in_order_letterboxed_and_always_the_same(shards: Path) -> None:
    data = _batches(shards, augment=None)
    first, again = list(data.validation(8)), list(data.validation(8))
    assert [len(b.texts) for b in first] == [6, 2]
    assert all(_same(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(first[1].images[1], letterbox(data.reader[7].image, 32))
    assert first[1].keys[1] == data.reader.key(7)


def test_colours_change_only_where_they_may(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(60, 200, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[::-1]).save(tmp_path / "b.png")
    table = pd.DataFrame(
        {"file": ["a.png", "b.png"], "patient": ["a", "b"], "modality": ["pathology", "dermatology"], "split": "train"}
    )
    build_shards(table, tmp_path / "s", Form(key=bytes(32)), images=tmp_path, settings=Settings(workers=1))
    still = Augment(crop_scale=(1, 1), rotate_deg=0, brightness=0, contrast=0)
    found = {}
    for name, part in (("off", {}), ("on", {"hue": 0.3}), ("stains", {"hue": 0.3, "stain_jitter": True})):
        reader = ShardReader(tmp_path / "s", "train")
        samples = Samples(reader, Drawing(Preprocess(64), 0, still.model_copy(update=part), 0.3, 0.5), Room(2**20))
        kinds = [str(reader.row(i)["modality"]) for i in range(2)]
        for kind, i in zip(kinds, range(2), strict=True):
            image = samples.make(0, i).image
            assert image is not None
            found[name, kind] = image
    assert np.array_equal(found["off", "pathology"], found["on", "pathology"])
    assert not np.array_equal(found["off", "pathology"], found["stains", "pathology"])
    assert not np.array_equal(found["off", "dermatology"], found["on", "dermatology"])


def test_bad_samples_are_black_rows_and_counted_by_reason(broken: Path) -> None:
    data = _batches(broken, native_share=1.0)
    for epoch in (1, 2):
        batches = list(data.training(4 * (epoch - 1), 4 * epoch))
        assert dict(data.bad) == {reason: epoch * count for reason, count in BAD_EACH_EPOCH.items()}
        assert data.seen == 24 * epoch
        valid = np.concatenate([b.valid for b in batches])
        assert valid.sum() == 20
        for b in batches:
            assert all(bool(b.images[i].any()) == b.valid[i] == bool(b.texts[i]) for i in range(6))
    assert data.over_budget() is None  # judged over a thousand samples at least


def test_too_many_bad_samples_are_an_error_that_names_the_reasons(broken: Path) -> None:
    data = _batches(broken, max_bad_share=0.001)
    list(data.training(0, 4))
    error = data.over_budget()
    assert error is not None
    assert error.reason is Reason.TOO_MANY_BAD
    assert "4 of 24 samples could not be used (corrupt 2, empty_caption 1, missing_file 1)" in str(error)
    assert "`medclip shards check` names them" in str(error)
    data.max_bad_share = 0.2
    data.seen = 2000
    assert data.over_budget() is None
    data.bad["corrupt"] = 500
    assert data.over_budget() is not None


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_shard_that_is_gone_or_changed_ends_the_run_with_its_name(
    broken: Path, tmp_path: Path, kind: str, change: str
) -> None:
    for path in broken.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1.tar").write_bytes(b"x")
    if change == "gone":
        (tmp_path / "1.tar").unlink()
    with pytest.raises(MedclipError) as e:
        list(_batches(tmp_path, worker_kind=kind).training(0, 4))
    assert "1.tar" in str(e.value)
    assert e.value.reason is (Reason.MISSING_FILE if change == "gone" else Reason.CORRUPT)


def _samples(shards: Path) -> Samples:
    return Samples(
        ShardReader(shards, "train"), Drawing(Preprocess(32), 1, Augment(flip=0.5), 0.3, 0.5), Room(10 * 2**20)
    )


def _cached(samples: Samples, index: int) -> np.ndarray:
    (stored,), *_ = samples._cache[index]
    assert isinstance(stored, np.ndarray)
    return stored


def test_the_cache_keeps_to_its_ceiling(shards: Path) -> None:
    samples = Samples(ShardReader(shards, "train"), Drawing(Preprocess(32), 1, None, 0.3, 0.5), Room(int(0.02 * 2**20)))
    for i in range(20):
        samples.make(0, i)
    kept = sum(_cached(samples, i).nbytes for i in samples._cache)
    assert 0 < len(samples._cache) < 20
    assert kept <= 0.02 * 2**20
    assert all(_cached(samples, i).ndim == 2 for i in samples._cache)  # grey takes a third


def test_a_large_jpeg_is_cached_as_decoded_whichever_read_came_first(tmp_path: Path) -> None:
    y, x = np.mgrid[:1000, :900]
    Image.fromarray(((np.sin(x / 9) + np.cos(y / 7)) * 60 + 127).astype(np.uint8)).save(tmp_path / "a.png")
    table = pd.DataFrame({"file": ["a.png"], "patient": "a", "modality": "dermatology", "split": "train"})
    build_shards(
        table,
        tmp_path / "s",
        Form(max_side=1000, stored="jpeg", key=bytes(32)),
        images=tmp_path,
        settings=Settings(workers=1),
    )
    reader = ShardReader(tmp_path / "s", "train")
    drawing = Drawing(Preprocess(64), 1, Augment(), 0.3, 0.5)
    samples = Samples(reader, drawing, Room(10 * 2**20))
    order = [samples.make(e, 0).image for e in (3, 1)]
    assert np.array_equal(order[1], Samples(reader, drawing, Room(10 * 2**20)).make(1, 0).image)  # type: ignore[arg-type]
    assert _cached(samples, 0).shape[:2] == (250, 225)
    assert np.array_equal(_cached(samples, 0), np.asarray(decode(reader.members(0)["jpg"], drawing.wanted_px)))


@pytest.mark.parametrize(
    ("decoding", "training_px", "validation_px"), [("full", 500, 500), ("auto", 500, 500), ("scaled", 250, 500)]
)
def test_how_much_of_a_jpeg_is_decoded(tmp_path: Path, decoding: Any, training_px: int, validation_px: int) -> None:
    """500 px are between twice and four times what is wanted: only "scaled" leaves pixels out, and only in training."""
    y, x = np.mgrid[:500, :450]
    Image.fromarray(((np.sin(x / 9) + np.cos(y / 7)) * 60 + 127).astype(np.uint8)).save(tmp_path / "a.png")
    table = pd.DataFrame({"file": ["a.png"], "patient": "a", "modality": "dermatology", "split": "train"})
    build_shards(
        table,
        tmp_path / "s",
        Form(max_side=500, stored="jpeg", key=bytes(32)),
        images=tmp_path,
        settings=Settings(workers=1),
    )
    reader = ShardReader(tmp_path / "s", "train")
    for augment, expected in ((Augment(), training_px), (None, validation_px)):
        samples = Samples(reader, Drawing(Preprocess(150), 1, augment, 0.3, 0.5, decode=decoding), Room(2**20))
        samples.make(0, 0)
        assert max(_cached(samples, 0).shape[:2]) == expected


def test_leaving_in_the_middle_and_beginning_again_is_no_trouble(shards: Path) -> None:
    data = _batches(shards)
    whole = list(data.training(0, 5))
    for step, batch in enumerate(data.training(0, 5)):
        if step == 1:
            break
        assert _same(batch, whole[step])
    assert all(_same(a, b) for a, b in zip(data.training(0, 5), whole, strict=True))


def test_a_hanging_thread_is_told_with_the_place_where_it_hangs(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "draw_stated", _slow)
    data = _batches(shards, timeout_s=0.3)
    with pytest.raises(MedclipError) as e:
        list(data.training(0, 2))
    assert e.value.reason is Reason.TIMEOUT
    assert "no batch came within 0.3 s" in str(e.value)
    assert Path(__file__).name in str(e.value)
    assert "_slow < samples.py" in str(e.value)


def _slow(*_: object, **__: object) -> tuple[str, bool]:
    time.sleep(SLOW_S)
    return "late", True


def slow_rows(*arguments: Any) -> Any:
    global SLOW_S
    SLOW_S = 60.0
    samples_module.draw_stated = _slow  # type: ignore[assignment]
    return crew_module.make_rows(*arguments)


def crash_at_two(split: int, rows: list[tuple[int, int, int]], *rest: Any) -> Any:
    if any(index == 2 for _, index, _ in rows):
        import os

        os._exit(11)
    return crew_module.make_rows(split, rows, *rest)


def test_a_hanging_process_is_told_with_the_place_where_it_hangs(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "make_rows", slow_rows)
    monkeypatch.setattr(crew_module, "GRACE_S", 3.0)
    data = _batches(shards, worker_kind="process", timeout_s=0.5)
    with pytest.raises(MedclipError) as e:
        list(data.training(0, 2))
    assert e.value.reason is Reason.TIMEOUT
    assert "_slow < samples.py" in str(e.value)


def test_a_sample_that_takes_its_process_down_is_a_bad_one(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "make_rows", crash_at_two)
    data, sound = _batches(shards, worker_kind="process", batch_size=20), _batches(shards, batch_size=20)
    (batch,), (whole,) = list(data.training(0, 1)), list(sound.training(0, 1))
    data.close()
    lost = whole.keys.index(data.reader.key(2))
    assert batch.valid.tolist() == [i != lost for i in range(20)]
    assert dict(data.bad) == {"decoder_crashed": 1}
    assert np.array_equal(np.delete(batch.images, lost, 0), np.delete(whole.images, lost, 0))


def test_those_who_make_samples_never_import_torch() -> None:
    code = "import sys, medclip.training.batches.workers; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_preflight_says_when_workers_are_more_than_shards(shards: Path) -> None:
    reader = ShardReader(shards, "train", verify="full")
    few, small, speed = preflight(reader, world_size=2, workers=4, batch_size=6)
    assert "1 shard for 2 ranks x 4 workers" in few
    assert "--samples-per-shard 2" in few
    assert "only 3 batches of 6" in small
    assert "MB/s" in speed
    (only,) = preflight(reader, world_size=1, workers=1, batch_size=2)
    assert "MB/s" in only


def test_label_keys_are_equal_for_the_same_statements_only() -> None:
    a = CaptionRecord(Modality.XRAY, view="PA", labels={"t": {"x": 1, "y": 0}}, age_years=3)
    b = CaptionRecord(Modality.XRAY, view="PA", labels={"t": {"y": 0, "x": 1}}, age_years=70)
    c = CaptionRecord(Modality.XRAY, view="AP", labels={"t": {"x": 1, "y": 0}})
    assert label_key(a) == label_key(b) != label_key(c)
    assert label_key(replace(a, generic=True)) == label_key(replace(c, generic=True)) != label_key(a)


def test_two_images_of_which_only_their_own_texts_are_known_have_no_labels_in_common() -> None:
    a = CaptionRecord(Modality.XRAY, view="PA", texts=("Clear lungs.",))
    assert label_key(a) == label_key(replace(a, texts=(), report="IMPRESSION: clear.")) == ""
    assert json.loads(label_key(replace(a, texts=())))[3] == {}
    assert json.loads(label_key(replace(a, labels={"t": "x"})))[3] == {"t": "x"}


def test_a_thousand_samples_leave_no_file_open_and_no_thread_behind(shards: Path) -> None:
    def kept() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = kept()
    data = _batches(shards, cache_mb=0, batch_size=20)
    most = before
    for batch in data.training(0, 50):
        most = tuple(map(max, most, kept()))
        assert batch.images.shape == (20, 32, 32, 3)
    num_workers, num_shards, num_tables = 2, 1, 1
    # Each worker has a descriptor of its own while it reads, and the rows of the split are a file that stays open.
    assert most[0] <= before[0] + num_shards + num_tables + num_workers
    assert most[1] <= before[1] + num_workers
    data.close()
    data.reader.close()
    del data, batch  # with the reader goes its file of rows
    gc.collect()
    for _ in range(100):
        if all(now <= then for now, then in zip(kept(), before, strict=True)):
            break
        time.sleep(0.02)
    assert kept()[0] <= before[0]
    assert kept()[1] <= before[1]


def test_an_ecg_is_never_mirrored(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would run backwards in time."""
    asked = []
    drawn = samples_module.draw_change

    def ask(*args: Any, may_flip: bool, **more: Any) -> Any:
        asked.append(may_flip)
        return drawn(*args, may_flip=may_flip, **more)

    monkeypatch.setattr(samples_module, "draw_change", ask)
    stored = Image.fromarray(np.zeros((40, 40), np.uint8))
    for modality in (Modality.ECG, Modality.PATHOLOGY):
        monkeypatch.setattr(Samples, "_read", lambda *_, m=modality: ((stored,), CaptionRecord(m), {}, ()))
        assert not _samples(shards).make(0, 0).bad
    assert asked == [False, True]


def test_a_quoted_caption_keeps_its_labels_to_its_own_image(tmp_path: Path) -> None:
    """Of films with labels and words of their own, a caption either states the labels or quotes the words."""
    rng = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    fixed = {"file": [f"{n}.png" for n in range(4)], "patient": list("abcd"), "modality": ["xray"] * 4}
    known = {
        "label:chest_xray_findings:pneumonia": ["1"] * 4,
        "caption": [f"Shadow number {n} at the left." for n in range(4)],
    }
    table = pd.DataFrame(fixed | known | {"split": ["train"] * 4})
    build_shards(table, tmp_path / "s", Form(key=b"k" * 32), images=tmp_path, settings=Settings(workers=1))
    for share, quotes in ((1.0, True), (0.0, False)):
        data = _batches(tmp_path / "s", native_share=share, batch_size=4)
        (batch,) = data.training(0, 1)
        assert all(("Shadow" in text) is quotes for text in batch.texts)
        assert len(set(batch.pair_keys[:, LABELS].tolist())) == 1
        assert batch.pair_keys[0, LABELS] >= 0
        assert set(batch.pair_keys[:, STATED].tolist()) == ({-1} if quotes else {batch.pair_keys[0, LABELS]})
        batch.release()
        data.close()
