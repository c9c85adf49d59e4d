"""Plans and windows: nothing is cut that belongs together, and the same files give the same windows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.runs import listing as listing_module
from medclip.runs.listing import windows
from medclip.runs.plan import PlannedFile, chunks
from medclip.sample import FileRef


def _files(studies: list[int | None]) -> list[PlannedFile]:
    return [
        PlannedFile(n, FileRef(Path(f"{n}"), f"{n}"), None, None, study) for n, study in enumerate(studies, start=1)
    ]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=60),
    st.integers(1, 8),
)
def test_each_file_is_in_one_chunk_and_no_study_is_cut(studies: list[int | None], size: int) -> None:
    files = _files(studies)
    cut = chunks(files, range(len(files)), size)
    assert sorted(index for chunk in cut for index in chunk) == list(range(len(files)))
    home: dict[int, set[int]] = {}
    for number, chunk in enumerate(cut):
        for index in chunk:
            study = files[index].study
            if study is not None:
                home.setdefault(study, set()).add(number)
    assert all(len(places) == 1 for places in home.values())
    assert all(len(chunk) >= size for chunk in cut[:-1])


@given(st.lists(st.integers(1, 30), max_size=12))
def test_windows_hold_every_file_once_and_cut_large_folders_only(sizes: list[int]) -> None:
    refs = [FileRef(Path(f"{f}/{n}"), f"{f}/{n}", 1) for f, size in enumerate(sizes) for n in range(size)]
    before = listing_module.WINDOW_FILES, listing_module.CUT_FILES
    listing_module.WINDOW_FILES, listing_module.CUT_FILES = 8, 20
    try:
        made = list(windows(refs))
    finally:
        listing_module.WINDOW_FILES, listing_module.CUT_FILES = before
    assert [ref for window, _ in made for ref in window] == refs
    assert all(window for window, _ in made)
    for number, (window, cut) in enumerate(made):
        folders = {ref.name.split("/")[0] for ref in window}
        elsewhere = {ref.name.split("/")[0] for n, (other, _) in enumerate(made) if n != number for ref in other}
        assert cut == bool(folders & elsewhere) or (cut and len(window) == 20)
        assert len(window) <= 8 + 20


def test_a_folder_of_large_files_is_cut_by_their_bytes() -> None:
    refs = [FileRef(Path(f"{n}"), f"{n}", listing_module.CUT_BYTES // 3) for n in range(8)]
    assert [(len(window), cut) for window, cut in windows(refs)] == [(4, True), (4, True)]


def test_a_cut_leaves_a_header_beside_its_signals_and_many_namesakes_are_cut_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing_module, "CUT_FILES", 3)
    records = [FileRef(Path(name), name, 1) for n in range(4) for name in (f"{n}.dat", f"{n}.hea")]
    assert [[ref.name for ref in window] for window, _ in windows(records)] == [
        ["0.dat", "0.hea", "1.dat", "1.hea"],
        ["2.dat", "2.hea", "3.dat", "3.hea"],
    ]
    objects = [FileRef(Path(name), name, 1) for name in (f"1.2.840.{n}" for n in range(100))]
    assert max(len(window) for window, _ in windows(objects)) < 30
