"""What a call says of paths that belong to others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.access import refuse_missing, remedy_of_owner
from medclip.files.output import disk_errors

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have owners on POSIX systems")


def test_whose_a_folder_is_stands_in_the_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, group = tmp_path.stat().st_uid, tmp_path.stat().st_gid
    assert remedy_of_owner(tmp_path / "out" / "night") == ""
    monkeypatch.setattr(os, "geteuid", lambda: owner + 10001)
    if owner == 0:
        expected = "It belongs to root, and this is user 10001: let that user write there."
        assert remedy_of_owner(tmp_path / "out" / "night") == expected
        monkeypatch.setattr(os, "stat", _Owned(os.stat, 1000, 100))
        owner, group = 1000, 100
    sentence = remedy_of_owner(tmp_path / "out" / "night")
    assert sentence.startswith(f"It belongs to user {owner}, and this is user ")
    assert sentence.endswith(f"(a container: --user {owner}:{group}).")
    with pytest.raises(MedclipError) as caught, disk_errors(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "refused")
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert caught.value.hint == f"{sentence} Name another place."


def test_a_server_in_the_place_of_a_folder_names_the_command_that_takes_it() -> None:
    with pytest.raises(MedclipError) as caught:
        refuse_missing("dicom://MEDCLIP@:11112")
    assert "medclip watch" in caught.value.hint


class _Owned:
    """`os.stat` of a system on which all belongs to one user."""

    def __init__(self, stat: object, owner: int, group: int) -> None:
        self._stat, self._ids = stat, (owner, group)

    def __call__(self, *values: object, **named: object) -> os.stat_result:
        status = self._stat(*values, **named)  # pyright: ignore[reportCallIssue]
        return os.stat_result((*status[:4], *self._ids, *status[6:10]))
