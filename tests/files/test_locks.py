"""One process at a time writes to a folder, on a disk and on a drive of a network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files import locks
from medclip.files.locks import LOCK, held_folder, is_locked
from medclip.files.output import claim_folder


@pytest.mark.parametrize("is_drive", [False, True])
def test_a_second_writer_is_refused_until_the_first_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_drive: bool
) -> None:
    folder, table = tmp_path / "out", tmp_path / "mountinfo"
    folder.mkdir()
    kind = "nfs4" if is_drive else "ext4"
    table.write_text(f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:1 / {folder.resolve()} rw - {kind} x rw\n")
    monkeypatch.setattr(locks, "MOUNTS", table)
    assert not is_locked(folder)
    assert not os.listdir(folder)  # whoever asks leaves nothing
    with held_folder(folder):
        assert is_locked(folder)
        with pytest.raises(MedclipError) as caught, held_folder(folder):
            pass
        assert caught.value.reason is Reason.BUSY
    assert not is_locked(folder)
    assert os.listdir(folder) == ([LOCK] if is_drive else [])
    assert not claim_folder(folder, "run")  # as if it were empty
