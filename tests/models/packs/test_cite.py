"""`medclip.models.cite`: works from the card, words where the card has no works, and what nobody knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import main
from medclip.models.packs.card import ADAPTED_FROM, FILE_NAME, MERGED_FROM, STARTED_FROM, Card
from medclip.models.packs.manifest import pack_digest, seal
from medclip.models.packs.pack import find_pack
from tests.kits.bibtex import Entry, read_entries

GLAS = {"key": "glas2017", "type": "article", "of": ["glas"], "fields": {"title": "Glands", "author": "S, K"}}
OWN = {"key": "mine", "type": "software", "fields": {"title": "{Mine}", "year": "2026", "author": "{Us}"}}
DATA = [
    {"name": "glas", "licence": "research only", "num_images": 40},
    {"name": "site_a", "source": "films of site A @ 12ab & more", "licence": "none stated", "num_images": 3},
    {"name": "site_a", "source": "films of site A @ 12ab & more", "licence": "CC0", "num_images": 4},
]


def pack_of(folder: Path, **card: Any) -> Path:
    """Write a folder with a card and a manifest: all that is asked to cite a pack."""
    folder.mkdir()
    fields = {"name": "mine", "version": "1", "licence": "MIT", **card}
    (folder / FILE_NAME).write_text(Card.model_validate(fields).to_json(), encoding="utf-8")
    seal(folder, {})
    return folder


def entries_of(folder: Path) -> dict[str, Entry]:
    return {entry.key: entry for entry in read_entries(medclip.models.cite(folder).bibtex)}


def test_the_built_in_pack_is_cited_with_version_terms_and_hash_and_every_set_has_an_entry() -> None:
    card, cited = medclip.models.show("medclip-mini"), medclip.models.cite("medclip-mini")
    entries = read_entries(cited.bibtex)
    assert entries[0].type == "software"
    assert entries[0].fields["version"] == card.version
    assert card.licence in entries[0].fields["note"]
    assert pack_digest(find_pack("medclip-mini")) in entries[0].fields["note"]
    assert {source.name for source in card.data} <= {name for work in cited.citations for name in work.of}
    assert {"image_tower", "text_teacher"} & {name for work in cited.citations for name in work.of}
    assert bool(cited.notes) is not bool(card.citations)


def test_works_of_the_card_are_written_and_data_without_one_in_its_own_words(tmp_path: Path) -> None:
    pack = pack_of(tmp_path / "p", data=DATA, citations=[GLAS, OWN])
    entries = entries_of(pack)
    assert list(entries) == ["mine", "glas2017", "site_a"]
    assert entries["mine"].fields["author"] == "{Us}"
    assert entries["mine"].fields["version"] == "1"
    assert entries["site_a"].fields["title"] == r"films of site A @ 12ab \& more"
    cited = medclip.models.cite(pack)
    assert cited.notes == ("Of site_a its card names no work to cite: the entry is what it says in words.",)
    assert (
        "% site_a: 7 images; licence: none stated / CC0; films of site A at 12ab & more\n@misc{site_a" in cited.bibtex
    )
    assert "% glas: 40 images; licence: research only\n@article{glas2017" in cited.bibtex


def test_a_card_of_before_says_that_it_names_no_works(tmp_path: Path) -> None:
    cited = medclip.models.cite(pack_of(tmp_path / "p", data=DATA, licence=""))
    assert [work.key for work in cited.citations] == ["mine-1", "glas", "site_a"]
    first, second, third = cited.notes
    assert "no works to cite" in first
    assert second == "Its card states no licence of the weights."
    assert third == "Its card does not say in which year it was published."
    assert cited.bibtex.startswith(f"% {first}\n% {second}\n% {third}\n\n@software{{mine-1,")


def test_of_an_imported_pack_nothing_is_known_of_the_data_and_that_is_said(tmp_path: Path) -> None:
    cited = medclip.models.cite(pack_of(tmp_path / "p", created_from={"imported_from": "hf-hub:lab/model"}))
    assert cited.notes[0] == (
        "Nothing is known of the data that it was trained on: its card names none. "
        "It was imported from hf-hub:lab/model; look there."
    )
    (entry,) = read_entries(cited.bibtex)
    assert "imported from hf-hub:lab/model" in entry.fields["note"]


@pytest.mark.parametrize(
    ("created_from", "key", "title"),
    [
        ({STARTED_FROM: "old (0123)"}, "started_from", "old (0123)"),
        ({"image_tower_of": "mae (0123)"}, "image_tower_of", "mae (0123)"),
        ({"text_teacher": "MiniLM"}, "text_teacher", "MiniLM"),
        ({MERGED_FROM: [{"name": "a", "version": "2", "manifest": "ab12"}]}, "a-2", "a"),
        ({ADAPTED_FROM: "old 1"}, "adapted_from", "old 1"),
    ],
)
def test_what_a_pack_goes_back_to_has_an_entry_unless_a_work_of_the_card_is_of_it(
    tmp_path: Path, created_from: dict[str, Any], key: str, title: str
) -> None:
    entries = entries_of(pack_of(tmp_path / "p", data=DATA, created_from=created_from))
    assert entries[key].fields["title"] == title
    name = "a 2" if MERGED_FROM in created_from else next(iter(created_from))
    work = {"key": "known", "of": [name], "fields": {"title": "The known one"}}
    entries = entries_of(pack_of(tmp_path / "q", data=DATA, created_from=created_from, citations=[work]))
    assert key not in entries
    assert entries["known"].fields["title"] == "The known one"


def test_a_hostile_card_begins_no_entry_and_drives_neither_latex_nor_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a}\n@comment{\\write18{rm}\x1b[2J\u202e @misc{x,"
    data = [{"name": evil, "source": evil, "licence": evil, "num_images": 1}]
    created = {"image_tower": evil, MERGED_FROM: [{"name": evil, "version": evil, "manifest": evil}, 3]}
    pack = pack_of(tmp_path / "p", name=evil, licence=evil, data=data, created_from=created)
    assert [entry.type for entry in entries_of(pack).values()] == ["software", "misc", "misc", "software"]
    for options in ([], ["--json"]):
        assert main(["models", "cite", str(pack), *options]) == 0
        shown = capsys.readouterr().out
        assert [c for c in shown if not c.isprintable() and c != "\n"] == []
    text = medclip.models.cite(pack).bibtex
    assert not [line for line in text.splitlines() if "\\write" in line and not line.startswith("% ")]


def test_the_command_prints_the_text_and_with_json_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = pack_of(tmp_path / "p", data=DATA, citations=[GLAS, OWN])
    assert main(["models", "cite", str(pack)]) == 0
    printed = capsys.readouterr().out
    cited = medclip.models.cite(pack)
    assert printed == cited.bibtex
    assert main(["models", "cite", str(pack), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["name"], values["licence"], values["sha256"]) == ("mine", "MIT", pack_digest(pack))
    assert values["bibtex"] == printed
    assert [one["of"] for one in values["citations"]] == [[], ["glas"], ["site_a"]]
    assert main(["models", "cite", str(tmp_path / "absent")]) == 2


def test_the_result_shows_itself(tmp_path: Path) -> None:
    cited = medclip.models.cite(pack_of(tmp_path / "p", data=DATA, citations=[GLAS, OWN]))
    assert len(repr(cited).splitlines()) < 10
    assert "licence of the weights: MIT" in repr(cited)
    assert cited.to_pandas()["of"].tolist() == ["the pack itself", "glas", "site_a"]
    assert "Glands" in cited._repr_html_()


def test_a_merged_pack_carries_the_works_of_all_and_each_of_them(tmp_path: Path) -> None:
    from medclip.models.merging.ingredients import read_ingredient
    from medclip.models.merging.merge import merged_card

    packs = []
    for name, works in (("a", [GLAS, OWN]), ("b", [GLAS, OWN | {"key": "other"}])):
        pack = shutil.copytree(find_pack("medclip-mini"), tmp_path / name)
        card = Card.model_validate({"name": name, "version": "1", "data": DATA[:1], "citations": works})
        (pack / FILE_NAME).write_text(card.to_json(), encoding="utf-8")
        seal(pack, {})
        packs.append(read_ingredient(pack))
    card = merged_card(packs, name="m", version="1", how="a uniform soup", facts={}, line=[])
    assert [(work.key, work.of) for work in card.citations] == [
        ("glas2017", ("glas",)),
        ("mine", ("a 1",)),
        ("other", ("b 1",)),
    ]
    assert [work.fields["note"][-64:] for work in card.citations[1:]] == [pack_digest(one.path) for one in packs]
    entries = entries_of(pack_of(tmp_path / "m", **card.model_dump()))
    assert list(entries) == ["m-1", "glas2017", "mine", "other"]
