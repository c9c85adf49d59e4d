"""What a user writes, one call of every verb. It is never run: pyright checks it as it would check the user's file."""

from __future__ import annotations

from pathlib import Path

import medclip

images, labels, out = Path("images"), Path("labels.csv"), Path("out")


def calls() -> list[Path | float | str | int | None]:
    """Call each verb, and use what it returns."""
    scores = medclip.score(images, out, model="anatomy-x1", task="chest_xray_findings", workers=2)
    one = medclip.score("film.dcm", prompt="a chest x-ray with pneumonia", against="a normal chest x-ray")
    vectors = medclip.embed(images, out, dtype="float16", device="cuda", batch_size=32)
    again = medclip.score(vectors, prompt={"device": ["a pacemaker", "a lead"]}, against={"device": "no device"})
    retried = medclip.retry(out, reason="timeout", workers=2)
    sent = medclip.score(
        images,
        out,
        export=["csv", "sr=dicomwebs://pacs.example/dicom-web"],
        report={"sort_by": "chest_xray_view:pa", "explain": "top"},
        reading={"uneven_slices": "resample", "mpp_um": 0.5},
    )
    repeated = medclip.score(images, "again", recipe=out / "run.json", task=["chest_xray_findings"])
    hashed = medclip.retry(out, path=images, table="table.csv", exclude=["left"], limit=100, recipe="retry.yaml")
    page = medclip.runs.report(out, sort_by="chest_xray_view:pa", explain="top", report_paths=True, images=images)
    for_others = medclip.runs.export(out, as_=["sr", "sc"], to="results")
    far = medclip.runs.status(folder=out)
    whole = medclip.runs.merge([out / "1", out / "2"], out)
    purged = medclip.runs.purge(out, older_than="30d", remove="thumbnails", yes=True)
    router = medclip.watch(images, out, settle_s=30.0, once=True, model="anatomy-x1")
    scan = medclip.scan(images, modality="xray")
    study = medclip.open_study("study.dcm", medclip.Modality.CT)
    drawn = medclip.view(images, out, number=2)
    adapted = medclip.adapt(labels, "pneumonia", out=out, shots=16, patient="patient", overrides={"steps": 9})
    comparison = medclip.compare(labels, ["pneumonia", "effusion"], out=out, method=["lda"], shots=[1, 16], num_seeds=3)
    audit = medclip.audit("scores.parquet", labels, by=["sex", "age"], label=["pneumonia"], out=out)
    suite = medclip.evaluate(images, suite="unimed", dataset="brain_mri", compare="rival", prompt_sensitivity=True)
    planned = medclip.audit("audit.yaml", seed=3, num_permutations=2000, where={"split": "test"}, age_bins=[0, 40, 60])
    run = medclip.pretrain("recipe.yaml", overrides=["train.epochs=2"], out=out, resume=True)
    health = medclip.doctor(settings=medclip.Settings(workers=1))
    hits = medclip.search(
        "embeddings", ["a pacemaker", "a device"], like="film.dcm", against="a tube", where={"sex": "F"}
    )
    maps = medclip.explain(
        "film.dcm", prompt=["effusion", "a pacemaker"], task="chest_xray_findings:pneumonia", out=out
    )
    watched = medclip.monitor([scores, "june"], before=Path("may"), compare=vectors, period="week", out=out)
    ranked = medclip.rank_captions(["a film", "a scan"], like="film.dcm", embeddings="embeddings", num_hits=1)
    built = medclip.shards.build(labels, out, splits={"train": 0.8, "val": 0.2}, group="exam", max_side_px=512)
    planned = medclip.shards.build(labels, out, dry_run=True).planned
    indexed = medclip.shards.index(images, source="a set", license_="CC0", keep_textless=True)
    checked = medclip.shards.check(out, patient="patient").ok
    captioned = medclip.pairs.captions(labels, out, from_="ecg", num_captions=2, language="de")
    kept = medclip.pairs.select(out, steps="select.yaml", out="kept.parquet", split="train", workers=2).num_kept
    both = medclip.pairs.intersect(["a.parquet", "b.parquet"], out="both.parquet", overwrite=True)
    either = medclip.pairs.union(["a.parquet", Path("b.parquet")], out="either.parquet").selection
    figures = medclip.pairs.from_articles(images, out, license=["commercial"], splits={"train": 1.0}).num_samples
    grouped = medclip.pairs.cluster("figures", out, model="medclip-mini", num_clusters=200).sizes
    labelled = medclip.pairs.label(out, labels, "labels.parquet", sample=5, checked="checked.csv").precision
    pile = medclip.pairs.look(out, "look", evaluation=["held_out", Path("e.csv")], model="medclip-mini", examples=0)
    rewritten = medclip.pairs.rewrite("reports.csv", out, steps=Path("rewrite.yaml"), agent="rules").num_negatives
    tuned = medclip.finetune(labels, ["effusion", "mass"], model="vit_small_patch16_224", out=out, val_share=0.2)
    pairs = medclip.pathgen(
        images,
        out,
        organ="colon",
        table="slides.csv",
        num_by_clusters=64,
        stain="macenko",
        agent="endpoint",
        endpoint="http://localhost:8000/v1",
        endpoint_model="vlm",
        splits={"train": 1.0},
        patch_mpp_um=0.5,
        reading=["mpp_um=0.25"],
        image_format="jpeg",
        recipe="pathgen.yaml",
    )
    places = medclip.slides.places(images, out, size_px=224, patch_mpp_um=0.5, by_piece=True, geojson=False)
    tissue = medclip.slides.tissue(
        images, out, table="slides.csv", reading={"mpp_um": 0.25}, stage_to="/fast", add=True
    )
    slides = medclip.slides.embed(images, out, patch_mpp_um=1.0, stain="hed", qc=True, device="cuda", dtype="float16")
    head = medclip.slides.learn(slides.store, labels, ["er", "pr"], out=out, compare=["mean"], num_folds=3, patient="p")
    answers = medclip.slides.predict(slides.store, out=out, head=head.head, images=images, dicom=True)
    slide_tables = medclip.slides.export(out, "anndata", as_="spatialdata", overwrite=True)
    pack = medclip.models.import_("clip.pt", out, architecture="ViT-B-32", preset="pathgen-clip", mean=[0.5, 0.5, 0.5])
    calibrated = medclip.models.calibrate(pack, images=images, num_run_images=500, candidate=["onnx"], modality="xray")
    merged = medclip.models.merge([pack, "b"], out=out, method="greedy-soup", shards="shards", test_split=None)
    exported = medclip.models.export(medclip.models.load("a"), out)
    decided = medclip.models.set_thresholds(pack, {"mass": 0.5}, task="mammography_mass", out=out)
    facts = (medclip.models.list(), medclip.models.show(pack), medclip.models.cite(), medclip.models.verify(pack))
    sheet = medclip.ecg.render("record.hea", "sheet.png", layout="6x2", photograph=True, seed=3, map_out="sheet.json")
    read = medclip.ecg.digitise("sheet.png", "read.csv", min_lead_confidence=0.8, together=True)
    results = (
        watched,
        pack,
        calibrated,
        merged.held_out,
        exported.notes,
        decided.tasks,
        facts,
        medclip.models.presets(),
        sheet.map,
        read.all_sure,
        ranked,
        ranked.hits[0].caption,
        built.counts_by_split,
        planned,
        indexed,
        checked,
        captioned.languages,
        kept,
        both.num_kept,
        either,
        hits.hits[0].caution,
        scores,
        one,
        vectors,
        again,
        hits,
        maps,
        scan,
        study,
        drawn,
        adapted,
        comparison,
        audit,
        planned,
        suite,
        run,
        tuned,
        health,
        pairs,
        figures,
        grouped,
        labelled,
        pile.findings,
        rewritten,
        places,
        tissue,
        answers,
        slide_tables,
        retried,
        router,
        sent,
        repeated,
        hashed,
        page.report_path,
        for_others.written["sr"],
        far.state,
        whole.counts,
        purged.exit_code,
    )
    return [run.pack, *(repr(result) for result in results)]
