"""One training run in memory: model, optimizer, data, and the step that ties them together."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.build import build_clip, default_config, image_tower_weights, start_image_tower
from medclip.models.preprocess import MEAN, STD
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.distill import relational_loss
from medclip.objectives.soft_targets import same_meaning, soft_targets
from medclip.shards.read import ShardReader
from medclip.text.captions import all_wordings, draw_caption
from medclip.text.tokens import Tokenizer, load_tokenizer, train_tokenizer
from medclip.training import checkpoint as store
from medclip.training.data import Batch, Batches
from medclip.training.export import export_pack
from medclip.training.log import FILE_NAME, RunLog, cut_log
from medclip.training.loop import BEST, PretrainResult
from medclip.training.optim import MAX_LOGIT_SCALE, Ema, freeze, learning_rate, make_optimizer, training_mode
from medclip.training.prefix import FrozenPrefix
from medclip.training.recipe import Recipe, package_folder
from medclip.training.short_text import encode_short
from medclip.training.teacher import SentenceTeacher
from medclip.training.validate import validate

_WORDING_STREAM = 9


class Trainer:
    """A run, at its start or at its last checkpoint.

    Args:
        recipe: What to train.
        folder: The run's folder; its checkpoint is taken up where it has one.
        show: Say what happens on standard error.
    """

    def __init__(self, recipe: Recipe, folder: Path, *, show: bool = True) -> None:
        t, m, d = recipe.train, recipe.model, recipe.data
        self.recipe, self.folder, self._show = recipe, folder, show
        if t.threads:
            torch.set_num_threads(t.threads)
        self.device = torch.device(t.device)
        self.reader = ShardReader(d.shards, d.train_split)
        shared: dict[str, Any] = {
            "batch_size": t.batch_size, "size_px": m.size_px, "seed": recipe.seed,
            "native_share": d.native_share, "workers": d.workers, "cache": d.cache,
        }  # fmt: skip
        self.data = Batches(self.reader, augment=recipe.augment, **shared)
        self.val = Batches(ShardReader(d.shards, d.val_split), **shared) if d.val_split else None
        self.tokenizer_folder = recipe.text.tokenizer or folder / "tokenizer"
        self.tokenizer = self._tokenizer()
        self.config = default_config(
            vocab_size=self.tokenizer.vocab_size,
            context_length=self.tokenizer.context_length,
            embed_dim=m.embed_dim,
            size_px=m.size_px,
            image_tower=m.image_tower,
            text_width=m.text_width,
            text_heads=m.text_heads,
            text_layers=m.text_layers,
        )
        self.model = self._model()
        self.optimizer = make_optimizer(self.model, recipe)
        self.ema = Ema(self.model, t.ema) if t.ema else None
        teacher = recipe.objective.text_teacher
        self.teacher = SentenceTeacher(package_folder(teacher.folder), t.device) if teacher else None
        self.total_steps = min(t.epochs * self.data.steps_per_epoch, t.max_steps or 10**12)
        self.step, self.bad_steps, self.best = 0, 0, math.inf
        self.validation: dict[str, float] = {}
        self._resume()
        self._prefix = FrozenPrefix(self.model, m.freeze_blocks, m.size_px) if m.freeze_blocks else None

    def run(self, stop: Callable[[int], bool]) -> PretrainResult:
        """Take the steps that are left.

        Args:
            stop: Asked after each step; True writes a checkpoint and ends the call.
        """
        log = RunLog(self.folder, self.total_steps, self.step, show=self._show)
        try:
            since, images, waited = time.perf_counter(), 0, 0.0
            for batch in self.data.training(self.step, self.total_steps):
                loss, lr, norm = self._step(batch, log)
                images, waited = images + len(batch.texts), waited + batch.wait_s
                if self.step % self.recipe.train.log_every == 0 or self.step == self.total_steps:
                    spent = time.perf_counter() - since
                    entry = {"step": self.step, "epoch": self.step / self.data.steps_per_epoch, "loss": loss, "lr": lr}
                    speed = {"images_s": images / spent, "data_wait": waited / spent}
                    log.write("step", entry | {"scale": self._scale(), "grad_norm": norm} | speed)
                    since, images, waited = time.perf_counter(), 0, 0.0
                if self.step % self.data.steps_per_epoch == 0 or self.step == self.total_steps:
                    start = time.perf_counter()
                    self._validate(log)
                    since += time.perf_counter() - start
                stopping = self.step < self.total_steps and stop(self.step)
                due = self.step % self.recipe.train.checkpoint_every == 0
                if due or stopping or self.step == self.total_steps:
                    self._save()
                if stopping:
                    return PretrainResult(self.folder, self.step, self.total_steps, None, self.validation)
            return self._finish()
        finally:
            log.close()

    def encode(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give unit-norm float32 image and text features [B, D] of a batch."""
        x = torch.from_numpy(batch.images).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        x = x.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)
        tokens = torch.from_numpy(self.tokenizer.encode(batch.texts)).to(self.device)
        with self._autocast():
            text_BD = encode_short(model, tokens)
            if self._prefix is not None and model.training:
                image_BD = self._prefix.encode_image(model, x)
            else:
                image_BD = model.encode_image(x)  # type: ignore[operator]
        return nn.functional.normalize(image_BD.float(), dim=-1), nn.functional.normalize(text_BD.float(), dim=-1)

    def targets(self, batch: Batch) -> Tensor | None:
        """Give the soft targets of a batch; None where the recipe wants hard ones."""
        o = self.recipe.objective
        if not (o.soft_same_label or o.soft_same_text):
            return None
        nothing = [str(i) for i in range(len(batch.texts))]
        same = same_meaning(
            batch.texts if o.soft_same_text else nothing, batch.label_keys if o.soft_same_label else None
        )
        return soft_targets(same).to(self.device)

    def _step(self, batch: Batch, log: RunLog) -> tuple[float, float, float]:
        """Take one step; a step whose loss or gradient is not finite changes nothing."""
        t = self.recipe.train
        lr = learning_rate(self.step, base=t.lr, warmup_steps=t.warmup_steps, total_steps=self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        training_mode(self.model, freeze_bn=self.recipe.model.freeze_bn)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                int(np.random.default_rng((self.recipe.seed, self.step)).integers(2**62))
            )  # drop-out, if any
            loss = self._loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        limit = t.clip_norm if t.clip_norm is not None else math.inf
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        value = float(loss.detach())
        if math.isfinite(norm) and math.isfinite(value):
            self.bad_steps = 0
            self.optimizer.step()
            with torch.no_grad():
                self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)  # type: ignore[operator, union-attr]
        else:
            self._skip(value, norm, log)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1
        return value, lr, norm

    def _loss(self, batch: Batch) -> Tensor:
        o = self.recipe.objective
        image_BD, text_BD = self.encode(self.model, batch)
        scale = self.model.logit_scale.exp()  # type: ignore[operator, union-attr]
        loss = o.contrastive * clip_loss(image_BD, text_BD, scale, self.targets(batch))
        if self.teacher is not None and o.text_teacher is not None:
            known = self.teacher(batch.texts)
            loss = loss + o.text_teacher.weight * relational_loss(text_BD, known, o.text_teacher.temperature)
        return loss

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
        if self.val is None:
            return
        with self._shipped_weights():
            found = validate(self.model, self.val.validation(self.recipe.data.max_val), self.encode, self.targets)
            log.write("val", {"step": self.step, **found})
            self.validation = found
            if found["val_loss"] < self.best:
                self.best = found["val_loss"]
                if self.recipe.train.export == "best":
                    store.save_tensors(self.model.state_dict(), self.folder / BEST)

    def _finish(self) -> PretrainResult:
        with self._shipped_weights():
            best = self.folder / BEST
            if self.recipe.train.export == "best" and best.is_file():
                from safetensors.torch import load_file

                self.model.load_state_dict(load_file(best))
            pack = export_pack(
                self.folder / "pack",
                self.recipe,
                self.model,
                self.config,
                self.tokenizer_folder,
                self.reader,
                self.step,
            )
        return PretrainResult(self.folder, self.step, self.total_steps, pack, self.validation)

    @contextlib.contextmanager
    def _shipped_weights(self) -> Any:
        """Have the averaged weights in the model for a while, where there are any; gives the model's own back after."""
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if self.ema is not None:
            self.model.load_state_dict(self.ema.state)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def _save(self) -> None:
        state = {
            "recipe": self.recipe.digest(), "data": self._data_digest(), "bad_steps": self.bad_steps,
            "validation": self.validation, "best": None if math.isinf(self.best) else self.best,
        }  # fmt: skip
        averaged = self.ema.state if self.ema is not None else None
        store.save_checkpoint(self.folder / "checkpoints", self.step, self.model, self.optimizer, averaged, state)

    def _resume(self) -> None:
        found = store.checkpoints(self.folder / "checkpoints")
        if found:
            state = store.read_state(found[-1])
            if state.get("data") != self._data_digest():
                raise MedclipError(
                    Reason.OUTPUT_IN_USE,
                    "the training shards are not those that this run began with; going on would mix two data sets.",
                    where=self.folder,
                    hint="Name another folder with --out, or give the run its shards back.",
                )
            store.load_checkpoint(found[-1], self.model, self.optimizer, self.ema.state if self.ema else None)
            self.step, self.bad_steps, self.validation = state["step"], state["bad_steps"], state["validation"]
            self.best = math.inf if state["best"] is None else state["best"]
        cut_log(self.folder / FILE_NAME, self.step)

    def _data_digest(self) -> str:
        """Hash of the training shards: they hold pixels, labels and order, so equal hash, equal batches."""
        hashes = [s["sha256"] for s in self.reader.index["shards"] if s["split"] == self.recipe.data.train_split]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]

    def _tokenizer(self) -> Tokenizer:
        if self.recipe.text.tokenizer is not None or (self.tokenizer_folder / "tokenizer_config.json").is_file():
            return load_tokenizer(self.tokenizer_folder)
        text, rng = self.recipe.text, np.random.default_rng((self.recipe.seed, _WORDING_STREAM))
        captions = list(all_wordings())
        for i in range(len(self.reader)):
            record, _ = self.reader.record(i)
            captions += record.texts
            captions += [
                draw_caption(record, rng, native_share=self.recipe.data.native_share)
                for _ in range(text.captions_per_sample)
            ]
        return train_tokenizer(
            captions, self.tokenizer_folder, vocab_size=text.vocab_size, context_length=text.context_length
        )

    def _model(self) -> nn.Module:
        m = self.recipe.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            model = build_clip(self.config)
        if m.image_weights is not None:
            from medclip.settings import Settings

            imagenet = m.image_weights == "imagenet"
            start_image_tower(
                model, image_tower_weights(Settings().home / "cache") if imagenet else Path(m.image_weights)
            )
        with torch.no_grad():
            model.logit_scale.fill_(math.log(m.logit_scale))  # type: ignore[operator, union-attr]
        freeze(model, m.freeze_blocks)
        self._mean = torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(STD, device=self.device).view(1, 3, 1, 1)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.train.precision == "bf16")

    def _scale(self) -> float:
        return float(self.model.logit_scale.detach().exp())  # type: ignore[operator, union-attr]
