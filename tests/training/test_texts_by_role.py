"""Texts beside the caption: a loss says which roles it reads, and gets them with a mask; no other run draws any."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import medclip
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.shards.reading.foreign import ForeignSet, read_foreign
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, to_json
from medclip.text.captions.record import CaptionRecord
from medclip.text.tokenizers.tokenizer import load_tokenizer
from medclip.training.batches.sample_texts import DrawnRole
from medclip.training.loop import run_recipe
from medclip.training.losses import LOSSES, Loss
from medclip.training.recipe.augment import Augment
from medclip.training.recipe.schema import load_recipe
from medclip.training.recipe.section import Section
from medclip.training.steps.fast_towers import encode_short
from medclip.training.steps.loss_terms import Start, Step
from medclip.training.steps.towers import Seen, pooled_dim
from tests.kits.loaded_python import Programs
from tests.kits.rank_run import run_ranks
from tests.kits.training import batches_of, make_shards

WORDS = ("disc", "effusion", "pneumonia")


def texts_of(number: int) -> dict[str, str]:
    """Of three images one has three negatives and a long text, one has one negative and tags, and one has nothing."""
    return (
        {"negatives": f"no disc {number}\nno heart {number}\ntwo hearts", "long_captions": "a film " * 8},
        {"negatives": f"a lateral film {number}", "tags": f"Disc\nfilm {number}"},
        {},
    )[number % 3]


class Apart(Section):
    """The settings of a loss of this test: images are farther from their negatives than from their captions."""

    weight: float = Field(default=1.0, gt=0)


STEPS: list[Step] = []


def apart(step: Step, settings: Apart, _: object) -> Iterator[tuple[float, Tensor]]:
    STEPS.append(step)
    out, mask_BK = step.outputs, step.inputs.texts["negative"].mask_BK
    further_BK = (out.texts["negative"] - out.text_BD[:, None]) @ out.image_BD[:, :, None]
    yield settings.weight, torch.where(mask_BK, softplus(5 * further_BK[..., 0]), 0).mean()


class Tagged(Section):
    """The settings of another: a linear map of the pooled feature learns the tags."""

    weight: float = Field(default=1.0, gt=0)


def tags_head(start: Start, settings: Tagged) -> nn.Module:
    return nn.Linear(pooled_dim(start.model.visual, start.dim), len(start.recipe.data.tags))


def tags(step: Step, settings: Tagged, _: object) -> Iterator[tuple[float, Tensor]]:
    STEPS.append(step)
    stated = step.inputs.texts["tags"]
    errors_BK = binary_cross_entropy_with_logits(
        step.outputs.extra["tags"], step.of_images(stated.mask_BK).float(), reduction="none"
    )
    yield settings.weight, (errors_BK.mean(1) * step.of_images(stated.has_B)).sum() / len(step.inputs)


def look(head: nn.Module, seen: Seen) -> Tensor:
    return head(seen.pooled_BD.float())


ROWS = {
    "apart": Loss(apart, section=Apart, texts=("own", "negative")),
    "tags": Loss(tags, section=Tagged, texts=("tags",), begin=tags_head, look=look, adds_up=True),
    "longer": Loss(apart, section=Apart, texts=("long",)),
}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose samples have texts of all roles, or of some, or of none."""
    return make_shards(tmp_path_factory.mktemp("spoken"), columns=texts_of)


@pytest.fixture
def plan(recipe: dict[str, Any], spoken: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Six steps with those losses in the table."""
    for name, row in ROWS.items():
        monkeypatch.setitem(LOSSES, name, row)
    STEPS.clear()
    recipe["data"] |= {"shards": str(spoken)}
    recipe["model"] |= {"image_tower": "test_vit"}
    return recipe


def negatives(plan: dict[str, Any], num_negatives: int = 2) -> dict[str, Any]:
    data = plan["data"] | {"num_negatives": num_negatives}
    return plan | {"data": data, "objective": {"losses": {"apart": {}}}}


def losses(folder: Path) -> list[float]:
    events = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [event["loss"] for event in events if event["kind"] == "step"]


def weights(folder: Path) -> str:
    last = sorted((folder / "checkpoints").iterdir())[-1]
    digest = hashlib.sha256()
    for path in sorted(last.glob("*.safetensors")):
        for name, value in sorted(load_file(path).items()):
            digest.update(name.encode() + value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_a_loss_of_ones_own_learns_from_negatives(plan: dict[str, Any], tmp_path: Path) -> None:
    run = medclip.pretrain(negatives(plan), out=tmp_path / "run")
    assert run.pack is not None
    assert len(STEPS) == 6
    step = STEPS[-1]
    texts, features_BKD = step.inputs.texts["negative"], step.outputs.texts["negative"].detach()
    assert features_BKD.shape == (6, 2, 16)
    assert texts.tokens_BKL.shape == (6, 2, 24)
    seen = {tuple(row.tolist()) for one in STEPS for row in one.inputs.texts["negative"].mask_BK}
    assert seen == {(True, True), (True, False), (False, False)}  # of samples with three, one, and none
    torch.testing.assert_close(features_BKD.norm(dim=-1), texts.mask_BK.float())
    assert texts.has_B.equal(texts.mask_BK.any(1))

    tokenizer = load_tokenizer(tmp_path / "run" / "tokenizer")
    written = {
        tuple(tokenizer.encode([text])[0].tolist()): text
        for i in range(28)
        for text in texts_of(i).get("negatives", "").split("\n")
    }
    drawn = [
        written[tuple(row.tolist())]
        for one in STEPS
        for row in one.inputs.texts["negative"].tokens_BKL[one.inputs.texts["negative"].mask_BK]
    ]
    assert len(set(drawn)) > 15  # of three not always the same two
    medclip.pretrain(plan, out=tmp_path / "plain")
    assert losses(tmp_path / "plain")[0] < losses(tmp_path / "run")[0]


def test_features_of_negatives_are_those_of_the_text_tower(plan: dict[str, Any], tmp_path: Path) -> None:
    medclip.pretrain(negatives(plan), overrides=["train.lr=1e-12", "train.max_steps=1"], out=tmp_path / "run")
    step = STEPS[0]
    texts = step.inputs.texts["negative"]
    with torch.no_grad():
        features = encode_short(step.model, texts.tokens_BKL[texts.mask_BK])
    expected = nn.functional.normalize(features, dim=-1)
    torch.testing.assert_close(step.outputs.texts["negative"][texts.mask_BK].detach(), expected, rtol=1e-4, atol=1e-5)


def test_a_loss_of_ones_own_learns_from_tags_without_words(plan: dict[str, Any], tmp_path: Path) -> None:
    plan["objective"] = {"contrastive": 0, "losses": {"tags": {"weight": 2}}}
    plan["data"] |= {"tags": list(WORDS)}
    del plan["text"]
    plan["model"] = {"image_tower": "test_vit", "size_px": 32, "image_weights": None}
    medclip.pretrain(plan, out=tmp_path / "run")
    stated = {tuple(row.tolist()) for step in STEPS for row in step.inputs.texts["tags"].mask_BK}
    # A disc where the tags say one, whatever case; else what the labels say; a blank cell of both is no statement.
    assert stated == {(True, False, False), (False, False, True), (False, False, False)}
    assert all(step.inputs.texts["tags"].tokens_BKL.numel() == 0 and not step.outputs.texts for step in STEPS)
    before = losses(tmp_path / "run")
    medclip.pretrain(plan, overrides=["train.micro_batch=4"], out=tmp_path / "chunks")
    assert losses(tmp_path / "chunks") == pytest.approx(before, rel=1e-4)


def test_chunks_give_the_loss_of_the_whole_batch(plan: dict[str, Any], tmp_path: Path) -> None:
    for name, changes in (("whole", []), ("chunks", ["train.micro_batch=4"])):
        medclip.pretrain(negatives(plan), overrides=["train.max_steps=3", *changes], out=tmp_path / name)
    assert losses(tmp_path / "chunks") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def ended_by(end: Callable[[], object]) -> Loss:
    """Return the loss of negatives, which ends its run in the fifth step."""

    def terms(step: Step, settings: Apart, state: object) -> Iterator[tuple[float, Tensor]]:
        if step.inputs.step == 4:
            end()
        yield from apart(step, settings, state)

    return Loss(terms, section=Apart, texts=("own", "negative"))


def interrupt() -> None:
    raise KeyboardInterrupt


def run_and_be_killed(plan: dict[str, Any], out: Path) -> None:
    LOSSES["apart"] = ended_by(lambda: os.kill(os.getpid(), signal.SIGKILL))
    run_recipe(plan, out=out)


@pytest.mark.slow
def test_two_ranks_learn_from_negatives_and_tags_as_one_process_does(
    plan: dict[str, Any], tmp_path: Path, programs: Programs
) -> None:
    both = negatives(plan)
    both["data"] |= {"tags": list(WORDS)}
    both["objective"]["losses"]["tags"] = {}
    medclip.pretrain(both, out=tmp_path / "one")
    rows, ways = f"{__name__}:ROWS", {"ddp": ["train.micro_batch=2"], "fsdp": ["train.parallel=fsdp"]}
    jobs = [
        {"recipe": both, "out": str(tmp_path / way), "overrides": changes, "losses": rows}
        for way, changes in ways.items()
    ]
    run_ranks(2, jobs, tmp_path, programs)
    for way in ways:
        assert losses(tmp_path / way) == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


@pytest.mark.parametrize("how", ["interrupted", pytest.param("killed", marks=pytest.mark.slow)])
def test_a_killed_and_resumed_run_is_the_same_as_an_unbroken_one(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    often = negatives(plan) | {"train": plan["train"] | {"checkpoint_every": 1}}
    medclip.pretrain(often, out=tmp_path / "unbroken")
    if how == "killed":
        process = multiprocessing.get_context("spawn").Process(
            target=run_and_be_killed, args=(often, tmp_path / "again")
        )
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
    else:
        monkeypatch.setitem(LOSSES, "apart", ended_by(interrupt))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(often, out=tmp_path / "again")
        monkeypatch.setitem(LOSSES, "apart", ROWS["apart"])
    assert 0 < len(losses(tmp_path / "again")) < 6
    medclip.pretrain(often, overrides=["data.workers=1", "data.worker_kind=process"], out=tmp_path / "again")
    assert losses(tmp_path / "again") == losses(tmp_path / "unbroken")
    assert weights(tmp_path / "again") == weights(tmp_path / "unbroken")


@pytest.mark.parametrize(("kind", "workers", "ranks"), [("thread", 3, 1), ("process", 2, 1), ("thread", 1, 2)])
def test_any_number_of_workers_and_ranks_draws_the_same_texts(
    plan: dict[str, Any], spoken: Path, tmp_path: Path, kind: Any, workers: int, ranks: int
) -> None:
    medclip.pretrain(plan, overrides=["train.max_steps=1"], out=tmp_path / "run")
    options: dict[str, Any] = {
        "batch_size": 6,
        "preprocess": Preprocess(32),
        "seed": 1,
        "augment": Augment(),
        "tokenizer": load_tokenizer(tmp_path / "run" / "tokenizer"),
        "roles": (DrawnRole("negative", 2), DrawnRole("long", 1), DrawnRole("tags", 3, WORDS)),
    }
    reader = ShardReader(spoken, "train")

    def drawn_by(ranks: int, **making: Any) -> list[tuple[str, str, tuple[str, ...], Any]]:
        """Return key, role, texts and tokens of every row of five batches."""
        shares = [batches_of(reader, **options, **making, rank=rank, world_size=ranks) for rank in range(ranks)]
        rows = [
            (key, role, texts, tokens.tolist())
            for share in shares
            for batch in share.training(0, 5)
            for role, of in batch.roles.items()
            for key, texts, tokens in zip(batch.keys, of.texts, of.tokens, strict=True)
        ]
        for share in shares:
            share.close()
        return sorted(rows)

    rows = drawn_by(1, workers=1)
    assert drawn_by(ranks, workers=workers, worker_kind=kind) == rows
    assert {texts for _, role, texts, _ in rows if role == "long" and texts} == {(("a film " * 8).strip(),)}


def test_a_sample_without_a_long_text_has_its_report(plan: dict[str, Any]) -> None:
    role = DrawnRole("long", 1)
    record = CaptionRecord(None, report="The heart is large. The lungs are clear.")
    assert role.draw(record, np.random.default_rng(0)) == (record.report,)
    assert role.draw(CaptionRecord(None), None) == ()
    assert role.draw(replace(record, generic=True), None) == ()


def test_a_role_that_no_sample_has_is_refused_before_training(
    plan: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    other = negatives(plan)
    other["data"]["shards"] = str(shards)
    longer = plan | {"data": plan["data"] | {"shards": str(shards)}, "objective": {"losses": {"longer": {}}}}
    tagged = plan | {"data": plan["data"] | {"tags": ["hernia"]}, "objective": {"losses": {"tags": {}}}}
    for wrong, said in (
        (other, "the loss 'apart' reads texts of the role 'negative', and no sample .*20 of 20 of the split 'train'"),
        (longer, "the loss 'longer' reads texts of the role 'long'"),
        (tagged, "the loss 'tags' reads .* has any among the words of data.tags"),
    ):
        with pytest.raises(MedclipError, match=said) as refused:
            medclip.pretrain(wrong, out=tmp_path / "run")
        assert refused.value.reason is Reason.RECIPE_INVALID
        assert "of its JSON or table" in str(refused.value.hint)
    assert not STEPS
    assert not (tmp_path / "run" / "tokenizer").exists()


def test_negatives_of_labels_take_the_place_of_stored_ones(plan: dict[str, Any], tmp_path: Path) -> None:
    def columns(number: int) -> dict[str, str]:
        return {"negatives": "two hearts", "label:chest_xray_findings:effusion": str(1 - number % 2)}

    plan = negatives(plan, 1)
    of_labels = {"negatives": "labels", "shards": str(make_shards(tmp_path / "made", columns=columns))}
    plan["data"] |= of_labels | {"native_share": 0.0, "report_share": 0.0}
    medclip.pretrain(plan, out=tmp_path / "run")
    stored = load_tokenizer(tmp_path / "run" / "tokenizer").encode(["two hearts"])[0].tolist()
    negatives_of = [step.inputs.texts["negative"] for step in STEPS]
    drawn = {tuple(row.tolist()) for texts in negatives_of for row in texts.tokens_BKL[:, 0]}
    assert sum(int(texts.mask_BK.sum()) for texts in negatives_of) > 15
    assert len(drawn) > 10
    assert tuple(stored) not in drawn
    assert load_recipe(plan).decisive()["data.negatives"] == "labels"


def test_keys_of_roles_that_no_loss_reads_are_refused(plan: dict[str, Any]) -> None:
    read = {"objective": {"losses": {"tags": {}}}}
    for key, value, part, said in (
        ("num_negatives", 2, {}, "data.num_negatives does nothing: no loss .* 'negative'"),
        ("negatives", "labels", {}, "data.negatives does nothing: no loss .* 'negative'"),
        ("tags", ["disc"], {}, "data.tags does nothing"),
        ("workers", 2, read, "objective.losses.tags reads tags: say in data.tags"),
        ("tags", ["disc", "Disc"], read, "data.tags names a word twice"),
    ):
        with pytest.raises(MedclipError, match=said):
            load_recipe(plan | {"data": plan["data"] | {key: value}} | part)
    assert not {"data.tags", "data.num_negatives"} & load_recipe(plan).decisive().keys()
    with pytest.raises(ValueError, match="'rumour' is no role of texts: these are own, negative, long, tags"):
        Loss(apart, texts=("rumour",))


def test_a_loss_that_reads_texts_reads_words_and_one_of_tags_does_not(plan: dict[str, Any]) -> None:
    assert load_recipe(negatives(plan)).roles == (DrawnRole("negative", 2),)
    plan["objective"] = {"contrastive": 0, "losses": {"longer": {}}}
    alone = load_recipe(plan)
    assert alone.needs_words
    assert alone.roles == (DrawnRole("long", 1),)


def test_a_sample_says_texts_by_role_where_it_has_them() -> None:
    plain = CaptionRecord(None, texts=("a film",))
    assert not {"negatives", "long_captions", "tags"} & json.loads(to_json(plain, {}))["record"].keys()
    full = CaptionRecord(None, negatives=("no film",), long_captions=("a long film",), tags=("film", "heart"))
    for record in (plain, full):
        assert from_json(to_json(record, {}))[0] == record


def test_shards_of_others_say_texts_by_role_too() -> None:
    stated = {"captions": ["a film"], "negatives": ["no  film", " "], "long_captions": "a long film", "tags": ["film"]}
    row = {"key": "a", "sha256": "b", "patient": "c"}
    record, _ = read_foreign({"json": json.dumps(stated).encode()}, ForeignSet("theirs", "CC0", None), row)
    assert (record.negatives, record.long_captions, record.tags) == (("no film",), ("a long film",), ("film",))
