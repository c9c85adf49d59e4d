"""Nothing that comes from outside is run: no pickle, no eval, no shell, no archive unpacked on its own word.

The library is read as a syntax tree. Each exception is named with its reason, and a reason without a case fails too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_MODULES = {
    *(
        "pickle",
        "cPickle",
        "_pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
        "jsonpickle",
        "pickletools",
    ),
    *("xml.sax", "xml.dom", "xml.etree", "lxml", "telnetlib", "ftplib", "smtplib"),
}
"""Modules that run what they load, parse XML with entities, or talk to others."""
_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("extractall", "unpack_archive", "_extract_member"),
    *("read_pickle", "to_pickle", "load_pickle", "loads_pickle", "PyUnicodeReader"),
    *("os.system", "os.popen", "getoutput", "getstatusoutput", "mktemp"),
    *("unsafe_load", "full_load", "load_all", "UnsafeLoader", "FullLoader", "yaml.load"),
    *("torch.load", "torch.hub.load", "load_state_dict_from_url"),
}
_CALLS_WITH = {
    "np.load": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
    "np.lib.format.write_array": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
}
"""Calls that are harmless with this argument alone."""
_NEVER = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "weights_only": False}
"""Arguments that no call has."""
_REASONS = {
    ("files/readers/worker.py", "pickle"): "frames between a process and its own child, over their own pipes",
    ("files/readers/serving.py", "pickle"): "the other end of these pipes",
    ("runs/engines/ray_connection.py", "pickle"): "frames between a run and the process that talks to Ray for it",
    ("runs/engines/ray_host.py", "pickle"): "the other end, and what Ray's workers of this run return, as Ray does",
    ("export/applied_model_card.py", "xml.etree"): "writes a card and parses nothing",
    ("imaging/slides/readers/tiff.py", "xml.etree"): "OME-XML; a text that declares entities is not parsed",
    ("text/vocabulary/load.py", "yaml.load"): "with the safe loader of libyaml, which also limits how deep text nests",
    ("imaging/ecg/formats/xml_and_scp.py", "xml.etree"): "a type; the text is parsed by defusedxml",
    ("pairs/sources/articles/jats.py", "xml.etree"): "a type; the text is parsed by defusedxml",
}


def _refused(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (m for alias in node.names for m in _MODULES if f"{alias.name}.".startswith(f"{m}."))
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            yield from {m for name in names for m in _MODULES if f"{name}.".startswith(f"{m}.")}
            yield from (alias.name for alias in node.names if alias.name in _CALLS)
        elif isinstance(node, ast.Call):
            yield from _refused_call(node)


def _refused_call(node: ast.Call) -> Iterator[str]:
    arguments = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
    yield from (f"{name}={value}" for name, value in _NEVER.items() if name in arguments and arguments[name] is value)
    called = ast.unparse(node.func)
    is_method = isinstance(node.func, ast.Attribute)
    last = called.rpartition(".")[2]
    if called in _CALLS or (last in _CALLS and not (is_method and last in ("eval", "exec", "compile"))):  # re.compile
        yield called
    if called in _CALLS_WITH:
        name, value = _CALLS_WITH[called]
        if arguments.get(name) is not value:
            yield f"{called} without {name}={value}"


def test_nothing_in_the_library_runs_what_it_reads(repository: Path):
    cases = {
        (path.relative_to(repository / "medclip").as_posix(), what)
        for path in sorted((repository / "medclip").rglob("*.py"))
        for what in _refused(path)
    }
    assert sorted(cases - _REASONS.keys()) == []
    assert not _REASONS.keys() - cases, "a reason without a case"


def test_each_refusal_is_seen_where_it_stands(tmp_path: Path):
    lines = {
        "import pickle": "pickle",
        "from joblib import load": "joblib",
        "from xml.etree import ElementTree": "xml.etree",
        "from shutil import unpack_archive": "unpack_archive",
        "tar.extractall('x')": "tar.extractall",
        "np.load('x')": "np.load without allow_pickle=False",
        "np.load('x', allow_pickle=True)": "allow_pickle=True",
        "torch.load('x')": "torch.load",
        "yaml.load('x')": "yaml.load",
        "eval('1')": "eval",
        "os.system('ls')": "os.system",
        "subprocess.run('ls', shell=True)": "shell=True",
        "AutoModel.from_config(c, trust_remote_code=True)": "trust_remote_code=True",
    }
    for line, what in lines.items():
        (tmp_path / "file.py").write_text(line, encoding="utf-8")
        assert what in set(_refused(tmp_path / "file.py")), line
    for line in ("model.eval()", "re.compile('x')", "np.load('x', allow_pickle=False)", "yaml.safe_load('x')"):
        (tmp_path / "file.py").write_text(line, encoding="utf-8")
        assert not set(_refused(tmp_path / "file.py")), line


_CSV_WRITERS = {"csv.writer", "csv.DictWriter", "csv.write_csv", "csv.CSVWriter", "pacsv.write_csv", "pacsv.CSVWriter"}
_WRITE_CSV = {
    "files/tables/write.py": "the one way, which defuses",
    "adaptation/finetune/head_of_pack.py": "defused_text for the only column that is free text",
    "adaptation/pack/adapted_model.py": "defused_text for the only column that is free text",
    "pairs/sources/captioned_table.py": "a copy of the user's own table, which is read again",
}


def test_no_csv_is_written_that_a_spreadsheet_would_run(repository: Path):
    """`medclip.files.tables.write` puts an apostrophe before such cells; nobody writes CSV past it."""
    writers = {
        path.relative_to(repository / "medclip").as_posix()
        for path in sorted((repository / "medclip").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in _CSV_WRITERS or getattr(node.func, "attr", "") in ("to_csv", "write_csv"))
    }
    assert writers == _WRITE_CSV.keys()
