"""The lazy public names: what they are, and what importing them costs, counted in modules and not by the clock."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest

import medclip

HEAVY = (
    "torch",
    "numpy",
    "pydicom",
    "open_clip",
    "timm",
    "monai",
    "transformers",
    "pyarrow",
    "PIL",
    "sklearn",
    "matplotlib",
)


def modules_after(code: str) -> list[str]:
    """Names in sys.modules of a fresh process after `code`, less those a bare interpreter has."""
    report = "import sys, json; before = set(sys.modules)\n" + code
    report += "\nprint('MODULES=' + json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout.split("MODULES=")[-1])


def test_importing_medclip_loads_nothing_heavy_and_few_modules():
    loaded = modules_after("import medclip")
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]
    assert [name for name in loaded if name.startswith("medclip")] == ["medclip", "medclip.lazy", "medclip.version"]
    assert len(loaded) < 40, loaded


def test_the_shared_values_load_without_numpy_or_torch():
    loaded = modules_after(
        "from medclip import MedclipError, Modality, Reason, Sample, Settings, Study, View, Provenance"
    )
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]
    assert len(loaded) < 120, len(loaded)


def test_medclip_help_loads_nothing_heavy_and_no_command_module():
    loaded = modules_after(
        "import contextlib, io\n"
        "from medclip.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out: code = main(['--help'])\n"
        "assert code == 0 and 'score' in out.getvalue(), out.getvalue()"
    )
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]
    ours = [name for name in loaded if name.startswith("medclip")]
    assert ours == [
        "medclip",
        "medclip.cli",
        "medclip.cli.derive",
        "medclip.cli.main",
        "medclip.cli.progress",
        "medclip.cli.standard_output",
        "medclip.errors",
        "medclip.exit_codes",
        "medclip.files",
        "medclip.files.access",
        "medclip.lazy",
        "medclip.options",
        "medclip.verbs",
        "medclip.version",
        "medclip.wording",
    ]
    # What is left is typer and rich: 273 with typer 0.29 and rich 15 (2026-11-25). Torch alone is over 1,000.
    assert len(loaded) < 500, len(loaded)


NAMESPACES = ("ecg", "models", "pairs", "runs", "shards", "slides")
VERBS = (
    "adapt",
    "audit",
    "compare",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "finetune",
    "monitor",
    "open_study",
    "pathgen",
    "pretrain",
    "rank_captions",
    "retry",
    "scan",
    "score",
    "search",
    "view",
    "watch",
)


def test_the_face_is_verbs_types_and_namespaces():
    others = [name for name in dir(medclip) if name not in (*NAMESPACES, *VERBS)]
    assert all(isinstance(getattr(medclip, name), type) for name in others), others
    assert set(NAMESPACES) | set(VERBS) < set(dir(medclip))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_a_plain_function_in_a_file_of_its_own_or_of_its_family(verb: str):
    function = getattr(medclip, verb)
    file = {"retry": "runs", "rank_captions": "captions"}.get(verb, verb)
    assert isinstance(function, FunctionType)
    assert (function.__module__, function.__name__) == (f"medclip.api.{file}", verb)


def test_types_of_a_users_call_of_every_verb_are_checked(repository: Path):
    source = ast.parse((repository / "tests" / "api" / "user_calls.py").read_text(encoding="utf-8"))
    called = {ast.unparse(node.func) for node in ast.walk(source) if isinstance(node, ast.Call)}
    assert {f"medclip.{verb}" for verb in VERBS} <= called


@pytest.mark.parametrize("package", ["", *NAMESPACES])
def test_every_public_name_can_be_had_and_is_documented(package: str):
    module = import_module(f"medclip.{package}".rstrip("."))
    assert module.__all__ == sorted(module.__all__)
    assert dir(module) == [name for name in module.__all__ if name != "__version__"]
    for name in dir(module):
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", ["", *NAMESPACES])
def test_type_checkers_and_python_load_the_same_names(package: str):
    module = import_module(f"medclip.{package}".rstrip("."))
    file = Path(str(module.__file__))
    stub = file.with_suffix(".pyi")  # of a namespace with verbs of the rooms above, which no file in it may import
    body = ast.parse((stub if stub.exists() else file).read_text(encoding="utf-8")).body
    lines = body[1:-1] if stub.exists() else next(node for node in body if isinstance(node, ast.If)).body
    names = set()
    for line in lines:
        assert isinstance(line, ast.ImportFrom)
        for alias in line.names:
            own = alias.asname or alias.name
            assert getattr(module, own) is getattr(import_module(str(line.module)), alias.name)
            names.add(own)
    assert names == set(dir(module))


@pytest.mark.parametrize("package", NAMESPACES)
def test_no_file_of_a_room_hides_a_name_of_its_namespace(package: str):
    module = import_module(f"medclip.{package}")
    inside = {path.stem for path in Path(str(module.__file__)).parent.iterdir()}
    assert not inside & set(module.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = medclip.nonsense
