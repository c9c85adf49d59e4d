"""A finished run of `medclip score`, as its ledger knows it: what was asked, of which pack, of which files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.server import is_dicomweb
from medclip.files.discover import name_of_spelled
from medclip.files.store_files import is_store
from medclip.progress import Progress
from medclip.reports.score.heat_maps import TOP, HeatMaps, check_named
from medclip.runs.call import RunPack, pack_of_run
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import EMBED, RUN
from medclip.runs.outputs.score_run import read_run
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.rows import Ranking
from medclip.scoring.score_embeddings import COMMAND
from medclip.scoring.tasks import asked_tasks, score_named
from medclip.settings import Settings
from medclip.text.vocabulary.own_words import AD_HOC, Prompt


@dataclass(frozen=True)
class FinishedRun:
    """What a page, or results for other systems, are made of beside the ledger."""

    pack: RunPack
    options: ScoreOptions
    """What was asked."""
    root: Path | None
    """File or folder that was scored; None where nobody knows it."""
    unread: str
    """Why no file can be read once more, as half a sentence; "" where they can."""
    settings: Settings

    @property
    def inputs(self) -> Mapping[str, Path]:
        """What may not be written to, by what it is called."""
        return {} if self.root is None else {"what is scored": self.root}

    def refuse_unread(self, why: str) -> None:
        """Refuse what reads files once more where that cannot be.

        Raises:
            MedclipError: WRONG_USE.
        """
        if self.unread:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{why}, and {self.unread}.",
                hint="Name what was scored with --images, or let the run write them: medclip score --export.",
            )

    def path_of(self, name: str) -> Path:
        """Return where a file of the tables lies."""
        assert self.root is not None  # else `unread` says so
        return self.root / name_of_spelled(name) if self.root.is_dir() else self.root

    def score_named(self, text: str) -> Ranking:
        """Return what TASK:CLASS, or TASK where it has one class or a scale, sorts studies by.

        Raises:
            MedclipError: WRONG_USE for what was not asked.
        """
        card = self.pack.card
        return score_named(asked_tasks(card, self.options, read_pack_texts(self.pack.path, card)), text)

    def heat_maps(self, named: str | None, device: str, progress: Progress) -> HeatMaps:
        """Return what draws heat maps of the run.

        Raises:
            MedclipError: WRONG_USE for what was not asked.
        """
        check_named(named or TOP, self.pack.path, self.options)
        assert self.root is not None
        return HeatMaps(self.root, self.pack.path, self.options, self.settings, named or TOP, device, progress)


def read_finished(ledger: Ledger, folder: Path, settings: Settings, *, images: str | Path | None = None) -> FinishedRun:
    """Read what a finished run is of.

    Args:
        ledger: Ledger of the run.
        folder: Output folder of the run.
        settings: Limits of reading.
        images: File or folder that was scored, where a caller names it.

    Raises:
        MedclipError: MISSING_FILE where the run is not finished, or is one of `medclip embed`; WRONG_USE where its pack
            is not found any more.
    """
    identity, arguments = ledger.get("identity") or {}, ledger.get("asked") or {}
    if identity.get("command") == EMBED or ledger.get("finished") is None:
        raise MedclipError(
            Reason.MISSING_FILE,
            "there is no finished scoring run here.",
            where=folder,
            hint="Name the folder that was given as --out; a run that was stopped is finished by the same command.",
        )
    read_run(folder)  # its tables are there
    described = json.loads((folder / RUN).read_text(encoding="utf-8"))
    pack = pack_of_run(arguments.get("model") or described["model"]["name"], settings)
    if pack.digest != described["model"]["pack"]:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the model {pack.card.name} is another one than the run was scored with.",
            where=folder,
            hint="Put the pack back that it was scored with.",
        )
    named = arguments.get("task", [name for name in identity["tasks"] if name != AD_HOC])
    options = ScoreOptions(
        tasks=(named,) if isinstance(named, str) else tuple(named),
        prompts=tuple(map(Prompt.from_json, identity["prompts"])),
        templates=identity["templates"],
        exam=True if identity.get("exam") else None,
        pool=identity.get("pool"),
        hash_paths=bool(identity.get("hash_paths")),
    )
    root = Path(images) if images is not None else Path(arguments["path"]) if arguments.get("path") else None
    return FinishedRun(pack, options, root, _unread(identity, options, root), settings)


def _unread(identity: Mapping[str, Any], options: ScoreOptions, root: Path | None) -> str:
    if options.hash_paths:
        return "paths are hashed"
    if identity.get("command") == COMMAND:
        return "embeddings are scored"
    if root is None:
        return "this run does not keep where its images are"
    if is_dicomweb(root) or is_store(root):
        return "they lie elsewhere"
    return "" if root.exists() else "they are not where they were"
