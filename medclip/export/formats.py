"""The forms that an audit can be written in, by the names of the option `--as`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medclip.auditing.result import AuditResult
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.export.applied_model_card import applied_model_card
from medclip.export.checklists import checklist
from medclip.files.output import write_file

FILES: Mapping[str, str] = {"chai": "applied_model_card.xml", "tripod": "tripod_ai.md", "claim": "claim.md"}
"""The file that each is written to."""


def check_formats(names: Sequence[str]) -> None:
    """Refuse a form that there is not.

    Raises:
        MedclipError: WRONG_USE.
    """
    for name in names:
        if name not in FILES:
            hint = did_you_mean(name, FILES, "Formats are")
            raise MedclipError(Reason.WRONG_USE, f"an audit has no format {name!r}.", hint=hint)


def write_formats(
    names: Sequence[str], result: AuditResult, sentences: Mapping[str, Sequence[str]], folder: Path
) -> None:
    """Write an audit in each of these forms beside its page.

    Args:
        names: Of `FILES`.
        result: The audit.
        sentences: Of its summary, by heading.
        folder: Where it goes.
    """
    for name in names:
        one = applied_model_card(result, sentences) if name == "chai" else checklist(name, result, sentences)
        write_file(folder / FILES[name], one)
