"""Plans: chunks that never cut a study, and a digest that knows every byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from medclip.files.readers.pool import ReadingPool
from medclip.runs.options import ScoreOptions
from medclip.runs.plan import Plan, PlannedFile, chunks, make_plan
from medclip.sample import FileRef
from medclip.settings import Settings
from tests.kits.scoring import write_dicom, write_png


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
    found = chunks(files, size)
    assert sorted(index for chunk in found for index in chunk) == list(range(len(files)))
    home: dict[int, set[int]] = {}
    for number, chunk in enumerate(found):
        for index in chunk:
            study = files[index].study
            if study is not None:
                home.setdefault(study, set()).add(number)
    assert all(len(places) == 1 for places in home.values())
    assert all(len(chunk) >= size for chunk in found[:-1])


def test_a_plan_is_the_same_twice_and_its_digest_changes_with_one_byte(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", 1)
    target = write_png(tmp_path / "in" / "b.png", 2)

    def plan() -> Plan:
        with ReadingPool(1, 60) as pool:
            return make_plan(tmp_path / "in", ScoreOptions(), key=b"k" * 32, pool=pool, settings=Settings())

    first = plan()
    assert first == plan()
    target.write_bytes(target.read_bytes() + b"\0")
    assert plan().digest != first.digest


def test_a_file_that_crashes_inspection_has_a_row_of_its_own(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "a.png", 1)
    settings = replace(Settings(), max_file_bytes=10)
    with ReadingPool(1, 60) as pool:
        plan = make_plan(tmp_path / "in", ScoreOptions(), key=b"k" * 32, pool=pool, settings=settings)
    (file,) = plan.files
    assert file.problem is not None
    assert file.problem.reason == "too_large"
