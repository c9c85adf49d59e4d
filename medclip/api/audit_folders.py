"""The verbs `audit verify` and `audit diff`: what became of an audit, and what differs between two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.running import Recipe
from medclip.options import argument, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.auditing.compare_audits import AuditComparison
    from medclip.auditing.provenance import Checked


@options
class VerifyOptions(Recipe):
    """What `audit verify` is asked."""

    folder: str | Path = argument("Folder of an audit.", place=True)


@verb(VerifyOptions)
def verify(options: VerifyOptions) -> Checked:
    """Check that page, tables and recipe of an audit are what was written, by the hashes beside the signatures.

    Returns:
        Whether each part is as it was.

    Raises:
        MedclipError: MISSING_FILE, CORRUPT for what is no audit; WRONG_USE for one that was written without hashes.
    """
    from medclip.auditing.provenance import verify_audit

    return verify_audit(options.folder)


@options
class DiffOptions(Recipe):
    """What `audit diff` is asked."""

    first: str | Path = argument("Folder of an audit, or its audit.json.", form="AUDIT", place=True)
    second: str | Path = argument("The audit that it is compared with.", form="AUDIT", place=True)


@verb(DiffOptions)
def diff(options: DiffOptions) -> AuditComparison:
    """List what differs between two audits: inputs, options, groups, findings, and values that moved.

    A value has moved where each of the two lies outside the interval of the other.

    Returns:
        What differs, in an order.

    Raises:
        MedclipError: MISSING_FILE, CORRUPT for what is no audit.
    """
    from medclip.auditing.compare_audits import compare_audits

    return compare_audits(options.first, options.second)
