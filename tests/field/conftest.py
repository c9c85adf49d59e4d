"""The folder of real files and its manifest. A second, different folder can be run through the same tests."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from medclip.adapters.base import Source
from medclip.errors import Problem
from medclip.files.discover import discover
from medclip.files.grouping.studies import group
from medclip.files.recognise.inspect import FileFacts
from medclip.files.scan import inspect_files
from medclip.sample import FileRef, Kind, Modality
from medclip.settings import Settings

SETTINGS = Settings()
Row = Mapping[str, str]


class Field:
    """Every file with its manifest row, its facts and the unit it is read with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with (root / "manifest.csv").open(newline="", encoding="utf-8") as stream:
            self.rows: dict[str, Row] = {row["path"]: row for row in csv.DictReader(stream)}
        self.refs: dict[str, FileRef] = {ref.name: ref for ref in discover(root)}
        found = inspect_files(tuple(self.refs.values()), SETTINGS)
        self.facts: dict[str, FileFacts] = dict(zip(self.refs, found, strict=True))
        self.studies = group(
            [(ref, self.facts[name]) for name, ref in self.refs.items()], manifest=None, modality=None, key=b"k" * 32
        )
        self.units = [(study, unit) for study in self.studies for unit in study.units]
        self.unit_of = {ref.name: (study, unit) for study, unit in self.units for ref in unit.files}

    def of(self, *statuses: str) -> list[tuple[str, Row]]:
        """Give the manifest's rows of some statuses."""
        return [(name, row) for name, row in self.rows.items() if row["status"] in statuses]

    def problem(self, name: str) -> Problem | None:
        """Give what is known to be wrong before pixels are read."""
        problem = self.refs[name].problem or self.facts[name].problem
        if problem is None and name in self.unit_of:
            problem = self.unit_of[name][1].problem
        return problem

    def source(self, name: str) -> tuple[Source, Modality | None]:
        """Give the unit a file is read with, and its modality as headers say."""
        study, unit = self.unit_of[name]
        facts = tuple(self.facts[ref.name] for ref in unit.files)
        said = study.modality
        if said is None and facts[0].header is None:
            said = _NEVER_STATED.get(unit.kind)
        return Source(unit.kind, tuple(ref.path for ref in unit.files), facts, unit.notes), said


_NEVER_STATED = {Kind.VOLUME: Modality.MRI, Kind.SIGNAL: Modality.ECG, Kind.SLIDE: Modality.PATHOLOGY}
"""For formats that do not name a modality, so that they can be read."""


@pytest.fixture(scope="session")
def field(request: pytest.FixtureRequest) -> Field:
    """The folder named by MEDCLIP_FIELD_DIR, else the one that is shared."""
    named = os.environ.get("MEDCLIP_FIELD_DIR")
    root = Path(named) if named else request.getfixturevalue("shared") / "data/field_dev"
    if not (root / "manifest.csv").is_file():
        pytest.skip(f"no manifest.csv in {root}; MEDCLIP_FIELD_DIR names the folder of real files")
    return Field(root)
