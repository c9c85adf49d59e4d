"""The lazy public names: what they are, and what importing them costs, counted in modules and not by the clock."""

from __future__ import annotations

import json
import subprocess
import sys

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
    assert [name for name in loaded if name.startswith("medclip")] == ["medclip", "medclip.version"]
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
        "medclip.cli.main",
        "medclip.cli.progress",
        "medclip.errors",
        "medclip.version",
    ]
    # What is left is typer and rich: 273 with typer 0.29 and rich 15 (2026-11-25). Torch alone is over 1,000.
    assert len(loaded) < 500, len(loaded)


@pytest.mark.parametrize("name", [n for n in medclip.__all__ if n != "__version__"])
def test_every_public_name_can_be_had(name: str):
    value = getattr(medclip, name)
    assert value.__doc__, f"medclip.{name} has no docstring"
    assert name in dir(medclip)


def test_all_and_the_table_of_names_agree():
    assert set(medclip.__all__) == set(medclip._PUBLIC) | {"__version__"}
    assert list(medclip.__all__) == sorted(medclip.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = medclip.nonsense
