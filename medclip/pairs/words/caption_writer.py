"""The hook for a caption writer of your own, for instance a language model: what it is told, and how it is checked.

medclip sends nothing anywhere: it calls the function you name, on this machine, and checks what comes back.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from medclip.errors import MedclipError, Reason
from medclip.sample import spoken
from medclip.text.captions.record import VIEW_TASK, CaptionRecord, image_names, labelled, view_names, without_outcomes
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import TaskClass

MIN_WORDS = 3
"""Words that a writer's caption must have."""
Check = Callable[[str], Sequence[str]]
"""Returns the problems of a caption, none for one that may be used."""


@dataclass(frozen=True)
class CaptionFacts:
    """What a writer may say of an image, in plain words, and nothing else: it never sees who the patient is."""

    modality: str
    """E.g. "X-ray"; empty where it is not known."""
    image: str
    """What to call the image, e.g. "chest X-ray"."""
    view: str
    """E.g. "PA view"; empty where it is not known."""
    present: tuple[str, ...]
    """Findings that are there."""
    absent: tuple[str, ...]
    """Findings that were looked for and are not there. What stands in neither list must not be spoken of."""


class CaptionWriter(Protocol):
    """Writes captions from facts."""

    def __call__(self, facts: CaptionFacts, n: int, /) -> Sequence[str]:
        """Return about `n` sentences, each a caption of its own, as a list."""
        ...


def facts_of(record: CaptionRecord) -> CaptionFacts:
    """Write a record in the plain words that a writer is told.

    Example:
        >>> facts_of(CaptionRecord(None, labels={"fundus_cataract": {"cataract": 1}})).present
        ('cataract',)
    """
    record = without_outcomes(record)
    present: list[str] = []
    absent: list[str] = []
    for name, label in record.labels.items():
        task = load_task(name)
        if isinstance(label, str):
            if name != VIEW_TASK:
                present.append(task.class_named(label).prompts[0])
            continue
        present += [_plain(c) for c in labelled(task, label, 1)]
        absent += [_plain(c) for c in labelled(task, label, 0)]
    views = view_names(record)
    return CaptionFacts(
        modality=spoken(record.modality) if record.modality else "",
        image=image_names(record)[0],
        view=views[0] if views else "",
        present=tuple(present),
        absent=tuple(absent),
    )


def load_writer(name: str) -> CaptionWriter:
    """Import the function that a person named; nothing is imported before it is asked for.

    Args:
        name: `module:function`; the module is looked for in the current folder too.

    Raises:
        MedclipError: WRONG_USE when there is no such module or function, or the module fails while it is imported.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise MedclipError(
            Reason.WRONG_USE, f"the writer {name!r} cannot be read.", hint="Write it as module:function."
        )
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):
            module = import_module(module_name)
    except (Exception, SystemExit) as e:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the module of the writer {name!r} cannot be imported ({type(e).__name__}: {e}).",
            hint="Run in the folder it lies in, or install it." if isinstance(e, ImportError) else "Mend the module.",
        ) from e
    finally:
        sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise MedclipError(Reason.WRONG_USE, f"the module {module_name!r} has no function {function_name!r}.")
    return cast("CaptionWriter", function)


def ask_writer(writer: CaptionWriter, facts: CaptionFacts, n: int) -> tuple[str, ...]:
    """Call a writer. What it prints goes to standard error, so that standard output stays medclip's own.

    Returns:
        Its first `n` captions that differ, with single spaces.

    Raises:
        MedclipError: WRONG_USE naming the writer and the kind of error, when it raises one or gives anything but a list
            of texts.
    """
    try:
        with redirect_stdout(sys.stderr):
            given = writer(facts, n)
            if isinstance(given, str):
                raise TypeError("it gave one text; it must give a list of texts")
            sentences = list(given)
        if strange := [s for s in sentences if not isinstance(s, str)]:
            raise TypeError(f"it gave {type(strange[0]).__name__} where a text belongs")
    except (Exception, SystemExit) as e:
        raise MedclipError(Reason.WRONG_USE, f"the writer {_name(writer)!r} failed ({type(e).__name__}: {e}).") from e
    return tuple(dict.fromkeys(" ".join(s.split()) for s in sentences))[:n]


class CheckedWriter:
    """Puts what a writer of one's own wrote before medclip's own captions, where it passes a check, and counts.

    Args:
        n: Number of captions for each row.
        writer: Writer of one's own; None: medclip's own captions stay alone.
    """

    def __init__(self, n: int, writer: CaptionWriter | None) -> None:
        self._n, self._writer = n, writer
        self._written: dict[CaptionFacts, tuple[str, ...]] = {}
        self.num_by_writer = 0
        self.rejected: Counter[str] = Counter()

    def captions(self, ours: tuple[str, ...], facts: CaptionFacts, check: Check) -> tuple[str, ...]:
        """Return `n` captions of a row: those of the writer that pass, then `ours`; none where `ours` are none."""
        if self._writer is None or not ours:
            return ours
        theirs = self._checked(self._writer, facts, check)
        self.num_by_writer += len(theirs)
        return tuple(dict.fromkeys([*theirs, *ours]))[: self._n]

    def _checked(self, writer: CaptionWriter, facts: CaptionFacts, check: Check) -> list[str]:
        if facts not in self._written:
            self._written[facts] = self._ask(writer, facts)
        fit = []
        for caption in self._written[facts]:
            problems = list(check(caption))
            if len(caption.split()) < MIN_WORDS:
                problems.append(f"form: the caption has fewer than {MIN_WORDS} words")
            self.rejected.update({p.split(":")[0] for p in problems})
            if not problems:
                fit.append(caption)
        missing = self._n - len(self._written[facts])
        if missing > 0:
            self.rejected["missing"] += missing
        return fit

    def _ask(self, writer: CaptionWriter, facts: CaptionFacts) -> tuple[str, ...]:
        try:
            return ask_writer(writer, facts, self._n)
        except MedclipError:
            if not self._written:
                raise
            self.rejected["failed"] += 1
            return ()


def _name(writer: CaptionWriter) -> str:
    function = getattr(writer, "__qualname__", type(writer).__qualname__)
    return f"{getattr(writer, '__module__', '?')}:{function}"


def _plain(c: TaskClass) -> str:
    return (c.nouns or c.prompts)[0]
