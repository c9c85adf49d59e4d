"""The simulated cohort of slides: witnesses only where they belong, and the same patients at every rate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medclip.slides.learning.labels import read_slide_labels
from medclip.slides.slide_store import open_slide_store
from tests.kits.loaded_python import Programs


@pytest.fixture
def simulated(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(repository / "pipelines" / "slides"))
    import simulated_slides

    yield simulated_slides
    sys.modules.pop("simulated_slides", None)


def test_only_positive_slides_have_witnesses_and_as_many_as_the_rate_says(simulated):
    cohort = simulated.Cohort(num_patients=8, patches=(100, 100))
    bags, witnesses, direction = simulated.simulate(cohort, 0.1, seed=1)
    assert [len(w) for w in witnesses] == [10 * t for t in bags.targets]
    for i in np.flatnonzero(bags.targets):
        along = bags.read(int(i)) @ direction
        inside = np.isin(np.arange(100), witnesses[i])
        assert along[inside].mean() > along[~inside].mean() + 0.3


def test_the_same_seed_has_the_same_slides_at_every_rate(simulated):
    cohort = simulated.Cohort(num_patients=6, patches=(40, 60))
    low, high = (simulated.simulate(cohort, rate, seed=2)[0] for rate in (0.05, 0.2))
    assert low.patients == high.patients
    assert [len(low.read(i)) for i in range(len(low))] == [len(high.read(i)) for i in range(len(high))]


def test_the_store_and_its_table_fit_together(simulated, tmp_path: Path):
    simulated.write_store(tmp_path, simulated.Cohort(num_patients=4, patches=(20, 30)), rate=0.2)
    store = open_slide_store(tmp_path / "store")
    slides = read_slide_labels(store, tmp_path / "labels.csv", ["grade"], key=b"k" * 32)
    assert (len(slides.bags), slides.bags.num_patients) == (len(store), 4)
    assert slides.bags.names == ("negative", "positive")


@pytest.mark.slow
def test_the_measurement_has_a_row_for_each_way_and_keeps_what_is_done(
    repository: Path, programs: Programs, tmp_path: Path
):
    env = os.environ | {"PYTHONPATH": str(repository), "MEDCLIP_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    script = repository / "pipelines" / "slides" / "measure.py"
    command = [programs.python, str(script), str(tmp_path / "run"), "--quick"]
    first, again = (
        subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=True).stdout
        for _ in range(2)
    )
    figures = json.loads((tmp_path / "run" / "figures.json").read_text())
    assert list(figures) == ["rate_5", "rate_20"]
    for of_rate in figures.values():
        assert set(of_rate["auroc"]) == set(of_rate["peak"]) == set(of_rate["map_auroc"])
        assert of_rate["zero_shot"]["1"]["value"] > 0.9
        for pair, apart in of_rate["differences"].items():
            other, one = pair.split(" − ")
            assert apart["value"] == pytest.approx(
                of_rate["auroc"][other]["value"] - of_rate["auroc"][one]["value"], abs=2e-4
            )
    assert "| acmil, branches may look alike |" in first
    assert "done" in first
    assert again == first[first.index("**AUROC of slides") :]
