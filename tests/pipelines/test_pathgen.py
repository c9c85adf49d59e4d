"""pipelines/pathgen: what its recipes say, what the drawn tissue is, and that the stages fit together."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import medclip
from medclip.imaging.slides.nuclei import measure_nuclei
from medclip.imaging.slides.readers.open import open_slide
from medclip.models.packs.pack import load_model
from medclip.training.recipe.schema import load_recipe
from tests.kits.layouts import BPE_TEXT, VIT, hub_folder, plain_state, random_model
from tests.kits.loaded_python import Programs
from tests.kits.recipe_tags import untagged

FOLDER = Path(__file__).resolve().parents[2] / "pipelines" / "pathgen"


@pytest.fixture(scope="module")
def drawn():
    sys.path.insert(0, str(FOLDER))
    import drawn_tissue  # pyright: ignore[reportMissingImports]

    yield drawn_tissue
    sys.path.remove(str(FOLDER))
    sys.modules.pop("drawn_tissue", None)


@pytest.mark.parametrize("name", ["stage_1.yaml", "stage_2.yaml"])
def test_each_value_of_a_recipe_says_where_it_comes_from(name: str) -> None:
    assert not untagged(FOLDER / name)


def test_stage_2_goes_on_from_stage_1_on_its_pairs_and_on_those_of_slides() -> None:
    first, second = (load_recipe(FOLDER / f"stage_{n}.yaml") for n in (1, 2))
    assert second.data.shards == (*first.data.shards, "runs/pathgen/captioned/shards")
    assert (first.model.start, second.model.start) == ("ViT-B-16-quickgelu:openai", "runs/pathgen/stage_1/pack")
    before, after = first.decisive(), second.decisive()
    assert {key for key in before if before[key] != after[key]} == {
        "name",
        "model.start",
        "train.warmup_steps",
    }


def test_both_stages_contrast_whole_captions_with_every_other_one_as_the_reference_does() -> None:
    for name in ("stage_1", "stage_2"):
        recipe = load_recipe(FOLDER / f"{name}.yaml")
        assert (recipe.compat, recipe.objective.loss, recipe.objective.same_text) == ("open_clip", "clip", "negative")
        assert (recipe.data.native, recipe.data.native_share) == ("whole", 1.0)
        assert recipe.augment.flip == 0
        assert recipe.objective.masked is None
        assert not recipe.objective.supervised


def test_the_recipes_train_one_after_the_other_and_the_pack_keeps_quick_gelu(drawn, tmp_path: Path) -> None:
    """As they are, but for a tiny CLIP in the place of OpenAI's, one process, and two steps."""
    patches = drawn.write_patches(tmp_path / "pairs", (drawn.GLANDS, drawn.TUMOUR), 8, seed=5)
    rows = [f'{name},{patient},pathology,"{drawn.CAPTIONS[kind][0]}"' for name, kind, patient in patches]
    (tmp_path / "pairs" / "table.csv").write_text("\n".join(["file,patient,modality,caption", *rows]) + "\n")
    shards = medclip.shards.build(tmp_path / "pairs" / "table.csv", tmp_path / "shards", splits={"train": 1.0})
    assert shards.num_samples == 8
    config = {"embed_dim": 8, "vision_cfg": VIT, "text_cfg": BPE_TEXT, "quick_gelu": True}
    hub_folder(tmp_path / "clip", config, plain_state(random_model(config)), "open_clip_model.safetensors")
    small = ["train.device=cpu", "train.precision=fp32", "train.batch_size=4", "train.micro_batch=2", "data.workers=1"]
    small += ["data.worker_kind=thread", "train.max_steps=2", f"data.shards=[{tmp_path / 'shards'}]", "train.threads=1"]
    start = tmp_path / "clip"
    for stage in (1, 2):
        recipe = load_recipe(FOLDER / f"stage_{stage}.yaml", [*small, f"model.start={start}"])
        run = medclip.pretrain(recipe, out=tmp_path / f"stage_{stage}")
        assert run.steps == 2
        assert run.pack is not None
        model_cfg = json.loads((run.pack / "open_clip_config.json").read_text())["model_cfg"]
        assert model_cfg["quick_gelu"] is True
        assert model_cfg["text_cfg"]["context_length"] == 77
        start = run.pack
    assert load_model(start).card.modalities == ("pathology",)


def test_a_drawn_tumour_lies_where_its_layout_says_and_has_larger_nuclei_than_what_is_around(drawn) -> None:
    kinds = drawn.lay_out(900, 1200, drawn.GLANDS, 0.15, seed=3)
    tumour, tissue = kinds == drawn.TUMOUR, kinds != drawn.GLASS
    assert tumour.sum() / tissue.sum() == pytest.approx(0.15, abs=0.02)
    image = drawn.draw(kinds, seed=3)
    assert image[~tissue].min() > 200  # glass is bright
    size = {}
    for kind in (drawn.GLANDS, drawn.TUMOUR):
        rows, columns = np.nonzero(kinds == kind)
        top, left = (int(np.median(side)) - 64 for side in (rows, columns))
        if kind == drawn.GLANDS:
            top, left = 150, 350
        assert (kinds[top : top + 128, left : left + 128] == kind).mean() > 0.9
        size[kind] = measure_nuclei(image[top : top + 128, left : left + 128], drawn.MPP_UM).median_um2
    assert size[drawn.TUMOUR] > 1.5 * size[drawn.GLANDS]


def test_equal_seeds_draw_equal_tissue_and_every_patient_has_a_stain_of_its_own(drawn) -> None:
    kinds = np.full((128, 128), drawn.STROMA, np.int8)
    assert np.array_equal(drawn.draw(kinds, 1), drawn.draw(kinds, 1))
    assert len({tuple(drawn.draw(kinds, seed).mean((0, 1)).round(1)) for seed in range(4)}) == 4


def test_drawn_slides_state_their_scale_and_every_second_one_has_a_tumour(drawn, tmp_path: Path) -> None:
    rows = drawn.write_slides(tmp_path, 4, height=512, width=640)
    assert [row["label"] for row in rows] == ["normal", "tumour", "normal", "tumour"]
    assert [row["organ"] for row in rows] == ["colon", "colon", "lymph node", "lymph node"]
    assert len({row["patient"] for row in rows}) == 4
    for row in rows:
        with open_slide(tmp_path / row["file"]) as slide:
            assert slide.mpp_um == pytest.approx((0.5, 0.5))


@pytest.mark.nightly
def test_the_smoke_run_goes_from_slides_to_measured_tasks_and_again_does_nothing(
    programs: Programs, tmp_path: Path
) -> None:
    env = programs.environment(os.environ) | {"MEDCLIP_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    run = tmp_path / "run"
    command = ["bash", str(FOLDER / "run.sh"), "--smoke", str(run)]
    first = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert first.returncode == 0, first.stderr[-3000:]
    for stage in ("stage_1", "stage_2"):
        assert (run / stage / "pack" / "manifest.json").is_file()
    with (run / "wsi" / "CAMELYON16" / "head" / "figures.csv").open(newline="") as file:
        assert {row["pooling"] for row in csv.DictReader(file)} == {"acmil", "abmil", "mean"}
    files = {path: path.read_bytes() for path in run.rglob("*") if path.name in ("report.html", "index.json")}
    assert len(files) == 4  # two runs, two folders of shards
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "Training" not in again.stdout + again.stderr
    assert {path: path.read_bytes() for path in files} == files
