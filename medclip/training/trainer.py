"""One training run in memory: model, optimizer, data and schedule; steps, validation, checkpoints, the pack."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.models.preprocess import Preprocess, square_side
from medclip.models.towers.build import build_clip
from medclip.progress import Progress, Silent
from medclip.shards.reading.samples import ShardReader
from medclip.training.batches.loader import Batch, Batches, preflight
from medclip.training.checkpoints import state as store
from medclip.training.checkpoints.export import export_pack
from medclip.training.checkpoints.start import begin, tokenizer_folder
from medclip.training.log import FILE_NAME, RunLog, cut_log
from medclip.training.ranks.sharding import clip_gradients, full_weights, spread
from medclip.training.ranks.world import World
from medclip.training.recipe.compatibility import refuse_what_does_not_go_together
from medclip.training.recipe.file import package_folder
from medclip.training.recipe.schema import Recipe
from medclip.training.result import BEST, PretrainResult
from medclip.training.steps.frozen_prefix import FrozenPrefix
from medclip.training.steps.masked_pixels import MaskedPart
from medclip.training.steps.optimizer import (
    MAX_LOGIT_SCALE,
    Ema,
    learning_rate,
    make_optimizer,
    moving_statistics,
    names_of_parameters,
    training_mode,
)
from medclip.training.steps.step import StepComputer
from medclip.training.steps.teacher import SentenceTeacher
from medclip.training.steps.towers import Towers, borrowed, weights_of
from medclip.training.validation import validate


class Trainer:
    """A run, at its start or at its last checkpoint. Every rank makes one.

    Args:
        recipe: What to train.
        folder: The run's folder; its checkpoint is taken up where it has one.
        world: The ranks.
        progress: Counts the steps and shows what happens.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, world: World | None = None, progress: Progress | None = None
    ) -> None:
        t, m, d = recipe.train, recipe.model, recipe.data
        self.recipe, self.folder, self._progress = recipe, folder, progress or Silent()
        self.world = world or World(device=torch.device(t.device))
        if t.threads:
            torch.set_num_threads(t.threads)
        self.reader = ShardReader(d.shards, d.train_split, verify=d.verify, cache=d.cache)
        started = self.world.first(lambda: begin(recipe, folder, self.reader)) or begin(recipe, folder, self.reader)
        self.config, self.tokenizer, self._base = started.config, started.tokenizer, started.base
        self.normalisation = (started.mean, started.std)
        self.size_px, self._budget = square_side(started.config), started.budget
        self.data, self.val = self._batches()
        model = started.model.to(self.world.device)
        self.towers = self._towers(model)
        self._prefix = FrozenPrefix(model, m.freeze_blocks, self.size_px) if m.freeze_blocks else None
        self.towers.prefix = [self._prefix] if self._prefix else []
        refuse_what_does_not_go_together(recipe, self.towers, self.world)
        call = spread(self.towers, self.world, parallel=t.parallel, bf16=t.precision == "bf16")
        self.optimizer = make_optimizer(self.towers, recipe)
        store.fill_optimizer(self.optimizer)
        self._statistics = moving_statistics(self.towers, freeze_bn=m.freeze_bn)
        self.ema = Ema(self.towers, t.ema) if t.ema else None
        wanted = recipe.objective.text_teacher
        teacher = SentenceTeacher(package_folder(wanted.folder), str(self.world.device)) if wanted else None
        self.computer = StepComputer(
            recipe, self.towers, call, self.tokenizer, *self.normalisation, self.world, teacher
        )
        self.total_steps = min(t.epochs * self.data.steps_per_epoch, t.max_steps or 10**12)
        self.step, self.bad_steps, self.best = 0, 0, math.inf
        self.validation: dict[str, float] = {}
        self._bad_told: dict[str, int] = {}
        self._notes: list[str] = []
        self._resume()

    def run(self, stop: Callable[[int], bool]) -> PretrainResult:
        """Take the steps that are left.

        Args:
            stop: Asked after each step; True on any rank writes a checkpoint and ends the call on all.
        """
        t = self.recipe.train
        log = RunLog(
            self.folder,
            self.total_steps,
            self.step,
            self._progress,
            write=self.world.is_first,
            tensorboard=t.tensorboard,
        )
        try:
            self._log_first(log)
            since, images, waited = time.perf_counter(), 0, 0.0
            for batch in self._fetched(self.data.training(self.step, self.total_steps)):
                loss, lr, norm = self._step(batch, log)
                batch.release()
                images, waited = images + len(batch.texts), waited + batch.wait_s
                last = self.step == self.total_steps
                if self.step % t.log_every == 0 or last:
                    spent = time.perf_counter() - since
                    entry = {"step": self.step, "epoch": self.step / self.data.steps_per_epoch, "loss": loss, "lr": lr}
                    speed = {"images_s": images * self.world.size / spent, "data_wait": waited / spent}
                    scale = float(self.towers.clip.logit_scale.detach().exp())
                    log.write("step", entry | {"scale": scale, "grad_norm": norm} | speed | self._memory())
                    self._count_bad(log)
                    since, images, waited = time.perf_counter(), 0, 0.0
                else:
                    log.reach(self.step)
                if self.step % self.data.steps_per_epoch == 0 or last:
                    start = time.perf_counter()
                    self._validate(log)
                    since += time.perf_counter() - start
                stopping = not last and self._any(stop(self.step))
                if self.step % t.checkpoint_every == 0 or stopping or last:
                    self._save()
                if stopping:
                    return PretrainResult(self.folder, self.step, self.total_steps, None, self.validation)
            return self._finish()
        finally:
            log.close()
            for batches in (self.data, self.val):
                if batches is not None:
                    batches.close()

    def _step(self, batch: Batch, log: RunLog) -> tuple[float, float, float]:
        """Take one step; a step whose loss or gradient is not finite changes nothing."""
        t = self.recipe.train
        lr = learning_rate(
            self.step,
            base=t.lr,
            warmup_steps=t.warmup_steps,
            total_steps=self.total_steps,
            schedule=t.schedule,
            cooldown_steps=t.cooldown_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        training_mode(self.towers, freeze_bn=self.recipe.model.freeze_bn)
        self.optimizer.zero_grad(set_to_none=True)
        statistics = [s.clone() for s in self._statistics]
        own = self.computer.backward(batch, self.step)
        value = float(self.world.sum(torch.tensor([own], dtype=torch.float64))[0]) / self.world.size
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = clip_gradients(learning, t.clip_norm if t.clip_norm is not None else math.inf)
        if math.isfinite(norm) and math.isfinite(value):
            self.bad_steps = 0
            self.optimizer.step()
            with torch.no_grad():
                self.towers.clip.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
            if self.ema is not None:
                self.ema.update(self.towers, self.step)
        else:
            for now, before in zip(self._statistics, statistics, strict=True):
                now.copy_(before)
            self._skip(value, norm, log)
        self.step += 1
        return value, lr, norm

    def _skip(self, loss: float, norm: float, log: RunLog) -> None:
        self.bad_steps += 1
        log.write("skip", {"step": self.step + 1, "loss": str(loss), "grad_norm": str(norm)})
        if self.bad_steps > self.recipe.train.max_bad_steps:
            raise MedclipError(
                Reason.NON_FINITE,
                f"the loss or its gradient was not finite {self.bad_steps} steps in a row, up to step {self.step + 1}.",
                where=self.folder,
                hint="Lower train.lr or use precision fp32, in another folder; the last checkpoint is from before.",
            )

    def _validate(self, log: RunLog) -> None:
        """Every rank measures its part of the validation split, and all know the result."""
        if self.val is None:
            return
        with borrowed(self.towers, self.ema.state if self.ema else None):
            self.towers.eval()
            figures = validate(
                self.val.validation(self.recipe.data.max_val),
                self.computer.encode,
                self.computer.contrastive,
                self.computer.pairs,
                self.recipe.train.zero_shot,
                self.computer.encode_text,
                world=self.world,
                size=min(self.recipe.data.max_val, len(self.val.reader)),
                batch_size=self.recipe.train.batch_size,
            )
            figures = self.world.gather(figures)[0]  # rounding may differ between ranks; one of them decides
            log.write("val", {"step": self.step, **figures})
            self.validation = figures
            if figures and figures["val_loss"] < self.best:
                self.best = figures["val_loss"]
                if self.recipe.train.export == "best":
                    weights = full_weights(self.towers, self.world)
                    self.world.first(lambda: store.save_tensors(weights, self.folder / BEST))

    def _finish(self) -> PretrainResult:
        with borrowed(self.towers, self.ema.state if self.ema else None):
            weights = full_weights(self.towers, self.world)
        pack = self.folder / "pack"
        self.world.first(lambda: self._export(pack, weights))
        return PretrainResult(self.folder, self.step, self.total_steps, pack, self.validation)

    def _export(self, pack: Path, weights: dict[str, Tensor]) -> None:
        best = self.folder / BEST
        if self.recipe.train.export == "best" and best.is_file():
            from safetensors.torch import load_file

            weights = load_file(best)
        if not all(bool(torch.isfinite(v).all()) for v in weights.values() if v.is_floating_point()):
            raise MedclipError(
                Reason.NON_FINITE, "the weights are not finite; no pack was written.", where=self.folder,
                hint="Lower train.lr, in another folder.",
            )  # fmt: skip
        model = build_clip(self.config, self._base)
        model.load_state_dict(weights)
        preprocess = Preprocess(
            self.size_px, *self.normalisation, adapters=self.reader.preprocessing, budget=self._budget
        )
        tokenizer = tokenizer_folder(self.recipe, self.folder)
        export_pack(
            pack, self.recipe, model, self.config, tokenizer, self.reader, self.step, preprocess, base=self._base
        )

    def _save(self) -> None:
        state = {
            "recipe": self.recipe.digest(), "data": self._data_digest(), "bad_steps": self.bad_steps,
            "validation": self.validation, "best": None if math.isinf(self.best) else self.best,
            "ranks": self.world.size, "bad": self._bad_told, "seen": self.data.seen * self.world.size,
        }  # fmt: skip
        store.save_checkpoint(self.folder / "checkpoints", self.step, self._tensors(), state, self.world)

    def _tensors(self) -> dict[str, Tensor]:
        """Name everything that a checkpoint holds."""
        averaged = self.ema.state if self.ema else {}
        return {
            **weights_of(self.towers),
            **store.optimizer_tensors(self.optimizer, names_of_parameters(self.towers)),
            **{f"averaged.{k}": v for k, v in averaged.items()},
        }

    def _resume(self) -> None:
        folder = self.folder / "checkpoints"
        path, state, damaged = store.newest_sound(folder) if self.world.is_first else (None, {}, [])
        name, state, num_damaged = self.world.gather([path.name if path else None, state, len(damaged)])[0]
        if name is not None:
            if state.get("data") != self._data_digest():
                raise MedclipError(
                    Reason.OUTPUT_IN_USE,
                    "the training shards are not those that this run began with; going on would mix two data sets.",
                    where=self.folder,
                    hint="Name another folder with --out, or give the run its shards back.",
                )
            store.load_checkpoint(folder / name, self._tensors(), self.world)
            self.step, self.bad_steps, self.validation = state["step"], state["bad_steps"], state["validation"]
            self.best = math.inf if state["best"] is None else state["best"]
            if self.world.is_first:  # counts go on; the others begin at nothing, so that the sum is right
                self.data.bad.update(state["bad"])
                self.data.seen = state["seen"]
        elif num_damaged:
            raise MedclipError(
                Reason.CORRUPT,
                f"none of the {num_damaged} checkpoints here holds what was written.",
                where=folder,
                hint="Remove the folder to begin again, or put the checkpoints back.",
            )
        self._notes += [f"{num_damaged} damaged checkpoints were passed over"] * (num_damaged > 0)
        if self.world.is_first:
            cut_log(self.folder / FILE_NAME, self.step)
        self.world.barrier()

    def _log_first(self, log: RunLog) -> None:
        notes = self._notes + list(
            preflight(
                self.reader,
                world_size=self.world.size,
                workers=self.recipe.data.workers,
                batch_size=self.recipe.train.batch_size,
                policy=self.recipe.data.policy,
                window_shards=self.recipe.data.window_shards,
            )
        )
        for note in notes:
            log.write("note", {"step": self.step, "note": note})

    def _fetched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches; what one rank cannot read all ranks hear of before they wait for it in a step."""
        while True:
            batch: Batch | None = None
            error: MedclipError | None = None
            try:
                batch = next(batches, None)
            except MedclipError as e:
                error = e
            if self._any(error is not None):
                self.world.agree(error)
            if batch is None:
                return
            yield batch

    def _count_bad(self, log: RunLog) -> None:
        """Add up the samples that could not be read, on all ranks; too many of them end the run."""
        total: dict[str, int] = {}
        for counts in self.world.gather({str(k): v for k, v in self.data.bad.items()}):
            for reason, count in counts.items():
                total[reason] = total.get(reason, 0) + count
        if total != self._bad_told:
            self._bad_told = total
            log.write("bad", {"step": self.step, **total})
        self.world.agree(self.data.over_budget())

    def _any(self, wish: bool) -> bool:
        return bool(self.world.sum(torch.tensor([float(wish)]))[0] > 0)

    def _batches(self) -> tuple[Batches, Batches | None]:
        d, t, o = self.recipe.data, self.recipe.train, self.recipe.objective
        shared: dict[str, Any] = {
            "batch_size": t.batch_size, "size_px": self.size_px, "seed": self.recipe.seed,
            "tokenizer": self.tokenizer,
            "native_share": d.native_share, "report_share": d.report_share, "report_words": d.report_words,
            "native": d.native, "budget": self._budget, "rank": self.world.rank, "world_size": self.world.size,
        }  # fmt: skip
        data = Batches(
            self.reader, augment=self.recipe.augment, policy=d.policy, weights=d.weights, window_shards=d.window_shards,
            workers=d.workers, worker_kind=d.worker_kind, cache_mb=d.cache_mb, timeout_s=d.timeout_s,
            max_bad_share=d.max_bad_share, loss_weights=o.source_weights, num_views=2 if o.two_views else 1, **shared,
        )  # fmt: skip
        val = ShardReader(d.shards, d.val_split, verify=d.verify, cache=d.cache) if d.val_split else None
        if val is None:
            return data, None
        validation = Batches(val, max_bad_share=1.0, crew=data.crew, **shared)
        validation.keep_validation(d.max_val)  # before training takes what room there is for shards of a store
        return data, validation

    def _towers(self, model: torch.nn.Module) -> Towers:
        o, compiled = self.recipe.objective, self.recipe.train.compile
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            masked = MaskedPart(model, self.size_px, normalise=o.masked.normalise) if o.masked is not None else None
        if compiled:
            for tower in (model.visual, model.text):
                tower.compile()  # type: ignore[union-attr, operator]
        return Towers(model, self.tokenizer.pad_id, masked, cut_text=not compiled)

    def _data_digest(self) -> str:
        """Hash of the training shards: they hold pixels, labels and order, so equal hash, equal batches."""
        return hashlib.sha256("".join(self.reader.shard_hashes).encode()).hexdigest()[:16]

    def _memory(self) -> dict[str, float]:
        if self.world.device.type != "cuda":
            return {}
        return {"gpu_mb": torch.cuda.max_memory_allocated(self.world.device) / 2**20}
