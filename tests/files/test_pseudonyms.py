from __future__ import annotations

import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import keyed_hash, load_key, match_patients
from medclip.settings import Settings


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "new" / "home")
    key = load_key(settings)
    assert len(key) == 32
    assert load_key(settings) == key
    assert stat.S_IMODE((settings.home / "identity.key").stat().st_mode) == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["identity.key"]


def test_a_new_key_is_announced_once_with_its_path_and_never_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "medclip")
    with ThreadPoolExecutor(8) as pool:
        key = set(pool.map(lambda _: load_key(Settings(home=tmp_path)), range(32))).pop()
    (message,) = caplog.messages
    assert str(tmp_path / "identity.key") in message
    assert key.hex() not in message


def test_callers_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_key(Settings(home=tmp_path)), range(32)))
    assert len(keys) == 1


def test_another_key_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"k" * 32)
    assert load_key(Settings(home=tmp_path / "unused"), path=tmp_path / "k") == b"k" * 32
    assert not (tmp_path / "unused").exists()


def test_a_named_key_file_that_does_not_exist_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="head -c 32 /dev/urandom > FILE") as caught:
        load_key(Settings(home=tmp_path), path=tmp_path / "kye")
    assert caught.value.reason is Reason.WRONG_USE
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(b"short")
    with pytest.raises(MedclipError) as caught:
        load_key(Settings(home=tmp_path))
    assert caught.value.reason is Reason.WRONG_USE


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MedclipError) as caught:
        load_key(Settings(home=tmp_path / "file" / "home"))
    assert caught.value.reason is Reason.PERMISSION_DENIED


def test_hashes_depend_on_kind_value_and_key() -> None:
    hashes = {keyed_hash(k, v, key) for k in ("patient", "study") for v in ("1", "2") for key in (b"a" * 32, b"b" * 32)}
    assert len(hashes) == 8
    assert all(len(value) == 16 for value in hashes)
    assert keyed_hash("patient", "1", b"a" * 32) == keyed_hash("patient", "1", b"a" * 32)


def test_patients_are_matched_whichever_side_is_hashed_and_whatever_a_spreadsheet_did_to_them() -> None:
    key, other_key = bytes(32), bytes(range(32))
    hashed = keyed_hash("patient", "P0017", key)
    assert match_patients([hashed, "x", ""], ["P0017", ""], key) == {hashed}
    assert match_patients(["P0017", "p0017 ", "17"], [hashed], key) == {"P0017", "p0017 "}
    assert match_patients(["007", "8"], ["7", "9"], None) == {"007"}
    assert match_patients([hashed], [hashed], None) == {hashed}
    assert not match_patients([hashed], ["P0017"], None)
    assert not match_patients([hashed], ["P0017"], other_key)
