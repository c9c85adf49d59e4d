"""`medclip models import` and `export`: what they print, and that refusals are one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError
from medclip.models.packs.card import Card
from medclip.models.packs.card_sources import ALL, within_figures
from medclip.models.packs.pack import pack_card, update_pack
from medclip.wording import capital
from tests.kits.layouts import BPE_TEXT, VIT, bert_folder, bert_text, hub_folder, plain_state, random_model

CONFIG: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = plain_state(random_model(CONFIG))
    return hub_folder(tmp_path_factory.mktemp("m"), CONFIG, state, "open_clip_model.safetensors")


@pytest.fixture(scope="module")
def pack(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("p") / "quilt"
    assert main(["models", "import", str(source), "--out", str(folder), "--license", "MIT"]) == 0
    return folder


def test_importing_says_what_was_made_and_what_to_do_next(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "quilt"
    code = main(
        [
            "models",
            "import",
            str(source),
            "--out",
            str(out),
            "--modalities",
            "pathology",
            "--modalities",
            "xray",
            "--name",
            "q",
        ]
    )
    assert code == 0
    shown = capsys.readouterr().out
    assert "q: 3 files" in shown
    assert "--prompt" in shown
    assert json.loads((out / "card.json").read_text())["modalities"] == ["pathology", "xray"]


def test_an_imported_pack_is_shown_and_verified(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(pack)]) == 0
    shown = capsys.readouterr().out
    assert "licence:     MIT" in shown
    assert "Nothing was measured" in shown
    assert main(["models", "verify", str(pack)]) == 0
    assert "all as the manifest says" in capsys.readouterr().out


def test_a_recipe_names_the_pack_and_a_folder_is_listed(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "show.yaml"
    recipe.write_text(f"model: {pack}\n")
    assert main(["models", "show", "--recipe", str(recipe)]) == 0
    assert f"({pack})" in capsys.readouterr().out
    assert main(["models", "list", str(pack.parent)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("quilt ")
    assert main(["models", "list", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "There is no model pack in this folder.\n"


def test_the_licence_that_is_shown_is_that_of_the_weights_and_where_it_lies_in_full(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(pack, tmp_path / "copy")
    update_pack(copy, extra_files={"LICENSE.txt": b"As is."})
    for folder, words in ((pack, ""), (copy, ", in full in LICENSE.txt of the pack")):
        assert main(["models", "show", str(folder)]) == 0
        assert f"licence:     MIT; these are the terms of the weights{words}\n" in capsys.readouterr().out


def test_a_card_cannot_drive_the_terminal(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[2J\x9b31m\u202eb"
    copy = shutil.copytree(pack, tmp_path / "copy")
    card = pack_card(copy)
    fields = card.model_dump() | {
        "name": evil,
        "summary": evil,
        "limits": [evil],
        "data": [{"name": evil, "licence": evil}],
    }
    update_pack(copy, card=type(card).model_validate(fields))
    for command in (
        ["models", "show", str(copy)],
        ["models", "show", str(copy), "--json"],
        ["models", "verify", str(copy)],
    ):
        assert main(command) == 0
        shown = capsys.readouterr().out
        assert "2J" in shown or "a\\x1b" in shown
        assert [c for c in shown if not c.isprintable() and c != "\n"] == []
        if "--json" in command:
            assert json.loads(shown)["name"] == evil


def test_a_task_of_the_card_that_nobody_knows_is_refused_as_score_does(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(pack, tmp_path / "copy")
    card = pack_card(copy)
    fields = card.model_dump() | {"tasks": {"no_such_task": {"classes": ["a"]}}}
    update_pack(copy, card=type(card).model_validate(fields))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    refusals = []
    for command in (
        ["models", "verify", str(copy)],
        ["score", str(tmp_path / "in"), "--model", str(copy), "--out", str(tmp_path / "out")],
    ):
        assert main(command) == 2
        refusals.append(capsys.readouterr().err.splitlines()[-1])
    assert "no_such_task" in refusals[0]
    assert refusals[0] == refusals[1]
    with pytest.raises(MedclipError, match="no_such_task"):
        medclip.models.verify(copy)


def test_what_was_tried_and_is_not_claimed_stands_with_its_figure_and_the_reason(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(pack, tmp_path / "copy")
    figure = {"value": 0.54, "low": 0.47, "high": 0.6, "chance": 0.5, "why": "not told from chance"}
    left = {"ecg_superclass": {"mi": figure | {"metric": "auroc"}}, "grade": {"all": figure | {"metric": "kappa"}}}
    update_pack(copy, card=Card.model_validate(pack_card(copy).model_dump() | {"not_claimed": left}))
    assert main(["models", "show", str(copy)]) == 0
    shown = capsys.readouterr().out.partition("\nTried and not claimed, with 95 % intervals\n")[2]
    why = "0.54 (0.47 to 0.60), chance 0.50; not told from chance, so not claimed"
    assert shown.splitlines()[:2] == [f"ecg_superclass, mi: AUROC {why}", f"grade: kappa {why}"]
    assert main(["models", "show", str(pack)]) == 0
    assert "Tried and not claimed" not in capsys.readouterr().out


def verdicts(card: Card) -> list[str]:
    """Return what `models show` says of each task, or finding, by the sources of its images."""
    lines = []
    for task, entry in card.tasks.items():
        for name, figures in entry.sources.items():
            within = within_figures(entry.metrics, entry.sources, name)
            assert [one.source for one in within] == (list(figures.sources) if figures.caution else [])
            of_it = "".join(f" {capital(one.in_words)}." for one in within)  # the built-in pack names one each
            lines.append(f"{task}{'' if name == ALL else f', {name}'}: {figures.in_words}.{of_it}")
    return lines


def test_what_a_card_knows_of_sources_and_notes_stands_below_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show"]) == 0
    figures, _, data = capsys.readouterr().out.partition("\nTraining data")
    assert data
    card = pack_card("medclip-mini")
    said = verdicts(card)
    assert len(said) >= len(card.tasks), "every task of the built-in pack was measured by its sources"
    assert set(said) <= set(figures.splitlines())
    for task, entry in card.tasks.items():
        assert not entry.note or f"{task}: {entry.note}" in figures


def test_packs_are_listed_as_aligned_lines_under_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("medclip-mini ")]
    assert head.split() == ["name", "version", "size", "modalities", "summary"]
    assert line[head.index("summary") :].startswith("Small dual encoder"), "a column begins below its head"
    assert "A demonstration" not in line, "the first sentence is enough of a list"
    assert "\t" not in line
    assert main(["models", "list", "--json"]) == 0
    assert "medclip-mini" in [pack["name"] for pack in json.loads(capsys.readouterr().out)]


def test_a_card_on_a_terminal_is_drawn_and_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "dumb")
    assert main(["models", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 90
    (head,) = [
        number
        for number, line in enumerate(lines)
        if line.split() == ["task", "metric", "value", "interval", "chance", "over"]
    ]
    assert lines[head - 1].startswith("Figures, with 95 % patient-bootstrap intervals")
    shown = " ".join(line.strip() for line in lines)
    assert all(verdict in shown for verdict in verdicts(pack_card("medclip-mini")))
    assert "Where images are counted, nobody knows of how many patients they are." in lines
    (by_source,) = [
        number
        for number, line in enumerate(lines)
        if line.split() == ["task", "pairs", "value", "interval", "chance", "over"]
    ]
    areas = [line for line in lines[by_source + 1 :] if " pooled " in line]
    assert len(areas) == len(verdicts(pack_card("medclip-mini")))
    over = [line.split("  ")[-1].strip() for line in map(str.rstrip, areas)]
    assert all(re.fullmatch(r"\d+ (images|patients|against \d+)", size) for size in over)


def test_an_exported_folder_loads_in_open_clip_by_the_line_that_is_printed(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "export", str(pack), "--out", str(tmp_path / "e")]) == 0
    name = capsys.readouterr().out.split("'")[1]
    assert open_clip.create_model(name).visual.image_size == (32, 32)
    assert main(["models", "export", str(pack), "--out", str(tmp_path / "f"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "f"), "notes": [], "loader": "open_clip"}


def test_json_gives_the_packs_facts(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "import", str(source), "--out", str(tmp_path / "p"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_files"] == 3


def test_a_pack_is_replaced_only_when_asked(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["models", "import", str(source), "--out", str(tmp_path / "p")]
    assert main([*command, "--license", "CC0"]) == 0
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert json.loads((tmp_path / "p" / "card.json").read_text())["licence"] == "CC0"
    assert main([*command, "--overwrite"]) == 0


def test_a_text_model_alone_is_said_to_be_no_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bert = bert_folder(tmp_path / "bert")
    model: Any = random_model({"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text(bert)})
    torch.save(plain_state(model.text.transformer), bert / "pytorch_model.bin")
    assert main(["models", "import", str(bert), "--out", str(tmp_path / "text")]) == 0
    shown = capsys.readouterr().out
    assert "not a pack" in shown
    assert "--text-folder" in shown
    assert main(["models", "import", str(bert), "--out", str(tmp_path / "other"), "--json"]) == 0
    assert "model.safetensors" in json.loads(capsys.readouterr().out)["files"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["import", "no-such-model", "--out", "p"], "no file, folder, pack or open_clip architecture"),
        (["import", "ViT-B-32", "--out", "p"], "no weights to import"),
        (["export", "no-such-pack", "--out", "p"], "no model pack"),
        (["import", "no-such-model", "--out", ""], "names nothing"),
    ],
)
def test_a_refusal_is_one_line_and_code_2(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["models", *arguments]) == 2
    shown = capsys.readouterr().err
    assert word in shown
    assert len(shown.splitlines()) == 1
