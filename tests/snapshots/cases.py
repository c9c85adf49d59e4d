"""What is run for the snapshots: every command, as a user types it. An option that is renamed is renamed here.

A case is a few lines, run one after the other in a folder of its own. There `examples` is the folder of examples, and
`in/NAME` an input of `tests.snapshots.inputs`. A line is the words of `medclip`, or a function of that module behind @.
What the lines leave and say is in frozen.json, by the case's name and the line's number: the words are not.
"""

from __future__ import annotations

from collections.abc import Mapping

# What many lines share. `{one}` in a line is one of these.
SHARED: Mapping[str, str] = {
    "one": "--workers 1",
    "tiny": "--model in/pack --workers 1",
    "quick": "--num-resamples 100 --num-permutations 100",
    "films": "--labels in/audited/labels.csv --key film --by sex --by age --age-bins 0,25,50 --patient patient",
    "flu": "audit in/audited/flu.csv --by sex --num-resamples 100 --num-permutations 100",
    "adapt": "adapt --model in/adapting/pack --labels in/adapting/table.csv --label finding --workers 1 --shots 2"
    " --test-share 0.3",
    "compare": "adapt compare --model in/pack --labels in/comparing/labels.csv --label shape --shots 1 --shots 2"
    " --num-seeds 1 --test-share 0.3",
    "tune": "--set model.size_px=48 --set train.epochs=2 --set train.batch_size=8 --set train.threads=1 "
    "--set train.log_every=1 --set data.workers=1",
    "stain": "--size-px 96 --num-by-attributes 2 --num-by-clusters 2 --organ colon --most-cosine 0.9999 --workers 1",
    "splits": "--key-file in/shard_table/key --splits train=0.5,test=0.5",
}

CASES: Mapping[str, tuple[str, ...]] = {
    "names": ("@names",),
    "preprocessing": ("@preprocessing",),
    "built-in pack": ("@packs",),
    "demo": (
        "score examples/studies --out out --recipe in/looks/paths.yaml {one}",
        "score examples/studies --out out --recipe in/looks/paths.yaml {one} --json",
        "status out",
        "status out --json",
    ),
    "score forms": (
        "score examples/studies/chest_pa.dcm --out out --recipe in/looks/pneumonia.yaml --export csv"
        " --export sr=results --export fhir-r4b=results --export sc=results --json {one}",
    ),
    "report and export": (
        "score examples/studies/chest_pa.dcm --out out {one}",
        "report out --report-paths --sort-by chest_xray_findings:pneumonia",
        "report out --json",
        "export out --as sr --as fhir-r5",
        "export out --as csv --json",
    ),
    "score words": (
        "score in/studies --out out {tiny} --prompt 'an X-ray image | a film' --against 'an eye' --prompt 'a glioma'"
        " --against 'no glioma' --no-templates --weeks --hash-paths --modality xray --json",
    ),
    "score tasks": (
        "score in/studies --out out {tiny} --task chest_xray_view --task modality --modality xray --export csv"
        " --no-thumbnails",
    ),
    "score examinations": ("score examples/studies/mammogram --out out --exam --json {one}",),
    "score in part": (
        "score in/studies --out out {tiny} --dry-run",
        "score in/studies --out out {tiny} --dry-run --json",
        "score in/studies --out out {tiny} --limit 3 --json",
    ),
    "score again": (
        "@copy in/studies .given/studies",
        "score .given/studies --out out {tiny}",
        "@copy in/studies/png/0.png .given/studies/new/5.png",
        "score .given/studies --out out {tiny}",
        "score .given/studies --out out {tiny} --add --json",
        "retry out --reason truncated --workers 1 --json",
        "retry out --workers 1",
    ),
    "runs": (
        "score in/studies --out part/1 {tiny} --shard 1/2",
        "score in/studies --out part/2 {tiny} --shard 2/2 --json",
        "status part/1",
        "runs merge part/1 part/2 --out all --workers 1 --json",
        "status all --json",
        "runs purge all",
        "runs purge all --remove thumbnails --remove ledger --yes --json",
    ),
    "watch": (
        "@copy in/studies/png .given/incoming",
        "watch .given/incoming --out out --settle-s 0.1 --once --modality xray {tiny} --json",
    ),
    "embed": (
        "embed in/studies --out vectors --modality xray {tiny} --json",
        "embed in/studies --out half --modality xray --dtype float16 {tiny}",
        "score vectors --out out --model in/pack --json",
        "search vectors 'an X-ray image' 'a film' --against 'an eye' --model in/pack --level unit --json",
        "search vectors 'an X-ray image' --model in/pack --num-hits 3 --out hits.csv --html hits.html",
        "search vectors --like 3 --model in/pack --level unit --where modality=xray --out hits.parquet",
        "captions rank in/captions/captions.txt --like in/studies/png/0.png --modality xray --model in/pack",
        "captions rank in/captions/captions.txt --like in/studies/png/0.png --modality xray --model in/pack --json",
        "runs purge vectors --remove embeddings --yes",
    ),
    "scan": ("scan examples/studies", "scan examples/studies --json", "scan examples/studies --hash-paths --json"),
    "view": (
        "view examples/studies/chest_pa.dcm --out a.png",
        "view examples/studies/mammogram --number 2 --out b.png --json",
        "view examples/studies/fundus.jpg --modality fundus --out c.png",
    ),
    "explain": (
        "explain in/studies/png/0.png --modality xray --model in/pack --prompt 'a film'"
        " --task chest_xray_view:pa --out a",
        "explain examples/studies/chest_pa.dcm --prompt 'pleural effusion' --no-checks --report-paths --out b --json",
    ),
    "adapt": (
        "{adapt} --method tip --out tip",
        "{adapt} --method ridge --out ridge --json --checkpoint small --name mine --seed 3",
        "{adapt} --method svd --set steps=4 --out svd",
        "models show tip",
        "models show tip --json",
        "score in/adapting/clear --model tip --modality xray --out out {one} --json",
    ),
    "adapt compare": (
        "{compare} --method zero-shot --method ridge --method knn --num-resamples 100 --out out",
        "{compare} --method ridge --method svd:lr=1e30 --num-resamples 100 --out failed --json",
    ),
    "pretrain": (
        "pretrain in/recipes/words.yaml --out out --set train.checkpoint_every=1",
        "pretrain in/recipes/words.yaml --out out --set train.checkpoint_every=1 --json",
        "models show out/pack --json",
    ),
    "pretrain masked": ("pretrain in/recipes/masked.yaml --out out --json",),
    "finetune": (
        "finetune --model test_vit --labels in/films/labels.csv --label disc --label bar --patient person --out out"
        " {tune} --key-file in/films/identity.key {one} --json",
        "finetune --model out/pack --labels in/films/labels.csv --label kind --patient person --out classes"
        " {tune} --key-file in/films/identity.key {one}",
    ),
    "evaluate": (
        "evaluate {tiny} --suite in/suite/suite.yaml --data in/suite/data --num-resamples 100 --out out",
        "evaluate {tiny} --suite in/suite/suite.yaml --data in/suite/data --num-resamples 100 --dataset chests"
        " --prompt-sensitivity --compare in/pack --json",
    ),
    "audit": (
        "audit in/audited/scores.csv {films} --where split=test --choose-where split=val --policy youden {quick}"
        " --out out",
    ),
    "audit forms": (
        "{flu} --labels in/audited/truths.csv --where split=test --choose-where split=val --by age --age-bins 0,40,60"
        " --compare in/audited/rival.csv --as chai --as tripod --as claim --out out --json",
        "{flu} --labels in/audited/leaky.csv --where split=test --threshold 0.4 --out .leaky",
        "audit in/audited/audit.yaml --out declared",
        "audit verify out",
        "audit verify out --json",
        "audit diff out .leaky",
        "audit diff out .leaky --json",
        "@write .leaky/report.html nothing",
        "audit verify .leaky",
    ),
    "monitor": (
        "monitor in/watched/later --before in/watched/before --num-resamples 100 --out out",
        "monitor in/watched/later --before in/watched/before --compare in/watched/other --num-resamples 100"
        " --out other --json",
    ),
    "shards": (
        "shards build in/shard_table/table.csv --out s --dry-run",
        "shards build in/shard_table/table.csv --out s {splits} {one} --max-side-px 64 --json",
        "shards check in/shard_table/table.csv {splits} --json",
        "shards check s",
        "shards check s --json",
        "shards build in/shard_table/table.csv --out j --image-format jpeg --quality 80 {splits} {one}"
        " --max-side-px 64",
        "@tar foreign",
        "shards index foreign --source made --license CC0 --modality xray --key-file in/shard_table/key --json",
    ),
    "captions": (
        "pairs captions in/caption_tables/labels.csv --from labels --out a.csv --num-captions 3",
        "pairs captions in/caption_tables/labels.csv --from labels --out b.csv --seed 1 --json",
        "pairs captions in/caption_tables/vindr.csv --from mammography --out c.csv --num-captions 3",
        "pairs captions in/caption_tables/vindr.csv --from mammography --out d.parquet --json",
        "pairs captions in/caption_tables/ptbxl.csv --from ecg --out e.csv --num-captions 2",
        "pairs captions in/caption_tables/ptbxl.csv --from ecg --out f.csv --file {{filename_lr}} --language de --json",
    ),
    "ecg": (
        "ecg render in/record/rec.hea --out a.png --dpi 150 --map-out a.json",
        "ecg render in/record/rec.hea --out b.png --dpi 150 --layout 6x2 --grid blue --photograph --seed 1 --json",
        "ecg digitise a.png --out a.csv --json",
    ),
    "slides": (
        "slides tissue in/sections/slides --out out {one} --json",
        "slides patches in/sections/slides --out out {one} --size-px 128",
        "slides patches in/sections/slides --out other {one} --by-piece --json",
        "slides embed in/sections/slides --out store --model in/sections/pack {one} --qc",
        "slides embed in/sections/slides --out store --model in/sections/pack {one} --qc --json",
        "search store 'a gland' --model in/sections/pack --num-hits 2 --images in/sections/slides --html p.html"
        " --out p.csv",
        "slides export store --out exported --json",
        "slides predict store --task histology_tumour --model in/sections/pack --top-patches 3 --out answers --json",
    ),
    "slides learn": (
        "slides learn in/cohort/store --labels in/cohort/labels.csv --label grade --out head --num-folds 2"
        " --set epochs=6 --set lr=0.003 --num-resamples 50",
        "slides learn in/cohort/store --labels in/cohort/labels.csv --label grade --out mean --num-folds 2"
        " --set epochs=6 --pooling mean --num-resamples 50 --json",
        "slides predict in/cohort/store --head head --out answers",
        "slides predict in/cohort/store --head head --out more --json",
    ),
    "pathgen": ("pathgen in/stained/slides --out out --model in/stained/pack {stain} --json",),
    "models": (
        "models list",
        "models list --json",
        "models show",
        "models show --json",
        "models cite",
        "models cite --json",
        "models verify",
        "models verify --json",
        "models presets",
        "models presets --json",
        "models show in/pack",
    ),
    "models import": (
        "models import in/hub --out a --license MIT --modalities pathology --modalities xray --name q",
        "models import in/hub --out b --resize squash --interpolation bilinear --crop none --json",
        "models show a --json",
        "models export a --out c --json",
        "models export a --out d",
    ),
    "models thresholds": (
        "audit in/audited/scores.csv {films} --where split=test --choose-where split=val {quick} --out .out --json",
        "models set-thresholds in/pack .out/thresholds.json --task chest_xray_findings --out a --json",
        "models set-thresholds in/pack .out/thresholds.json --task chest_xray_findings --out b",
    ),
    "models calibrate": (
        "models calibrate in/pack --images in/films_alike --modality xray --num-images 16 --candidate eager --out out"
        " {one} --json",
    ),
    "models merge": (
        "models merge in/family/child0/pack in/family/child1/pack --out a",
        "models merge in/family/child0/pack in/family/child1/pack --method greedy-soup --shards in/family/shards/s"
        " --num-resamples 20 --out b --json",
        "models merge in/family/child0/pack --base in/family/start/pack --method opcm --out c --json",
    ),
    "doctor": ("doctor --json",),
}
"""The cases by name."""

TRAINED = frozenset({"adapt", "pretrain", "pretrain masked", "finetune", "models merge", "slides learn"})
"""Cases that write weights which were trained here: no hash of such is kept, since another processor has others."""

WRONG: Mapping[str, tuple[str, ...]] = {
    "no command": ("sccore x", "models shw", "adapt nothing", ""),
    "score": (
        "score nowhere --out out",
        "score in/studies",
        "score in/studies --out out --nonsense",
        "score in/studies --out out --model nowhere",
        "score in/studies --out out {tiny} --task nonsense",
        "score in/studies --out in/studies {tiny}",
        "score in/studies --out out {tiny} --workers 0",
        "score in/studies --out out {tiny} --device toaster",
        "score in/studies --out out {tiny} --engine steam",
        "score in/studies --out out {tiny} --shard 3/2",
        "score in/studies --out out {tiny} --prompt a --against b --against c",
        "score in/studies --out out {tiny} --export nonsense",
        "score in/studies --out out {tiny} --recipe in/looks/nonsense.yaml",
        "score in/studies --out out {tiny} --group-by moon",
        "score in/studies --out out {tiny} --table nowhere.csv",
        "score in/studies --out out {tiny} --limit 0",
        "score in/studies --out out {tiny} --memory little",
        "score in/studies --out s3://bucket/x {tiny}",
        "score in/studies --out out {tiny} --key-file nowhere",
    ),
    "report and export wrong": (
        "report nowhere",
        "report in/studies",
        "export nowhere --as sr",
        "export in/studies",
        "export in/studies --as nonsense",
    ),
    "score in use": (
        "score in/studies --out out {tiny}",
        "score in/studies --out out {tiny} --prompt 'a film'",
        "embed in/studies --out out {tiny}",
        "audit in/audited/flu.csv --labels in/audited/truths.csv --by sex --out out",
        "runs merge out --out all",
        "retry out --reason nonsense",
    ),
    "embed": (
        "embed nowhere --out out",
        "embed in/studies --out out --nonsense",
        "embed in/studies --out out {tiny} --dtype int8",
    ),
    "runs": (
        "runs merge nowhere --out out",
        "runs purge nowhere",
        "runs purge in/studies --older-than yesterday",
        "status nowhere",
        "retry nowhere",
        "watch nowhere --out out",
        "watch in/studies --out out --settle-s -1 --once {tiny}",
    ),
    "looking": (
        "scan nowhere",
        "view nowhere --out a.png",
        "view in/studies/png/0.png --modality xray --window foo --out a.png",
        "explain nowhere --prompt a --out out",
        "explain in/studies/png/0.png --out out --model in/pack --prompt a --task b",
        "explain in/studies/png/0.png --out out --model in/pack --modality xray --prompt a --method magic",
        "search nowhere a",
        "search in/studies a",
        "search",
        "captions rank in/captions/captions.txt",
    ),
    "adapt": (
        "{adapt} --method magic --out out",
        "{adapt} --set steps --out out",
        "{adapt} --method tip --set colour=red --out out",
        "{adapt} --task chest_xray_view --out out",
        "{adapt} --out .",
        "adapt --labels nowhere.csv --label a --out out",
        "adapt --labels in/adapting/table.csv --label nonsense --model in/adapting/pack --out out",
        "{compare} --shots one --out out",
        "{compare} --method nonsense --out out",
        "{compare} --method knn:nonsense=1 --out out",
        "{compare} --baseline nonsense --out out",
        "finetune --model test_vit --labels in/films/labels.csv --label nonsense --out out",
        "finetune --model nonsense --labels in/films/labels.csv --label kind --patient person --out out",
        "finetune --model test_vit --labels in/films/labels.csv --label kind --patient person"
        " --set train.nonsense=1 --out out",
    ),
    "pretrain": (
        "pretrain nowhere.yaml --out out",
        "pretrain in/recipes/words.yaml --out out --set train.nonsense=1",
        "pretrain in/recipes/words.yaml --out out --set seed=many",
        "evaluate {tiny} --suite in/suite/suite.yaml --data nowhere",
        "evaluate {tiny} --suite in/suite/suite.yaml --data in/suite/data --dataset ears",
        "evaluate {tiny} --suite nonsense --data in/suite/data",
    ),
    "audit": (
        "audit nowhere --by sex --out out",
        "{flu} --labels in/audited/truths.csv",
        "{flu} --labels in/audited/truths.csv --out out --by planet",
        "{flu} --labels in/audited/truths.csv --out out --where split",
        "{flu} --labels in/audited/truths.csv --out out --threshold 7",
        "{flu} --labels in/audited/truths.csv --out out --threshold 0.5 --choose-where split=val",
        "{flu} --labels in/audited/truths.csv --out out --policy f1 --threshold 0.4",
        "{flu} --labels in/audited/truths.csv --out out --horizon 3",
        "{flu} --labels in/audited/truths.csv --out out --attacker --study image",
        "{flu} --labels in/audited/truths.csv --out out --masked no.csv",
        "{flu} --labels in/audited/truths.csv --out out --as chia",
        "{flu} --labels in/audited/truths.csv --out out --nonsense",
        "audit verify nowhere",
        "audit diff nowhere nowhere",
        "monitor in/watched/later --out out",
        "monitor in/watched/later --before nowhere --out out",
        "monitor in/watched/later --before in/watched/before --period day --out out",
        "monitor in/watched/later --before in/watched/before --min-probability 1.5 --out out",
    ),
    "training data": (
        "shards build nowhere.csv --out out",
        "shards build in/shard_table/table.csv --out out --dry-run --splits train",
        "shards build in/shard_table/table.csv --out out --dry-run --splits train=0.5",
        "shards build in/shard_table/table.csv --out out --image-format gif",
        "shards build in/shard_table/table.csv --out out --group breasts",
        "shards build in/shard_table/table.csv --out out --volumes --signals",
        "shards check nowhere",
        "shards index nowhere --source a --license b",
        "pairs captions nowhere.csv --from labels --out o.csv",
        "pairs captions in/caption_tables/labels.csv --from labels --out in/caption_tables/vindr.csv",
        "pairs captions in/caption_tables/labels.csv --from labels --out o.csv --writer nowhere:write",
        "pairs captions in/caption_tables/vindr.csv --from mammography --out o.csv --dataset vinder",
        "pairs captions in/caption_tables/ptbxl.csv --from ecg --out o.csv --language fr",
    ),
    "slides and sheets": (
        "ecg render nowhere --out a.png",
        "ecg render in/record/rec.hea --out a.png --layout 5x5",
        "ecg render in/record/rec.hea --out a.png --grid mauve",
        "ecg digitise in/captions/captions.txt --out a.csv",
        "slides tissue nowhere --out out",
        "slides patches in/sections/slides --out out --size-px 0",
        "slides embed in/sections/slides --out out --model nowhere",
        "slides embed in/sections/slides --out out --model in/sections/pack --stain purple",
        "slides export nowhere --out out",
        "slides export in/cohort/store --out out --as xml",
        "slides learn nowhere --labels in/cohort/labels.csv --label grade --out out",
        "slides learn in/cohort/store --labels in/cohort/labels.csv --label nonsense --out out",
        "slides learn in/cohort/store --labels in/cohort/labels.csv --label grade --pooling most --out out",
        "slides predict in/cohort/store --out out",
        "slides predict in/cohort/store --head nowhere --out out",
        "pathgen nowhere --out out",
        "pathgen in/stained/slides --out out --agent parrot",
        "pathgen in/stained/slides --out out --agent endpoint",
    ),
    "models": (
        "models show nowhere",
        "models cite nowhere",
        "models verify nowhere",
        "models import nowhere --out out",
        "models import ViT-B-32 --out out",
        "models import in/hub --out ''",
        "models export nowhere --out out",
        "models merge in/pack --out out --method blend",
        "models merge in/pack in/adapting/pack --out out",
        "models set-thresholds in/pack nowhere.json --task chest_xray_findings --out out",
        "models calibrate in/pack --images nowhere --out out",
    ),
}
"""Wrong uses: of each the exit code and the sentence are kept."""

ALL: Mapping[str, tuple[str, ...]] = {**CASES, **{f"wrong: {name}": lines for name, lines in WRONG.items()}}
