"""Adapted models: merged, kept small, written as packs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.adaptation.data.heads import LinearHead, text_head
from medclip.adaptation.methods import Fitted
from medclip.adaptation.pack.adapted_model import Adapted, Draw, Shot, label_of
from medclip.adaptation.pack.pack_head import read_pack_heads, read_pack_texts
from medclip.adaptation.pack.write_pack import adapted_card, check_place, write_pack
from medclip.adaptation.towers.methods import apply_delta
from medclip.api.models import cite
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from medclip.models.packs.card import Card, read_card
from medclip.models.packs.manifest import pack_digest
from medclip.models.packs.pack import load_model, update_pack, verify_pack
from tests.kits.adapt_tables import findings, make_pack, tiny, views

__all__ = ["tiny"]
SHOTS = (
    Shot("ab" * 32, "11" * 8, "train", "ap"),
    Shot("cd" * 32, "22" * 8, "train", "pa"),
    Shot("ef" * 32, "33" * 8, "val", "pa"),
)
PIXELS = [np.random.default_rng(n).integers(0, 255, (1 + n % 2, 64, 64, 3)).astype(np.uint8) for n in range(5)]


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return load_model(tiny)


def with_head(model: Model) -> Adapted:
    rng = np.random.default_rng(3)
    head = LinearHead(rng.normal(size=(24, 2)).astype(np.float32), np.array([0.5, -0.5], np.float32))
    return Adapted(model, "linear-probe", views(), Fitted(head, 50, {"c": 1.0}), SHOTS, Draw(1, 3, 4), ("xray",))


def with_towers(model: Model) -> Adapted:
    """Norms that moved."""
    delta = {n: p.detach() * 1.25 + 0.01 for n, p in model.clip.named_parameters() if p.ndim == 1 and "ln_" in n}
    assert delta
    clip = apply_delta("norm", model.clip, delta, {})
    return Adapted(
        model,
        "norm",
        views(),
        Fitted(text_head(views().vectors(model), model.logit_scale), 9, {}, clip, delta),
        SHOTS,
        Draw(1, 0, 0),
        ("xray",),
    )


def files(folder: Path) -> Mapping[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("make", [with_head, with_towers])
def test_a_pack_gives_the_logits_of_before_bit_for_bit(make, model: Model, tmp_path: Path):
    adapted = make(model)
    pack = write_pack(adapted, tmp_path / "pack")
    verify_pack(pack)
    loaded, (own,) = load_model(pack), read_pack_heads(pack, read_card(pack)).values()
    again = Adapted(loaded, adapted.method, own.text, Fitted(own.head, 0), (), Draw(1, 0, 0))
    np.testing.assert_array_equal(again.predict_logits(PIXELS), adapted.predict_logits(PIXELS))
    assert own.text == adapted.text


@pytest.mark.parametrize("make", [with_head, with_towers])
def test_the_small_checkpoint_gives_them_too_and_holds_only_what_was_learned(make, model: Model, tiny, tmp_path: Path):
    adapted = make(model)
    folder = adapted.save(tmp_path / "small")
    assert sorted(p.name for p in folder.iterdir()) == ["adapted.json", "adapted.safetensors"]
    assert sum(p.stat().st_size for p in folder.iterdir()) < 20_000
    loaded = Adapted.load(folder, tiny)
    np.testing.assert_array_equal(loaded.predict_proba(PIXELS), adapted.predict_proba(PIXELS))
    assert (loaded.shots, loaded.draw, loaded.text, loaded.ways) == (
        adapted.shots,
        adapted.draw,
        adapted.text,
        adapted.ways,
    )
    assert files(loaded.save(tmp_path / "again")) == files(folder)
    assert files(write_pack(loaded, tmp_path / "p1")) == files(write_pack(adapted, tmp_path / "p2"))


def test_a_checkpoint_is_refused_on_another_base_and_both_are_named(model: Model, tmp_path: Path):
    folder = with_head(model).save(tmp_path / "small")
    other = make_pack(tmp_path / "other", name="second", version="2")
    with pytest.raises(MedclipError, match=r"on top of tiny 7 .*the base given is second 2") as refused:
        Adapted.load(folder, other)
    assert refused.value.reason is Reason.PACK_INVALID


@pytest.mark.parametrize("damage", ["missing", "not json", "a key less", "no head"])
def test_a_damaged_checkpoint_is_refused(damage: str, model: Model, tmp_path: Path):
    folder = with_head(model).save(tmp_path / "small")
    description = folder / "adapted.json"
    if damage == "missing":
        (folder / "adapted.safetensors").unlink()
    elif damage == "not json":
        description.write_text("{")
    else:
        values = json.loads(description.read_text())
        values |= {"head": "another"} if damage == "no head" else {"draw": {}}
        description.write_text(json.dumps(values))
    with pytest.raises(MedclipError) as refused:
        Adapted.load(folder, model)
    assert refused.value.reason is Reason.PACK_INVALID


def test_unchanged_towers_keep_the_bases_bytes_tasks_and_guard_and_changed_ones_do_not(model: Model, tmp_path: Path):
    base = files(model.path)
    head, towers = (write_pack(make(model), tmp_path / name) for name, make in (("h", with_head), ("t", with_towers)))
    assert files(head)["model.safetensors"] == base["model.safetensors"]
    assert list(read_card(head).tasks) == ["chest_xray_view", "modality"]
    assert files(towers)["model.safetensors"] != base["model.safetensors"]
    assert list(read_card(towers).tasks) == ["chest_xray_view"]
    assert files(model.path) == base


def test_the_shots_are_on_the_list_of_training_files_and_in_a_table_without_paths(model: Model, tmp_path: Path):
    pack = write_pack(with_head(model), tmp_path / "pack")
    assert (pack / "train_hashes.txt").read_text().split() == sorted(["00", *(s.sha256 for s in SHOTS)])
    assert (pack / "patient_hashes.txt").read_text().split() == sorted(["ff", *(s.patient for s in SHOTS)])
    lines = (pack / "shots.csv").read_text().splitlines()
    assert lines[:2] == ["sha256,patient,role,label", f"{'ab' * 32},{'11' * 8},train,ap"]
    assert len(lines) == 4


def test_the_card_says_what_it_was_made_of(model: Model):
    figure = {"balanced_accuracy": {"adapted": {"value": 0.9}, "zero_shot": {"value": 0.5}}}
    card = adapted_card(with_towers(model), metrics=figure)
    assert card.name == "tiny-chest_xray_view-norm"
    assert "adapted to “Chest X-ray view” with LayerNorm tuning, from 2 files of 2 patients" in card.summary
    assert card.adapted.model_dump(exclude={"base_digest", "settings", "deviations"}) == {
        "task": "chest_xray_view",
        "method": "norm",
        "title": "LayerNorm tuning",
        "head": "linear",
        "changed_towers": True,
        "base": "tiny",
        "base_version": "7",
        "shots": 1,
        "seed": 0,
        "init_seed": 0,
        "num_train": 2,
        "num_val": 1,
        "num_in_training": 0,
        "num_train_by_class": {"ap": 1, "pa": 1},
        "num_trainable": 9,
        "shots_file": "shots.csv",
    }
    assert "Features are not mixed by slerp." in card.adapted.deviations
    assert [s.name for s in card.data] == ["noise", "shots of the adaptation"]
    assert card.tasks["chest_xray_view"].metrics == figure
    assert any("towers are not those of tiny any more" in limit for limit in card.limits)


def test_the_works_of_the_base_go_along_and_the_base_is_cited_with_its_version_and_hash(tiny: Path, tmp_path: Path):
    base = shutil.copytree(tiny, tmp_path / "base")
    own = {"key": "tiny", "type": "software", "fields": {"title": "Tiny", "year": "2026"}}
    noise = {"key": "noise1999", "of": ["noise"], "fields": {"title": "Of noise"}}
    for works in ([own, noise], []):
        card = Card.model_validate(read_card(base).model_dump() | {"citations": works})
        update_pack(base, card=card)
        pack = write_pack(with_head(load_model(base)), tmp_path / f"with {len(works)} works")
        cited = {name: work for work in cite(pack).citations for name in work.of}
        assert set(cited) == {"noise", "adapted_from", "shots of the adaptation"}
        assert cited["adapted_from"].fields["version"] == card.version
        assert pack_digest(base) in cited["adapted_from"].fields["note"]
        assert cited["adapted_from"].fields["title"] == ("Tiny" if works else card.name)
        assert cited["noise"].key == ("noise1999" if works else "noise")


def test_the_terms_of_the_base_go_along_with_its_towers_and_with_changed_ones(tiny: Path, tmp_path: Path):
    base = shutil.copytree(tiny, tmp_path / "base")
    update_pack(base, extra_files={"LICENSE.txt": b"Pass it on."})
    for number, make in enumerate((with_head, with_towers)):
        pack = write_pack(make(load_model(base)), tmp_path / f"pack{number}")
        assert (pack / "LICENSE.txt").read_text() == "Pass it on."


def test_a_way_of_reading_that_the_base_does_not_know_is_added_and_said(model: Model, tmp_path: Path):
    adapted = with_head(model)
    adapted = Adapted(model, "tip", adapted.text, adapted.fitted, SHOTS, Draw(1, 0, 0), ("pathology:slide",))
    pack = write_pack(adapted, tmp_path / "pack")
    assert "pathology:slide" in load_model(pack).preprocess.adapters
    assert any("pathology (slide): it knows that from the shots only" in limit for limit in read_card(pack).limits)


def test_a_pack_adapted_again_forgets_the_first_head(model: Model, tmp_path: Path):
    first = load_model(write_pack(with_head(model), tmp_path / "first"))
    head = LinearHead(np.ones((24, 2), np.float32), np.zeros(2, np.float32))
    second = Adapted(
        first, "ridge", findings(), Fitted(head, 50), (Shot("99" * 32, "44" * 8, "train", "effusion=1"),), Draw(1, 0, 0)
    )
    pack = write_pack(second, tmp_path / "second")
    assert list(read_card(pack).tasks) == ["chest_xray_findings", "modality"]
    assert {"ab" * 32, "99" * 32, "00"} <= set((pack / "train_hashes.txt").read_text().split())


def test_a_pack_whose_head_or_task_is_damaged_is_refused(model: Model, tmp_path: Path):
    pack = write_pack(with_head(model), tmp_path / "pack")
    card = read_card(pack)
    (pack / "adapted.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(MedclipError, match=r"adapted\.safetensors cannot be read"):
        read_pack_heads(pack, card)
    (pack / "task.yaml").write_text("name: chest_xray_view")
    with pytest.raises(MedclipError) as refused:
        read_pack_texts(pack, card)
    assert refused.value.reason is Reason.PACK_INVALID


def test_the_bases_own_folder_and_a_folder_of_something_else_are_refused(model: Model, tmp_path: Path):
    with pytest.raises(MedclipError, match="the base lies here"):
        check_place(model.path, model.path)
    (tmp_path / "thesis.txt").write_text("mine")
    for write in (with_head(model).save, partial(write_pack, with_head(model))):
        with pytest.raises(MedclipError) as refused:
            write(tmp_path)
        assert refused.value.reason is Reason.OUTPUT_IN_USE


def test_labels_are_written_in_words():
    assert label_of(views(), 1) == "pa"
    assert label_of(findings(), (1.0, None)) == "pneumonia=1"


def test_merging_changes_nothing_in_the_base(model: Model):
    before = {n: p.clone() for n, p in model.clip.state_dict().items()}
    with_towers(model).merge()
    assert all(torch.equal(p, before[n]) for n, p in model.clip.state_dict().items())
