"""A named public checkpoint as a model, without a pack: for a look at it in Python."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from medclip.models.devices import check_device
from medclip.models.interchange.choose_pixels import choose_pixels
from medclip.models.interchange.find_source import read_hub
from medclip.models.interchange.layouts.layout import as_safetensors
from medclip.models.interchange.load_start import start_from
from medclip.models.model import Model
from medclip.models.packs.card import Card
from medclip.models.packs.manifest import HUB


def load_hub(
    name: str, cache_dir: Path | str | None = None, *, device: str = "cpu", preset: str | Path | None = None
) -> Model:
    """Load a checkpoint by its hub name, in any layout that `medclip models import` takes.

    What lies in the cache is used; the network is asked only for what is missing, and never with HF_HUB_OFFLINE=1.
    Pickled weights are converted in a process of their own, each time anew: import what is used more than once.

    Args:
        name: Name "org/name", with or without "hf-hub:".
        cache_dir: Cache in the hub's layout (models--org--name/snapshots/...); the hub client's own where None.
        device: Torch device.
        preset: Preset that says how images are treated where the repository does not: see `medclip.models.presets`.

    Returns:
        A model whose card knows nothing but its name, and whose preprocessing is bound to no adapter: figures measured
        on medclip's own packs do not apply to it. Images are treated as the checkpoint's own files say, after the
        modality's crop.

    Raises:
        MedclipError: PACK_NOT_FOUND when it is neither in the cache nor to be had; UNSAFE_WEIGHTS when its weights are
            a pickle with more than tensors; PACK_INVALID when the towers cannot be built.
    """
    check_device(device)
    repository = name.removeprefix(HUB)
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = read_hub(repository, scratch, cache=None if cache_dir is None else os.fspath(cache_dir))
        weights = tuple(as_safetensors(path, scratch) or path for path in source.weights)
        started = start_from(replace(choose_pixels(source, preset).source, weights=weights))
    card = Card(name=repository, summary="Public checkpoint, by its hub name. Nothing was measured by medclip.")
    return Model(
        started.model,
        started.words,
        started.preprocess,
        card,
        name=repository,
        path=Path(repository),
        device=device,
    )
