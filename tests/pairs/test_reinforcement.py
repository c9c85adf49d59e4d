"""What teachers say is stored once: the same bytes after a kill, replayed to the bit, refused for other pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import medclip
from medclip.errors import MedclipError, Reason
from medclip.shards.reading.reinforced import ReinforcedShards, from_bfloat16
from medclip.shards.reading.samples import ShardReader
from medclip.training.batches.augment import change_of_plain
from medclip.training.loop import run_recipe
from tests.kits.training import make_shards, tiny_recipe


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def teacher(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pack = run_recipe(tiny_recipe(films), ["train.max_steps=3"], out=tmp_path_factory.mktemp("teacher") / "run").pack
    assert pack is not None
    return pack


@pytest.fixture(scope="module")
def reinforced(films: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stored") / "r"
    medclip.pairs.reinforce(films, out, teachers=[teacher, teacher], augmentations=4, captions=2)
    return out


def _open(films: Path, reinforced: Path) -> tuple[ShardReader, ReinforcedShards]:
    reader = ShardReader(films, "train")
    return reader, ReinforcedShards(ShardReader(reinforced, "train"), reader)


def test_a_stored_vector_is_what_the_teacher_says_of_the_replayed_image(
    films: Path, teacher: Path, reinforced: Path
) -> None:
    reader, stored = _open(films, reinforced)
    model, one = medclip.models.load(teacher), stored[3]
    assert one.image_AE.shape == (4, 2 * model.dim)
    from medclip.training.batches.augment import apply_change

    images = [
        apply_change(reader.image(reader.members(3)), change_of_plain(change), model.preprocess.size_px)
        for change in one.changes
    ]
    again = model.encode_image(np.stack(images))
    np.testing.assert_allclose(from_bfloat16(one.image_AE)[:, : model.dim], again, atol=4e-3)
    np.testing.assert_allclose(from_bfloat16(one.text_KE)[:, model.dim :], model.encode_text(one.texts), atol=4e-3)
    assert all(change_of_plain(change).zoom ** 2 >= 0.5 for change in one.changes)
    assert not any(change["flip"] for change in one.changes)


def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    films: Path, teacher: Path, reinforced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.pairs import reinforcement

    of_one = reinforcement._stored_of

    def killed(what, reader, i, *others):  # type: ignore[no-untyped-def]
        if i == 12:
            raise KeyboardInterrupt
        return of_one(what, reader, i, *others)

    options = {"teachers": [teacher, teacher], "augmentations": 4, "captions": 2}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reinforcement, "_stored_of", killed)
        medclip.pairs.reinforce(films, tmp_path / "r", **options)  # type: ignore[arg-type]
    medclip.pairs.reinforce(films, tmp_path / "r", **options)  # type: ignore[arg-type]
    names = sorted(p.name for p in reinforced.iterdir())
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == names
    assert all((tmp_path / "r" / name).read_bytes() == (reinforced / name).read_bytes() for name in names)
    with pytest.raises(MedclipError) as e:
        medclip.pairs.reinforce(films, tmp_path / "r", teachers=[teacher], augmentations=4)
    assert e.value.reason == Reason.OUTPUT_IN_USE


def test_augmentations_far_from_the_best_are_dropped(films: Path, teacher: Path, tmp_path: Path) -> None:
    result = medclip.pairs.reinforce(films, tmp_path / "r", teachers=[teacher], augmentations=4, within=0.0)
    assert result.num_augmentations == result.num_samples == 20


def test_stored_vectors_of_other_images_or_pixels_are_refused(films: Path, reinforced: Path, tmp_path: Path) -> None:
    other = make_shards(tmp_path / "other", columns=lambda i: {"finding": str(i)})
    recipe = tiny_recipe(other)
    recipe["data"]["reinforced"] = str(reinforced)
    recipe["objective"] = {"contrastive": 0, "losses": {"distill": {}}}
    with pytest.raises(MedclipError, match="of other images") as e:
        run_recipe(recipe, out=tmp_path / "run")
    assert e.value.reason == Reason.PREPROCESSING_MISMATCH
    index = json.loads((reinforced / "index.json").read_text())
    index["options"]["reinforced"]["pixels"]["pillow"] = "1.0"
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in reinforced.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    (changed / "index.json").write_text(json.dumps(index))
    recipe["data"] |= {"shards": str(films), "reinforced": str(changed)}
    with pytest.raises(MedclipError, match=r"other pixels than are made here: pillow differs") as e:
        run_recipe(recipe, out=tmp_path / "run")
    recipe["data"]["reinforced"] = str(films)
    with pytest.raises(MedclipError, match="hold no vectors of teachers"):
        run_recipe(recipe, out=tmp_path / "run")


def test_a_student_follows_its_teacher(films: Path, reinforced: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(films)
    recipe["data"]["reinforced"] = str(reinforced)
    recipe["objective"] = {"contrastive": 0, "losses": {"distill": {"scales": [10, 10]}}}
    recipe["train"] |= {"epochs": 6, "lr": 0.01}
    from medclip.training.result import read_log

    assert run_recipe(recipe, out=tmp_path / "run").finished
    losses = [e["loss"] for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "step"]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
