"""`medclip audit SCORES --labels TABLE --by sex --out DIR`, and `medclip audit verify` and `diff` of what it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.api.audit import SCORES
from medclip.api.audit import audit as audit_verb
from medclip.api.audit_folders import diff as diff_verb
from medclip.api.audit_folders import verify as verify_verb
from medclip.cli.derive import derive
from medclip.exit_codes import ExitCode

CAUTION = "CAUTION"


def refuse_lacking_folder(named: Mapping[str, Any]) -> None:
    """Refuse scores that are not there, and a call without a folder for the page."""
    from medclip.errors import MedclipError, Reason, refuse_missing
    from medclip.files.store_files import is_store

    if not is_store(named["scores"]):
        refuse_missing(named["scores"], SCORES)
    if named.get("out") is None:
        raise MedclipError(Reason.WRONG_USE, "there is no folder for page and tables.", hint="Name it: --out FOLDER.")


def print_audit(audited: Any, as_json: bool, named: Mapping[str, Any]) -> int:
    """Print the summary of an audit, and what of it calls for caution."""
    from medclip.cli.progress import print_line
    from medclip.errors import printable
    from medclip.reports.audit.summary import summary

    for note in audited.notes:
        if CAUTION in note:
            print_line(printable(note))
    if as_json:
        print(audited.to_json(), end="")
    else:
        for words in summary(audited):
            first, *more = words.all
            print("\n  ".join([f"{words.head}: {first}", *more]))
        print(f"Page: {printable(str(Path(named['out']) / 'report.html'))}")
    return ExitCode.RED_BOX if audited.red_box else ExitCode.COMPLETE


def print_verified(checked: Any, as_json: bool, _: Any) -> int:
    """Print which parts of an audit are as they were."""
    if as_json:
        print(json.dumps({"ok": checked.ok, **checked.checks}, indent=1))
    else:
        for name, same in checked.checks.items():
            print(f"{'✓' if same else '✗'} {name}: {'as it was' if same else 'CHANGED'}")
    return ExitCode.COMPLETE if checked.ok else ExitCode.SOME_FAILED


def print_diff(compared: Any, as_json: bool, _: Any) -> None:
    """Print what differs between two audits."""
    from medclip.errors import printable

    if as_json:
        print(compared.to_json(), end="")
    else:
        for line in compared.lines():
            print(printable(line))


audit = derive(
    audit_verb,
    print_audit,
    exit_codes="0 done, 6 done, and the page has a red box (training and audit share something that they must not, a "
    "score follows the source of the images, or a requirement is not met)",
    check=refuse_lacking_folder,
)
verify = derive(verify_verb, print_verified, exit_codes="0 all is as it was, 3 something has changed", is_lookup=True)
diff = derive(diff_verb, print_diff, exit_codes="0 done", is_lookup=True)
