"""`data.selection`: only pairs that are kept are trained on, a stop changes nothing, and no other selection goes on."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.pairs.pile import Pile, read_pile
from medclip.shards.reading.samples import ShardReader
from medclip.shards.selection import Selection, selection_of, write_selection
from medclip.training.loop import run_recipe
from medclip.training.recipe.data import Data
from medclip.training.recipe.schema import load_recipe
from tests.kits.training import NUM_TRAIN, batches_of, make_shards

DROPPED = (0, 3, 4, 11, 19)
PIXELS = {"preprocess": Preprocess(size_px=32), "seed": 3}


@pytest.fixture(scope="session")
def pile(shards: Path) -> Pile:
    return read_pile(shards)


def select(pile: Pile, dropped: Sequence[int] = DROPPED, weights: Any = None) -> Selection:
    reasons = ["cap" if row in dropped else "" for row in range(len(pile))]
    keys, splits = pile.table.column("key"), pile.table.column("split")
    weight_N = np.ones(len(pile)) if weights is None else weights
    return selection_of(keys, splits, reasons, np.full(len(pile), np.nan), weight_N, pile.digest, {})


def kept_keys(pile: Pile) -> list[str]:
    return [key for row, key in enumerate(pile.cells("key")[:NUM_TRAIN]) if row not in DROPPED]


@pytest.fixture
def chosen(recipe: dict[str, Any], pile: Pile, tmp_path: Path) -> dict[str, Any]:
    write_selection(select(pile), tmp_path / "kept.parquet")
    recipe["data"]["selection"] = str(tmp_path / "kept.parquet")
    recipe["train"]["batch_size"] = 5
    return recipe


def test_a_reader_of_a_selection_is_that_of_shards_without_the_rest(shards: Path, pile: Pile) -> None:
    every, some = ShardReader(shards, "train"), ShardReader(shards, "train", selection=select(pile))
    rows = [row for row in range(NUM_TRAIN) if row not in DROPPED]
    for reader in (some, pickle.loads(pickle.dumps(some))):
        assert len(reader) == len(rows)
        assert reader.rows == tuple(every.rows[row] for row in rows)
        assert [reader.key(i) for i in range(len(rows))] == kept_keys(pile)
        assert reader.row(3) == every.row(rows[3])
        np.testing.assert_array_equal(reader[2].image, every[rows[2]].image)
        np.testing.assert_array_equal(reader.columns.shard_N, every.columns.shard_N[rows])
        assert len(list(reader.provenance())) == len(rows)
        assert reader.weight_N is None


def test_sources_and_strata_that_nothing_is_kept_of_are_gone(tmp_path: Path) -> None:
    shards = make_shards(tmp_path, columns=lambda i: {"source": f"s{i % 3}", "stratum": "a" if i % 2 else "b"})
    pile = read_pile(shards)
    dropped = [row for row, source in enumerate(pile.cells("source")) if source == "s1"]
    reader = ShardReader(shards, "train", selection=select(pile, dropped))
    columns = reader.columns
    assert columns.sources == ("s0", "s2")
    assert [columns.sources[i] for i in columns.source_N] == [row["source"] for row in reader.rows]
    batches = batches_of(reader, batch_size=4, policy="proportional", **PIXELS)
    assert {key for batch in batches.training(0, 3) for key in batch.keys} <= {row["key"] for row in reader.rows}


def test_only_kept_pairs_are_in_batches_and_a_stop_changes_none(chosen: dict[str, Any], pile: Pile) -> None:
    plan = load_recipe(chosen)
    assert plan.data.selected == select(pile).rows_of_split("train").digest

    def keys(first: int, last: int) -> list[tuple[str, ...]]:
        with plan.data.open_split("train") as reader:
            batches = batches_of(reader, batch_size=5, augment=plan.augment, **PIXELS)
            return [batch.keys for batch in batches.training(first, last)]

    through = keys(0, 6)
    assert sorted(key for batch in through[:3] for key in batch) == sorted(kept_keys(pile))
    assert keys(0, 4) + keys(4, 6) == through


def test_a_run_that_was_stopped_has_the_losses_of_one_that_was_not(chosen: dict[str, Any], tmp_path: Path) -> None:
    from medclip.training.result import read_log

    def losses(out: Path) -> list[float]:
        return [e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"]

    run_recipe(chosen, out=tmp_path / "through")
    stopped = run_recipe(chosen, out=tmp_path / "stopped", stop=lambda step: step == 4)
    assert (stopped.steps, stopped.pack) == (4, None)
    again = run_recipe(chosen, out=tmp_path / "stopped")
    assert again.steps == 6
    assert losses(tmp_path / "stopped") == losses(tmp_path / "through")


def test_the_log_says_how_many_samples_a_selection_keeps(chosen: dict[str, Any], pile: Pile, tmp_path: Path) -> None:
    from medclip.training.result import read_log

    run_recipe(chosen, out=tmp_path / "run", stop=lambda step: step == 1)
    notes = [e["note"] for e in read_log(tmp_path / "run" / "log.jsonl") if e["kind"] == "note"]
    kept, every = len(kept_keys(pile)), pile.cells("split").count("train")
    assert f"the selection keeps {kept} of {every} samples of the split 'train'" in notes


def test_another_selection_does_not_go_on_with_a_run_and_the_same_elsewhere_does(
    chosen: dict[str, Any], pile: Pile, tmp_path: Path
) -> None:
    run_recipe(chosen, out=tmp_path / "run", stop=lambda step: step == 1)
    write_selection(select(pile, (1, 2, 3, 4, 5)), tmp_path / "other.parquet")
    other = {**chosen, "data": {**chosen["data"], "selection": [str(tmp_path / "other.parquet")]}}
    with pytest.raises(MedclipError, match=r"data\.selected") as e:
        run_recipe(other, out=tmp_path / "run")
    assert e.value.reason is Reason.OUTPUT_IN_USE
    without = {**chosen, "data": {k: v for k, v in chosen["data"].items() if k != "selection"}}
    with pytest.raises(MedclipError, match=r"data\.selected"):
        run_recipe(without, out=tmp_path / "run")
    moved = (tmp_path / "kept.parquet").rename(tmp_path / "moved.parquet")
    elsewhere = {**chosen, "data": {**chosen["data"], "selection": str(moved)}}
    assert run_recipe(elsewhere, out=tmp_path / "run", stop=lambda step: step == 2).steps == 2


def test_weights_of_a_selection_multiply_those_of_the_loss(shards: Path, pile: Pile) -> None:
    weights = np.linspace(0.5, 2, len(pile))
    reader = ShardReader(shards, "train", selection=select(pile, weights=weights))
    of_key = dict(zip(pile.cells("key"), weights.astype(np.float32), strict=True))
    for loss_weights, factor in ((None, 1), ({"made here": 2.0}, 2)):
        batch = next(batches_of(reader, batch_size=5, loss_weights=loss_weights, **PIXELS).training(0, 1))
        assert batch.weights is not None
        np.testing.assert_allclose(batch.weights, [factor * of_key[key] for key in batch.keys])


def test_a_selection_of_other_shards_is_refused_with_how_many_are_unknown(shards: Path, pile: Pile) -> None:
    selection = select(pile)
    keys = selection.table.column("key").to_pylist()
    changed = selection.table.set_column(0, "key", [[f"new{i}" if i < 2 else key for i, key in enumerate(keys)]])
    for table, unknown, missing in ((changed, 2, 2), (selection.table.slice(3), 0, 3)):
        with pytest.raises(MedclipError, match=f"{unknown} are not in these shards, and {missing} of their") as e:
            ShardReader(shards, "train", selection=replace(selection, table=table))
        assert e.value.reason is Reason.WRONG_USE
    with pytest.raises(MedclipError, match="has no pair of the split 'train'"):
        ShardReader(shards, "train", selection=replace(selection, table=selection.table.slice(0, 0)))
    with pytest.raises(MedclipError, match="keeps nothing of the split 'train'"):
        ShardReader(shards, "train", selection=select(pile, range(NUM_TRAIN)))


def test_a_selection_of_null_is_none(chosen: dict[str, Any]) -> None:
    chosen["data"]["selection"] = None
    assert Data.model_validate(chosen["data"]).selection == ()


def test_a_recipe_that_states_the_hash_of_another_selection_is_refused(chosen: dict[str, Any]) -> None:
    chosen["data"]["selected"] = "0" * 16
    with pytest.raises(MedclipError, match=r"data\.selected is 0000000000000000") as e:
        load_recipe(chosen)
    assert e.value.reason is Reason.RECIPE_INVALID


def test_several_folders_have_a_selection_each(tmp_path: Path) -> None:
    places = [make_shards(tmp_path / name, columns=lambda i, n=name: {"patient": f"{n}{i}"}) for name in "ab"]
    for place, dropped in zip(places, ((0, 1), (2,)), strict=True):
        write_selection(select(read_pile(place), dropped), place.with_suffix(".parquet"))
    files = [str(place.with_suffix(".parquet")) for place in places]
    data = Data.model_validate({"shards": [str(place) for place in places], "selection": files})
    assert len(data.open_split("train")) == 2 * NUM_TRAIN - 3
    assert len(data.open_split("val")) == 16
