"""Studies of a PACS in a folder of bounded size: listed once, fetched once, whole or not at all, and gone when done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.dicomweb.server import DicomwebServer, Instance
from medclip.files.dicomweb.spool import DicomwebFiles
from tests.kits.fake_pacs import IMAGE, REPORT, FakePacs, part

KEY = bytes(range(32))


def pacs(num_studies: int = 5, num_images: int = 2, size: int = 100) -> FakePacs:
    return FakePacs(
        {
            f"1.2.{study}": {
                f"1.2.{study}.{image}": (IMAGE, part(f"1.2.{study}.{image}", size)) for image in range(num_images)
            }
            for study in range(num_studies)
        }
    )


def files_of(server: FakePacs, folder: Path, limit_bytes: int = 10**9) -> DicomwebFiles:
    files = DicomwebFiles(cast("DicomwebServer", server), {}, folder, limit_bytes)
    files.list_all(KEY)
    return files


def nothing(prefix: str) -> Sequence[str]:
    return ()


def on_disk(files: DicomwebFiles) -> set[str]:
    """Return what was fetched: the file that tells workers of a cluster whether they see the spool is not."""
    paths = (path for path in files.folder.rglob("*") if path.is_file() and path != files.witness)
    return {path.relative_to(files.folder).as_posix() for path in paths}


def test_names_are_hashes_in_the_order_of_places_and_the_same_in_every_call(tmp_path: Path) -> None:
    listed = []
    for call in ("a", "b"):
        with files_of(pacs(), tmp_path / call) as files:
            refs = list(files.refs(nothing))
        assert [ref.place for ref in refs] == sorted(ref.place for ref in refs)
        listed.append([ref.name for ref in refs])
    assert listed[0] == listed[1]
    assert len(set(listed[0])) == 10
    assert all(re.fullmatch(r"[0-9a-f]{16}/[0-9a-f]{16}\.dcm", name) for name in listed[0])


def test_files_are_fetched_once_owned_by_nobody_else_and_gone_at_the_end(tmp_path: Path) -> None:
    server = pacs()
    with files_of(server, tmp_path) as files:
        names = [ref.name for ref in files.refs(nothing)]
        assert files.fetch(names) == {}
        assert on_disk(files) == set(names)
        assert {path.stat().st_mode & 0o777 for path in files.folder.rglob("*.dcm")} == {0o600}
        assert (files.folder / names[0]).read_bytes() in [data for _, data in server.content["1.2.0"].values()] + [
            data for study in server.content.values() for _, data in study.values()
        ]
        files.release(names[:2])
        assert on_disk(files) == set(names[2:])
        assert files.fetch(names[:2]) == {}
    assert not files.folder.exists()
    assert sum(number for what, number in server.asked.items() if what.startswith("read ")) == 6


def test_reports_and_the_like_are_not_fetched(tmp_path: Path) -> None:
    server = pacs(1)
    server.content["1.2.0"]["9.9"] = (REPORT, part("9.9"))
    with files_of(server, tmp_path) as files:
        names = [ref.name for ref in files.refs(nothing)]
        files.fetch(names)
        assert len(names) == len(on_disk(files)) == 2


def test_heat_maps_that_medclip_sent_are_no_images_of_a_study(tmp_path: Path) -> None:
    server = pacs(1)
    listed = server.instances
    server.content["1.2.0"]["2.25.1"] = (IMAGE, part("2.25.1"))

    def with_maker(study_uid: str, expected: int | None = None) -> list[Instance]:
        return [
            replace(item, manufacturer="medclip" if item.uid.startswith("2.25") else "SIEMENS")
            for item in listed(study_uid)
        ]

    server.instances = with_maker  # pyright: ignore[reportAttributeAccessIssue]
    with files_of(server, tmp_path) as files:
        assert len(list(files.refs(nothing))) == 2


def test_a_study_with_one_image_that_does_not_come_fails_whole_with_its_reason(tmp_path: Path) -> None:
    server = pacs(3)
    server.lacks = {"1.2.1.0"}
    with files_of(server, tmp_path) as files:
        names = [ref.name for ref in files.refs(nothing)]
        problems = files.fetch(names)
        assert len(problems) == 2
        assert len({name.partition("/")[0] for name in problems}) == 1
        assert {problem.reason for problem in problems.values()} == {Reason.READ_ERROR}
        assert "1 of 2 images" in next(iter(problems.values())).sentence
        assert on_disk(files) == set(names) - set(problems)


def test_an_image_that_a_study_lacked_once_is_asked_for_alone(tmp_path: Path) -> None:
    server = pacs(1, 3)
    server.lacks = {"1.2.0.1"}
    server.before_reading = lambda _: None
    with files_of(server, tmp_path) as files:
        names = [ref.name for ref in files.refs(lambda prefix: ())]
        files.release(names)
        sent = server.read_instance

        def heal(study_uid: str, instance: object) -> bytes:
            server.lacks = set()
            return sent(study_uid, instance)  # pyright: ignore[reportArgumentType]

        server.read_instance = heal  # pyright: ignore[reportAttributeAccessIssue]
        assert files.fetch(names) == {}
        assert on_disk(files) == set(names)


def test_a_study_that_grows_while_it_is_read_is_listed_with_all_of_it(tmp_path: Path) -> None:
    server = pacs(1)

    def grow(study_uid: str) -> None:
        server.content[study_uid]["1.2.0.9"] = (IMAGE, part("1.2.0.9"))

    server.before_reading = grow
    with files_of(server, tmp_path) as files:
        assert len(list(files.refs(nothing))) == 3


@pytest.mark.parametrize("says_numbers", [True, False])
def test_studies_that_a_ledger_knows_are_not_fetched_and_those_of_equal_number_not_even_listed(
    tmp_path: Path, says_numbers: bool
) -> None:
    with files_of(pacs(), tmp_path / "first") as files:
        names = [ref.name for ref in files.refs(nothing)]
    server = pacs()
    server.says_numbers = says_numbers
    with files_of(server, tmp_path / "second") as files:
        again = [ref.name for ref in files.refs(lambda prefix: [name for name in names if name.startswith(prefix)])]
    assert again == names
    assert not [what for what in server.asked if what.startswith("read")]
    assert len(server.asked) == (0 if says_numbers else 5)


def test_what_lies_ahead_stays_below_half_of_the_spool_and_what_is_needed_comes_all_the_same(tmp_path: Path) -> None:
    size = 10_000
    with files_of(pacs(40, 1, size), tmp_path, 8 * size) as files:
        refs = [ref.name for ref in files.refs(nothing)]
        assert files.peak_bytes <= (4 + 4) * (size + 200)  # half of it, and one study of each connection
        for name in refs:
            assert files.fetch([name]) == {}
            assert (files.folder / name).exists()
            files.release([name])
        assert files.peak_bytes <= (4 + 4 + 1) * (size + 200)
        assert not files.is_full


def test_a_study_that_the_server_lists_no_more_is_missing(tmp_path: Path) -> None:
    with files_of(pacs(1), tmp_path) as files:
        problems = files.fetch(["0123456789abcdef/0123456789abcdef.dcm"])
    assert [problem.reason for problem in problems.values()] == [Reason.MISSING_FILE]


def test_a_query_that_nothing_matches_gives_no_file_and_a_sentence(tmp_path: Path) -> None:
    notes: list[str] = []
    files = DicomwebFiles(cast("DicomwebServer", FakePacs({})), {}, tmp_path, note=notes.append)
    files.list_all(KEY)
    with files:
        assert list(files.refs(nothing)) == []
    assert notes == ["No study of this server matches the query."]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_goes_away_ends_the_run_and_not_the_study(tmp_path: Path) -> None:
    def away(study_uid: str) -> None:
        raise MedclipError(Reason.UNREACHABLE, "it could not be read in 8 attempts.")

    server = pacs(1)
    server.before_reading = away
    with files_of(server, tmp_path) as files:
        names = [ref.name for ref in files.refs(nothing)]
        with pytest.raises(MedclipError) as refused:
            files.fetch(names)
    assert refused.value.reason is Reason.UNREACHABLE


def test_what_a_killed_run_left_goes_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "spool" / "old").mkdir(parents=True)
    (tmp_path / "spool" / "old" / "image.dcm").write_bytes(b"")
    with files_of(pacs(1), tmp_path) as files:
        assert on_disk(files) == set()


def test_an_inventory_counts_studies_once_by_their_modalities_and_fetches_nothing(tmp_path: Path) -> None:
    server = pacs(num_studies=4)
    server.modalities = {"1.2.0": ("CR",), "1.2.1": ("CT", "SR"), "1.2.2": ("CT", "CT")}
    files = DicomwebFiles(cast("DicomwebServer", server), {}, tmp_path / "out")
    inventory = files.inventory()
    assert (inventory.num_studies, inventory.num_files) == (4, 8)
    assert list(inventory.modalities.items()) == [("CT", 2), ("CR", 1), ("SR", 1), ("not stated", 1)]
    assert not server.asked
    assert server.is_closed
    assert not (tmp_path / "out").exists()


def test_an_inventory_of_a_query_that_matches_nothing_is_one_of_nothing(tmp_path: Path) -> None:
    notes: list[str] = []
    files = DicomwebFiles(cast("DicomwebServer", FakePacs({})), {}, tmp_path, note=notes.append)
    inventory = files.inventory()
    assert (inventory.num_studies, inventory.num_files, dict(inventory.modalities)) == (0, 0, {})
    assert notes == ["No study of this server matches the query."]


def test_files_that_are_held_stay_until_they_were_read_and_come_again_where_they_are_gone(tmp_path: Path) -> None:
    server = pacs(2)
    with files_of(server, tmp_path) as files:
        names = [ref.name for ref in files.refs(nothing)]
        files.fetch(names)
        files.keep(names[:2])
        files.release(names)
        assert on_disk(files) == set(names[:2])
        num_reads = sum(num for what, num in server.asked.items() if what.startswith("read"))
        with files.held(names[:2]):
            files.release(names)
            assert on_disk(files) == set(names[:2])
        assert on_disk(files) == set()
        assert sum(num for what, num in server.asked.items() if what.startswith("read")) == num_reads
        with files.held(names[:1]):
            assert on_disk(files) == {names[0]}
        assert on_disk(files) == set()


def test_a_spool_that_is_half_full_keeps_nothing_beyond_its_release(tmp_path: Path) -> None:
    with files_of(pacs(2), tmp_path, limit_bytes=100) as files:
        names = [ref.name for ref in files.refs(nothing)]
        files.fetch(names)
        files.keep(names)
        files.release(names)
        assert on_disk(files) == set()
