"""What commands over files print of a run: why files were passed over, what would change that, how it stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

READ_REMEDIES: Mapping[str, str] = {
    "modality_unknown": "--modality NAME, or a column `modality` in --table, says of which modality they are.",
    "modality_uncertain": "--modality NAME, or a column `modality` in --table, says of which modality they are. "
    "That an image in colour is of a grey modality, a table alone can say.",
    "link_outside": "follow_links = true below [limits] of medclip.toml reads what such links lead to.",
    "uneven_slices": "--reading uneven_slices=resample reads series with gaps.",
    "no_scale": "Of a slide, --reading mpp_um=UM says what a pixel measures; an ECG needs gain and unit in its file.",
    "missing_codec": "medclip doctor names the package that reads them.",
    "timeout": "medclip retry --reason timeout tries them once more.",
    "changed": "medclip retry --reason changed tries them once more.",
    "read_error": "medclip retry --reason read_error tries them once more.",
}
"""Reason to what the person at the terminal can do about it."""
SCORE_REMEDIES = {**READ_REMEDIES, "no_task": "--prompt TEXT or --task NAME asks about them; --model, another model."}
EMBED_REMEDIES = {**READ_REMEDIES, "no_task": "--model PACK names a model that takes such input."}
_OWN_WORDS = frozenset({"other_input"})
"""Reasons whose rows say themselves what the model takes, and what to do."""


def print_reasons(files: Any, remedies: Mapping[str, str]) -> None:
    """Print how many files were not scored for which reason, failed ones first, each with what would change that.

    Args:
        files: The table of files, Arrow.
        remedies: Sentence for each reason.
    """
    from medclip.sample import ModalitySource, spoken
    from medclip.wording import count

    table = files.select(["status", "reason", "message", "modality", "modality_source"]).to_pylist()
    taken = Counter(row["modality"] for row in table if row["modality_source"] == ModalitySource.PACK)
    for modality, number in taken.items():
        print(
            f"{count(number, 'file')} of no stated modality {'was' if number == 1 else 'were'} taken for "
            f"{spoken(modality)}, the only one that the model knows."
        )
    counts = Counter((row["status"], row["reason"]) for row in table if row["reason"] is not None)
    for (status, reason), number in sorted(counts.items(), key=lambda kv: (kv[0][0], -kv[1])):
        print(f"  {number:>7} {status}: {reason.replace('_', ' ')}")
        if reason in remedies:
            print(f"          {remedies[reason]}")
        elif reason in _OWN_WORDS:
            ((message, _),) = Counter(row["message"] for row in table if row["reason"] == reason).most_common(1)
            print(f"          {message}")


def print_planned(run: Any, remedies: Mapping[str, str]) -> None:
    """Print what a run would do.

    Args:
        run: Dry run from `medclip.score` or `medclip.embed`.
        remedies: Sentence for each reason, as `print_reasons` takes them.
    """
    from medclip.wording import count, list_of

    counts, planned = run.counts, run.planned
    listed = planned.get("listed")
    if listed is not None:
        _print_listed(listed)
    else:
        num_read = counts["embedded" if "embedded" in counts else "scored"]
        print(f"{count(counts['files'], 'file')}: {num_read} would be read, in {count(counts['studies'], 'study')}.")
    for title, named in (("Formats", planned["formats"]), ("Modalities", planned["modalities"])):
        if named:
            print(f"{title}: {list_of([f'{name} {num}' for name, num in named.items()], last='and')}")
    print_reasons(run.files, remedies)
    if planned["done_before"]:
        where = "folder" if listed is None else "run"
        print(f"An earlier call dealt with {count(planned['done_before'], 'file')} of this {where}.")
    print("Dry run: nothing was written." if listed is None else "Dry run: nothing was fetched and nothing written.")


def _print_listed(listed: Mapping[str, Any]) -> None:
    """Print what a PACS or a store says that it has."""
    from medclip.files.readers.memory import gigabytes
    from medclip.wording import count, list_of, number

    if listed["num_studies"] is None:
        sized = "" if listed["num_bytes"] is None else f", {gigabytes(listed['num_bytes'])}"
        print(
            f"{count(listed['num_files'], 'file')} below this URL{sized}. What they hold is known once they are read."
        )
        return
    print(f"{count(listed['num_studies'], 'study')} with {count(listed['num_files'], 'object')}, as the server counts.")
    named = [f"{name} {number(num)}" for name, num in listed["modalities"].items()]
    print(f"Studies by DICOM modality: {list_of(named, last='and')}")


def interrupted(given: Mapping[str, Any]) -> int:
    """Print what is kept of a run that was interrupted, and return the exit code.

    Args:
        given: Values that the command named: its output folder, or the work folder beside a store.
    """
    from medclip.cli.progress import print_line
    from medclip.errors import MedclipError
    from medclip.exit_codes import ExitCode
    from medclip.runs.ledger.ledger import Ledger

    folder = given.get("work") or given.get("out") or given.get("folder")
    try:
        with Ledger(Path(folder or "."), create=False) as ledger:
            has_finished = ledger.counts()["files"] > 0
    except MedclipError:
        has_finished = False
    kept = "Finished studies are kept" if has_finished else "No study was finished yet"
    print_line(f"medclip: interrupted. {kept}; run the same command again to go on.")
    return ExitCode.INTERRUPTED
