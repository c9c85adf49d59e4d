"""Laws of every kind of training: a run that is stopped, or killed anywhere, ends with the bits of one that was not.

A new kind of training is a row of KINDS. That ranks learn what one process learns is in `test_ranks.py`, and for
examinations and ECGs beside what else is said of them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from medclip.training.loop import run_recipe
from medclip.training.result import read_log
from tests.kits.exam_shards import exam_recipe, make_exam_shards
from tests.kits.lens import lens_of, vit_pack
from tests.kits.level_shards import level_texts
from tests.kits.loaded_python import Programs
from tests.kits.signal_shards import signal_recipe, signal_shards
from tests.kits.size import is_nightly, sized
from tests.kits.training import make_shards, masked_recipe, rewritten_shards, tiny_recipe
from tests.kits.volume_models import volume_recipe, volume_shards

ENDS = ("pack/model.safetensors", "pack/tokenizer.json", "pack/card.json", "heads.safetensors")
"""Files that two runs of one recipe have alike, byte by byte, where they have them."""
HEADS = (
    "objective.supervised=[{task: mammography_malignancy}, {task: breast_composition, weight: 0.5}, "
    "{task: breast_cancer_risk}]"
)
LENS = {"epochs": 1, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "threads": 1, "lr": 1e-2}


def _half(number: int) -> dict[str, str]:
    return {"edit_pairs": f"pair {number // 2}", "caption": f"a film {number}"} if number < 12 else {}


class Places:
    """What the kinds are trained on and begin with, each made when it is asked for.

    Args:
        folder: Where it is made.
        films: The shards of films.
    """

    def __init__(self, folder: Path, films: Path) -> None:
        self._folder, self.films = folder, films

    @cached_property
    def pairs(self) -> Path:
        """Films of which the first twelve are halves of six edit pairs."""
        return make_shards(self._folder / "pairs", columns=_half)

    @cached_property
    def levelled(self) -> Path:
        """Films with texts of three levels."""
        return make_shards(self._folder / "levels", columns=level_texts)

    @cached_property
    def views(self) -> Path:
        """Films of which each patient of the training split has four."""
        return make_shards(self._folder / "views", columns=lambda i: {"patient": f"p{i // 4}"})

    @cached_property
    def volumes(self) -> Path:
        return volume_shards(self._folder / "volumes")

    @cached_property
    def signals(self) -> Path:
        return signal_shards(self._folder / "signals", missing=(3, 9))

    @cached_property
    def exams(self) -> Path:
        return make_exam_shards(self._folder / "exams")

    @cached_property
    def pack(self) -> Path:
        return vit_pack(self._folder / "vit")

    @cached_property
    def rewritten(self) -> Path:
        return rewritten_shards(self._folder / "rewritten", keep_raw=True)

    @cached_property
    def reinforced(self) -> Path:
        """What a teacher says of the rewritten films."""
        import medclip

        out = self._folder / "reinforced"
        medclip.pairs.reinforce(self.rewritten, out, teachers=[self.first], augmentations=3, captions=2)
        return out

    @cached_property
    def first(self) -> Path:
        """A pack to go on from, of the same films."""
        pack = run_recipe(tiny_recipe(self.films), ["train.max_steps=3"], out=self._folder / "first").pack
        assert pack is not None
        return pack


@dataclass(frozen=True)
class Kind:
    recipe: Callable[[Places], dict[str, Any]]
    changes: tuple[str, ...] = ()
    """Overrides of all its runs."""
    stops: tuple[int, ...] = (3,)
    """Steps after which it is stopped, one after the other."""
    goes_on: tuple[str, ...] = ()
    """Overrides with which it may go on: what is read in another way changes nothing."""


def _films(places: Places) -> dict[str, Any]:
    return tiny_recipe(places.films)


def _vit(places: Places, **objective: Any) -> dict[str, Any]:
    recipe = tiny_recipe(places.films)
    recipe["model"]["image_tower"] = "test_vit"
    return recipe | objective


def _native(places: Places) -> dict[str, Any]:
    recipe = _vit(places)
    recipe["model"] |= {"size_px": 64, "native_aspect": True, "max_tokens": 12}
    recipe["train"]["micro_batch"] = 3
    return recipe


def _kept(places: Places) -> dict[str, Any]:
    recipe = tiny_recipe(places.films)
    parts = {name: recipe[name] for name in ("name", "seed", "data", "train")}
    parts["train"] |= {"keep": {"method": "vr-lwf", "sentences": 40, "length": 6}, "ema": 0, "lr": 0.01}
    return parts | {"model": {"start": str(places.first)}}


def _rotary(places: Places) -> dict[str, Any]:
    parts = _kept(places)
    del parts["train"]["keep"]
    parts["model"] |= {"text": {"positions": "rotary"}, "lock_image": True}
    losses = {"distilled_captions": {}}
    return parts | {"text": {"context_length": 96}, "objective": {"contrastive": 0, "losses": losses}}


def _distilled(places: Places) -> dict[str, Any]:
    recipe = tiny_recipe(places.rewritten)
    recipe["data"]["reinforced"] = str(places.reinforced)
    return recipe | {"objective": {"contrastive": 0, "losses": {"distill": {"contrastive": 0.25, "scales": [10]}}}}


def _lens(places: Places) -> dict[str, Any]:
    model = {"signal": {"sampling_hz": 100, "seconds": 4}, "lens": lens_of(places.pack)}
    data = {"shards": str(places.signals), "workers": 1}
    return {"name": "lens", "seed": 3, "data": data, "model": model, "train": dict(LENS)}


KINDS = {
    "words": Kind(_films, stops=(3, 4)),
    "words, blocks frozen": Kind(_films, ("model.freeze_blocks=2",), stops=(3, 4)),
    "one of several captions": Kind(
        lambda places: tiny_recipe(places.rewritten),
        ("data.candidates={p_raw: 0.5}", "objective.losses={hard_negatives: {}}"),
        goes_on=("data.worker_kind=process",),
    ),
    "two views, patches hidden": Kind(
        _vit, ("objective.two_views={}", "model.size_px=64", "objective.masked={weight: 0.5}"), stops=(2,)
    ),
    "merl": Kind(lambda places: _vit(places, objective="merl")),
    "softened": Kind(_films, ("objective.contrastive=0", "objective.losses={softened: {share: 0.5}}"), stops=(4,)),
    "levels": Kind(
        lambda places: _vit(places) | {"data": tiny_recipe(places.levelled)["data"]},
        ("objective.contrastive=0", "objective.losses={levels: {}}", "model.size_px=64"),
    ),
    "experts": Kind(
        _vit, ("model.experts={count: 3}", "model.grad_checkpointing=true", "train.micro_batch=3"), stops=(4,)
    ),
    "own aspect": Kind(_native, stops=(4,)),
    "held to its start": Kind(_kept),
    "held to its start both ways": Kind(_kept, ("train.keep.resample_every=2", "train.keep.symmetric=true")),
    "rotary text, distilled": Kind(_rotary),
    "masked": Kind(lambda places: masked_recipe(places.films), ("train.checkpoint_every=2",)),
    "volumes": Kind(
        lambda places: volume_recipe(places.volumes),
        ("train.checkpoint_every=2",),
        goes_on=("data.worker_kind=process",),
    ),
    "signals": Kind(
        lambda places: signal_recipe(places.signals), goes_on=("data.worker_kind=process", "data.cache_mb=0")
    ),
    "edit pairs": Kind(lambda places: tiny_recipe(places.pairs), ("objective.losses={edit_pairs: {}}",), stops=(3,)),
    "tokens aligned, words masked": Kind(
        _films, ("objective.losses={token_alignment: {hardest: 3}, masked_words: {}}", "train.micro_batch=3")
    ),
    "views": Kind(
        lambda places: tiny_recipe(places.views), ("objective.losses={views: {object: patient, every: 2}}",), stops=(5,)
    ),
    "lens": Kind(_lens, stops=(1,)),
    "distilled from stored vectors": Kind(
        _distilled,
        ("model.freeze_bn=true", "train.micro_batch=3"),
        goes_on=("data.worker_kind=process", "data.cache_mb=0"),
    ),
    "examinations": Kind(lambda places: exam_recipe(places.exams), (HEADS,)),
}


@pytest.fixture(scope="module")
def places(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(tmp_path_factory.mktemp("places"), shards)


def _losses(out: Path) -> list[tuple[int, float]]:
    return [(e["step"], e["loss"]) for e in read_log(out / "log.jsonl") if e["kind"] == "step"]


def _tensors(out: Path) -> dict[str, torch.Tensor]:
    """Return what the last checkpoint holds, in float32: the pack's weights are halved."""
    end = sorted((out / "checkpoints").iterdir())[-1]
    return load_file(next(end.glob("*.safetensors")))


def assert_alike(out: Path, straight: Path) -> None:
    """Compare two runs to the bit: losses, the last checkpoint, and what they leave."""
    assert _losses(out) == _losses(straight)
    ours, theirs = _tensors(out), _tensors(straight)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (straight / ENDS[0]).exists()
    for name in ENDS:
        if (straight / name).exists():
            assert (out / name).read_bytes() == (straight / name).read_bytes(), name


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_stopped_run_goes_on_to_the_same_bits(kind: Kind, places: Places, tmp_path: Path) -> None:
    recipe, out = kind.recipe(places), tmp_path / "stopped"
    straight = run_recipe(recipe, kind.changes, out=tmp_path / "straight")
    assert straight.finished
    for step in kind.stops:
        part = run_recipe(recipe, kind.changes, out=out, stop=lambda s, at=step: s == at)
        assert (part.finished, part.steps, part.pack) == (False, step, None)
    resumed = run_recipe(recipe, [*kind.changes, *kind.goes_on], out=out)
    assert resumed.finished
    assert resumed.validation == straight.validation
    assert [step for step, _ in _losses(out)] == list(range(1, straight.steps + 1))
    assert_alike(out, tmp_path / "straight")


def _killed(python: str, recipe: dict[str, Any], out: Path, step: int) -> None:
    """Run the command in a process of its own and kill -9 it once the log shows the step."""
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    command = [python, "-m", "medclip.cli.main", "pretrain", str(file), "--out", str(out), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if any(e.get("step", 0) >= step for e in read_log(out / "log.jsonl")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), said.decode()[-2000:]


def _steps(number: int) -> list[int]:
    chance = random.Random(1)
    return [chance.randrange(1, 30) for _ in range(number)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        ("words", _steps(sized(20, least=3))),
        ("masked", [3, 14] if is_nightly() else [14]),
    ],
)
def test_a_run_that_is_killed_at_random_places_goes_on_to_the_same_bits(
    kind: str, kills: list[int], places: Places, programs: Programs, tmp_path: Path
) -> None:
    recipe = KINDS[kind].recipe(places)
    recipe["train"] |= {"epochs": 10, "checkpoint_every": 4}
    if kind == "masked":
        recipe["objective"]["masked"]["foreground"] = True
    run_recipe(recipe, out=tmp_path / "straight")
    for number, step in enumerate(kills):
        out = tmp_path / f"killed-{number}"
        _killed(programs.python, recipe, out, step)
        run_recipe(recipe, out=out)
        assert_alike(out, tmp_path / "straight")
