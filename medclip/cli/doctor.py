"""`medclip doctor`: print what an installation can and cannot do."""

from __future__ import annotations

from typing import Any

from medclip.api.doctor import doctor as verb
from medclip.cli.derive import derive


def print_diagnosis(diagnosis: Any, as_json: bool, _: Any) -> int:
    """Print each check, and how to fix what failed."""
    from medclip.exit_codes import ExitCode
    from medclip.inspecting.doctor import State

    code = ExitCode.COMPLETE if diagnosis.ok else ExitCode.SOME_FAILED
    if as_json:
        print(diagnosis.to_json())
        return code
    width = max(len(check.name) for check in diagnosis.checks)
    for check in diagnosis.checks:
        print(f"{check.state}  {check.name:<{width}}  {check.finding}")
        if check.fix and check.state in (State.WARN, State.FAIL):
            print(f"      {'':<{width}}  -> {check.fix}")
    states = [check.state for check in diagnosis.checks]
    counts = ", ".join(f"{states.count(state)} {state}" for state in State if state is not State.INFO)
    print(f"\n{counts}. " + ("medclip can work here." if diagnosis.ok else "Fix what failed and run this again."))
    return code


doctor = derive(verb, print_diagnosis, exit_codes="0 medclip can work here, 3 a check failed", reads_settings=False)
