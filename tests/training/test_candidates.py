"""`data.candidates`: one weighed caption of each sample and epoch, whoever makes the batch; refused where none is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, to_json
from medclip.text.captions.candidates import draw_probabilities
from medclip.training.batches.sample_texts import DrawnRole
from medclip.training.batches.samples import Drawing, Room, Samples
from medclip.training.loop import run_recipe
from medclip.training.recipe.augment import Augment
from medclip.training.recipe.data import Candidates
from medclip.training.recipe.schema import load_recipe
from tests.kits.training import batches_of, rewritten_shards

DRAWN = {"preprocess": Preprocess(size_px=32), "seed": 3, "augment": Augment()}


@pytest.fixture(scope="session")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with raw texts; of four reports one has a false text, and one has no words."""
    return rewritten_shards(tmp_path_factory.mktemp("rewritten"), keep_raw=True)


@pytest.fixture
def plan(recipe: dict[str, Any], rewritten: Path) -> dict[str, Any]:
    recipe["data"] |= {"shards": str(rewritten), "candidates": {"p_raw": 0.5}}
    return recipe


def samples_of(shards: Path, **shares: float) -> Samples:
    roles = (DrawnRole("negative", 1),)
    drawing = Drawing(**DRAWN, native_share=0.3, report_share=0.5, roles=roles, candidates=Candidates(**shares))
    return Samples(ShardReader(shards, "train"), drawing, Room(2**24))


def test_over_epochs_captions_are_drawn_as_often_as_they_weigh(rewritten: Path) -> None:
    samples, epochs = samples_of(rewritten, p_raw=0.25), 400
    numbers = [i for i in range(8) if len(samples.reader.record(i)[0].candidates) > 2]
    assert numbers
    for i in numbers:
        candidates = samples.reader.record(i)[0].candidates
        drawn = Counter(samples.make(epoch, i).text for epoch in range(epochs))
        assert drawn.keys() <= {candidate.text for candidate in candidates}
        for candidate, p in zip(candidates, draw_probabilities(candidates, 0.25, 0.5), strict=True):
            assert abs(drawn[candidate.text] / epochs - p) <= 4 * np.sqrt(p * (1 - p) / epochs)


def test_two_samples_of_the_same_captions_do_not_draw_alike(rewritten: Path) -> None:
    samples = samples_of(rewritten, p_raw=0.5)
    captions = [samples.reader.record(i)[0].candidates for i in range(20)]
    alike = next([i for i in range(20) if captions[i] == one] for one in captions if len(one) > 1)
    drawn = [[samples.make(epoch, i).text for epoch in range(40)] for i in alike[:2]]
    assert set(drawn[0]) == set(drawn[1])
    assert drawn[0] != drawn[1]


def test_beside_a_raw_text_no_false_text_is_drawn(rewritten: Path) -> None:
    samples = samples_of(rewritten, p_raw=0.5)
    records = [samples.reader.record(i)[0] for i in range(20)]
    number, record = next((i, r) for i, r in enumerate(records) if r.negatives and r.candidates)
    made = [samples.make(epoch, number) for epoch in range(40)]
    raw = next(candidate.text for candidate in record.candidates if candidate.is_raw)
    assert {(one.text == raw, one.role_texts[0]) for one in made} == {(True, ()), (False, record.negatives[:1])}


def test_batches_do_not_depend_on_workers_ranks_or_where_a_run_began(rewritten: Path) -> None:
    def captions(first: int, last: int, **options: Any) -> dict[tuple[int, str], str]:
        with ShardReader(rewritten, "train") as reader:
            batches = batches_of(reader, batch_size=4, candidates=Candidates(p_raw=0.5), **DRAWN, **options)
            of_steps = zip(range(first, last), batches.training(first, last), strict=True)
            return {(n, key): t for n, b in of_steps for key, t in zip(b.keys, b.texts, strict=True)}

    through = captions(0, 10, workers=1)
    assert through == captions(0, 10, workers=3, cache_mb=0)
    assert through == captions(0, 7) | captions(7, 10)
    assert through == captions(0, 10, rank=0, world_size=2) | captions(0, 10, rank=1, world_size=2)
    epochs = [{key: text for (n, key), text in through.items() if n // 5 == epoch} for epoch in (0, 1)]
    assert len(epochs[0]) == 20
    assert epochs[0] != epochs[1]


def test_a_recipe_draws_whole_candidates_and_nothing_else(plan: dict[str, Any], tmp_path: Path) -> None:
    assert run_recipe(plan, out=tmp_path / "run").finished


def test_without_the_section_no_raw_text_is_quoted(rewritten: Path) -> None:
    drawing = Drawing(**DRAWN, native_share=1.0, report_share=0.5, native="whole")
    samples = Samples(ShardReader(rewritten, "train"), drawing, Room(2**24))
    assert not any("prior" in samples.make(epoch, i).text for i in range(8) for epoch in range(10))


def test_shards_without_candidates_or_without_raw_texts_are_refused(
    plan: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    plain = plan | {"data": plan["data"] | {"shards": str(shards)}}
    with pytest.raises(MedclipError, match=r"data\.candidates draws a weighed caption .* has any") as refused:
        run_recipe(plain, out=tmp_path / "plain")
    assert refused.value.reason is Reason.RECIPE_INVALID
    without = str(rewritten_shards(tmp_path, keep_raw=False))
    with pytest.raises(MedclipError, match=r"data\.candidates\.p_raw draws a raw text") as refused:
        run_recipe(plan | {"data": plan["data"] | {"shards": without}}, out=tmp_path / "raw")
    assert "keep_raw" in (refused.value.hint or "")


def test_candidates_without_words_are_refused(plan: dict[str, Any]) -> None:
    plan["objective"] = {"contrastive": 0, "masked": {"weight": 1}}
    plan["model"] = {"image_tower": "test_vit", "image_weights": None, "size_px": 32}
    del plan["text"]
    with pytest.raises(MedclipError, match=r"data\.candidates does nothing"):
        load_recipe(plan)


def test_candidates_go_through_json_and_older_samples_have_none(rewritten: Path) -> None:
    with ShardReader(rewritten, "train") as reader:
        record, meta = next(one for one in map(reader.record, range(20)) if one[0].candidates)
    assert from_json(to_json(record, meta)) == (record, meta)
    assert b"candidates" in to_json(record, meta)
    with pytest.raises(ValueError, match="colour"):
        from_json(to_json(record, meta).replace(b'"kind"', b'"colour"'))
