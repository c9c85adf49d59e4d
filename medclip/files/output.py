"""The one way to write: files and folders that appear whole, one list of disk errors, one claim of an output.

Whatever is written is written beside its place under a draft name, brought to the disk and renamed. Whoever looks, and
whoever comes after a kill, sees what was there before or what is there now, never a part. What a kill leaves behind has
a name by which `medclip.files.discover` passes it over.

What is written is its owner's alone, mode 0600 in folders of mode 0700: file names, thumbnails and shards may tell of
patients, and a umask is chosen without them in mind. `medclip.files.access` may say otherwise. A folder that
exists keeps its mode, and hands the bit that passes its group on to new ones (setgid), as the system does.

Limits: a folder that replaces a full one takes two renames, so that a kill between them leaves the old one under its
draft name. Two processes may write to one place at once; the last one wins.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.access import PRIVATE, file_modes, remedy_of_owner
from medclip.files.locks import LOCK
from medclip.wording import count, list_of

_DRAFT = re.compile(r"\.medclip-[\w.-]+\.part")
"""Independent of the target's name, so that a draft's name is never the longer of the two."""

_STORE = re.compile(r"(s3a?|https?|gcs?|gs|abfss?|az|memory):/")
"""A URL, also as `Path` shortens it; nobody wants a folder of that name."""
_AGAIN = "Make room and run the same command again."
_ELSEWHERE = "Name another place."
_WRITABLE = "Mount it for writing (a system remounts a damaged disk so), or name another place."
_HOLDS = "holds"
_SHOWN = 6
"""Differences that are named."""
_FAULTS: Mapping[int, tuple[Reason, str, str]] = {
    errno.ENOSPC: (Reason.DISK_FULL, "the disk is full", _AGAIN),
    errno.EDQUOT: (Reason.DISK_FULL, "the disk quota is used up", _AGAIN),
    errno.EFBIG: (Reason.DISK_FULL, "the file is larger than this file system or `ulimit -f` allows", _ELSEWHERE),
    errno.EACCES: (Reason.PERMISSION_DENIED, "its permissions do not allow it", _ELSEWHERE),
    errno.EPERM: (Reason.PERMISSION_DENIED, "its permissions do not allow it", _ELSEWHERE),
    errno.EROFS: (Reason.WRITE_ERROR, "this file system is read-only", _WRITABLE),
    errno.ENAMETOOLONG: (Reason.WRONG_USE, "its name is too long", "Name a shorter one."),
    errno.ENOTDIR: (Reason.WRONG_USE, "a file stands where a folder should be", _ELSEWHERE),
    errno.EEXIST: (Reason.WRONG_USE, "a file stands where a folder should be", _ELSEWHERE),
    errno.EISDIR: (Reason.WRONG_USE, "a folder stands where a file should be", _ELSEWHERE),
    errno.ENOENT: (Reason.WRONG_USE, "there can be nothing at this place", _ELSEWHERE),
    errno.ELOOP: (Reason.WRONG_USE, "a link leads back to itself", _ELSEWHERE),
    errno.EBUSY: (Reason.WRONG_USE, "it is a mount point or in use", "Name a folder in it."),
    errno.EIO: (Reason.WRITE_ERROR, "the disk reports an input/output error", "Check the disk, or name another place."),
    errno.ESTALE: (Reason.WRITE_ERROR, "the network drive is gone", "Connect it again."),
}
_NUMBER = re.compile(r"(?:os error |\[?[Ee]rrno )(\d+)")
"""How safetensors and torch write the number of a system error into the text of their own."""


def is_draft(name: str) -> bool:
    """Whether a file or folder of this name is one that was being written."""
    return _DRAFT.fullmatch(name) is not None


def draft_of(target: Path, mark: str = "") -> Path:
    """Return the draft name of a file or folder, beside it.

    Args:
        target: Path of the finished file or folder.
        mark: Mark in the draft's name, where several processes write one draft; chance decides where it is empty.
    """
    return target.with_name(f".medclip-{mark or secrets.token_hex(6)}.part")


def remove_drafts(folder: Path) -> None:
    """Remove what a killed run left in a folder that nobody else writes to now."""
    for path in folder.iterdir():
        if is_draft(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


# Writing.


def write_file(target: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write a file that is there whole or not at all; its folder is made.

    Args:
        target: The file; one that is there is replaced.
        content: Bytes of the file, or its text, which is written as UTF-8.
        private: Whether the file is its owner's alone, as in `new_file`.
    """
    with new_file(target, private=private) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_file(target: Path, *, keep: bool = False, private: bool = False) -> Iterator[Path]:
    """Yield the name of a draft that becomes `target` at the end: for what is written bit by bit, or by a library.

    Args:
        target: The file; its folder is made.
        keep: Whether a file that is there by then stays: of two processes that write one, the first wins.
        private: Whether the file is its owner's alone, whatever is shared: a key.

    Raises:
        MedclipError: As `disk_errors`; `target` is then as it was.
    """
    draft, mode = draft_of(target), (PRIVATE if private else file_modes()).file
    with disk_errors(target):
        try:
            make_folder(target.parent)
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            yield draft
            _set_mode(draft, mode)  # a library may have put a file of its own there
            bring_to_disk(draft)
            if keep:
                with suppress(FileExistsError):
                    os.link(draft, target)
            else:
                os.replace(draft, target)
            bring_to_disk(target.parent)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `target` at the end; what was there goes.

    Errors raised inside that name a file of the draft name `target`.

    Raises:
        MedclipError: As `disk_errors`; `target` is then as it was.
    """
    with scratch_folder(target) as draft:
        try:
            yield draft
            publish_folder(draft, Path(os.path.realpath(target)))
        except MedclipError as e:
            if e.where is None or not Path(e.where).is_relative_to(draft):
                raise
            raise e.at(target) from e


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` for what is made on the way: on the same disk, and gone at the end.

    Raises:
        MedclipError: As `disk_errors`, naming `target`.
    """
    draft = draft_of(Path(os.path.realpath(target)))  # a link stays, and leads to what is made
    with disk_errors(target):
        try:
            make_folder(draft)
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def publish_folder(draft: Path, target: Path) -> None:
    """Bring a folder and all in it to the disk and put it in the place of another.

    Raises:
        OSError: Where that fails; `target` is then as it was.
    """
    modes = file_modes()
    for folder, _, names in os.walk(draft):
        for name in names:
            _set_mode(Path(folder, name), modes.file)
            bring_to_disk(Path(folder, name))
        _set_mode(Path(folder), modes.folder)
        bring_to_disk(Path(folder))
    if os.path.isdir(target):
        _set_mode(draft, stat.S_IMODE(os.stat(target).st_mode))
    try:
        os.replace(draft, target)  # also in the place of an empty folder
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        old = draft_of(target)
        os.replace(target, old)
        try:
            os.replace(draft, target)
        except BaseException:
            os.replace(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    bring_to_disk(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, as `file_modes` says; one that is there stays as it is.

    Raises:
        OSError: Where that fails.
    """
    modes = file_modes()
    missing = [place for place in (folder, *folder.parents) if not os.path.isdir(place)]
    for place in reversed(missing):
        place.mkdir(modes.folder, exist_ok=True)
        _set_mode(place, modes.folder)  # a umask takes away what the group is given


def make_file(path: Path) -> None:
    """Make an empty file that grows line by line, or in the hands of a library; one that is there stays as it is.

    Raises:
        OSError: Where that fails.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, file_modes().file))


def _set_mode(path: Path, mode: int) -> None:
    with suppress(OSError):  # file systems without modes
        old_mode = os.stat(path).st_mode
        os.chmod(path, mode | old_mode & stat.S_ISGID if stat.S_ISDIR(old_mode) else mode)


def bring_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot do this for folders
            raise
    finally:
        os.close(descriptor)


# What goes wrong.


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn what a disk refuses into one sentence.

    Args:
        where: Path that cannot be written, as the user named it.

    Raises:
        MedclipError: DISK_FULL, PERMISSION_DENIED, WRITE_ERROR; WRONG_USE for a place where nothing can be written.
    """
    try:
        yield
    except MedclipError:
        raise
    except Exception as e:
        error = disk_error(e, where)
        if error is None:
            raise
        raise error from e


def disk_error(error: BaseException, where: Path) -> MedclipError | None:
    """Return the error that says what a disk refused; None for what is no error of a disk.

    Args:
        error: An OSError, or what safetensors or torch made of one.
        where: Path that cannot be written.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (written := _NUMBER.search(str(error))):
        number = int(written[1])
    if number is None or number not in _FAULTS:
        return None
    reason, why, hint = _FAULTS[number]
    if reason is Reason.PERMISSION_DENIED:
        hint = f"{remedy_of_owner(where)} {hint}".strip()
    return MedclipError(
        reason, f"this cannot be written: {why}; what was there before is kept.", where=where, hint=hint
    )


# Claiming a place, before any work is done. Nothing is changed, and nothing is left behind.


def check_place(place: Path, *, beside: bool = False) -> None:
    """Refuse a place where no file or folder can be made.

    Permissions do not tell: root may write everywhere, and yet nothing can be made in /proc. So a file without a name
    is made in the nearest folder that exists.

    Args:
        place: The file or folder; it need not exist, and neither need the folders above it.
        beside: Whether it is made as a draft beside its place, so that the folder above it is looked at, though it
            exists.
    """
    if place.name in ("", "..") and (beside or not os.path.isdir(place)):
        raise MedclipError(Reason.WRONG_USE, f"{str(place)!r} names nothing to write to.", hint=_ELSEWHERE)
    if str(place).startswith("--"):  # a command line takes the next word for the value, whatever it is
        raise MedclipError(
            Reason.WRONG_USE,
            f"{str(place)!r} is an option, and the name to write to is missing in front of it.",
            hint="Name a file or folder; one that is called so is given with its whole path.",
        )
    if _STORE.match(str(place)):
        raise MedclipError(
            Reason.WRONG_USE,
            "this is a place in a store, and what is written here goes to a folder of a disk.",
            where=str(place),
            hint="Name a folder and copy it there; score and embed write to a store with --out URL --work DIR.",
        )
    absolute = place.absolute()
    with disk_errors(place):
        if "\0" in str(place):
            raise OSError(errno.ENOENT, "a NUL in the name")
        above = [absolute, *absolute.parents][1 if beside else 0 :]
        nearest = next(folder for folder in above if os.path.lexists(folder))
        if not os.path.isdir(nearest):
            raise OSError(errno.ENOTDIR, "a file above it")
        longest, longest_path = _longest(nearest)
        new = [os.fsencode(part) for part in absolute.relative_to(nearest).parts]
        if max(map(len, new), default=0) > longest or len(os.fsencode(absolute)) >= longest_path:
            raise OSError(errno.ENAMETOOLONG, "the name")
        with tempfile.TemporaryFile(dir=nearest):
            pass


def _longest(folder: Path) -> tuple[int, int]:
    """Return the most bytes that a name in a folder and a whole path may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX"), os.pathconf(folder, "PC_PATH_MAX")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return 255, 4096


def claim_file(target: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or is there and must not be replaced.

    Raises:
        MedclipError: OUTPUT_IN_USE; WRONG_USE for a folder; as `disk_errors`.
    """
    if os.path.isdir(target):
        raise MedclipError(Reason.WRONG_USE, "this is a folder; a file is written.", where=target, hint="Name a file.")
    check_place(target, beside=True)
    if not os.path.lexists(target):
        return
    if os.path.exists(target) and not os.path.isfile(target):
        raise MedclipError(Reason.WRONG_USE, "this is no file that could be replaced.", where=target, hint=_ELSEWHERE)
    if not overwrite:
        raise in_use(target, "this file is there already", "Name another file, or replace it with --overwrite.")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise MedclipError(Reason.PERMISSION_DENIED, "this file may not be replaced.", where=target, hint=_ELSEWHERE)


def claim_folder(
    out: Path,
    what: str,
    *,
    marks: Sequence[str] = (),
    inputs: Mapping[str, Path] | None = None,
    in_one_step: bool = False,
) -> bool:
    """Refuse a folder that results cannot go to: it must be new, empty, or hold results of the same kind.

    Whether those results may be gone on with or replaced the caller decides: `refuse_other` compares them.

    Args:
        out: The folder; it need not exist.
        what: Name of what the folder is to hold: "model pack".
        marks: Files by which a folder that holds it is known. None: only a new or empty folder will do.
        inputs: Files and folders that are read, by what they are called: "the folder to score". They are not replaced.
        in_one_step: Whether the folder is written by `new_folder`.

    Returns:
        Whether it holds such results.

    Raises:
        MedclipError: OUTPUT_IN_USE for a folder that holds anything else; WRONG_USE for a file, and for a folder that
            is an input or holds one; as `disk_errors`.
    """
    if os.path.lexists(out) and not os.path.isdir(out):
        raise MedclipError(
            Reason.WRONG_USE, f"this is a file; the {what} is a folder.", where=out, hint="Name a new folder."
        )
    check_place(out, beside=in_one_step)
    if not os.path.isdir(out):
        return False
    for name, path in (inputs or {}).items():
        if os.path.exists(path) and path.resolve().is_relative_to(out.resolve()):
            raise MedclipError(Reason.WRONG_USE, f"{name} lies here.", where=out, hint="Name another folder.")
    with disk_errors(out):
        names = {name for name in os.listdir(out) if not is_draft(name) and name != LOCK}
    if names and not names.intersection(marks):
        files = count(len(names), "other file")
        raise in_use(out, f"this folder holds {files} and no {what}", "Name an empty or new folder.")
    return bool(names)


def check_run(out: Path, what: str, identity: Mapping[str, Any], note: str) -> bool:
    """Refuse a folder that a run cannot go to, as `claim_run`, and write nothing.

    Returns:
        Whether it holds this run.
    """
    holds_run = claim_folder(out, what, marks=(note,))
    if holds_run:
        refuse_other(out, what, read_own_note(out / note, what), identity)
    return holds_run


def claim_run(out: Path, what: str, identity: Mapping[str, Any], note: str) -> None:
    """Bind a folder to a run, or go on with the run it holds, if that is the same.

    Args:
        out: The folder: new, empty, or holding the same run.
        what: Name of the kind of run: "comparison".
        identity: Facts that make two runs the same, as JSON can hold them.
        note: The file that holds the identity.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs; as `claim_folder`.
    """
    if not check_run(out, what, identity, note):
        write_note(out / note, what, identity)


def write_note(path: Path, what: str, identity: Mapping[str, Any]) -> None:
    """Write by what a folder is known: what it holds, and what makes two of them the same."""
    write_file(path, json.dumps({_HOLDS: what, **identity}, indent=1, sort_keys=True) + "\n")


def read_own_note(path: Path, what: str) -> dict[str, Any] | None:
    """Read what `write_note` wrote; None where there is nothing that can be read.

    Raises:
        MedclipError: OUTPUT_IN_USE for the note of anything else: other commands call theirs alike.
    """
    note = read_note(path)
    if note is not None and note.get(_HOLDS) != what:
        raise in_use(path.parent, f"this folder holds other results and no {what}", "Name an empty or new folder.")
    return note


def digest_of(values: Any) -> str:
    """Hash JSON values, such as what makes two runs the same, into 16 hex characters."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def read_note(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none, or it cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def refuse_other(
    out: Path,
    what: str,
    noted: Mapping[str, Any] | None,
    wanted: Mapping[str, Any],
    *,
    titles: Mapping[str, str] | None = None,
    remedy: str = "Name another folder.",
) -> None:
    """Refuse to go on with, or to replace, what is not the same.

    Args:
        out: The folder.
        what: Name of what the folder holds: "run".
        noted: Facts of what it holds; None where they cannot be read.
        wanted: The facts of what is to be written. What `noted` has beyond them does not count.
        titles: Words for facts, by their names, where these do not say it.
        remedy: Sentence that says what to do.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs.
    """
    holds = f"this folder holds {'other' if _is_plural(what) else 'another'} {what}"
    if noted is None:
        raise in_use(out, holds, remedy)
    differing = [
        (titles or {}).get(name, f"the {name.replace('_', ' ')}")
        for name, value in wanted.items()
        if not _within(value, noted.get(name))
    ]
    if differing:
        verb = "differs" if len(differing) == 1 and not _is_plural(differing[0]) else "differ"
        raise in_use(out, f"{holds}: {list_of(differing, most=_SHOWN)} {verb}", remedy)


def _is_plural(noun: str) -> bool:
    return noun.partition(" of ")[0].endswith("s")


def in_use(out: Path, content: str, remedy: str) -> MedclipError:
    """Return the refusal of an output: what was found there, that nothing was changed, what to do."""
    return MedclipError(Reason.OUTPUT_IN_USE, f"{content}; nothing was changed.", where=out, hint=remedy)


def _within(wanted: Any, noted: Any) -> bool:
    """Whether all that is asked stands there, too; as JSON writes both."""
    if isinstance(wanted, Mapping) and isinstance(noted, Mapping):
        return all(key in noted and _within(value, noted[key]) for key, value in wanted.items())
    return wanted == noted or json.dumps(wanted, default=str) == json.dumps(noted, default=str)
