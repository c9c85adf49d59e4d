"""One training run in memory: model, optimizer, data and schedule; steps, validation, checkpoints, the pack."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.models.towers.build import build_clip
from medclip.objectives.ranks import gather_values
from medclip.progress import Progress, Silent
from medclip.training.batches.loader import Batches, preflight
from medclip.training.batches.order import Balance, Order, check_sources
from medclip.training.batches.samples import Drawing
from medclip.training.batches.workers import CrewOptions
from medclip.training.checkpoints import state as store
from medclip.training.checkpoints.export import export_pack
from medclip.training.checkpoints.start import begin, tokenizer_folder
from medclip.training.checkpoints.state import BackgroundSaver
from medclip.training.losses import losses_of
from medclip.training.ranks import Pace, World, allow_fast_products, choose_precision
from medclip.training.recipe.compatibility import (
    adapters_of,
    refuse_lacking_texts,
    refuse_other_pixels,
    refuse_other_samples,
    refuse_what_does_not_go_together,
    stored_augment,
)
from medclip.training.recipe.schema import Recipe
from medclip.training.reconstructions import Reconstruction, fill_in
from medclip.training.result import BEST, FILE_NAME, HEADS, MASKED, PretrainResult, RunLog, cut_log
from medclip.training.sharding import blocks_of, full_weights, spread
from medclip.training.steps.experts import ExpertsHook, fold_experts
from medclip.training.steps.fast_towers import FrozenPrefix
from medclip.training.steps.frozen_models import Replay, TowerTeacher
from medclip.training.steps.inputs import Fed, Feed
from medclip.training.steps.loss_terms import Start, begin_losses
from medclip.training.steps.masked_pixels import MaskedPart
from medclip.training.steps.optimizer import (
    Ema,
    Hook,
    Outcome,
    Update,
    learning_rate,
    make_optimizer,
    moving_statistics,
    names_of_parameters,
    not_finite,
    read,
    training_mode,
)
from medclip.training.steps.step import StepComputer
from medclip.training.steps.supervised import folded, head_of, move_norm
from medclip.training.steps.towers import Towers, borrowed, weights_of
from medclip.training.validation import WITHIN, validate
from medclip.wording import count, number

_ENDED = "ended early: {} validations in a row were no better than the best (train.patience)"
_FREE_TEXT = (
    "train.keep holds the image tower alone; the text tower is free, so the words of other tasks may change their "
    "meaning (model.lock_text=true holds them)"
)
_MASKED, _SUPERVISED = "masked.", "supervised."
"""How weights of the parts that guess hidden pixels, and that classify, begin."""


class Trainer:
    """A run, at its start or at its last checkpoint. Every rank makes one.

    Args:
        recipe: Recipe of what to train.
        folder: The run's folder; its checkpoint is taken up where it has one.
        world: The ranks.
        progress: Progress bar of the steps, which shows what happens, too.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, world: World | None = None, progress: Progress | None = None
    ) -> None:
        self.recipe, self.folder, self._progress = recipe, folder, progress or Silent()
        self.world = world or World(device=torch.device(recipe.train.device))
        if recipe.train.threads:
            torch.set_num_threads(recipe.train.threads)
        model = self._begin()
        self.data, self.val = self._batches()
        self._notes: list[str] = []
        self._bad_told: dict[str, int] = {}
        self._rows: list[Tensor] = []
        self._error: MedclipError | None = None
        self._schedule()
        self.towers = self._towers(model)
        checkpoint, state = self._newest()
        self._make_update(state.get("precision", "fp32") if checkpoint is not None else None)
        self.step, self.bad_steps, self.since_best, self.best = 0, 0, 0, math.inf
        self.validation: dict[str, float] = {}
        self.pace = Pace(self.world.device)
        self._resume(checkpoint, state)

    def _begin(self) -> torch.nn.Module:
        """Open the training shards, and return the model that the run begins with, on the device."""
        recipe, d = self.recipe, self.recipe.data
        self.reader = d.open_split(d.train_split)
        self.reinforced = d.open_reinforced(self.reader)
        if self.reinforced is not None:
            refuse_other_pixels(self.reinforced, self.reader)
        if recipe.roles or d.candidates is not None:
            self.world.first(lambda: refuse_lacking_texts(self.reader, recipe, self.reinforced))
        started = self.world.first(lambda: begin(recipe, self.folder, self.reader))
        started = started or begin(recipe, self.folder, self.reader)
        self.config, self._base = started.config, started.base
        self.tokenizer = started.tokenizer if recipe.needs_words else None
        # Shards hold images as the adapters crop them, whatever the model that was begun with was shown.
        self.preprocess = replace(started.preprocess, crop="modality")
        self.preprocess = replace(self.preprocess, adapters=adapters_of(self.reader, self.preprocess))
        refuse_other_samples(self.reader, self.preprocess, recipe)
        self.normalisation, self.size_px = (self.preprocess.mean, self.preprocess.std), self.preprocess.size_px
        return started.model.to(self.world.device)

    @property
    def replay(self) -> Replay | None:
        """What holds the words of other tasks; None where the recipe keeps nothing."""
        return next((one.state for one in self.losses if one.name == "keep"), None)

    def _make_update(self, before: str | None) -> None:
        """Choose the precision, spread the towers over the ranks, and make what computes and applies a step.

        Args:
            before: Precision of the checkpoint that is gone on with; None at the start.
        """
        recipe, t, m = self.recipe, self.recipe.train, self.recipe.model
        self.precision = choose_precision(t.precision, self.world.device, before)
        allow_fast_products(self.world.device)
        refuse_what_does_not_go_together(recipe, self.towers, self.world, self.precision)
        bf16 = self.precision == "bf16"
        call = spread(self.towers, self.world, parallel=t.parallel, bf16=bf16, shard_size=t.shard_size)
        self.optimizer = make_optimizer(self.towers, recipe)
        store.fill_optimizer(self.optimizer)
        self.ema = Ema(self.towers, t.ema) if t.ema else None
        experts = None if m.experts is None else ExpertsHook(m.experts, self.total_steps)
        followers = (experts, self.ema, *(loss.state for loss in self.losses))
        self.hooks = [one for one in followers if isinstance(one, Hook)]
        self.update = Update(
            self.towers,
            self.world,
            self.optimizer,
            self.hooks,
            moving_statistics(self.towers, freeze_bn=m.freeze_bn),
            clip_norm=t.clip_norm,
            copies=self.world.size // (t.shard_size or self.world.size),
        )
        self.computer = StepComputer(
            recipe, self.towers, call, self.tokenizer, self.preprocess, self.world, self.losses, bf16=bf16
        )
        for loss in self.losses:
            if loss.encodes_split:
                loss.state.encode_with(self._encode)

    @torch.no_grad()
    def _encode(self, samples: Sequence[int]) -> Tensor:
        """Return the image features of samples of the training split as validation has them, equal on all ranks."""
        each = -(-len(samples) // self.world.size)  # all ranks have as many batches: towers may be spread over them
        part = [samples[min(i, len(samples) - 1)] for i in range(self.world.rank * each, (self.world.rank + 1) * each)]
        self.towers.eval()
        features = []
        for batch in self._still.chosen(part):
            image_BD = self.computer.encode(batch).image_BD.float()
            good_B = torch.from_numpy(batch.valid).to(image_BD.device)
            features.append(torch.where(good_B[:, None], image_BD, 0))
            batch.release()
        training_mode(self.towers, freeze_bn=self.recipe.model.freeze_bn)
        return gather_values(torch.cat(features), self.world.group)[: len(samples)]

    def _schedule(self) -> None:
        """Count the steps of the run, and make what tells the learning rate of each."""
        t = self.recipe.train
        self.total_steps = min(t.epochs * self.data.steps_per_epoch, t.max_steps or 10**12)
        self.rate = functools.partial(
            learning_rate,
            base=t.lr,
            warmup_steps=t.warmup_steps,
            total_steps=self.total_steps,
            schedule=t.schedule,
            cooldown_steps=t.cooldown_steps,
            floor=t.min_lr,
        )

    def run(self, stop: Callable[[int], bool]) -> PretrainResult:
        """Take the steps that are left.

        Args:
            stop: Function that is asked after each step; True on any rank writes a checkpoint and ends the call on all,
                at the same step (with several ranks some steps later, when they next look at what they said to each
                other).
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
        saver = BackgroundSaver(self.folder / "checkpoints", self.world)
        end = self.step if self._ended() else self.total_steps
        feed = Feed(self.data, self.computer.prepare, self.world.device, self.step, end)
        looking_every = t.sync_every or (1 if self.world.device.type == "cpu" else t.log_every)
        try:
            self._log_first(log)
            training_mode(self.towers, freeze_bn=self.recipe.model.freeze_bn)
            wish = False
            self.pace.begin()
            for number, fed in enumerate(feed):
                if number == 0 or self.step % self.data.steps_per_epoch == 0:
                    for hook in self.hooks:
                        hook.before_epoch(self.step // self.data.steps_per_epoch)
                lr = self._step(fed, wish)
                self.pace.count(self.data.batch_size, fed.wait_s)
                last = self.step == self.total_steps
                logged, saving = last or self.step % t.log_every == 0, last or self.step % t.checkpoint_every == 0
                validating = last or self.step % self.data.steps_per_epoch == 0
                looking = logged or saving or validating or self.step % looking_every == 0
                outcome = self._look(fed, log) if looking else None
                if logged and outcome is not None:
                    where = {"step": self.step, "epoch": self.step / self.data.steps_per_epoch, "lr": lr}
                    log.write("step", where | outcome.figures() | self.pace.read())
                else:
                    log.reach(self.step)
                if validating:
                    with self.pace.paused():
                        self._validate(log)
                ended = validating and not last and self._ended()
                wish = wish or (not last and stop(self.step))
                stopping = wish if self.world.size == 1 else outcome is not None and outcome.num_stopping > 0
                if saving or ended or (stopping and not last):
                    if outcome is None:
                        self._look(fed, log)
                    saver.save(self.step, self._tensors(), self._state())
                if ended:
                    log.write("note", {"step": self.step, "note": _ENDED.format(self.since_best)})
                    break
                if stopping and not last:
                    saver.wait()
                    return PretrainResult(self.folder, self.step, self.total_steps, None, self.validation)
            saver.wait()
            return self._finish()
        finally:
            feed.close()
            log.close()
            for batches in (self.data, self.val):
                if batches is not None:
                    batches.close()
            saver.close()

    def _step(self, fed: Fed, stopping: bool) -> float:
        """Take one step without waiting for it; return its learning rate."""
        self._error = self._error or fed.error
        if self._error is not None and fed.inputs is None and self.world.size == 1:
            raise self._error
        # A rank that cannot read on takes part until all have heard of it; the step then counts nowhere.
        inputs = fed.inputs or self.computer.nothing(self.step)
        lr = self.rate(self.step)
        self.pace.tick()
        self.update.begin()
        loss = self.computer.backward(inputs, self.step)
        num_bad, failed = sum(fed.bad.values()), self._error is not None
        self._rows.append(self.update.apply(loss, self.step, lr, failed=failed, stopping=stopping, num_bad=num_bad))
        self.pace.tick()
        self.step += 1
        return lr

    def _look(self, fed: Fed, log: RunLog) -> Outcome:
        """Wait for the device, and see to what became of the steps since the last look; return the last one's.

        Raises:
            MedclipError: On all ranks, what one of them met in its data; NON_FINITE after too many steps in a row.
        """
        outcomes, self._rows = read(self._rows), []
        if outcomes[-1].num_bad != sum(self._bad_told.values()):
            self._count_bad(fed, log)
        if any(o.num_failed for o in outcomes):
            self.world.agree(self._error)
        for step, outcome in enumerate(outcomes, start=self.step - len(outcomes) + 1):
            self.bad_steps = 0 if outcome.counts else self.bad_steps + 1
            if not outcome.counts:
                log.write("skip", {"step": step, "loss": str(outcome.loss), "grad_norm": str(outcome.norm)})
            if self.bad_steps > self.recipe.train.max_bad_steps:
                raise not_finite(self.bad_steps, step, self.folder)
        return outcomes[-1]

    def _validate(self, log: RunLog) -> None:
        """Every rank measures its part of the validation split, and all know the result."""
        if self.val is None:
            return
        with borrowed(self.towers, self.ema.state if self.ema else None):
            self.towers.eval()
            figures = validate(
                self.val.validation(self.recipe.data.max_val),
                self.computer.encode,
                self.computer.contrast,
                self.computer.pairs,
                self.recipe.train.zero_shot,
                self.computer.encode_text,
                objective=self.recipe.objective,
                world=self.world,
                size=min(self.recipe.data.max_val, len(self.val.reader)),
                batch_size=self.recipe.train.batch_size,
                kept_kl=None if self.replay is None else self.computer.kept_kl,
                patients=self.val.reader.patients(self.recipe.data.max_val),
            )
            figures = self.world.gather(figures)[0]  # rounding may differ between ranks; one of them decides
            log.write("val", {"step": self.step, **figures})
            self.validation = figures
            if figures and (merit := _merit(figures, self.recipe.train.best_by)) < self.best:
                self.best, self.since_best = merit, 0
                if self.recipe.train.export == "best":
                    weights = full_weights(self.towers, self.world)
                    self.world.first(lambda: store.save_tensors(weights, self.folder / BEST))
            elif figures and math.isfinite(self.best):
                self.since_best += 1
        training_mode(self.towers, freeze_bn=self.recipe.model.freeze_bn)

    def _ended(self) -> bool:
        """Whether the run has waited long enough for a better epoch."""
        patience = self.recipe.train.patience
        return patience is not None and self.since_best >= patience

    def _finish(self) -> PretrainResult:
        with borrowed(self.towers, self.ema.state if self.ema else None):
            weights = full_weights(self.towers, self.world)
        pack = self.folder / "pack"
        reconstructions = self.world.first(lambda: self._export(pack, weights)) or []
        return PretrainResult(
            self.folder, self.step, self.total_steps, pack, self.validation, reconstructions=tuple(reconstructions)
        )

    def _export(self, pack: Path, weights: dict[str, Tensor]) -> list[Reconstruction]:
        """Write the pack; return what the part that guesses hidden pixels, which stays behind, makes of some images."""
        best = self.folder / BEST
        if self.recipe.train.export == "best" and best.is_file():
            from safetensors.torch import load_file

            weights = load_file(best)
        if not all(bool(torch.isfinite(v).all()) for v in weights.values() if v.is_floating_point()):
            raise MedclipError(
                Reason.NON_FINITE,
                "the weights are not finite; no pack was written.",
                where=self.folder,
                hint="Lower train.lr, in another folder.",
            )
        arrays: dict[str, Tensor] = {}
        for head in self.recipe.objective.supervised:
            prefix = f"{_SUPERVISED}{head.asked.name}."
            values = {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}
            by_name = folded(head.asked, head.names, values).items()
            arrays |= {f"{head.asked.name}/{name}": torch.from_numpy(value) for name, value in by_name}
        if arrays:
            store.save_tensors(arrays, self.folder / HEADS)
        model, weights = build_clip(self.config, self._base), fold_experts(weights)
        beside = (_MASKED, _SUPERVISED, *(f"{name}." for name in self.towers.parts))
        model.load_state_dict({name: v for name, v in weights.items() if not name.startswith(beside)})
        tokenizer = None if self.tokenizer is None else tokenizer_folder(self.recipe, self.folder)
        export_pack(
            pack, self.recipe, model, self.config, tokenizer, self.reader, self.step, self.preprocess, base=self._base
        )
        if self.recipe.objective.masked is None:
            return []
        of_masked = {name.removeprefix(_MASKED): v for name, v in weights.items() if name.startswith(_MASKED)}
        store.save_tensors(of_masked, self.folder / MASKED)
        if self.val is None:
            return []
        part = MaskedPart(model, self.size_px, self.recipe.objective.masked, self.preprocess.std)
        part.load_state_dict(of_masked)
        return fill_in(model, part, self.val, self.preprocess, self.recipe.seed, self.recipe.data.max_val)

    def _state(self) -> dict[str, Any]:
        """Return the plain values of a checkpoint."""
        return {
            "recipe": self.recipe.digest(),
            "data": self._data_digest(),
            "bad_steps": self.bad_steps,
            "validation": self.validation,
            "best": None if math.isinf(self.best) else self.best,
            "since_best": self.since_best,
            "ranks": self.world.size,
            "bad": self._bad_told,
            "seen": self.step * self.data.batch_size,
            "precision": self.precision,
            **({} if self.replay is None else {"kept": self.replay.digest}),
            **({"teachers": teachers} if (teachers := self._teachers()) else {}),
        }

    def _teachers(self) -> dict[str, str]:
        """Hash the frozen text towers that losses follow, by the names of the losses."""
        return {one.name: one.state.digest for one in self.losses if isinstance(one.state, TowerTeacher)}

    def _tensors(self) -> dict[str, Tensor]:
        """Name everything that a checkpoint holds."""
        averaged = self.ema.state if self.ema else {}
        return {
            **weights_of(self.towers),
            **store.optimizer_tensors(self.optimizer, names_of_parameters(self.towers)),
            **{f"averaged.{k}": v for k, v in averaged.items()},
        }

    def _newest(self) -> tuple[Path | None, dict[str, Any]]:
        """Find where to go on: a checkpoint and its plain values.

        Raises:
            MedclipError: OUTPUT_IN_USE when it is of other shards; as `newest_for_all`.
        """
        path, state, num_damaged = store.newest_for_all(self.folder / "checkpoints", self.world)
        if path is not None and state.get("data") != self._data_digest():
            raise MedclipError(
                Reason.OUTPUT_IN_USE,
                "the training shards are not those that this run began with; going on would mix two data sets.",
                where=self.folder,
                hint="Name another folder with --out, or give the run its shards back.",
            )
        if path is not None and self.replay is not None and state.get("kept") != self.replay.digest:
            raise MedclipError(
                Reason.OUTPUT_IN_USE,
                "model.start, or the words of train.keep, are not those that this run began with; going on would hold "
                "it to another model.",
                where=self.folder,
                hint="Name another folder with --out, or put the model that it began with back.",
            )
        if path is not None and state.get("teachers", {}) != self._teachers():
            raise MedclipError(
                Reason.OUTPUT_IN_USE,
                "a teacher of objective.losses is not the one that this run began with; going on would follow another "
                "model.",
                where=self.folder,
                hint="Name another folder with --out, or put the teacher that it began with back.",
            )
        self._notes += [f"{num_damaged} damaged checkpoints were passed over"] * (num_damaged > 0)
        return path, state

    def _resume(self, path: Path | None, state: dict[str, Any]) -> None:
        if path is not None:
            store.load_checkpoint(path, self._tensors(), self.world)
            self.step, self.bad_steps, self.validation = state["step"], state["bad_steps"], state["validation"]
            self.best = math.inf if state["best"] is None else state["best"]
            self.since_best = state.get("since_best", 0)  # checkpoints of before `train.patience` lack it
            self._bad_told = state["bad"]
            if self.world.is_first:  # counts go on; the others begin at nothing, so that the sum is right
                self.data.bad.update(state["bad"])
                self.data.seen = state["seen"]
        if self.world.is_first:
            cut_log(self.folder / FILE_NAME, self.step)
        self.world.barrier()

    def _log_first(self, log: RunLog) -> None:
        notes = preflight(
            self.reader,
            world_size=self.world.size,
            workers=self.recipe.data.workers,
            batch_size=self.recipe.train.batch_size,
            policy=self.recipe.data.policy,
            window_shards=self.recipe.data.window_shards,
        )
        free = (_FREE_TEXT,) if self.replay is not None and not self.recipe.model.lock_text else ()
        computed, selected = f"the towers compute in {self.precision}", self._selected()
        for note in (*self._notes, computed, *selected, *free, *notes, *self._views_left_out()):
            log.write("note", {"step": self.step, "note": note})

    def _selected(self) -> tuple[str, ...]:
        """Count what `data.selection` keeps, in words; nothing where there is none."""
        if not self.recipe.data.selection:
            return ()
        every = f"{number(self.reader.num_of_split)} samples of the split {self.recipe.data.train_split!r}"
        return (f"the selection keeps {number(len(self.reader))} of {every}",)

    def _views_left_out(self) -> tuple[str, ...]:
        """Count the samples of which `objective.views.max` leaves views out, in words; nothing where there are none."""
        views = self.recipe.objective.views
        if views is None or not self.reader.holds_views:
            return ()
        larger = sum(len(row["files"]) > views.max for row in self.reader.provenance())
        if not larger:
            return ()
        return (
            f"{count(larger, 'sample')} of the split have more than {views.max} views: the first in hanging order "
            "are used; objective.views.max takes 2, 4 or 8",
        )

    def _count_bad(self, fed: Fed, log: RunLog) -> None:
        """Add up the samples that could not be used, on all ranks."""
        total: Counter[str] = Counter()
        for counts in self.world.gather(fed.bad):
            total.update(counts)
        self._bad_told = dict(total)
        log.write("bad", {"step": self.step, **total})

    def _batches(self) -> tuple[Batches, Batches | None]:
        d, t, o = self.recipe.data, self.recipe.train, self.recipe.objective
        shared: dict[str, Any] = {
            "batch_size": t.batch_size,
            "tokenizer": self.tokenizer,
            "rank": self.world.rank,
            "world_size": self.world.size,
        }
        still = Drawing(
            self.preprocess,
            self.recipe.seed,
            None,
            d.native_share,
            d.report_share,
            d.report_words,
            d.native,
            d.decode,
            self.recipe.needs_words,
            candidates=d.candidates,
            **o.of_views,
        )
        several = o.of_views or {"num_views": o.num_views, "num_texts": o.num_texts}
        check_sources(self.reader.columns, {name for head in o.supervised for name in head.sources})
        balance = Balance(d.source_power, d.max_repeats, d.together)
        data = Batches(
            self.reader,
            replace(
                still,
                augment=self.recipe.augment
                if self.reinforced is None
                else stored_augment(self.reinforced, self.recipe),
                reinforced=self.reinforced,
                roles=self.recipe.roles,
                false_of_labels=d.negatives == "labels",
                keeps_recent=d.num_repeats > 1,
                **several,
            ),
            order=Order(d.policy, d.weights, balance, d.window_shards, d.num_repeats),
            loss_weights=o.source_weights,
            making=CrewOptions(d.worker_kind, d.workers, d.cache_mb, d.timeout_s),
            max_bad_share=d.max_bad_share,
            **shared,
        )
        if any(loss.encodes_split for _, loss, _ in losses_of(self.recipe)):
            self._still = Batches(self.reader, still, max_bad_share=1.0, crew=data.crew, **shared)
        val = d.open_split(d.val_split) if d.val_split else None
        if val is None:
            return data, None
        validation = Batches(val, still, max_bad_share=1.0, crew=data.crew, **shared)
        validation.keep_validation(d.max_val)  # before training takes what room there is for shards of a store
        return data, validation

    def _towers(self, model: torch.nn.Module) -> Towers:
        o = self.recipe.objective
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            masked = MaskedPart(model, self.size_px, o.masked, self.preprocess.std) if o.masked is not None else None
            dim = self.config["embed_dim"]
            heads = {head.asked.name: head_of(head.asked, head.names, dim) for head in o.supervised}
            facts = None if self.reinforced is None else self.reinforced.facts[0]
            start = Start(self.recipe, model, dim, self.tokenizer, self.world.device, self.total_steps, facts)
            self.losses = begin_losses(start)  # before anything is sharded, and before a checkpoint
        parts = {one.name: one.state for one in self.losses if isinstance(one.state, torch.nn.Module)}
        if o.views is None and heads:  # what fuses views lies between the tower and its heads
            move_norm(model.visual, heads.values())
        for part in (*heads.values(), *parts.values()):
            part.to(self.world.device)
        looks = {one.name: functools.partial(one.look, one.state) for one in self.losses if one.look is not None}
        pad_id = None if self.tokenizer is None else self.tokenizer.pad_id
        towers = Towers(model, pad_id, masked, heads, parts, looks)
        # In the order of torch's guides: activation checkpoints (they are in the model), compile, shard.
        for block in blocks_of(towers) if self.recipe.train.compile else ():
            block.compile()
        num_frozen = self.recipe.model.freeze_blocks
        towers.prefix = [FrozenPrefix(model, num_frozen, self.size_px)] if num_frozen else []
        return towers

    def _data_digest(self) -> str:
        """Hash of the training shards: they hold pixels, labels and order, so equal hash, equal batches."""
        hashes = (*self.reader.shard_hashes, *(() if self.reinforced is None else self.reinforced.shard_hashes))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def _merit(figures: Mapping[str, float], best_by: str = "loss") -> float:
    """Return what is lowest in the best epoch.

    A supervised part is about its mean area, everything else the loss, unless the recipe looks at figures of tasks
    within sources; where none could be judged no epoch is the best.
    """
    if best_by == WITHIN:
        return -figures[WITHIN] if WITHIN in figures else math.inf
    return -figures["auroc"] if "auroc" in figures else figures["val_loss"]
