"""What the labels of a batch say is true of its images, for one task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.text.vocabulary.task import Task


def labels_of(label_key: str) -> Mapping[str, Any]:
    """Read the labels of an image back from its `label_key`; none where nothing is known."""
    return json.loads(label_key)[3] if label_key else {}


def truth_of(task: Task, label_keys: Sequence[str], classes: Sequence[str] = ()) -> NDArray[np.float64]:
    """Read from labels what is true of N images.

    Args:
        task: Task that is asked.
        label_keys: `medclip.training.batches.exam_texts.label_key` makes them.
        classes: Classes that are asked for, in this order; all of the task's where empty.

    Returns:
        Of a task with one answer [N, 1]: the number of the class, C for one that is not asked for; of any other
        [N, C]: 1 and 0. NaN where it is not known.
    """
    names = [*classes] or [c.name for c in task.classes]
    return task.rules.truth_of(task, [labels_of(key).get(task.name) for key in label_keys], names)
