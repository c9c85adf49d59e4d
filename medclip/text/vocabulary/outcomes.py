"""Labels of a risk task: when an event was seen after the exam, and how long it was looked for.

They say what happened later, not what the image shows: no caption and no check of one reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from medclip.errors import MedclipError, Reason
from medclip.text.vocabulary.task import EVENT, FOLLOWUP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Label = TypeVar("Label")

MOST_MONTHS = 1200
FIELDS = (EVENT, FOLLOWUP)
"""What the columns of a table are called, `label:TASK:FIELD`; no class of a task may be called so."""


def spoken_labels(labels: Mapping[str, Label]) -> Mapping[str, Label]:
    """Leave out the labels that words say nothing of.

    Example:
        >>> spoken_labels({"breast_density": "fatty", "breast_cancer_risk": {"followup_months": 60}})
        {'breast_density': 'fatty'}
    """
    if not any(map(is_outcome, labels.values())):
        return labels
    return {name: label for name, label in labels.items() if not is_outcome(label)}


def is_outcome(label: object) -> bool:
    """Whether a label is one of a risk task; its task need not be known here."""
    return isinstance(label, Mapping) and FOLLOWUP in label


def outcome_word(label: str | Mapping[str, int]) -> str:
    """Return under which word the label of a risk task is counted."""
    return "event" if EVENT in label else "no event"


def outcome_of(event_months: int | None, followup_months: int | None) -> dict[str, int]:
    """Check the label of a risk task.

    Args:
        event_months: Whole months from the exam to the diagnosis; None where none was seen.
        followup_months: Whole months from the exam to the last that is known; None where only the event is known,
            which is then the last that is known.

    Returns:
        `event_months`, only where an event was seen, and `followup_months`; empty where neither is known.

    Raises:
        MedclipError: TABLE_INVALID for negative months, more than a hundred years, or a follow-up that ends before the
            event.

    Example:
        >>> outcome_of(14, 60), outcome_of(None, 60)
        ({'event_months': 14, 'followup_months': 60}, {'followup_months': 60})
    """
    if followup_months is None:
        followup_months = event_months
    if followup_months is None:
        return {}
    if not all(0 <= months <= MOST_MONTHS for months in (event_months or 0, followup_months)):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{event_months if event_months is not None else followup_months} months from the exam cannot be.",
            hint=f"Use whole months from 0 to {MOST_MONTHS}; a cancer found before the exam is no event after it.",
        )
    if event_months is None:
        return {FOLLOWUP: followup_months}
    if followup_months < event_months:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the follow-up of {followup_months} months is shorter than the {event_months} months to the event.",
            hint=f"`{FOLLOWUP}` counts to the last that is known of the patient, `{EVENT}` to the diagnosis.",
        )
    return {EVENT: event_months, FOLLOWUP: followup_months}


def events_by_year(task: Any, labels: Sequence[Any], names: Sequence[str]) -> NDArray[np.float64]:
    """Read whether an event has happened by the end of each year, float64 [N, K]; NaN where it is not known."""
    import numpy as np

    from medclip.objectives.hazard import hazard_targets

    event_N, followup_N = (
        np.array([(label or {}).get(field, np.nan) for label in labels], np.float64) for field in (EVENT, FOLLOWUP)
    )
    years = task.years(names)
    truth_NK, known_NK = hazard_targets(event_N, followup_N, max(years))
    return np.where(known_NK.numpy() > 0, truth_NK.numpy(), np.nan)[:, [year - 1 for year in years]]
