"""The verb `evaluate`: measure a model zero-shot on a suite of labelled sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.run_arguments import folder_of, refuse_slide_store
from medclip.evaluation.zero_shot.results import SuiteResult
from medclip.evaluation.zero_shot.run import evaluate_suite
from medclip.evaluation.zero_shot.suite import SuiteFile
from medclip.progress import Progress
from medclip.settings import DEFAULT_MODEL, Settings
from medclip.statistics.estimate import NUM_RESAMPLES

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model


def evaluate(
    data: str | Path,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    suite: str | Path | SuiteFile = "unimed",
    out: str | Path | None = None,
    sets: Sequence[str] = (),
    device: str = "cpu",
    batch_size: int | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    num_resamples: int = NUM_RESAMPLES,
    key_file: str | Path | None = None,
    images: str | Path | Embeddings | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    prompt_sensitivity: bool = False,
    compare: str | Path | Model | None = None,
    compare_images: str | Path | Embeddings | None = None,
) -> SuiteResult:
    """Measure a model zero-shot on a suite of labelled sets, as far as their data is there.

    Class vector = normalise(mean of normalised prompt vectors), score = cosine, prediction = the highest score; for two
    classes the area is that of the second score minus the first. Images are read through the adapters that feed
    training and scoring; one that cannot be read is counted with its reason.

    Args:
        data: Folder with one folder for each set: `labels.csv` (file, label, perhaps patient and split), or one folder
            for each class.
        model: Name or folder of a pack, or a loaded model.
        suite: "unimed", "pathgen", a YAML file, or a suite that was loaded.
        out: Folder for evaluate.json and predictions.parquet; sets that are done there are not computed again. Nothing
            is written where None.
        sets: Ids of the sets to measure; all that are there where empty.
        device: Torch device.
        batch_size: Images in one forward pass; the model's own where None.
        workers: Reading processes; one for each core where None.
        memory: What all processes may take together, such as "12GB"; where None the settings', by default 60 % of what
            the machine or its cgroup has.
        num_resamples: Resamples of patients.
        key_file: Key that patient identifiers are hashed with; the identity key of `settings` where None.
        images: Folder in which images lie as `data` names them, where they are elsewhere; or what `medclip.embed` made
            of `data` with the same pack, or its folder: no image is then read.
        settings: Limits and policy.
        progress: Told of each set and image.
        prompt_sensitivity: Measure every set in each of its wordings as well, and whether the text tower hears "no".
        compare: Another pack, measured on the same images, each with its own preprocessing and size: the difference of
            each set's figure and of their mean, paired over resamples of patients.
        compare_images: What `medclip.embed` made of `data` with that pack. Where None, `images` where both packs have
            one image tower (adapted packs often do), and else it reads the images themselves.

    Returns:
        Figures by set, means by group, which sets are missing, and which do not fit the suite.

    Raises:
        MedclipError: NOTHING_TO_DO when no set of the suite is there, naming what was looked for; MISSING_FILE for the
            data folder or the suite; TABLE_INVALID when no set can be measured and one does not fit the suite (a label
            that it does not know); WRONG_USE for a set that the suite does not have; OUTPUT_IN_USE; those of
            `medclip.models.load`.

    Reference: Khattak et al., UniMed-CLIP, 2024, for the suite "unimed"; its prompts here are our own.
    """
    for folder in (images, compare_images):
        folder_of(folder)
    refuse_slide_store(data)
    return evaluate_suite(
        model,
        suite,
        data,
        out=out,
        sets=sets,
        device=device,
        batch_size=batch_size,
        workers=workers,
        memory=memory,
        num_replicates=num_resamples,
        key_file=None if key_file is None else Path(key_file),
        images=images,
        settings=settings,
        progress=progress,
        prompt_sensitivity=prompt_sensitivity,
        compare=compare,
        compare_images=compare_images,
    )
