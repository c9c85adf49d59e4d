"""How many images a second a pack's tower computes by itself: as many threads and batches as in a run, no file read."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from medclip.models.backends.choice import choose_backend
from medclip.models.encoding.parallel_encoding import Batches, encoder_threads
from medclip.models.packs.pack import load_model
from medclip.settings import Settings

LEAST_SECONDS = 10.0


def rate_alone(pack: Path, backend: str | None = None, seconds: float = LEAST_SECONDS) -> float:
    """Return images a second.

    Args:
        pack: Its folder.
        backend: Name of a back-end, or a calibration's folder; None for torch in float32.
        seconds: It computes for so long at least.
    """
    choice = choose_backend(backend, pack, Settings().home)
    model = load_model(pack)
    model = model if choice is None else choice.load(model)
    images = np.random.default_rng(0).integers(0, 256, (8 * model.batch_size, *model.preprocess.image_shape), np.uint8)
    done = []
    with encoder_threads() as (threads, num_threads):
        batches = Batches(model, threads, num_threads, lambda owner, feature: done.append(owner))
        batches.add(None, images)  # the first ones warm up
        batches.wait()
        done.clear()
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            batches.add(None, images)
        batches.wait()
        return len(done) / (time.perf_counter() - start)


if __name__ == "__main__":
    print(f"{rate_alone(Path(sys.argv[1]), *sys.argv[2:3]):.1f} images/s")
