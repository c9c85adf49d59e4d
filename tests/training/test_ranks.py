"""Runs of two and four ranks: the same batches and the same losses as one process, stopped, resumed and resharded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import medclip
from medclip.training.checkpoints.state import checkpoints, newest_sound
from medclip.training.loop import run_recipe
from medclip.training.result import read_log
from tests.kits.level_shards import level_texts
from tests.kits.loaded_python import Programs
from tests.kits.open_clip_steps import CLOSE, TRAIN, Beside, steps_plan
from tests.kits.rank_run import run_ranks
from tests.kits.size import is_nightly
from tests.kits.training import make_shards, masked_recipe
from tests.kits.volume_models import volume_recipe, volume_shards

# Each run of ranks starts its processes with torchrun; tests/cli/test_ranks.py does it as a user would.
pytestmark = pytest.mark.slow

AT_NIGHT = {
    "ddp_small",
    "stopped",
    "hidden",
    "native",
    "changed_late",
    "tokens",
    "views",
    "count_ddp_2",
    "count_ddp_7",
    "beside_ddp",
    "masked_ddp",
    "masked_fsdp",
    "masked_bad",
    "masked_both",
    "masked_volumes_ddp",
    "masked_volumes_begun_by_fsdp",
}
"""Runs that CI leaves to the night. It has each kind of training with sharded ranks (words, at their own aspect,
masked, both, volumes), plain ranks with words, sigmoids and hidden patches, chunks, and each way to stop and go on."""


def _ways(*names: str, of: str = "", prefix: str = "") -> list[Any]:
    """Return parameters: names of runs, each with the one it is compared with if that is given."""
    marks = [[pytest.mark.nightly] if prefix + name in AT_NIGHT else [] for name in names]
    return [pytest.param(*([name, of] if of else [name]), marks=m) for name, m in zip(names, marks, strict=True)]


def _tonight(jobs: list[dict[str, Any]], prefix: str = "") -> list[dict[str, Any]]:
    return [job for job in jobs if is_nightly() or prefix + str(job["out"]) not in AT_NIGHT]


EXPERTS = ["model.experts={count: 3, share: 0.5}"]
LEVELS = ["objective.contrastive=0", "objective.losses={levels: {}}", "model.size_px=64"]
TOKENS = ["objective.losses={token_alignment: {hardest: 3}, masked_words: {share: 0.4}}"]
VIEWS = ["objective.losses={views: {object: source, hard: 8, weight: 1}}"]
NATIVE = ["model.native_aspect=true", "model.size_px=64", "model.max_tokens=12"]


def _losses(out: Path) -> dict[int, float]:
    return {e["step"]: e["loss"] for e in read_log(out / "log.jsonl") if e["kind"] == "step"}


def _changed(shards: Path, folder: Path) -> Path:
    """Copy shards and change a byte of one, which its size does not show."""
    copy = folder / "changed_shards"
    shutil.copytree(shards, copy)
    tar = copy / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    tar.write_bytes(data)
    return copy


@pytest.fixture(scope="module")
def plan(shards: Path) -> dict[str, Any]:
    """Six steps of a small ViT without drop-out or batch statistics, so that ranks and chunks change nothing."""
    return {
        "name": "ranks",
        "seed": 5,
        "data": {"shards": str(shards), "workers": 1},
        "text": {"vocab_size": 600, "context_length": 24, "captions_per_sample": 1},
        "model": {
            "image_tower": "test_vit",
            "image_weights": None,
            "size_px": 32,
            "embed_dim": 16,
            "text_width": 16,
            "text_heads": 2,
            "text_layers": 2,
        },
        "train": {
            "epochs": 2,
            "batch_size": 6,
            "warmup_steps": 2,
            "log_every": 1,
            "ema": 0.5,
            "threads": 1,
            "lr": 1e-3,
        },
    }


@pytest.fixture(scope="module")
def runs(plan: dict[str, Any], shards: Path, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let one process and two ranks run, stop and go on in every way that the tests look at."""
    folder = tmp_path_factory.mktemp("ranks")
    run_recipe(plan, out=folder / "one")
    run_recipe(plan, out=folder / "begun_by_one", stop=lambda step: step == 2)
    fsdp, small = ["train.parallel=fsdp"], ["train.micro_batch=1"]
    jobs = [
        {"out": "ddp", "overrides": ["train.checkpoint_every=1"]},  # written while steps are taken
        {"out": "ddp_small", "overrides": small},
        {"out": "fsdp", "overrides": [*fsdp, "train.checkpoint_every=1"]},
        {"out": "fsdp_small", "overrides": [*fsdp, *small]},
        {"out": "stopped", "stop": 3},
        {"out": "one_asked", "stop": 2, "stop_rank": 1, "overrides": ["train.sync_every=3", "train.log_every=100"]},
        {"out": "begun_by_one", "overrides": fsdp},
        {"out": "begun_by_fsdp", "overrides": fsdp, "stop": 4},
        {"out": "full", "full_disk": True},
        {"out": "siglip", "overrides": ["objective.loss=siglip"]},
        {"out": "odd", "overrides": ["train.batch_size=5"]},
        {"out": "hidden", "overrides": ["objective.masked={weight: 0.5}", "model.size_px=64", *small]},
        {"out": "native", "overrides": [*NATIVE, *small]},
        {"out": "native_fsdp", "overrides": [*NATIVE, *fsdp]},
        {"out": "tokens", "overrides": TOKENS},
        {"out": "tokens_fsdp", "overrides": [*TOKENS, *fsdp, *small]},
        {"out": "views", "overrides": VIEWS},
        {"out": "views_fsdp", "overrides": [*VIEWS, *fsdp, *small]},
        {"out": "experts", "overrides": EXPERTS},
        {"out": "experts_fsdp", "overrides": [*EXPERTS, *fsdp]},
        {"out": "changed", "overrides": [f"data.shards={_changed(shards, folder)}", "data.verify=full"]},
    ]
    rarely = ["train.sync_every=100", "train.log_every=100"]
    jobs.append({**jobs[-1], "out": "changed_late", "overrides": [*jobs[-1]["overrides"], *rarely]})
    quiet = [*rarely, "data.val_split=null", "train.epochs=9"]
    jobs += [
        {"out": f"count_{kind}_{steps}", "overrides": [*quiet, *more, f"train.max_steps={steps}"], "count": True}
        for kind, more in (("ddp", []), ("fsdp", fsdp))
        for steps in (2, 7)
    ]
    levels = [f"data.shards={make_shards(folder / 'levelled', columns=level_texts)}", *LEVELS]
    jobs.append({"out": "levels_fsdp", "overrides": [*levels, *fsdp, "train.micro_batch=2"]})
    beside, bf16 = steps_plan(shards), ["train.precision=bf16", "train.max_steps=1", "train.clip_norm=null"]
    jobs += [
        {"out": "beside_ddp", "recipe": beside, "beside_open_clip": True},
        {"out": "beside_fsdp", "recipe": beside, "beside_open_clip": True, "overrides": fsdp},
        {"out": "gradients", "overrides": [*fsdp, *bf16, "train.betas=[0, 0]"]},
    ]
    jobs = [{"recipe": plan, **job, "out": str(folder / str(job["out"]))} for job in _tonight(jobs)]
    run_ranks(2, jobs, folder, programs)
    run_recipe(plan, out=folder / "begun_by_fsdp")
    run_recipe(plan, ["objective.loss=siglip"], out=folder / "siglip_one")
    if is_nightly():
        run_recipe(plan, out=folder / "stopped")
        hidden = ["objective.masked={weight: 0.5}", "model.size_px=64"]
        run_recipe(plan, hidden, out=folder / "hidden_one")
    run_recipe(plan, NATIVE, out=folder / "native_one")
    run_recipe(plan, TOKENS, out=folder / "tokens_one")
    run_recipe(plan, VIEWS, out=folder / "views_one")
    run_recipe(plan, levels, out=folder / "levels_one")
    return folder


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_ranks_distil_a_rotary_text_tower_as_one_process_does(distilled_runs: Path, name: str) -> None:
    one, two = (_losses(distilled_runs / run) for run in ("one", name))
    assert list(two) == [1, 2, 3]
    assert two == pytest.approx(one, abs=2e-5)


def test_two_ranks_in_chunks_follow_stored_vectors_as_one_process_does(distilled_runs: Path) -> None:
    one, two = (_losses(distilled_runs / run) for run in ("stored_one", "stored"))
    assert two == pytest.approx(one, abs=2e-5)
    assert len(set(one.values())) == 3


@pytest.fixture(scope="module")
def distilled_runs(plan: dict[str, Any], programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let one process and two ranks follow the text tower of a pack, of whose captions some do not fit the teacher."""
    folder = tmp_path_factory.mktemp("distilled ranks")
    run_recipe(plan, ["train.max_steps=1", "text.context_length=12"], out=folder / "teacher")
    recipe = {name: plan[name] for name in ("name", "seed", "data", "train")} | {
        "text": {"context_length": 64},
        "model": {
            "start": str(folder / "teacher" / "pack"),
            "text": {"positions": "rotary"},
            "lock_image": True,
        },
        "objective": {"contrastive": 0, "losses": {"distilled_captions": {}}},
    }
    few, fsdp = ["train.max_steps=3"], ["train.parallel=fsdp", "train.micro_batch=1"]
    run_recipe(recipe, few, out=folder / "one")
    teacher = folder / "teacher" / "pack"
    medclip.pairs.reinforce(plan["data"]["shards"], folder / "r", teachers=[teacher], augmentations=2)
    stored = plan | {"objective": {"contrastive": 0, "losses": {"distill": {"contrastive": 0.5, "scales": [10]}}}}
    stored["data"] = plan["data"] | {"reinforced": str(folder / "r")}
    run_recipe(stored, few, out=folder / "stored_one")
    jobs: list[dict[str, Any]] = [{"out": "ddp", "overrides": few}, {"out": "fsdp", "overrides": [*few, *fsdp]}]
    jobs.append({"out": "stored", "recipe": stored, "overrides": [*few, "train.micro_batch=1"]})
    run_ranks(2, [{"recipe": recipe, **job, "out": str(folder / str(job["out"]))} for job in jobs], folder, programs)
    return folder


BOTH = ["objective.masked={decoder: dec128d2, ratio: 0.75, weight: 0.5}"]


@pytest.fixture(scope="module")
def masked_runs(
    plan: dict[str, Any], shards: Path, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Let one process and two ranks train masked autoencoders, alone and beside words."""
    folder = tmp_path_factory.mktemp("masked ranks")
    alone = masked_recipe(shards) | {"seed": plan["seed"]}
    alone["train"] = plan["train"]
    fsdp, small = ["train.parallel=fsdp"], ["train.micro_batch=1"]
    broken = [f"data.shards={_without_pixels(shards, folder)}", "data.max_bad_share=1"]
    jobs = [
        {"out": "ddp"},
        {"out": "ddp_small", "overrides": small},
        {"out": "fsdp", "overrides": [*fsdp, "train.checkpoint_every=1"]},
        {"out": "fsdp_small", "overrides": [*fsdp, *small]},
        {"out": "begun_by_fsdp", "overrides": fsdp, "stop": 4},
        {"out": "bad", "overrides": broken},
        {"out": "bad_fsdp", "overrides": [*broken, *fsdp]},
        {"out": "both", "recipe": plan, "overrides": BOTH},
        {"out": "both_fsdp", "recipe": plan, "overrides": [*BOTH, *fsdp, *small]},
    ]
    volumes = volume_recipe(volume_shards(folder / "volumes"))
    volumes["train"] |= {"batch_size": 4, "epochs": 6, "max_steps": 6}
    jobs += [
        {"out": "volumes_ddp", "recipe": volumes},
        {"out": "volumes_fsdp", "recipe": volumes, "overrides": [*fsdp, *small]},
        {"out": "volumes_begun_by_fsdp", "recipe": volumes, "overrides": fsdp, "stop": 4},
    ]
    jobs = [{"recipe": alone, **job, "out": str(folder / str(job["out"]))} for job in _tonight(jobs, "masked_")]
    run_ranks(2, jobs, folder, programs)
    run_recipe(volumes, out=folder / "volumes_one")
    if is_nightly():
        run_recipe(volumes, out=folder / "volumes_begun_by_fsdp")
    run_recipe(alone, out=folder / "one")
    run_recipe(alone, out=folder / "begun_by_fsdp")
    run_recipe(alone, broken, out=folder / "bad_one")
    run_recipe(plan, BOTH, out=folder / "both_one")
    return folder


def _without_pixels(shards: Path, folder: Path) -> Path:
    """Copy shards and damage the pixels of an image."""
    copy = folder / "shards_without_pixels"
    shutil.copytree(shards, copy)
    tar = copy / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"IDAT")
    data[at + 4 : at + 24] = bytes(20)
    tar.write_bytes(data)
    return copy


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *_ways("ddp", "ddp_small", "fsdp", "fsdp_small", "begun_by_fsdp", of="one", prefix="masked_"),
        *_ways("bad", "bad_fsdp", of="bad_one", prefix="masked_"),
        *_ways("both", "both_fsdp", of="both_one", prefix="masked_"),
        *_ways("volumes_ddp", "volumes_fsdp", "volumes_begun_by_fsdp", of="volumes_one", prefix="masked_"),
    ],
)
def test_two_ranks_fill_in_what_one_process_fills_in(masked_runs: Path, name: str, other: str) -> None:
    one, two = _losses(masked_runs / other), _losses(masked_runs / name)
    assert list(two) == [1, 2, 3, 4, 5, 6]
    assert two == pytest.approx(one, abs=2e-4)
    validations = [
        [e for e in read_log(masked_runs / run / "log.jsonl") if e["kind"] == "val"][-1] for run in (name, other)
    ]
    assert validations[0] == pytest.approx(validations[1], abs=2e-4)
    assert (masked_runs / name / "pack" / "manifest.json").is_file()


@pytest.mark.parametrize("name", _ways("ddp", "ddp_small", "fsdp", "fsdp_small"))
def test_two_ranks_learn_what_one_process_learns(runs: Path, name: str) -> None:
    one, two = _losses(runs / "one"), _losses(runs / name)
    assert list(two) == [1, 2, 3, 4, 5, 6]
    assert two == pytest.approx(one, abs=2e-4)
    assert two[1] == pytest.approx(one[1], abs=1e-5)


@pytest.mark.parametrize("name", _ways("stopped", "begun_by_one", "begun_by_fsdp"))
def test_a_run_goes_on_with_another_number_of_ranks(runs: Path, name: str) -> None:
    assert _losses(runs / name) == pytest.approx(_losses(runs / "one"), abs=2e-4)
    assert (runs / name / "pack" / "manifest.json").is_file()


def test_the_sigmoid_loss_of_two_ranks_is_that_of_one(runs: Path) -> None:
    assert _losses(runs / "siglip") == pytest.approx(_losses(runs / "siglip_one"), abs=2e-4)


@pytest.mark.parametrize("name", _ways("tokens", "tokens_fsdp"))
def test_tokens_teach_two_ranks_what_they_teach_one(runs: Path, name: str) -> None:
    assert _losses(runs / name) == pytest.approx(_losses(runs / "tokens_one"), abs=2e-4)


@pytest.mark.parametrize("name", _ways("views", "views_fsdp"))
def test_two_ranks_draw_the_views_together_that_one_process_does(runs: Path, name: str) -> None:
    one = _losses(runs / "views_one")
    assert _losses(runs / name) == pytest.approx(one, abs=2e-4)
    assert one[6] > _losses(runs / "one")[6] + 0.1


def test_two_ranks_see_the_local_views_and_regions_that_one_process_sees(runs: Path) -> None:
    assert _losses(runs / "levels_fsdp") == pytest.approx(_losses(runs / "levels_one"), abs=2e-4)


def test_experts_of_sharded_ranks_learn_what_those_of_plain_ranks_learn(runs: Path) -> None:
    """One process deals other tokens to an expert, so that its run is another one."""
    plain = _losses(runs / "experts")
    assert _losses(runs / "experts_fsdp") == pytest.approx(plain, abs=2e-4)
    assert abs(plain[6] - _losses(runs / "one")[6]) > 1e-4
    weights = load_file(runs / "experts_fsdp" / "pack" / "model.safetensors")
    assert not any("experts" in name for name in weights)


@pytest.mark.nightly  # in CI masked_runs has them with words, in chunks of sharded ranks
def test_hidden_patches_and_their_loss_do_not_depend_on_ranks_and_chunks(runs: Path) -> None:
    assert _losses(runs / "hidden") == pytest.approx(_losses(runs / "hidden_one"), abs=5e-4)


@pytest.mark.parametrize("name", _ways("native", "native_fsdp"))
def test_images_at_their_own_aspect_ratio_teach_two_ranks_what_they_teach_one(runs: Path, name: str) -> None:
    assert _losses(runs / name) == pytest.approx(_losses(runs / "native_one"), abs=2e-4)


@pytest.mark.parametrize("name", _ways("beside_ddp", "beside_fsdp"))
def test_two_ranks_take_the_steps_that_open_clips_loop_takes_in_two_ranks(runs: Path, name: str) -> None:
    both = Beside(**json.loads((runs / name / "beside.json").read_text()))
    assert min(both.norms) < TRAIN["clip_norm"] < max(both.norms)
    assert both.scales[0] == pytest.approx(100, abs=1e-3)
    assert max(both.apart.values()) < CLOSE, both.apart


def test_bfloat16_gradients_of_sharded_ranks_are_added_up_in_float32(runs: Path) -> None:
    """With betas of 0 AdamW's first moment is the gradient itself; a sum in bfloat16 would have 8 bits of mantissa."""
    path, _, _ = newest_sound(runs / "gradients" / "checkpoints")
    assert path is not None
    tensors = [load_file(file) for file in path.glob("*.safetensors")]
    gradients = [v for part in tensors for n, v in part.items() if n.endswith("weight.exp_avg") and v.ndim >= 2]
    assert len(gradients) >= 30
    for gradient in gradients:
        used = gradient[gradient != 0]  # rows of words that no caption has are 0
        assert (used != used.bfloat16().float()).float().mean() > 0.05


def test_ranks_stop_at_the_same_step_though_one_was_asked_and_they_look_at_every_third(runs: Path) -> None:
    assert [p.name for p in checkpoints(runs / "one_asked" / "checkpoints")] == ["step-0000003"]
    assert not (runs / "one_asked" / "pack").exists()


@pytest.mark.parametrize(
    ("kind", "gathers", "sums", "scatters"),
    [
        # Features and pairs; maxima and sums of columns, gradients of features, flags, two buckets of gradients.
        pytest.param("ddp", 2, 4 + 2, 0, marks=pytest.mark.nightly),
        # The same, and 10 groups of parameters: forward, and backward but the two that stay gathered.
        ("fsdp", 2 + 18, 4, 10),
    ],
)
def test_a_step_has_one_small_sum_beside_those_of_features_gradients_and_parameters(
    runs: Path, kind: str, gathers: int, sums: int, scatters: int
) -> None:
    few, many = (json.loads((runs / f"count_{kind}_{n}" / "collectives.json").read_text()) for n in (2, 7))
    counts = {name: (many[name] - few.get(name, 0)) / 5 for name in many if many[name] != few.get(name, 0)}
    expected = {"_allgather_base_": gathers, "allreduce_": sums, "_reduce_scatter_base_": scatters}
    assert counts == {name: number for name, number in expected.items() if number}


@pytest.mark.parametrize("name", _ways("changed", "changed_late"))
def test_a_shard_that_one_rank_finds_changed_is_named_by_all(runs: Path, name: str) -> None:
    said = [json.loads((runs / name / f"error-{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    assert said[0][0] == "corrupt"
    assert "train-000000.tar" in said[0][1]


def test_ranks_share_the_validation_and_the_first_writes_one_log(runs: Path) -> None:
    entries = read_log(runs / "ddp" / "log.jsonl")
    assert [e["step"] for e in entries if e["kind"] == "val"] == [3, 6]
    for name in ("ddp", "fsdp", "siglip"):
        other = "siglip_one" if name == "siglip" else "one"
        ours, own = ([e for e in read_log(runs / run / "log.jsonl") if e["kind"] == "val"][-1] for run in (name, other))
        assert ours.keys() == own.keys()
        for figure in ours.keys() - {"kind", "time"}:
            assert ours[figure] == pytest.approx(own[figure], abs=2e-4), figure


def test_a_disk_that_is_full_for_one_rank_stops_all_with_one_sentence_and_keeps_what_was_there(runs: Path) -> None:
    said = [json.loads((runs / "full" / f"error-{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    assert said[0][0] == "disk_full"
    assert not checkpoints(runs / "full" / "checkpoints")


def test_a_batch_that_the_ranks_cannot_share_is_refused_by_all(runs: Path) -> None:
    for rank in range(2):
        reason, text = json.loads((runs / "odd" / f"error-{rank}.json").read_text())
        assert reason == "recipe_invalid"
        assert "batch_size" in text


def test_the_shards_of_a_checkpoint_are_hashed_each(runs: Path) -> None:
    path, state, damaged = newest_sound(runs / "fsdp" / "checkpoints")
    assert path is not None
    assert not damaged
    assert (state["ranks"], len(state["files"])) == (2, 2)


def test_four_ranks_learn_what_one_process_learns(plan: dict[str, Any], programs: Programs, tmp_path: Path) -> None:
    changed = ["train.batch_size=8"]
    run_recipe(plan, changed, out=tmp_path / "one")
    pairs = ["train.parallel=fsdp", "train.shard_size=2"]  # two copies of the parameters, each on two ranks
    ways = {"four": [], "two_by_two": pairs, **({"stopped": pairs} if is_nightly() else {})}
    jobs = [{"recipe": plan, "overrides": [*changed, *more], "out": str(tmp_path / n)} for n, more in ways.items()]
    if "stopped" in ways:
        jobs[-1]["stop"] = 2
    run_ranks(4, jobs, tmp_path, programs)
    if "stopped" in ways:
        run_recipe(plan, changed, out=tmp_path / "stopped")
    for name in ways:
        assert _losses(tmp_path / name) == pytest.approx(_losses(tmp_path / "one"), abs=2e-4)
    norms = [[e["grad_norm"] for e in read_log(tmp_path / n / "log.jsonl") if e["kind"] == "step"] for n in ways]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
