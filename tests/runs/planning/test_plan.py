"""Plans and windows: nothing is cut that belongs together, and the same files give the same windows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.runs.planning import listing as listing_module
from medclip.runs.planning.listing import windows
from medclip.runs.planning.plan import Chunk, Plan, PlannedFile, PlannedUnit, chunks
from medclip.runs.units.chunk import Item, items_of
from medclip.sample import FileRef, Kind, Modality, Study


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
        cut_windows = list(windows(refs))
    finally:
        listing_module.WINDOW_FILES, listing_module.CUT_FILES = before
    assert [ref for window, _ in cut_windows for ref in window] == refs
    assert all(window for window, _ in cut_windows)
    for number, (window, cut) in enumerate(cut_windows):
        folders = {ref.name.split("/")[0] for ref in window}
        elsewhere = {ref.name.split("/")[0] for n, (other, _) in enumerate(cut_windows) if n != number for ref in other}
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


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans()), min_size=1, max_size=30))
def test_a_chunk_in_a_plan_of_its_own_is_read_as_in_the_plan_of_its_window(
    files: list[tuple[int, int, bool]],
) -> None:
    refs = [FileRef(Path(f"{n}"), f"{n}") for n in range(len(files))]
    series = sorted({(study, unit) for study, unit, is_lone in files if not is_lone})
    units = tuple(
        PlannedUnit(
            Kind.VOLUME,
            tuple(n for n, (study, unit, lone) in enumerate(files) if (study, unit) == one and not lone)[::-1],
        )
        for one in series
    )
    planned = tuple(
        PlannedFile(n, refs[n], None, None, None if lone else study, unit=None if lone else series.index((study, unit)))
        for n, (study, unit, lone) in enumerate(files)
    )
    studies = tuple(Study(f"key{n}", None, (), Modality.CT, None, "uid", tie=f"tie{n}") for n in range(6))
    plan = Plan(planned, studies, units)
    for members in chunks(planned, range(len(files)), 4):
        chunk = Chunk(plan, members)
        alone = chunk.alone()
        assert len(alone.plan.files) == len(members)
        assert [_seen(item, plan) for item in items_of(chunk)] == [_seen(i, alone.plan) for i in items_of(alone)]


def _seen(item: Item, plan: Plan) -> tuple[object, ...]:
    """Return what of an item does not depend on where things lie in its plan."""
    ids = [file.id for file in item.files], [file.id for file in item.ordered]
    return (*ids, item.kind, item.modality, None if item.study is None else plan.studies[item.study])
