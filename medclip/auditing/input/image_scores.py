"""Scores of a label table's own images, made by a pack: an audit without a run of `medclip score` before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.auditing.input.read import FILES
from medclip.auditing.input.score_table import ScoreSource
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Table, no_such
from medclip.progress import Progress
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.wording import by_reason, count

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model


def score_images(
    table: Table,
    images: Path,
    stored: Embeddings | None,
    model: Model,
    modality: Modality,
    task: str | Path,
    settings: Settings,
    progress: Progress,
) -> tuple[ScoreSource, tuple[str, ...]]:
    """Score every file of a label table, each by itself.

    Args:
        table: Labels, with a column that names files.
        images: Folder that the files are in, or a folder of their embeddings.
        stored: Embeddings of the folder `images`, opened; None where it holds image files.
        model: The loaded pack.
        modality: Modality whose adapter reads the files.
        task: Name of a task of the pack, or a task file.
        settings: Limits and number of reading processes.
        progress: Progress bar of the images.

    Returns:
        Tables of the form that `medclip score` writes, a study for each file; and a sentence about files that could not
        be scored.

    Raises:
        MedclipError: TABLE_INVALID without a column of files; NOTHING_TO_DO where no image could be scored; what the
            task raises.
    """
    import pyarrow as pa

    from medclip.auditing.checks.stress.questions import Question, pack_tasks
    from medclip.auditing.checks.stress.rescore import rescore
    from medclip.scoring.tasks import Scorer

    column = table.find(*FILES)
    if column is None:
        raise no_such(FILES[0], table.names, table.where, "of files")
    names = list(dict.fromkeys(name for name in table.texts(column) if name))
    (asked,) = pack_tasks(model, modality, task)
    questions = [Question(asked, place) for place in range(len(asked.names))]
    progress.stage("Scoring images", len(names))
    scored = rescore(
        model,
        Scorer(model),
        [images / n for n in names],
        modality,
        questions,
        None,
        settings,
        progress.step,
        stored=stored,
        originals=None if table.path is None else table.path.parent,
    )
    probability_CN = np.stack([scored.scores[q.name][0] for q in questions])
    known = np.flatnonzero(~np.isnan(probability_CN[0]))
    if not len(known):
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"none of the {count(len(names), 'file')} could be scored: {by_reason(scored.problems)}.",
            where=images,
            hint="Check the folder of images and the modality.",
        )
    studies = [str(i) for i in known.tolist()]
    columns: dict[str, Any] = {
        "study": studies * len(questions),
        "task": [asked.task.name] * (len(studies) * len(questions)),
        "class": [name for name in asked.names for _ in studies],
        "kind": [asked.task.kind] * (len(studies) * len(questions)),
        "probability": probability_CN[:, known].ravel(),
    }
    files = pa.table({"path": [names[i] for i in known.tolist()], "study": studies})
    where = f"scores of {model.name}"
    source = ScoreSource(Table(pa.table(columns), where), Table(files, where))
    if not scored.problems:
        return source, ()
    lost = sum(scored.problems.values())
    return source, (f"{count(lost, 'image')} could not be scored: {by_reason(scored.problems)}.",)
