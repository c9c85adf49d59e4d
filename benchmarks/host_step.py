"""CPU time of the main thread for a training step that does nothing: 1,024 images of 224 px from worker processes.

    python benchmarks/host_step.py [--images 1024] [--steps 12] [--workers 2]

Shards of small PNGs (64 px, so that workers are quick), CLIP's tokenizer, keys of labels, texts and studies. Prints the
median of `time.thread_time` of the main thread a step, from asking for a batch to releasing it, beside the CPU time of
the whole main process (its threads wait for the workers), for processes and threads. Exits 1 above 20 ms.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LIMIT_MS = 20


def write_shards(folder: Path, number: int) -> None:
    """Write small images with captions."""
    rng = np.random.default_rng(0)
    for start in range(0, number, 512):
        with tarfile.open(folder / f"{start // 512:06d}.tar", "w") as tar:
            for i in range(start, min(start + 512, number)):
                image = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(image, "PNG")
                text = f"image number {i} of a study, seen from the front".encode()
                for extension, content in (("png", image.getvalue()), ("txt", text)):
                    info = tarfile.TarInfo(f"{i:06d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def main() -> int:
    """Measure and judge."""
    from medclip.models.inputs.preprocess import Preprocess
    from medclip.sample import Modality
    from medclip.shards.reading.foreign import ForeignSet
    from medclip.shards.reading.index_tars import index_shards
    from medclip.shards.reading.samples import ShardReader
    from medclip.text.tokenizers.clip import ClipTokenizer
    from medclip.training.batches.loader import Batches
    from medclip.training.batches.samples import Drawing
    from medclip.training.batches.workers import CrewOptions
    from medclip.training.recipe.augment import Augment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, options.images)
        index_shards(folder, ForeignSet("benchmark", "none", Modality.XRAY), key=bytes(32))
        for kind in ("process", "thread"):
            batches = Batches(
                ShardReader(folder, "train"),
                Drawing(Preprocess(224), 0, Augment(), 1.0, 0.5),
                batch_size=options.images,
                tokenizer=ClipTokenizer(),
                making=CrewOptions(kind, options.workers),
            )
            own, process = [], []
            thread_s, process_s = time.thread_time(), time.process_time()
            for batch in batches.training(0, options.steps + 3):
                assert batch.images.shape == (options.images, 224, 224, 3)
                batch.release()
                own.append(1e3 * (time.thread_time() - thread_s))
                process.append(1e3 * (time.process_time() - process_s))
                thread_s, process_s = time.thread_time(), time.process_time()
            batches.close()
            own, process = own[3:], process[3:]  # workers start
            median = statistics.median(own)
            print(
                f"{kind}: main thread {median:.1f} ms ({min(own):.1f} to {max(own):.1f}), "
                f"whole main process {statistics.median(process):.0f} ms, a step of {options.images} images"
            )
            worst = max(worst, median)
    print(f"goal {LIMIT_MS} ms")
    return 0 if worst <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
