"""Training batches from JPEG shards: medclip's input pipeline beside open_clip's webdataset pipeline.

    python benchmarks/input_pipeline.py [--data ../shared/data] [--images 1536] [--rounds 7] [--workers 2]

Both sides read the same shards (photographs and radiographs, 512 px, JPEG of quality 90) with the same number of
workers and give batches ready for the model: float32 [64, 3, 224, 224], normalised, and token ids. open_clip's side has
the stages of its `get_wds_dataset` (which itself fails with webdataset 1.0) and its own
`image_transform(is_train=True)`; medclip's is `Batches` with random crops of that scale (0.9 to 1, no turning) and
CLIP's tokens, then the division by 255 and the normalisation of the trainer; once with all pixels decoded and once with
`decode: scaled`. Wall time and CPU time (of this process and its workers) of an epoch, medians over rounds in turn.
Exits 1 below 2 with all pixels, or 3 with scaled, in wall time, in which webdataset's waiting counts too.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import open_clip
import torch
import webdataset as wds
from PIL import Image

from medclip.models.inputs.normalise import normalise_square
from medclip.models.inputs.preprocess import Preprocess
from medclip.sample import Modality
from medclip.shards.reading.foreign import ForeignSet
from medclip.shards.reading.index_tars import index_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.stored_data import DRAFT_GAP, decode
from medclip.text.tokenizers.clip import ClipTokenizer
from medclip.training.batches.augment import Change, apply_change
from medclip.training.batches.loader import Batches
from medclip.training.batches.samples import Drawing
from medclip.training.batches.workers import CrewOptions
from medclip.training.recipe.augment import Augment

GOALS = {"full": 2.0, "scaled": 3.0}
BATCH, SIZE, PER_SHARD = 64, 224, 128
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


def write_shards(data: Path, folder: Path, number: int, only: str | None) -> None:
    """Write WebDataset tars of JPEG and text from shared images, made 512 px with a little noise."""
    rng = np.random.default_rng(0)
    sets = [sorted((data / name / "images").glob("*.jpg")) for name in ("nih_cxr", "csdi_fundus")]
    files = {"grey": sets[:1], "colour": sets[1:]}.get(only or "", sets)
    for start in range(0, number, PER_SHARD):
        with tarfile.open(folder / f"{start // PER_SHARD:06d}.tar", "w") as tar:
            for i in range(start, min(start + PER_SHARD, number)):
                chosen = files[i % len(files)]
                with Image.open(chosen[i // len(files) % len(chosen)]) as image:
                    image = image.convert("L" if image.mode == "L" else "RGB")
                    side = 512 / max(image.size)
                    image = image.resize(
                        (round(image.width * side), round(image.height * side)), Image.Resampling.BICUBIC
                    )
                pixels = np.asarray(image).astype(np.int16)
                noise = rng.normal(0, 2, pixels.shape).round().astype(np.int16)
                buffer = io.BytesIO()
                Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
                text = f"image number {i} of a study, seen from the front"
                for extension, content in (("jpg", buffer.getvalue()), ("txt", text.encode())):
                    info = tarfile.TarInfo(f"{i:06d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def theirs(folder: Path, number: int, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Give batches as open_clip's training does: the stages of `get_wds_dataset`, with its buffer sizes."""
    transform = open_clip.image_transform(SIZE, is_train=True, mean=MEAN, std=STD)
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    stages = [
        wds.SimpleShardList([str(p) for p in sorted(folder.glob("*.tar"))]),
        wds.detshuffle(bufsize=2000, initial=500, seed=0),
        wds.split_by_node,
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(bufsize=5000, initial=1000),
        wds.select(lambda sample: "txt" in sample and "jpg" in sample),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=lambda text: tokenizer(text)[0]),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH, partial=False),
    ]
    dataset = wds.DataPipeline(*stages).with_epoch(number // BATCH // max(1, workers))
    loader = wds.WebLoader(dataset, batch_size=None, shuffle=False, num_workers=workers, persistent_workers=workers > 0)
    while True:
        yield from loader


def ours(folder: Path, workers: int, kind: str, decoding: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Give batches as medclip's trainer does: uint8 images, normalised where the model is."""
    reader = ShardReader(folder, "train", verify="full")
    augment = Augment(crop_scale=(0.9, 1.0), rotate_deg=0, brightness=0, contrast=0)
    batches = Batches(
        reader,
        Drawing(Preprocess(SIZE), 0, augment, 1.0, 0.5, decode=decoding),
        batch_size=BATCH,
        tokenizer=ClipTokenizer(),
        making=CrewOptions("process" if kind == "process" else "thread", workers, cache_mb=0),
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    for batch in batches.training(0, 10**9):
        assert batch.valid.all()
        image = normalise_square(torch.from_numpy(batch.images), mean, std)
        tokens = torch.from_numpy(batch.tokens).long()
        batch.release()
        yield image, tokens


def disagreement(data: Path, gap: float) -> float:
    """Give the largest mean difference, in grey levels, of the two sides' images where both keep a whole square one."""
    transform = open_clip.image_transform(SIZE, is_train=True, mean=(0, 0, 0), std=(1, 1, 1), aug_cfg={"scale": (1, 1)})
    whole = Change(zoom=1.0, shift=(0.0, 0.0), rotate_deg=0.0, gain=1.0, gamma=1.0, flip=False)
    worst = 0.0
    for name in ("nih_cxr", "csdi_fundus"):
        for path in sorted((data / name / "images").glob("*.jpg"))[:8]:
            buffer = io.BytesIO()
            with Image.open(path) as image:
                image.resize((512, 512), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            with Image.open(buffer) as image:
                pixels_CHW = np.asarray(transform(image.convert("RGB")))  # pyright: ignore[reportCallIssue]
                wanted = pixels_CHW.transpose(1, 2, 0) * 255
            found = apply_change(decode(buffer.getvalue(), SIZE, gap), whole, SIZE)
            worst = max(worst, float(np.abs(found - wanted).mean()))
    return worst


def epoch(batches: Iterator[tuple[torch.Tensor, torch.Tensor]], number: int) -> tuple[float, float]:
    """Take one epoch's batches; wall and CPU seconds, with those of filling up again what was made ahead before it."""
    start, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(number // BATCH):
        image, tokens = next(batches)
        assert image.shape == (BATCH, 3, SIZE, SIZE)
        assert image.dtype == torch.float32
        assert tokens.shape == (BATCH, 77)
    wall = time.perf_counter() - start
    while True:  # the workers go on until as many batches are ahead as before; the next side must not pay for them
        before = cpu_seconds()
        time.sleep(0.3)
        if cpu_seconds() - before < 0.02:
            return wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Add up the CPU seconds of this process and of the workers that it started (Linux)."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kind", choices=("thread", "process"), default="thread", help="Workers of medclip.")
    parser.add_argument("--only", choices=("grey", "colour"), help="Only radiographs, or only photographs.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    worst = {"full": disagreement(options.data, DRAFT_GAP), "scaled": disagreement(options.data, 1)}
    for decoding, levels in worst.items():
        print(f"whole images of the two sides differ by {levels:.2f} grey levels in the mean, at most ({decoding})")
    assert worst["full"] < 0.5, "the two sides do not give the same images"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(options.data, folder, options.images, options.only)
        size = sum(p.stat().st_size for p in folder.glob("*.tar")) / options.images / 1024
        index_shards(folder, ForeignSet("benchmark", "none", Modality.XRAY), key=bytes(32))
        sides = {
            "open_clip": theirs(folder, options.images, options.workers),
            "full": ours(folder, options.workers, options.kind, "full"),
            "scaled": ours(folder, options.workers, options.kind, "scaled"),
        }
        for side in sides.values():
            epoch(side, options.images)  # workers start, files are hashed and in the page cache
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for side, batches in sides.items():
                seen[side].append(epoch(batches, options.images))
    print(f"{options.images} JPEGs of {size:.0f} KB, {options.workers} workers, torch {torch.__version__}")
    num_images = options.images // BATCH * BATCH
    for side, epochs in seen.items():
        wall, cpu = (statistics.median(seconds) for seconds in zip(*epochs, strict=True))
        print(f"  {side}: {num_images / wall:.0f} images/s, {1e3 * cpu / num_images:.2f} ms of CPU time an image")
    reached = True
    for decoding, goal in GOALS.items():
        pairs = list(zip(seen["open_clip"], seen[decoding], strict=True))
        for clock, title in enumerate(("wall", "CPU")):
            ratios = [a[clock] / b[clock] for a, b in pairs]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"  {decoding}, {title} time: ratio {statistics.median(ratios):.2f} ({spread}), goal {goal}")
        reached = reached and statistics.median(a[0] / b[0] for a, b in pairs) >= goal
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
