"""Whatever is written is there whole or not at all, whoever writes it; a refused output is one sentence."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from medclip.api.audit import audit
from medclip.api.captions import captions
from medclip.auditing.result import AuditResult, write_tables
from medclip.auditing.thresholds.choose import Threshold, write_thresholds
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.evaluation.few_shot.method_run import Run, RunStore
from medclip.evaluation.few_shot.protocol import RunKey
from medclip.evaluation.zero_shot.suite_result import SuiteStore
from medclip.files import output
from medclip.files.discover import discover
from medclip.files.output import (
    claim_file,
    claim_folder,
    claim_run,
    disk_error,
    draft_of,
    is_draft,
    new_file,
    new_folder,
    refuse_other,
    remove_drafts,
    write_file,
)
from medclip.files.pseudonyms import load_key
from medclip.files.tables.write import write_rows
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import Card
from medclip.models.packs.manifest import seal
from medclip.models.packs.pack import save_pack, update_pack
from medclip.models.towers.weight_files import to_safetensors
from medclip.reports.audit.report import write_audit_report
from medclip.settings import Settings
from medclip.shards.folder import write_index
from medclip.training.checkpoints.state import save_tensors
from medclip.training.result import cut_log

Write = Callable[[Path, int], object]
"""Writes version 1, or version 2 in the place of version 1, into a folder."""


@dataclass(frozen=True)
class _Row:
    name: str
    value: float


def _stream(folder: Path, version: int) -> None:
    with new_file(folder / "a.bin") as draft, draft.open("wb") as stream:
        for _ in range(3):
            stream.write(bytes([version]) * 1000)


def _folder(folder: Path, version: int) -> None:
    with new_folder(folder / "a") as draft:
        (draft / f"only-{version}").write_text("x")
        (draft / "inner").mkdir()
        (draft / "inner" / "b").write_text(str(version))


def _audit_tables(folder: Path, version: int) -> None:
    write_tables(AuditResult(metrics=({"metric": "auroc", "value": version},)), folder)


def _audit_page(folder: Path, version: int) -> None:
    write_audit_report(AuditResult(model_names=(f"model {version}",)), folder)


def _thresholds(folder: Path, version: int) -> None:
    write_thresholds(folder / "thresholds.json", [Threshold("flu", version / 4, "fixed", "given", 0, 0, 0, "", "")])


def _few_shot(folder: Path, version: int) -> None:
    store = RunStore(folder, {"base": "b"})
    store.keep(RunKey("ridge", 1, 0, 0), Run(np.full((2, 2), version, np.float32), None, {}))


def _zero_shot(folder: Path, version: int) -> None:
    store = SuiteStore(folder, {"model": "m"})
    write_file(folder / "sets" / "a.parquet", (folder.parent / "a.parquet").read_bytes())
    store.finish(json.dumps(version), ["a"])


def _index(folder: Path, version: int) -> None:
    parts: dict[str, Any] = {"shards": [], "counts": {}, "preprocessing": {}, "options": {"v": version}, "columns": ()}
    write_index(folder, [{"key": str(version)}], [], **parts)


def _pack(folder: Path, version: int) -> None:
    tower = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(tower.weight, version)
    torch.nn.init.constant_(tower.bias, version)
    config: dict[str, Any] = {"vision_cfg": {}, "text_cfg": {}}
    save_pack(folder / "pack", tower, folder, Preprocess(32), Card(name=f"v{version}"), config=config)


def _card(folder: Path, version: int) -> None:
    if version == 1:
        _pack(folder, 1)
    else:
        update_pack(folder / "pack", card=Card(name="v2"))


def _captions(folder: Path, version: int) -> None:
    captions(
        folder.parent / "labels.csv", folder / "captions.csv", from_="labels", num_captions=version, overwrite=True
    )


def _log(folder: Path, version: int) -> None:
    if version == 1:
        write_file(folder / "log.jsonl", '{"step": 1}\n{"step": 2}\n')
    else:
        cut_log(folder / "log.jsonl", 1)


WRITERS: dict[str, Write] = {
    "text": lambda folder, version: write_file(folder / "a.txt", str(version)),
    "stream": _stream,
    "folder": _folder,
    "rows of a run": lambda folder, version: write_rows(folder / "scores.parquet", _Row, [_Row("a", version)] * 3),
    "audit tables": _audit_tables,
    "audit page": _audit_page,
    "thresholds": _thresholds,
    "few-shot run": _few_shot,
    "zero-shot evaluation": _zero_shot,
    "shard index": _index,
    "weights": lambda folder, version: save_tensors({"w": torch.full((3,), float(version))}, folder / "w.safetensors"),
    "pack": _pack,
    "card of a pack": _card,
    "captions": _captions,
    "training log": _log,
}
SYSTEM_CALLS = ("replace", "fsync")


class Killed(BaseException):
    """Stands for the end of the process: nothing of medclip catches it."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to write to, beside what some writers read."""
    (tmp_path / "labels.csv").write_text("file,patient,modality,label:chest_xray_findings:pneumonia\na.png,p,xray,1\n")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _failing(monkeypatch: pytest.MonkeyPatch, call: str, after: int, error: BaseException) -> list[int]:
    """Let a system call fail at its turn `after`, from 0."""
    real, turns = getattr(os, call), []

    def fails(*arguments: Any, **options: Any) -> Any:
        turns.append(1)
        if len(turns) == after + 1:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, fails)
    return turns


@pytest.mark.parametrize("call", SYSTEM_CALLS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_stopped_at_any_call_leaves_files_that_are_old_or_new_and_nothing_else(
    name: str, call: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = WRITERS[name]
    clean = place.parent / "clean"
    write(clean, 1)
    old = _contents(clean)
    write(clean, 2)
    new = _contents(clean)
    assert old != new
    kinds = (OSError(errno.ENOSPC, "full"), OSError(errno.EACCES, "denied"), OSError(errno.EIO, "broken"), Killed())
    for turn in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89):
        folder = place.parent / str(turn)
        write(folder, 1)
        refused: BaseException | None = None
        with monkeypatch.context() as patched:
            turns = _failing(patched, call, turn, kinds[turn % len(kinds)])
            try:
                write(folder, 2)
            except (Killed, MedclipError) as e:
                refused = e
        if isinstance(refused, MedclipError):
            assert refused.reason in (Reason.DISK_FULL, Reason.PERMISSION_DENIED, Reason.WRITE_ERROR)
            assert str(refused).count("cannot be written: ") == 1
            assert "what was there before is kept." in str(refused)
            assert refused.where is not None
            assert not is_draft(Path(refused.where).name)
        left = _contents(folder)
        assert all(content in (old.get(file), new.get(file)) for file, content in left.items())
        assert left.keys() >= old.keys() & new.keys()
        if len(turns) <= turn:
            assert refused is None
            assert left == new
            break
    assert turn > 0


@pytest.mark.parametrize(
    "name", ["text", "stream", "folder", "rows of a run", "weights", "pack", "captions", "thresholds", "training log"]
)
@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_what_is_one_file_or_one_folder_stays_as_it_was(
    name: str, call: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](place, 1)
    before = _contents(place)
    _failing(monkeypatch, call, 0, OSError(errno.ENOSPC, "full"))
    with pytest.raises(MedclipError, match="the disk is full") as caught:
        WRITERS[name](place, 2)
    assert caught.value.reason is Reason.DISK_FULL
    assert _contents(place) == before


def test_a_key_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        _failing(patched, "fsync", 0, OSError(errno.ENOSPC, "full"))
        with pytest.raises(MedclipError, match="the disk is full"):
            load_key(Settings(home=tmp_path / "home"))
    assert _contents(tmp_path) == {}
    key = load_key(Settings(home=tmp_path / "home"))
    assert (tmp_path / "home" / "identity.key").stat().st_mode & 0o777 == 0o600
    assert load_key(Settings(home=tmp_path / "home")) == key


def test_a_conversion_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    failed = subprocess.CompletedProcess([], 1, "", full)
    monkeypatch.setattr("medclip.models.towers.weight_files.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(MedclipError, match="the disk is full"):
        to_safetensors(tmp_path / "w.pt", tmp_path / "new" / "w.safetensors")
    assert list(_contents(tmp_path)) == ["w.pt"]


def test_a_process_that_is_killed_leaves_the_old_file_and_a_draft_that_nobody_takes_for_an_input(
    tmp_path: Path,
) -> None:
    write_file(tmp_path / "a.txt", "old")
    script = """
        import os, sys
        from pathlib import Path
        from medclip.files.output import new_folder, write_file
        os.replace = lambda *_: os._exit(9)
        if sys.argv[2] == "file":
            write_file(Path(sys.argv[1], "a.txt"), "new")
        with new_folder(Path(sys.argv[1], "folder")) as draft:
            (draft / "part.png").write_text("x")
    """
    for what in ("file", "folder"):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path), what], check=False)
        assert done.returncode == 9
    assert (tmp_path / "a.txt").read_text() == "old"
    assert not (tmp_path / "folder").exists()
    assert sum(is_draft(p.name) for p in tmp_path.iterdir()) == 2
    assert [ref.name for ref in discover(tmp_path)] == ["a.txt"]
    assert not claim_folder(tmp_path / "folder", "pack")
    remove_drafts(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_is_written_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "new" / "newer" / "a", "x")
        with new_file(tmp_path / "b") as draft:
            assert _mode(draft) == 0o600, "also while it is being written"
            draft.unlink()  # as a library does that puts a file of its own in place
            draft.write_text("x")
        with new_folder(tmp_path / "c") as fresh:
            assert _mode(fresh) == 0o700
            (fresh / "inner").mkdir()
            (fresh / "inner" / "d").write_text("x")
    finally:
        os.umask(before)
    folders = ("new", "new/newer", "c", "c/inner")
    assert [_mode(tmp_path / name) for name in folders] == [0o700] * len(folders)
    files = ("new/newer/a", "b", "c/inner/d")
    assert [_mode(tmp_path / name) for name in files] == [0o600] * len(files)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_group_may_read_where_that_was_asked_for_and_keys_stay_their_owners(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCLIP_SHARE", "group")
    (tmp_path / "of_the_group").mkdir()
    (tmp_path / "of_the_group").chmod(0o2750)
    before = os.umask(umask)
    try:
        write_file(tmp_path / "of_the_group" / "new" / "a", "x")
        with new_folder(tmp_path / "of_the_group" / "c") as fresh:
            (fresh / "inner").mkdir()
            (fresh / "inner" / "d").write_text("x")
        load_key(Settings(home=tmp_path / "home"))
    finally:
        os.umask(before)
    for name in ("new", "c", "c/inner"):
        assert (tmp_path / "of_the_group" / name).stat().st_mode & 0o7777 == 0o2750, "the group is handed on"
    assert [_mode(tmp_path / "of_the_group" / name) for name in ("new/a", "c/inner/d")] == [0o640] * 2
    assert _mode(tmp_path / "home" / "identity.key") == 0o600


def test_a_word_for_sharing_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCLIP_SHARE", "everybody")
    with pytest.raises(MedclipError, match="none or group") as caught:
        write_file(tmp_path / "a", "x")
    assert caught.value.reason is Reason.WRONG_USE
    assert main(["models", "list"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_keeps_its_permissions(tmp_path: Path) -> None:
    for name in ("written_into", "replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o2750)
        (tmp_path / name / "old").touch()
    write_file(tmp_path / "written_into" / "a", "x")
    with new_folder(tmp_path / "replaced"):
        pass
    assert {name.stat().st_mode & 0o7777 for name in tmp_path.iterdir()} == {0o2750}


def test_a_folder_is_made_behind_a_link_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "link") as draft:
        (draft / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["new"]


def test_a_name_as_long_as_a_name_may_be_can_be_written(tmp_path: Path) -> None:
    write_file(tmp_path / ("a" * 255), "x")
    claim_file(tmp_path / ("b" * 255), overwrite=False)
    with pytest.raises(MedclipError, match="its name is too long"):
        claim_file(tmp_path / ("a" * 256), overwrite=False)


def test_an_option_is_not_taken_for_the_name_of_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for claim in (lambda p: claim_folder(p, "run"), lambda p: claim_file(p, overwrite=True)):
        with pytest.raises(MedclipError, match="is an option, and the name to write to is missing") as caught:
            claim(Path("--json"))
        assert caught.value.reason is Reason.WRONG_USE
        claim(tmp_path / "--json")


def test_an_error_inside_that_names_a_draft_names_what_the_user_knows(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught, new_folder(tmp_path / "pack") as draft:
        raise MedclipError(Reason.NON_FINITE, "the weights are not finite.", where=draft / "w.safetensors")
    assert caught.value.where == str(tmp_path / "pack")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "x"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("CheckpointException ranks:dict_keys([1]): [Errno 28] No space left on device"),
    ],
    ids=["quota", "safetensors", "torch"],
)
def test_a_full_disk_is_known_by_whoever_met_it(error: Exception, tmp_path: Path) -> None:
    found = disk_error(error, tmp_path)
    assert found is not None
    assert found.reason is Reason.DISK_FULL


def test_what_is_no_error_of_a_disk_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), new_file(tmp_path / "a"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(KeyError), new_folder(tmp_path / "b"):
        raise KeyError("x")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def used(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file of somebody else, which is still there afterwards."""
    folder = tmp_path / "used"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    yield folder
    assert _contents(folder) == {"thesis.txt": b"years of work"}


def test_a_folder_of_something_else_is_refused_by_what_is_in_it(used: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        claim_folder(used, "audit", marks=("audit.json",))
    assert str(caught.value) == (
        f"{used}: this folder holds 1 other file and no audit; nothing was changed. Name an empty or new folder."
    )
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    with pytest.raises(MedclipError) as caught:
        audit(pa.table({"a": [1]}), out=used)
    assert "holds 1 other file and no audit; nothing was changed" in str(caught.value)


def test_a_new_and_an_empty_folder_are_free_and_one_with_the_mark_is_told(tmp_path: Path) -> None:
    assert not claim_folder(tmp_path / "new" / "deep", "run", marks=("m",))
    assert not claim_folder(tmp_path, "run", marks=("m",))
    (tmp_path / "m").touch()
    (tmp_path / "notes").touch()
    assert claim_folder(tmp_path, "run", marks=("m",))
    assert not (tmp_path / "new").exists()


def test_an_input_is_not_an_output(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    with pytest.raises(MedclipError, match="the base lies here") as caught:
        claim_folder(tmp_path, "pack", marks=("m",), inputs={"the base": tmp_path})
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("file", "this is a file"),
        ("file/x", "a file stands where a folder should be"),
        ("x" * 300, "its name is too long"),
        ("nul\0", "there can be nothing at this place"),
        ("/proc/x", "there can be nothing at this place"),
    ],
)
def test_a_place_where_nothing_can_be_is_refused_before_any_work(
    name: str, word: str, whole: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MedclipError, match=word) as caught:
        claim_folder(tmp_path / name, "run", in_one_step=whole)
    assert caught.value.reason is Reason.WRONG_USE
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(output.tempfile, "TemporaryFile", denied)
    for claim in (lambda p: claim_folder(p, "run"), lambda p: claim_file(p, overwrite=True)):
        with pytest.raises(MedclipError, match="permissions") as caught:
            claim(tmp_path / "new" / "x")
        assert caught.value.reason is Reason.PERMISSION_DENIED


def test_the_same_run_goes_on_and_another_is_refused_by_what_differs(tmp_path: Path) -> None:
    claim_run(tmp_path / "a", "comparison", {"base": "b", "table": [1, {"x": 2}]}, "run.json")
    claim_run(tmp_path / "a", "comparison", {"table": (1, {"x": 2}), "base": "b"}, "run.json")
    before = _contents(tmp_path)
    with pytest.raises(MedclipError) as caught:
        claim_run(tmp_path / "a", "comparison", {"base": "b", "table": [2]}, "run.json")
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: this folder holds another comparison: the table differs; nothing was changed. "
        "Name another folder."
    )
    with pytest.raises(MedclipError, match="the options differ; nothing was changed"):
        claim_run(tmp_path / "a", "comparison", {"base": "b", "table": [1, {"x": 2}], "options": 1}, "run.json")
    assert _contents(tmp_path) == before
    (tmp_path / "a" / "run.json").write_text("{")
    with pytest.raises(MedclipError, match="holds another comparison; nothing was changed"):
        claim_run(tmp_path / "a", "comparison", {"base": "b"}, "run.json")


def test_many_differences_are_counted(tmp_path: Path) -> None:
    asked = {f"key_{i}": i for i in range(9)}
    with pytest.raises(MedclipError, match="the key 5 and 3 more differ;"):
        refuse_other(tmp_path, "run", {}, asked)


def test_a_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "precious")
    with pytest.raises(MedclipError, match="this file is there already; nothing was changed"):
        claim_file(tmp_path / "a", overwrite=False)
    claim_file(tmp_path / "a", overwrite=True)
    with pytest.raises(MedclipError, match="this is a folder"):
        claim_file(tmp_path, overwrite=True)


def test_a_draft_is_known_by_its_name(tmp_path: Path) -> None:
    assert is_draft(draft_of(tmp_path / "a").name)
    assert draft_of(tmp_path / "a") != draft_of(tmp_path / "a")
    assert draft_of(tmp_path / "a", "step-1") == draft_of(tmp_path / "a", "step-1")
    assert not is_draft("scan.part")


def test_a_sealed_folder_lists_no_draft(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    draft_of(tmp_path / "a.txt").write_text("half")
    assert list(seal(tmp_path, {}).files) == ["a.txt"]


def test_of_two_that_write_a_file_to_be_kept_the_first_wins(tmp_path: Path) -> None:
    with new_file(tmp_path / "key", keep=True) as second:
        second.write_text("second")
        with new_file(tmp_path / "key", keep=True) as first:
            first.write_text("first")
    assert (tmp_path / "key").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
