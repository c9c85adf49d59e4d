"""A person's own words against a column of their table: which sets they make, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.own_words import words_suite
from medclip.text.vocabulary.own_words import read_prompts
from tests.kits.evaluation import image
from tests.kits.scoring import make_pack

ROWS = """file,woman,Pneumonia,finding,modality,empty
0.png,MRN-1,1,mass,xray,
1.png,MRN-1,0,none,xray,
2.png,MRN-2,yes,mass,xray,
3.png,MRN-3,no,,xray,
4.png,MRN-4,-1,none,xray,
5.png,MRN-5,,none,xray,
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    make_pack(folder / "tiny")
    for n in range(6):
        image(folder / "films" / f"{n}.png", n, grey=True)
    (folder / "films" / "truth.csv").write_text(ROWS)
    return folder


def test_each_prompt_is_measured_with_its_word_control_and_patients_are_those_of_the_table(place: Path) -> None:
    result = medclip.evaluate(
        place / "films" / "truth.csv",
        model=place / "tiny",
        prompt=["pneumonia", "a mass"],
        against=["clear lungs", "no mass"],
        label=["Pneumonia", "finding=mass"],
        patient="woman",
        num_resamples=50,
        workers=1,
    )
    pneumonia, mass = result.sets
    assert (pneumonia.id, pneumonia.images_per_class, pneumonia.num_left_out) == ("pneumonia", (2, 2), 2)
    assert (mass.id, mass.images_per_class, mass.num_left_out) == ("a_mass", (3, 2), 1)
    assert (pneumonia.num_patients, mass.num_patients) == (3, 4)
    for one in result.sets:
        assert one.word_control is not None
        assert one.word_control.own_words.value == one.figures["auroc"].value
    assert "“pneumonia” against “clear lungs”, true where 'Pneumonia' is 1" in pneumonia.notes
    assert "true where 'finding' is 'mass'" in " ".join(mass.notes)
    assert "MRN" not in result.to_json()


def test_the_command_is_the_function_and_takes_the_folder_of_a_labels_csv(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_text(ROWS)
    asked: dict[str, Any] = {
        "prompt": "pneumonia",
        "label": "Pneumonia",
        "patient": "woman",
        "num_resamples": 50,
        "workers": 1,
    }
    result = medclip.evaluate(tmp_path, images=place / "films", model=place / "tiny", **asked)
    named = [str(word) for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    where = ["--data", str(tmp_path), "--images", str(place / "films"), "--model", str(place / "tiny")]
    assert main(["evaluate", *where, *named, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(result.to_json())
    assert main(["evaluate", *where, *named]) == 0
    printed = capsys.readouterr().out
    assert "  words: AUROC" in printed
    assert "unrelated words (24;" in printed
    assert "Average" not in printed, "one set has no mean"


def test_several_words_on_one_table_have_no_mean_and_its_images_count_once(place: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(ROWS)
    where: dict[str, Any] = {"images": place / "films", "model": place / "tiny", "num_resamples": 50, "workers": 1}
    one = medclip.evaluate(tmp_path, prompt="pneumonia", label="Pneumonia", **where)
    two = medclip.evaluate(tmp_path, prompt=["pneumonia", "a happy dog"], label=["Pneumonia"] * 2, **where)
    assert [s.value for s in two.sets] == [one.sets[0].value, two.sets[1].value]
    assert two.average is None
    assert [group.mean for group in two.groups] == [None]
    assert not [line for line in two.lines() if line.startswith(("=", "Average"))]
    assert [note for note in two.notes if "training" in note] == [note for note in one.notes if "training" in note]


@pytest.mark.parametrize("prompt", ["pneumonia", "a film of a child with pneumonia"])
def test_its_sentences_are_those_that_a_run_of_scores_asks(place: Path, prompt: str) -> None:
    folder, suite = words_suite(place / "films" / "truth.csv", read_prompts(prompt), ["Pneumonia"])
    assert folder == place / "films"
    absent, present = suite.sets[0].prompts()
    templates = ("{}", "X-ray image: {}", "an X-ray image with {}") if prompt == "pneumonia" else ("{}",)
    assert present == tuple(one.format(prompt) for one in templates)
    assert absent[0] == f"no {prompt.removeprefix('a ')}"


def test_words_that_make_no_name_of_a_set_are_numbered(place: Path) -> None:
    prompts = read_prompts(["вода", "mass!", "mass?"])
    _, suite = words_suite(place / "films" / "truth.csv", prompts, ["Pneumonia"] * 3)
    assert [one.id for one in suite.sets] == ["prompt_1", "mass", "prompt_3"]


@pytest.mark.parametrize(
    ("label", "reason", "message"),
    [
        (["Pneumonia", "finding"], Reason.WRONG_USE, "1 and 2 were given"),
        (["pneumonea"], Reason.TABLE_INVALID, "there is no column 'pneumonea'"),
        (["finding"], Reason.TABLE_INVALID, "has 'mass', which is neither 1 nor 0. Name the value"),
        (["finding=Mass"], Reason.TABLE_INVALID, "asked for is 'Mass'; case counts"),
        (["empty"], Reason.TABLE_INVALID, "has no row for which the prompt is true"),
    ],
)
def test_a_column_that_does_not_say_whether_the_prompt_is_true_is_refused(
    place: Path, label: list[str], reason: Reason, message: str
) -> None:
    with pytest.raises(MedclipError) as e:
        words_suite(place / "films" / "truth.csv", read_prompts("pneumonia"), label)
    assert e.value.reason is reason
    assert message in str(e.value)


@pytest.mark.parametrize(("cells", "message"), [("xray,ct", "several modalities: CT and X-ray"), (",", "nothing says")])
def test_rows_of_several_modalities_or_of_none_are_refused(tmp_path: Path, cells: str, message: str) -> None:
    first, second = cells.split(",")
    (tmp_path / "t.csv").write_text(f"file,x,modality\na.png,1,{first}\nb.png,0,{second}\n")
    with pytest.raises(MedclipError, match=message):
        words_suite(tmp_path / "t.csv", read_prompts("fluid"), ["x"])
    if cells == ",":
        _, suite = words_suite(tmp_path / "t.csv", read_prompts("fluid"), ["x"], modality="ultrasound")
        assert suite.sets[0].modality == "ultrasound"


@pytest.mark.parametrize(
    "options", [{"label": "x"}, {"prompt": "fluid"}, {"prompt": "fluid", "label": "x", "suite": "mini"}]
)
def test_words_labels_and_suites_stand_together_or_not_at_all(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(MedclipError) as e:
        medclip.evaluate(tmp_path, **options)
    assert e.value.reason is Reason.WRONG_USE
