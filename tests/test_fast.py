"""Which tests and types `make test-fast` chooses."""

from __future__ import annotations

from tests.fast import ALWAYS, select_tests, select_types

TESTS = {
    "tests/adapters/test_ct.py": {"medclip.adapters.ct", "tests.kits.series"},
    "tests/files/test_scan.py": {"medclip.files.scan"},
    "tests/imaging/test_raster.py": {"medclip.imaging.raster"},
    "tests/imaging/test_video.py": {"medclip.imaging.video"},
    "tests/kits/series.py": {"medclip.files.grouping.series", "tests.kits.files"},
    "tests/kits/files.py": set(),
    "tests/shards/conftest.py": set(),
    "tests/shards/test_tar.py": {"medclip.imaging", "medclip.imaging.raster"},
}


def chosen(*changed: str) -> list[str]:
    return [name for name in select_tests(changed, TESTS) if name not in ALWAYS]


def test_a_changed_file_needs_the_tests_of_its_room_and_then_those_that_import_it():
    imaging, importer = ["tests/imaging/test_raster.py", "tests/imaging/test_video.py"], "tests/shards/test_tar.py"
    assert chosen("medclip/imaging/raster.py") == [*imaging, importer]
    assert chosen("medclip/imaging/video.py") == imaging


def test_a_changed_test_comes_first_and_a_changed_kit_is_a_change_of_all_that_use_it():
    changed = ("medclip/files/scan.py", "tests/imaging/test_video.py")
    assert chosen(*changed) == ["tests/imaging/test_video.py", "tests/files/test_scan.py"]
    assert chosen("tests/kits/files.py") == ["tests/adapters/test_ct.py"]
    assert chosen("tests/shards/conftest.py") == ["tests/shards/test_tar.py"]


def test_templates_and_tasks_count_for_their_room_and_other_files_for_none():
    assert chosen("medclip/files/tables/words.yaml") == ["tests/files/test_scan.py"]
    assert chosen("README.md", "medclip/errors.py") == []
    assert select_tests([], TESTS) == list(ALWAYS)


def test_types_are_checked_in_what_changed_and_in_what_imports_it():
    library = {"medclip/a/x.py": set(), "medclip/b/y.py": {"medclip.a.x"}, "medclip/b/z.py": {"medclip.b.y"}}
    assert select_types(["medclip/a/x.py"], library) == ["medclip/a/x.py", "medclip/b/y.py"]
