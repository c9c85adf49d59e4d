"""What the repository promises about itself: the wheel's contents, the room order, the names in pyproject."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=repository,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = out.glob("medclip_imaging-*.whl")
    return zipfile.ZipFile(path).namelist()


def test_the_formatter_sets_every_line(repository: Path):
    paths = [
        path for room in ("medclip", "tests", "pipelines", "benchmarks") for path in (repository / room).rglob("*.py")
    ]
    exceptions = re.compile(r"#\s*fmt: *(?:skip|off)")
    assert not [path for path in paths if exceptions.search(path.read_text(encoding="utf-8"))]


def test_the_wheel_holds_every_file_of_the_package(wheel: list[str], repository: Path):
    ours = {
        path.relative_to(repository).as_posix()
        for path in (repository / "medclip").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not ours - set(wheel)
    assert {name.split("/")[0] for name in wheel} == {"medclip", wheel[-1].split("/")[0]}


@pytest.mark.parametrize(
    "pattern",
    [
        "medclip/py.typed",
        "medclip/text/vocabulary/tasks/*.yaml",
        "medclip/evaluation/zero_shot/suite_files/*.yaml",
        "medclip/reports/*/page.html.j2",
        "medclip/models/builtin/*/*",
    ],
)
def test_package_data_is_in_the_wheel(wheel: list[str], pattern: str):
    assert any(Path(name).match(pattern) for name in wheel)


def test_the_wheel_has_the_licences_of_code_and_weights_and_says_both(wheel: list[str], pyproject: dict):
    folder = next(name for name in wheel if name.endswith(".dist-info/METADATA")).removesuffix("METADATA")
    weights = "LicenseRef-medclip-mini-weights"
    assert {f"{folder}licenses/LICENSE", f"{folder}licenses/LICENSES/{weights}.txt"} <= set(wheel)
    assert pyproject["project"]["license"] == f"Apache-2.0 AND {weights}"


def test_the_layers_are_the_rooms_that_exist(pyproject: dict, repository: Path):
    layers = pyproject["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {part.strip() for layer in layers for part in layer.split(":")}
    there = {
        f"medclip.{path.stem}"
        for path in (repository / "medclip").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or (path.suffix == ".py" and path.stem != "__init__")
    }
    assert named == there


def test_what_only_developers_install_is_imported_where_its_absence_is_an_answer(repository: Path, pyproject: dict):
    project = pyproject["project"]
    names = {
        extra: {re.split(r"[\[<>=]", line)[0].replace("-", "_") for line in lines}
        for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items()
    }
    of_users = set[str]().union(*(of for extra, of in names.items() if extra not in ("dev", "notebooks")))
    of_developers = (names["dev"] | names["notebooks"]) - of_users
    assert "pandas" in of_developers
    found = set()
    for path in sorted((repository / "medclip").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(module.partition(".")[0] in of_developers for module in modules):
                found.add(path.relative_to(repository).as_posix())
    assert found == {"medclip/result.py", "medclip/slides/exchange.py"}  # to_pandas; beside anndata, which brings it


def test_dependencies_are_ranges_and_not_pins(pyproject: dict):
    extras = pyproject["project"]["optional-dependencies"]
    lines = [*pyproject["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    for line in lines:
        assert "==" not in line, line
        assert ">=" in line or line.startswith("medclip-imaging["), line
    assert set(extras) == {
        "spatialdata",
        "dicom",
        "wsi",
        "remote",
        "search",
        "ecg",
        "minc",
        "video",
        "tensorboard",
        "onnx",
        "openvino",
        "ray",
        "peft",
        "web",
        "dimse",
        "fhir",
        "dev",
        "docs",
        "notebooks",
        "all",
    }


def test_the_newest_version_of_the_changelog_is_that_of_the_package_everywhere(wheel: list[str], repository: Path):
    from medclip.version import __version__

    versions = re.findall(r"^## \[(.+)\]", (repository / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[:2] == ["Unreleased", __version__]
    assert f"medclip_imaging-{__version__}.dist-info/METADATA" in wheel
    assert f"\nversion: {__version__}\n" in (repository / "CITATION.cff").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Every file of the library, and what it imports: anywhere in the file, also for type checkers alone."""
    graph = grimp.build_graph("medclip", cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_no_file_imports_in_a_circle(imports: dict[str, set[str]]):
    assert len(imports) > 300
    list(TopologicalSorter(imports).static_order())  # raises CycleError with the circle


def test_nobody_imports_the_public_face(imports: dict[str, set[str]]):
    assert not [name for name, imported in imports.items() if "medclip" in imported]


def test_no_contract_of_the_linter_has_an_exception(pyproject: dict):
    for contract in pyproject["tool"]["importlinter"]["contracts"]:
        assert not {"ignore_imports", "exclude_type_checking_imports"} & set(contract)


def _names_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield a file's functions with their arguments, their locals and the first word of each docstring."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.Expr) and isinstance(function.value, ast.Constant):  # also below an attribute
            yield "docstring", str(function.value.value).lstrip().split(" ")[0]
        if isinstance(function, ast.FunctionDef):
            yield "function", function.name
            yield "docstring", (ast.get_docstring(function) or "").split(" ")[0]
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield "local", node.id
                elif isinstance(node, ast.arg):
                    yield "local", node.arg
        elif isinstance(function, ast.AnnAssign) and isinstance(function.target, ast.Name):
            yield "local", function.target.id


def test_names_are_verbs_and_contents_and_docstrings_begin_with_what_is_done(repository: Path):
    """Rule 5 of the house: `rows`, never `found`; read and return, never give and say."""
    refused = {
        "local": re.compile("found|made|said|told|there|whole"),
        "function": re.compile("_*(give|say|says|put)(_.*)?"),
        "docstring": re.compile("(Give|Say|Tell)s?"),
    }
    wrong = [
        f"{path.relative_to(repository)}: {kind} {name}"
        for path in sorted((repository / "medclip").rglob("*.py"))
        for kind, name in _names_of(path)
        if refused[kind].fullmatch(name)
    ]
    assert not wrong


def test_the_fields_word_is_image(repository: Path):
    """Rule 5 of the house. Prompts and captions keep the other word, since radiologists write it."""
    others = re.compile("pictures?", re.IGNORECASE)
    allowed = [repository / "medclip/text", repository / "medclip/evaluation/zero_shot/suite_files"]
    wrong = [
        str(path.relative_to(repository))
        for suffix in ("*.py", "*.j2", "*.css", "*.yaml")
        for path in sorted((repository / "medclip").rglob(suffix))
        if not any(path.is_relative_to(folder) for folder in allowed) and others.search(path.read_text("utf-8"))
    ]
    assert not wrong


@pytest.mark.slow
def test_no_definition_stands_twice(repository: Path):
    """The same body in two files is one function too many; adapters are a row of alike things and may repeat."""
    places: dict[str, list[str]] = {}
    for path in sorted((repository / "medclip").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and path.parent.name != "adapters":
                body = function.body[1:] if ast.get_docstring(function) else function.body
                text = ast.dump(ast.Module(body, []))
                if len(text) > 250:  # more than one plain call
                    places.setdefault(text, []).append(f"{path.relative_to(repository)}: {function.name}")
    assert not [names for names in places.values() if len(names) > 1]


_GUARDS = {"new_file", "new_folder", "scratch_folder"}
_WRITERS = {
    *("write_text", "write_bytes", "savez", "savez_compressed", "save_file", "to_parquet", "to_csv", "write_table"),
    *("write_csv", "ParquetWriter", "savefig", "tofile", "copyfile", "copytree", "copy2", "touch", "rename", "imwrite"),
    *("np.save", "torch.save", "shutil.move"),
}
_WRITE_ELSEWHERE = {
    "cli/standard_output.py": "the null device, where there is no standard output",
    "runs/engines/ray_host.py": "pipes to the process of a run, and the null device",
    "files/temporary_folder.py": "an empty file whose lock counts, renamed once it is locked",
    "files/readers/worker.py": "the standard output of a process, turned into nothing",
    "slides/stages/unfinished.py": "rows of a slide under way, which count once the line about them is complete",
    "text/tokenizers/clip.py": "text lies below files: into a folder that the caller puts in place",
    "text/tokenizers/tokenizer.py": "text lies below files: into a folder that the caller puts in place",
    "training/batches/workers.py": "a dump of a stuck process, in a temporary folder",
    "training/result.py": "a log grows line by line",
    "_export": "into the new folder of export_pack",
    "export_timm": "into the new folder of export_pack",
    "_publish": "into the draft of all ranks, which publish_folder puts in place",
    "_write_text": "the draft of save_table",
    "DicomwebFiles.__enter__": "an empty file of the spool, which tells workers whether they see it",
    "StoreFiles.__enter__": "an empty file of the spool, which tells workers whether they see it",
    "DicomwebFiles._write": "a file of the spool, which is fetched again after a kill",
    "Draft.__init__": "an object as it comes, renamed once it is on the disk and before its sender is answered",
    "Publication._remember": "a record grows line by line; a line that a kill cut is passed over",
    "_write_header": "a header in the spool, which is fetched again",
    "ShardCache._fill": "a draft that others wait for, locked, and renamed once its hash is right",
    "Reinforcement.members": "an npz in memory",
    "write_array": "an array in a temporary folder, which is read and goes",
    "_file_of": "a figure of a package in a temporary folder, which is read and goes",
    "TarShard.__init__": "a tar in the new folder of build_shards",
}
"""Files and functions that write without a guard of their own, and why."""


def _written(node: ast.AST, name: str, guarded: bool) -> Iterator[tuple[str, int]]:
    """Yield function and line of each call that writes a file outside `with new_file(...)` and its like."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        name = f"{name}.{node.name}".lstrip(".")
    if isinstance(node, ast.With):
        guarded = guarded or any(_called(item.context_expr) in _GUARDS for item in node.items)
    if isinstance(node, ast.Call) and not guarded:
        called = _called(node)
        modes = [
            a.value
            for a in (*node.args, *(k.value for k in node.keywords if k.arg == "mode"))
            if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        opens = called in ("open", "fdopen") and any(re.fullmatch(r"[rbt]*[wax+][rwbt+]*", mode) for mode in modes)
        in_memory = any(isinstance(a, ast.Name) and a.id == "buffer" for a in node.args)
        if opens or (called in _WRITERS and not in_memory):
            yield name, node.lineno
    for child in ast.iter_child_nodes(node):
        yield from _written(child, name, guarded)


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    if not isinstance(node.func, ast.Attribute):
        return getattr(node.func, "id", "")
    qualified = f"{getattr(node.func.value, 'id', '')}.{node.func.attr}"
    return qualified if qualified in _WRITERS else node.func.attr


def test_what_is_written_is_there_whole_or_not_at_all(repository: Path):
    """Rule 2 of the house: files/output.py is the one way to put a file in place."""
    places = {
        (path.relative_to(repository / "medclip").as_posix(), name, line)
        for path in sorted((repository / "medclip").rglob("*.py"))
        for name, line in _written(ast.parse(path.read_text(encoding="utf-8")), "", False)
    }
    assert [place for place in sorted(places) if not {place[0], place[1]} & _WRITE_ELSEWHERE.keys()] == []
    assert not _WRITE_ELSEWHERE.keys() - {part for place in places for part in place[:2]}, "a reason without a case"


def test_an_entry_of_args_stands_alone(repository: Path):
    """A noun phrase, such as "Seed of the folds.", and no part of a sentence that the name begins."""
    fragment = re.compile(r" +\w+: (?:Of|As|What|Told|From|Its|Whose|Where|How|By|See)\b")
    found = []
    for path in sorted((repository / "medclip").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                _, _, rest = (ast.get_docstring(node) or "").partition("\nArgs:\n")
                entries = re.split(r"^(?=\S)", rest, maxsplit=1, flags=re.MULTILINE)[0].split("\n")
                found += [f"{path.stem}.{node.name}: {entry.strip()}" for entry in entries if fragment.match(entry)]
    assert found == []
