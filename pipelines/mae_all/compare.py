"""What masked pretraining brings: a pretrained tiny ViT beside the same one from nothing, and beside a small CNN.

Usage: python pipelines/mae_all/compare.py SHARED_DATA RUN           every cell that is missing, then the table
       python pipelines/mae_all/compare.py SHARED_DATA RUN --table   the table of the cells that are there
       python pipelines/mae_all/compare.py SHARED_DATA RUN --tiny    a few steps of everything: does it run?

Kill it anywhere and call it again: runs resume, and a cell that is done is kept (RUN/cells). It writes RUN/figures.json
and RUN/table.md. --only WORD takes the cells whose name holds a word, such as nih_cxr or probe. All computes with one
thread, so that CPU seconds count no waiting; on two cores run pretraining alone first (--only none), then two halves
side by side, such as --only nih_cxr and --only brain_mri. In all it takes about four hours of one core.

All that could be chosen by looking at results stands in comparison_plan.py and measured.yaml, fixed before the first
run. Test patients are those that pretraining holds out (joint_table.py); the pretraining sees training patients only,
and no label.

**The same CPU time.** For labelled training all towers get the same: a step of the CNN takes 1.15 times as long as
one of the ViT (measured on one core: 50 and 57 images a second), so it takes fewer. Pretraining comes on top, once for
all sets. "longer" therefore also gives the towers without pretraining what it takes: their steps at all labels are
multiplied so that pretraining, divided by the number of sets, is paid for. CPU seconds are stored with each cell.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from comparison_plan import (
    BATCHES,
    EPOCHS,
    LAYER_DECAY,
    RATES,
    SIZE_PX,
    SPLITS,
    VIT,
    Cell,
    Labelled,
    cells,
    labelled,
    learned_from,
    store,
    stored,
    write_table,
)
from comparison_table import measure, table_of
from joint_table import main as write_joint_table
from numpy.typing import NDArray

HERE = Path(__file__).parent
KEY = "medclip-mini public sets".ljust(32)
"""Of pipelines/mini; the sets are public, so their key may be."""
MAX_SIDE = 160
TINY_STEPS = 2
_AT_ONCE = 32
"""Images that are encoded together."""


def cpu_s() -> float:
    """Seconds that this process and the children it waited for have computed."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    data: Path
    run: Path
    tiny: bool = False

    @property
    def key(self) -> Path:
        """The key that patients are hashed with."""
        return self.run / "key"

    def shards(self, name: str) -> Path:
        """Of a pretraining: all or cxr."""
        return self.run / "shards" / name

    def pack(self, name: str) -> Path:
        """Of a pretraining, or of random weights."""
        return self.run / "pretrain" / name / "pack"


def prepare(place: Place) -> None:
    """Build shards of all sets and of the X-rays, pretrain on each, and write a pack of random weights."""
    from medclip.shards.writing.build import Form, build_shards

    place.run.mkdir(parents=True, exist_ok=True)
    place.key.write_text(KEY, encoding="utf-8")
    for name, chosen in (("all", []), ("cxr", ["--sets", "nih_cxr,covid_cxr", "--modalities", "xray"])):
        table = place.run / f"{name}.csv"
        if not (place.shards(name) / "index.json").is_file():
            write_joint_table([str(place.data), str(table), *chosen])
            build_shards(table, place.shards(name), Form(max_side=MAX_SIDE, key=KEY.encode()), splits=SPLITS)
    pretrain(place, "random", "cxr", {"train.max_steps": 1, "train.lr": 1e-12})
    for name in ("all", "cxr"):
        pretrain(place, name, name, {"train.epochs": EPOCHS[name]})


def pretrain(place: Place, name: str, shards: str, overrides: Mapping[str, Any]) -> None:
    """Pretrain, or go on; CPU seconds are in the folder."""
    import medclip

    note, out = place.run / "pretrain" / f"{name}.json", place.run / "pretrain" / name
    if note.is_file():
        return
    tiny = {"train.max_steps": TINY_STEPS} if place.tiny else {}
    before = cpu_s()
    changes = {"name": f"mae-{name}", "data.shards": str(place.shards(shards)), **overrides, **tiny}
    result = medclip.pretrain(HERE / "measured.yaml", overrides=changes, out=out)
    if result.pack is None:
        raise SystemExit(f"The pretraining {name} was stopped; call this again to go on.")
    note.write_text(
        json.dumps({"cpu_s": cpu_s() - before, "steps": result.steps, "validation": dict(result.validation)})
    )
    print(f"{name}: {result.steps} steps, validation {dict(result.validation)}", flush=True)


def run_cell(place: Place, cell: Cell) -> dict[str, Any]:
    """Compute a cell's answers on the test images of its set, in the order of `labelled`."""
    table = labelled(cell.question, place.data)
    before = cpu_s()
    logits_NC = (probe if cell.how == "probe" else fine_tune)(place, cell, table)
    num_train = len([row for row in learned_from(table, cell.share, cell.seed) if row.split == "train"])
    return {
        "cell": cell.name,
        "num_train": num_train,
        "cpu_s": cpu_s() - before,
        "logits": np.round(logits_NC, 5).tolist(),
    }


def probe(place: Place, cell: Cell, table: Sequence[Labelled]) -> NDArray[np.float32]:
    """Fit a logistic regression on frozen features; its strength is chosen on validation patients."""
    from baselines import linear_probe

    features = features_of(place, cell.arm.start or "random", cell.question.set)
    number = {name: i for i, name in enumerate(cell.question.classes)}
    used = learned_from(table, cell.share, cell.seed)

    def side(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        chosen = [row for row in used if row.split == split]
        vectors = np.stack([features[sha256_of(place.data / row.file)] for row in chosen])
        return vectors, np.array([number[row.label] for row in chosen])

    p_NC = linear_probe(side("train"), side("val"), side("test")[0], len(number))
    return np.log(np.clip(p_NC, 1e-6, 1)).astype(np.float32)


@cache
def features_of(place: Place, start: str, source: str) -> dict[str, NDArray[np.float32]]:
    """Encode the images of a set with a pretrained tower, as scoring does, by the hash of their file."""
    from medclip.models.packs.pack import load_model
    from medclip.shards.reading.samples import ShardReader

    model, features = load_model(place.pack(start)), {}
    for split in SPLITS:
        with ShardReader(place.shards("all"), split) as reader:
            own = [i for i, row in enumerate(reader.provenance()) if row["source"] == source]
            for start_of in range(0, len(own), _AT_ONCE):
                samples = [reader[i] for i in own[start_of : start_of + _AT_ONCE]]
                images = np.stack([model.preprocess.fit(sample.image) for sample in samples])
                hashes = [str(sample.meta["sha256"]) for sample in samples]
                features |= dict(zip(hashes, model.encode_image(images), strict=True))
    return features


@cache
def sha256_of(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fine_tune(place: Place, cell: Cell, table: Sequence[Labelled]) -> NDArray[np.float32]:
    """Fine-tune, and answer for the test images with the weights of the best epoch."""
    import medclip

    out = place.run / "runs" / cell.name
    written = out.with_suffix(".csv")
    write_table(learned_from(table, cell.share, cell.seed), place.data, written)
    arm, steps = cell.arm, TINY_STEPS if place.tiny else cell.steps
    overrides = {
        "model.size_px": SIZE_PX,
        "model.drop_path": 0,
        "train.batch_size": BATCHES[cell.share],
        "train.epochs": 10_000,
        "train.max_steps": steps,
        "train.warmup_steps": round(steps / 15),
        "train.threads": 1,
        "train.lr": RATES["pretrained" if arm.start else "vit" if arm.tower == VIT else "cnn"],
        "train.layer_decay": LAYER_DECAY if arm.start else 1.0,
        "train.checkpoint_every": 200,
    }
    result = medclip.finetune(
        written,
        "answer",
        model=place.pack(arm.start) if arm.start else arm.tower,
        out=out,
        seed=cell.seed,
        key_file=place.key,
        overrides=overrides,
    )
    if result.pack is None:
        raise SystemExit(f"{cell.name} was stopped; call this again to go on.")
    logits_NC = answers(result.pack, out / "shards", [place.data / r.file for r in table if r.split == "test"], cell)
    shutil.rmtree(out)
    return logits_NC


def answers(pack: Path, shards: Path, files: Sequence[Path], cell: Cell) -> NDArray[np.float32]:
    """Answer for files with a pack's own head, from the shards that it was measured on; columns as the question's."""
    from medclip.adaptation.data.heads import LinearHead
    from medclip.adaptation.pack.pack_head import HEAD_FILE, read_arrays
    from medclip.models.packs.pack import load_model
    from medclip.shards.reading.samples import ShardReader

    model, head = load_model(pack), LinearHead.from_arrays(read_arrays(pack / HEAD_FILE))
    with ShardReader(shards, "test") as reader:
        samples = [reader[i] for i in range(len(reader))]
    by_hash: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(samples), _AT_ONCE):
        some = samples[start : start + _AT_ONCE]
        features = model.encode_image(np.stack([model.preprocess.fit(sample.image) for sample in some]))
        logits = head.logits(features, model)
        by_hash |= dict(zip([str(sample.meta["sha256"]) for sample in some], logits, strict=True))
    (task,) = [t for t in model.card.tasks.values() if set(t.classes) == set(cell.question.classes)]
    order = [list(task.classes).index(name) for name in cell.question.classes]
    return np.stack([by_hash[sha256_of(path)] for path in files])[:, order]


def main(arguments: list[str]) -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", default="")
    args = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    place = Place(args.data.resolve(), args.run.resolve(), args.tiny)
    wanted = [cell for cell in cells() if args.only in cell.name]
    if not args.table:
        prepare(place)
        (place.run / "cells").mkdir(exist_ok=True)
        for number, cell in enumerate(wanted, 1):
            if stored(place.run, cell) is None:
                store(place.run, cell, run_cell(place, cell))
                print(f"{number} of {len(wanted)}: {cell.name}", flush=True)
    measured = measure(place.data, place.run)
    (place.run / "figures.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    (place.run / "table.md").write_text(table_of(measured), encoding="utf-8")
    print(table_of(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
