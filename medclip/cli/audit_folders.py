"""`medclip audit verify FOLDER` and `medclip audit diff A B`: what became of an audit, and what differs between two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medclip.cli import options

Audit = Annotated[Path, typer.Argument(metavar="AUDIT", help="Folder of an audit, or its audit.json.")]


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of an audit.")],
    as_json: options.Json = False,
) -> int:
    """Check that page, tables and recipe of an audit are what was written, by the hashes beside the signatures.

    Exit code: 0 all is as it was, 3 something has changed, 2 wrong use or refused.
    """
    from medclip.auditing.provenance.seal import verify_audit
    from medclip.exit_codes import ExitCode

    checked = verify_audit(folder)
    if as_json:
        print(json.dumps({"ok": checked.ok, **checked.checks}, indent=1))
    else:
        for name, same in checked.checks.items():
            print(f"{'✓' if same else '✗'} {name}: {'as it was' if same else 'CHANGED'}")
    return ExitCode.COMPLETE if checked.ok else ExitCode.SOME_FAILED


def diff(first: Audit, second: Audit, as_json: options.Json = False) -> int:
    """List what differs between two audits: inputs, options, groups, findings, and values that moved.

    A value has moved where each of the two lies outside the interval of the other.

    Exit code: 0 done, 2 wrong use or refused.
    """
    from medclip.auditing.compare_audits import compare_audits
    from medclip.errors import printable
    from medclip.exit_codes import ExitCode

    compared = compare_audits(first, second)
    if as_json:
        print(compared.to_json(), end="")
    else:
        for line in compared.lines():
            print(printable(line))
    return ExitCode.COMPLETE
