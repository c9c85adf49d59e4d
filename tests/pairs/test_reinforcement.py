"""What teachers say is stored once: the same bytes after a kill, replayed to the bit, refused for other pixels."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.errors import MedclipError, Reason
from medclip.pairs import reinforcement
from medclip.shards.reading.reinforced import ReinforcedShards, from_bfloat16
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.rewrite import rewrite_shards
from medclip.training.batches.augment import apply_change, change_of_plain
from medclip.training.batches.samples import Drawing, Room, Samples
from medclip.training.loop import run_recipe
from medclip.training.recipe.data import Data
from medclip.training.result import read_log
from tests.kits.training import make_shards, masked_recipe, rewritten_shards, tiny_recipe


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("films"), samples_per_shard=8)


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
    images = [
        apply_change(reader.image(reader.members(3)), change_of_plain(change), model.preprocess.size_px)
        for change in one.changes
    ]
    again = model.encode_image(np.stack(images))
    np.testing.assert_allclose(from_bfloat16(one.image_AE)[:, : model.dim], again, atol=4e-3)
    np.testing.assert_allclose(from_bfloat16(one.text_KE)[:, model.dim :], model.encode_text(one.texts), atol=4e-3)
    assert all(change_of_plain(change).zoom ** 2 >= 0.5 for change in one.changes)
    assert not any(change["flip"] for change in one.changes)


def test_a_sample_of_training_has_the_vectors_of_its_own_image_and_caption(
    films: Path, teacher: Path, reinforced: Path
) -> None:
    model = medclip.models.load(teacher)
    reader, stored = _open(films, reinforced)
    drawing = Drawing(model.preprocess, 7, reinforcement.AUGMENT, 0.3, 0.5, reinforced=stored)
    samples = Samples(reader, drawing, Room(0), model.tokenizer)
    drawn = set()
    for epoch in range(4):
        one = samples.make(epoch, 5)
        vectors = from_bfloat16(np.frombuffer(one.stored, np.uint16).reshape(3, -1))[:, : model.dim]
        assert one.image is not None
        np.testing.assert_allclose(vectors[0], model.encode_image(one.image[None])[0], atol=4e-3)
        np.testing.assert_allclose(vectors[1], model.encode_text([one.text])[0], atol=4e-3)
        assert not vectors[2].any()
        drawn.add(one.stored)
        assert one.stored == samples.make(epoch, 5).stored
    assert len(drawn) > 1


def test_a_selection_keeps_samples_and_their_vectors_together(films: Path, reinforced: Path, tmp_path: Path) -> None:
    steps = {"steps": [{"cap": {"num": 9, "by": ["modality"]}}]}
    medclip.pairs.select(films, steps=steps, out=tmp_path / "kept.parquet")
    recipe = tiny_recipe(films)
    recipe["data"] |= {"reinforced": str(reinforced), "selection": str(tmp_path / "kept.parquet")}
    data = Data.model_validate(recipe["data"])
    reader = data.open_split("train")
    kept, (_, every) = data.open_reinforced(reader), _open(films, reinforced)
    assert kept is not None
    assert 0 < len(reader) < 20
    all_of_split = ShardReader(films, "train")
    places = {all_of_split.key(i): i for i in range(len(all_of_split))}
    for i in range(len(reader)):
        np.testing.assert_array_equal(kept[i].image_AE, every[places[reader.key(i)]].image_AE)


def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    films: Path, teacher: Path, reinforced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_one, asked = reinforcement._stored_of, []

    def killed(what: Any, reader: Any, i: int, *others: Any) -> Any:
        asked.append(i)
        if len(asked) == 13:
            raise KeyboardInterrupt
        return of_one(what, reader, i, *others)

    def again() -> None:
        medclip.pairs.reinforce(films, tmp_path / "r", teachers=[teacher, teacher], augmentations=4, captions=2)

    monkeypatch.setattr(reinforcement, "_stored_of", killed)
    with pytest.raises(KeyboardInterrupt):
        again()
    again()
    assert asked[13:] == [*range(8, 20)]  # the tar that was whole is not asked of again
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
    other = make_shards(tmp_path / "other", columns=lambda i: {"report": f"Film {i}."})
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
    recipe["data"] |= {"shards": str(reinforced), "reinforced": [], "val_split": None}
    recipe["objective"] = {}
    with pytest.raises(MedclipError, match="names reinforced shards, which hold no images"):
        run_recipe(recipe, out=tmp_path / "run")


def _first_loss(recipe: dict[str, Any], changes: tuple[str, ...], out: Path) -> float:
    run_recipe(recipe, changes, out=out)
    return next(e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step")


def test_synthetic_captions_are_a_second_term(teacher: Path, tmp_path: Path) -> None:
    shards = rewritten_shards(tmp_path / "films", keep_raw=True)

    def with_agent(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        value = json.loads(members["json"])
        written = {"kind": "agent", "text": f"As written of {key}.", "weight": 0.5}
        value["record"]["candidates"] = [*value["record"].get("candidates", []), written]
        return members | {"json": json.dumps(value).encode()}

    rewrite_shards(shards, tmp_path / "s", with_agent)
    result = medclip.pairs.reinforce(tmp_path / "s", tmp_path / "r", teachers=[teacher], augmentations=2)
    assert result.num_synthetic == 20
    recipe = tiny_recipe(tmp_path / "s")
    recipe["data"]["reinforced"] = str(tmp_path / "r")
    recipe["train"] |= {"max_steps": 1}
    recipe["objective"] = {"contrastive": 0, "losses": {"distill": {"scales": [10]}}}
    first, second = (
        _first_loss(recipe, changes, tmp_path / f"run{len(changes)}")
        for changes in ((), ("objective.losses.distill.synthetic=true",))
    )
    assert 1.6 < second / first < 2.4


def test_samples_without_words_get_sentences_of_a_file(teacher: Path, tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "films")

    def without_words(_: str, members: dict[str, bytes]) -> dict[str, bytes]:
        value = json.loads(members["json"])
        value["record"] |= {"generic": True}
        return members | {"json": json.dumps(value).encode()}

    rewrite_shards(shards, tmp_path / "s", without_words)
    (tmp_path / "t.txt").write_text("A chest film.\nA film with a disc.\n\n")
    medclip.pairs.reinforce(
        tmp_path / "s", tmp_path / "r", teachers=[teacher], augmentations=1, captions=1, texts=tmp_path / "t.txt"
    )
    _, stored = _open(tmp_path / "s", tmp_path / "r")
    assert {stored[i].texts for i in range(20)} == {("A chest film.",), ("A film with a disc.",)}


def test_a_teacher_without_words_or_of_another_modality_is_refused(films: Path, teacher: Path, tmp_path: Path) -> None:
    alone = run_recipe(masked_recipe(films), ["train.max_steps=1"], out=tmp_path / "masked").pack
    assert alone is not None
    with pytest.raises(MedclipError, match="no text tower"):
        medclip.pairs.reinforce(films, tmp_path / "r", teachers=[alone])
    with pytest.raises(MedclipError, match="there is no teacher"):
        medclip.pairs.reinforce(films, tmp_path / "r")
    pixels, card = SimpleNamespace(takes="images"), SimpleNamespace(modalities=("fundus",))
    model = SimpleNamespace(name="eyes", has_text=True, preprocess=pixels, card=card)
    with pytest.raises(MedclipError, match=r"eyes knows fundus, and these shards hold xray\."):
        reinforcement._refuse(model, ShardReader(films, "train"))  # type: ignore[arg-type]


def test_reinforced_shards_are_not_reinforced_again(reinforced: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="hold no images"):
        medclip.pairs.reinforce(reinforced, tmp_path / "again", teachers=[teacher])
    assert not (tmp_path / "again").exists()


def test_scales_are_one_for_each_teacher(films: Path, reinforced: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(films)
    recipe["data"]["reinforced"] = str(reinforced)
    recipe["objective"] = {"contrastive": 0, "losses": {"distill": {"scales": [10]}}}
    with pytest.raises(MedclipError, match="1 value for 2 teachers"):
        run_recipe(recipe, out=tmp_path / "run")
    recipe["objective"] = {}
    with pytest.raises(MedclipError, match=r"data\.reinforced and objective\.losses\.distill go together"):
        run_recipe(recipe, out=tmp_path / "run")


def _upstream(folder: Path, member: str) -> Path:
    """Write a tar as MobileCLIP's own code does, and index it."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i in range(8):
            file, image = io.BytesIO(), io.BytesIO()
            vectors = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.standard_normal((2, 2, 6))]
            np.savez(file, image_emb=vectors[0], text_emb=vectors[1])
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(image, "PNG")
            params = [[[2, 1, 30, 32], [[6, 0.2], [1, 0.1]]], [[0, 0, 40, 50], True]]
            for name, content in (
                ("png", image.getvalue()),
                ("txt", f"A film {i}.".encode()),
                ("paug.json", json.dumps({"param_aug": params}).encode()),
                ("syn.json", json.dumps({"syn_text": [f"As written {i}."]}).encode()),
                (member, file.getvalue()),
            ):
                info = tarfile.TarInfo(f"{i}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    medclip.shards.index(folder, source="theirs", license_="CC0", modality="xray")
    return folder


def test_shards_of_mobileclips_own_code_are_read_and_pickles_are_not(tmp_path: Path) -> None:
    place = _upstream(tmp_path / "dr", "npz")
    recipe = tiny_recipe(place)
    recipe["data"] |= {"reinforced": str(place), "val_split": None}
    distill = {"dims": [2, 4], "scales": [10, 10], "synthetic": True}
    recipe["objective"] = {"contrastive": 0, "losses": {"distill": distill}}
    assert run_recipe(recipe, out=tmp_path / "run").finished
    for dims, words in (([], "dims is"), ([2, 3], "6 values, and those of the teachers add up to 5")):
        recipe["objective"]["losses"]["distill"] = distill | {"dims": dims}
        with pytest.raises(MedclipError, match=words):
            run_recipe(recipe, out=tmp_path / "run2")
    pickled = str(_upstream(tmp_path / "pickled", "pth.gz"))
    recipe["data"] |= {"shards": pickled, "reinforced": pickled}
    with pytest.raises(MedclipError, match=r"pth\.gz, a pickle"):
        run_recipe(recipe, out=tmp_path / "run3")


def test_a_student_follows_its_teacher(films: Path, reinforced: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(films)
    recipe["data"]["reinforced"] = str(reinforced)
    recipe["objective"] = {"contrastive": 0, "losses": {"distill": {"scales": [10, 10]}}}
    recipe["train"] |= {"epochs": 6, "lr": 0.01}
    assert run_recipe(recipe, out=tmp_path / "run").finished
    losses = [e["loss"] for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "step"]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
