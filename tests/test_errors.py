"""Refusals: what they print, how their sentences are written, and what is asked for a wrong name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

import medclip
from medclip.errors import MedclipError, Problem, Reason, did_you_mean, refuse_missing

LIBRARY = Path(medclip.__file__).parent
SMALL = re.compile(r"[^A-Z]|\w+[A-Z]")
"""How a sentence begins: small, or with a name or an acronym that has a further capital (DICOM, OpenSlide, ECGs)."""
WHOLE = re.compile(r"(?s).*([.?]|Run: [^\n]+)$")
"""How a hint ends: a full stop, a question mark, or a command, which is copied and so has no stop behind it."""


@pytest.mark.parametrize(
    ("given", "known", "question"),
    [
        ("scor", ["scan", "score", "doctor"], "Did you mean 'score' or 'doctor'?"),
        ("Linear_Probe", ["linear-probe", "svd"], "Did you mean 'linear-probe'?"),
        ("cataract", ["fundus_cataract", "modality"], "Did you mean 'fundus_cataract'?"),
        ("g", ["image_group", "image_grid"], ""),
        ("lr", ["train.lr", "train.layer_rate"], "Did you mean 'train.lr'?"),
        ("zebra", ["xray", "ct"], ""),
        ("", ["xray"], ""),
    ],
)
def test_a_wrong_name_is_asked_back_with_the_names_that_are_close(given: str, known: list[str], question: str):
    assert did_you_mean(given, known) == question


def test_the_list_of_names_follows_the_question_and_has_an_end():
    hint = did_you_mean("name7", (f"name{i}" for i in range(50)), "Names are")
    assert hint.startswith("Did you mean 'name7'")
    assert hint.endswith("name39 and 10 more.")
    assert did_you_mean("x", [], "Names are") == "Names are: none."


def test_a_refusal_names_the_place_then_what_is_wrong_then_the_remedy():
    error = MedclipError(Reason.CORRUPT, "the file is damaged.", where="a.dcm", hint="Copy it again.")
    assert str(error) == "a.dcm: the file is damaged. Copy it again."
    assert str(error.at("b.dcm")) == "b.dcm: the file is damaged. Copy it again."
    assert error.problem().message == "The file is damaged. Copy it again."


def test_a_problem_has_one_sentence_alone_in_a_row_and_behind_a_file():
    problem = Problem(Reason.TRUNCATED, "the file ends too early.")
    assert problem.message == "The file ends too early."
    assert str(problem.error("a.nii")) == "a.nii: the file ends too early."
    assert problem.error("a.nii").problem() == problem


def test_a_server_in_the_place_of_a_folder_names_the_command_that_takes_it() -> None:
    with pytest.raises(MedclipError) as caught:
        refuse_missing("dicom://MEDCLIP@:11112")
    assert "medclip watch" in caught.value.hint


@pytest.mark.slow
def test_error_sentences_of_the_library_begin_small_and_end_with_a_full_stop():
    found = {path: list(sentences(ast.parse(path.read_text(encoding="utf-8")))) for path in LIBRARY.rglob("*.py")}
    assert sum(map(len, found.values())) > 800
    assert not [f"{path}:{one.line}: {one.first} … {one.last}" for path in found for one in found[path] if one.is_odd]


@pytest.mark.parametrize(
    ("code", "is_odd"),
    [
        ('MedclipError(R, "the file is damaged.", hint="Copy it again.")', False),
        ('MedclipError(R, f"{n} files are damaged.")', False),
        ('MedclipError(R, "DICOM files are not read.", hint=f"Run: pip install \'{x}\'")', False),
        ('MedclipError(R, "The file is damaged.")', True),
        ('MedclipError(R, "the file is damaged")', True),
        ('MedclipError(R, "A file" + " is damaged.")', True),
        ('MedclipError(R, "the file is damaged.", hint="copy it again.")', True),
        ('MedclipError(R, "the file is damaged.", hint="Copy it again")', True),
        ('MedclipError(R, "it is empty." if empty else "It is damaged.")', True),
        ('why = f"The {x} is damaged."\nProblem(R, why)', True),
        ('def odd(place, why):\n    return Problem(R, why)\nodd(1, "the end is missing")', True),
    ],
)
def test_the_check_of_sentences_sees_literals_variables_and_helpers(code: str, is_odd: bool):
    assert any(one.is_odd for one in sentences(ast.parse(code))) is is_odd


@dataclass(frozen=True)
class Sentence:
    """The ends of a sentence, or of a hint, as they stand in the code; None where a value stands there."""

    line: int
    first: str | None
    last: str | None
    is_hint: bool

    @property
    def is_odd(self) -> bool:
        first, last = self.first or "", self.last or "."
        if self.is_hint:
            return first[:1].islower() or not WHOLE.match(last)
        return (bool(first) and not SMALL.match(first)) or not last.endswith(".")


def sentences(tree: ast.Module) -> Iterator[Sentence]:
    """Find the sentences and hints of errors and problems, also those that a variable or a helper passes on."""
    nodes = list(ast.walk(tree))
    values: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values.setdefault(node.targets[0].id, []).append(node.value)
    helpers = {
        node.name: [(position, is_hint) for argument, is_hint in passed(node) for position in places(node, argument)]
        for node in nodes
        if isinstance(node, ast.FunctionDef)
    }
    for call in nodes:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            passed_on = [
                (call.args[position], is_hint)
                for position, is_hint in helpers.get(call.func.id, ())
                if position < len(call.args)
            ]
            for text, is_hint in chain(texts(call), passed_on):
                several = values.get(text.id, []) if isinstance(text, ast.Name) else [text]
                for first, last in chain.from_iterable(map(ends, several)):
                    yield Sentence(call.lineno, first, last, is_hint)


def texts(call: ast.Call) -> Iterator[tuple[ast.expr, bool]]:
    """Return the sentence and the hint of an error or problem."""
    if isinstance(call.func, ast.Name) and call.func.id in ("MedclipError", "Problem") and len(call.args) > 1:
        yield call.args[1], False
        yield from ((word.value, True) for word in call.keywords if word.arg == "hint")


def passed(function: ast.FunctionDef) -> Iterator[tuple[str, bool]]:
    """Return the names that a function takes for the sentence or the hint of an error."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call):
            yield from ((text.id, is_hint) for text, is_hint in texts(call) if isinstance(text, ast.Name))


def places(function: ast.FunctionDef, argument: str) -> list[int]:
    return [place for place, arg in enumerate(function.args.args) if arg.arg == argument]


def ends(text: ast.expr) -> Iterator[tuple[str | None, str | None]]:
    """Return how an expression begins and how it ends, where literals say so, once for each way it can come out."""
    if isinstance(text, ast.IfExp):
        yield from chain(ends(text.body), ends(text.orelse))
    elif isinstance(text, ast.BinOp):
        yield from ((first, None) for first, _ in ends(text.left))
        yield from ((None, last) for _, last in ends(text.right))
    elif isinstance(text, ast.JoinedStr) and text.values:
        literals = [str(part.value) if isinstance(part, ast.Constant) else None for part in text.values]
        yield literals[0], literals[-1] and "".join(part or "…" for part in literals)
    elif isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value:
        yield text.value, text.value
