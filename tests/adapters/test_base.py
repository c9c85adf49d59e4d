from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import source_of
from medclip.errors import MedclipError, Reason
from medclip.sample import Kind
from tests.kits.ecg import heart, write_wfdb
from tests.kits.volumes import SETTINGS, positions_of, scene, write_series


def test_a_folder_is_one_series_even_where_a_slice_lies_in_it_twice(tmp_path: Path) -> None:
    paths = write_series(tmp_path, scene(), positions_of(6))
    shutil.copy(paths[2], tmp_path / "copy.dcm")
    source = source_of(tmp_path, SETTINGS)
    assert (source.kind, len(source.paths)) == (Kind.VOLUME, 6)
    assert any("same bytes" in note for note in source.notes)


def test_a_folder_of_two_series_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    write_series(tmp_path / "a", scene(), positions_of(6), SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "b", np.flip(scene(), 0).copy(), positions_of(6), SeriesInstanceUID="1.2.4")
    with pytest.raises(MedclipError, match="2 things to read") as caught:
        source_of(tmp_path, SETTINGS)
    assert caught.value.reason is Reason.WRONG_USE


def test_a_wfdb_record_is_found_by_its_name_without_the_suffix_of_its_header(tmp_path: Path) -> None:
    header = write_wfdb(tmp_path, heart(600), name="00002_lr")
    source = source_of(tmp_path / "00002_lr", SETTINGS)
    assert (source.kind, source.path) == (Kind.SIGNAL, header)
    facts = source_of(tmp_path / "00003_lr", SETTINGS).first
    assert facts.problem is not None
    assert facts.problem.reason is Reason.MISSING_FILE
