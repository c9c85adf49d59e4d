"""What makes two calls the same run, so that the second goes on with the folder of the first; and its shards.

A shard is every n-th window of the same walk: one of several machines that do a run without knowing of each other. It
has a folder and a ledger of its own. It cuts the files into the windows of the whole run and takes its own, so that no
file is in two shards, and none in none, as long as the folder stays as it is. It writes no tables: a study may have
files in another shard, and nothing incomplete is shown as a whole. `medclip runs merge` puts the ledgers together,
computes those studies, and writes the tables of the run that one machine would have made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.files.locks import is_locked
from medclip.files.output import in_use, refuse_other
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import EMBED
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.sample import FileRef


_TITLES = {
    "pack": "the model",
    "tasks": "the tasks",
    "prompts": "the prompts",
    "templates": "--templates",
    "exam": "--exam",
    "pool": "--pool",
    "weeks": "--weeks",
    "table": "the table",
    "modality": "--modality",
    "min_confidence": "--min-confidence",
    "group_by": "--group-by",
    "key": "the identity key",
    "limits": "the limits",
    "hash_paths": "--hash-paths",
    "policy": "--reading",
    "version": "the version of medclip",
    "device": "--device",
    "batch_size": "--batch-size",
    "backend": "--backend",
    "command": "the command",
    "dtype": "--dtype",
    "embeddings": "the embeddings",
    "grid": "the size, scale, overlap, least coverage or origin of patches",
    "geojson": "--geojson",
    "source": "the server or the query",
    "qc": "--qc",
    "stain": "--stain",
}


def titles_of(names: Iterable[str]) -> list[str]:
    """Return what parts of a run's identity are called."""
    return [_TITLES[name] for name in names]


def claim(ledger: Ledger, identity: dict[str, Any], folder: Path) -> None:
    """Bind a new ledger to a run, or check that it is this run's.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs.
    """
    held = ledger.get("identity")
    if held is None:
        ledger.remember({"identity": identity})
    else:
        refuse_other_run(folder, held, identity)


def refuse_other_run(folder: Path, held: Mapping[str, Any], wanted: Mapping[str, Any], **words: str) -> None:
    """Refuse to go on with a run that is not the same.

    Args:
        folder: Folder of the run.
        held: Identity of the run that the folder holds.
        wanted: Identity of the run that the call asks for. A choice of reading that it does not name is another one,
            too.
        words: Further words of `refuse_other`, such as the remedy.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs.
    """
    identities = [{**each, "policy": sorted(each.get("policy", {}).items())} for each in (held, wanted)]
    refuse_other(folder, "run", *identities, titles=_TITLES, **words)


SHARD = "shard"
"""Under which a ledger remembers which shard it is of; None of a whole run."""


@dataclass(frozen=True)
class RunShard:
    """Which shard of a run."""

    number: int
    """From 1."""
    num_shards: int

    def __str__(self) -> str:
        """Return it as it is named: "2/8"."""
        return f"{self.number}/{self.num_shards}"

    def select(self, windows: Iterable[tuple[list[FileRef], bool]]) -> Iterator[tuple[list[FileRef], bool]]:
        """Yield the windows of this shard."""
        for place, window in enumerate(windows):
            if place % self.num_shards == self.number - 1:
                yield window


def parse_shard(text: str) -> RunShard:
    """Read a shard as a caller names it.

    Args:
        text: "i/n", from 1/n to n/n.

    Raises:
        MedclipError: WRONG_USE.

    Example:
        >>> str(parse_shard("2/8"))
        '2/8'
    """
    number, _, num = text.partition("/")
    if not (number.isdecimal() and num.isdecimal() and 1 <= int(number) <= int(num)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a shard is named i/n, from 1/n to n/n, not {text!r}.",
            hint="In a Slurm array of 1-8: --shard $SLURM_ARRAY_TASK_ID/8.",
        )
    return RunShard(int(number), int(num))


def claim_shard(ledger: Ledger, shard: RunShard | None, folder: Path) -> None:
    """Bind a ledger that is no run's yet to a shard, or check that it is this shard's.

    Raises:
        MedclipError: OUTPUT_IN_USE.
    """
    wanted = None if shard is None else [shard.number, shard.num_shards]
    if ledger.get("identity") is None:
        ledger.remember({SHARD: wanted})
    held = ledger.get(SHARD)
    if held != wanted:
        holds = "a whole run" if held is None else f"shard {held[0]}/{held[1]} of a run"
        raise in_use(folder, f"this folder holds {holds}", "Name the folder of this shard, or a new one.")


def finish_shard(ledger: Ledger, *, is_cut: bool) -> bool:
    """Remember whether all files of a shard are done, none left out; return whether they were known to be."""
    was_finished = ledger.get("finished") is not None
    ledger.remember({"finished": None if is_cut else {SHARD: ledger.get(SHARD)}})
    return was_finished and not is_cut


def asked_of_shards(folders: Sequence[Path]) -> tuple[dict[str, Any], bool]:
    """Check that folders hold all shards of one run, each finished.

    Args:
        folders: Output folders of the shards, in any order.

    Returns:
        What was asked of the run, and whether it embeds.

    Raises:
        MedclipError: WRONG_USE where shards are missing or named twice; MISSING_FILE for a folder without a run; BUSY
            for a shard that goes on; OUTPUT_IN_USE for one that is not finished, or of another run.
    """
    folder_of: dict[int, Path] = {}
    first: dict[str, Any] = {}
    for folder in folders:
        if is_locked(folder):
            raise MedclipError(Reason.BUSY, "this shard goes on.", where=folder, hint="Merge when it has finished.")
        with Ledger(folder, create=False) as ledger:
            shard = ledger.get(SHARD)
            if shard is None:
                raise in_use(folder, "this folder holds no shard of a run", "Name folders of calls with --shard.")
            facts = {"identity": ledger.get("identity"), "num": shard[1], "asked": ledger.get("asked")}
            finished = ledger.get("finished")
        if finished is None:
            raise in_use(folder, f"shard {shard[0]}/{shard[1]} is not finished", "Run its command again; it goes on.")
        first = first or facts
        if facts["num"] != first["num"]:
            raise in_use(folder, f"this is a shard of {facts['num']}, and others are of {first['num']}", _APART)
        refuse_other_run(folder, first["identity"], facts["identity"], remedy=_APART)
        refuse_other(folder, "run", _of_the_run(first["asked"]), _of_the_run(facts["asked"]), remedy=_APART)
        if shard[0] in folder_of:
            raise in_use(
                folder, f"shard {shard[0]} of {shard[1]} is named twice, also as {folder_of[shard[0]]}", _APART
            )
        folder_of[shard[0]] = folder
    missing = [str(number) for number in range(1, first.get("num", 0) + 1) if number not in folder_of]
    if missing:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{count(len(missing), 'shard')} of {first['num']} {'is' if len(missing) == 1 else 'are'} not named: "
            f"{', '.join(missing[:9])}{', ...' if len(missing) > 9 else ''}.",
            hint="Name the folders of all shards.",
        )
    arguments = {name: value for name, value in first["asked"].items() if name not in _OF_THE_MACHINE}
    return arguments, first["identity"].get("command") == EMBED


def _of_the_run(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in _OF_THE_MACHINE and name != "settings"}


_OF_THE_MACHINE = frozenset({"workers", "memory", "engine", "shard", "limit"})
"""What jobs may be told apart by, beside settings, whose limits and policy are in the run's identity."""
_APART = "Merge the shards of one run only."


def merge_shards(ledger: Ledger, folder: Path, folders: Sequence[Path]) -> None:
    """Copy the ledgers of all shards into one, all or nothing; one that holds them already is left as it is.

    Raises:
        MedclipError: OUTPUT_IN_USE where the folder holds another run, or a file is in two shards.
    """
    shards = [Ledger(shard, create=False) for shard in folders]
    try:
        shards.sort(key=lambda shard: shard.get(SHARD))
        digests = [shard.digest() for shard in shards]
        if ledger.get("identity") is not None:
            if ledger.get("shards") != digests:
                raise in_use(folder, "this folder holds another run", "Name another folder.")
            return
        ledger.fill_from_shards(
            shards,
            {
                "shards": digests,
                **{name: shards[0].get(name) for name in ("identity", "root", "notes", "frontier")},
            },
        )
    finally:
        for shard in shards:
            shard.close()
