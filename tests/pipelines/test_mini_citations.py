"""The works that pipelines/mini puts on the card of the built-in pack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import medclip
from medclip.models.packs.card import Card
from medclip.models.packs.manifest import read_manifest
from medclip.models.packs.pack import find_pack, pack_card, verify_pack
from tests.kits.bibtex import read_entries
from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mini"


@pytest.fixture(autouse=True)
def stages_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def stage(name: str) -> ModuleType:
    return load_stage(FOLDER, name)


def test_every_set_and_every_start_has_a_work_and_every_work_is_of_one_of_them() -> None:
    publish, works = stage("publish"), stage("citations").all_works()
    cited = {name for work in works for name in work.of}
    assert cited == {*publish.SOURCES, *publish.STARTED_FROM, "image_tower_of"}
    assert len({work.key for work in works}) == len(works)
    assert [work.key for work in works if not work.of] == ["medclip-mini"]
    for work in works:
        assert work.fields["author"], work.key
        assert work.of == () or work.fields["year"].isdecimal(), work.key


def test_a_pack_names_the_works_of_what_it_was_made_from_and_no_others() -> None:
    works = stage("citations").works_of(["ptbxl_z", "nih_cxr"], ["seed", "image_tower_of"], year=2026)
    assert [(work.key, work.of) for work in works] == [
        ("medclip-mini", ()),
        ("wang2017chestxray8", ("nih_cxr",)),
        ("wagner2020ptbxl", ("ptbxl_z",)),
        ("he2022mae", ("image_tower_of",)),
    ]
    assert works[0].fields["year"] == "2026"
    _, glas = stage("citations").works_of(["glas_colon, by way of mae"], [])
    assert glas.of == ("glas_colon, by way of mae",)


def test_a_pack_that_began_with_another_tower_did_not_begin_with_imagenet() -> None:
    publish = stage("publish")
    assert set(publish.began_with({"seed": 0})) == {"image_tower", "text_teacher"}
    assert set(publish.began_with({"image_tower_of": "mae (0123)"})) == {"text_teacher"}
    entry = {"name": "nih_cxr, by way of mae", "licence": "x", "num_images": 3, "num_patients": 3}
    assert publish.of_source(entry)["source"] == publish.SOURCES["nih_cxr"]


def test_a_published_pack_gets_its_works_and_its_licence_and_keeps_its_weights(tmp_path: Path) -> None:
    before = read_manifest(find_pack("medclip-mini"))
    pack = shutil.copytree(find_pack("medclip-mini"), tmp_path / "pack")
    fields = json.loads((pack / "card.json").read_text(encoding="utf-8"))
    stage("citations").main(str(pack))
    verify_pack(pack)
    after = read_manifest(pack)
    changed = {name for name in after.files if after.files[name] != before.files.get(name)}
    assert changed <= {"card.json", "LICENSE.txt"}
    card = pack_card(pack)
    assert card.model_copy(update={"citations": ()}) == Card.model_validate(fields | {"citations": []})
    cited = medclip.models.cite(pack)
    assert cited.notes == ()
    assert {name for work in cited.citations for name in work.of} >= {source.name for source in card.data}
    assert len(read_entries(cited.bibtex)) == len(cited.citations)
    assert "LicenseRef-medclip-mini-weights" in (pack / "LICENSE.txt").read_text(encoding="utf-8")
