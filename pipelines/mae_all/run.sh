#!/usr/bin/env bash
# One table over all shared sets -> shards -> masked pretraining.
# Usage: pipelines/mae_all/run.sh [--smoke] [--words] [SHARED_DATA] [RUN]
# --words makes the small ViT of 224 px: masked at that size, then words and the stored answers of medclip-mini at 112 px and at 224 px, then its figures;
# the pack is RUN/words/pack. Kill it anywhere and run it again: shards are kept, training resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=pipelines/mae_all
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"
smoke='' words=''
while [[ "${1:-}" == --* ]]; do
    case $1 in
        --smoke) smoke=1 ;;
        --words) words=1 ;;
        *) echo "unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
recipe=full max_side=272 name=mae_all  # 272: a crop of half the area still has 192 pixels a side
[ -z "$words" ] || recipe=vit_masked max_side=317 name=mae_words  # and 224
[ -z "$smoke" ] || recipe=smoke max_side=160
data=${1:-../shared/data}
run=${2:-runs/$name${smoke:+_smoke}}
export HF_HUB_OFFLINE=1
mkdir -p "$run"
# The key, the shares and the names of patients are those of pipelines/mini: who is held out there is held out here.
[ -s "$run/key" ] || printf '%-32s' 'medclip-mini public sets' >"$run/key"  # public: anyone may recompute the patient hashes

# Usage: shards TABLE SIDE OUT MADE_OF_THEM...  A table that changed since makes new shards, and new shards a new training.
shards() {
    cmp -s "$1" "$3_table.csv" || rm -rf "${@:3}"
    [ -f "$3/index.json" ] || medclip shards build "$1" --out "$3" \
        --max-side-px "$2" --splits train=0.65,val=0.10,test=0.25 --key-file "$run/key"
    cp "$1" "$3_table.csv"
    medclip shards check "$3"
}

python $here/joint_table.py "$data" "$run/table.csv"
shards "$run/table.csv" $max_side "$run/shards" "$run/train"
medclip pretrain $here/$recipe.yaml --set "data.shards=$run/shards" --out "$run/train"
[ "$words" ] || exit 0

few=() set=() few_layers=() size=224 augmentations=4 side=256  # 256: a crop of three quarters of the area still has 221 pixels a side
if [ "$smoke" ]; then
    few=(--few 8) size=128 augmentations=1 side=160
    set=(--set train.epochs=1 --set train.batch_size=32 --set train.warmup_steps=4)
    few_layers=(--set model.text_layers=1)
fi
python pipelines/mini/table.py "$data" "$run/words.csv" --records "$run/records" --known-to medclip-mini "${few[@]}"
shards "$run/words.csv" $side "$run/word_shards" "$run/reinforced" "$run/coarse" "$run/words"
[ -f "$run/reinforced/index.json" ] || medclip pairs reinforce "$run/word_shards" --teacher medclip-mini \
    --augmentations $augmentations --captions 3 --out "$run/reinforced"
set+=(--set "data.shards=$run/word_shards" --set "data.reinforced=$run/reinforced")
medclip pretrain $here/vit_words.yaml "${set[@]}" "${few_layers[@]}" --set "model.size_px=$((size / 2))" \
    --set "model.image_weights=$run/train/pack" --out "$run/coarse"
medclip pretrain $here/vit_full.yaml "${set[@]}" --set "model.size_px=$size" --set "model.start=$run/coarse/pack" --out "$run/words"
python $here/vit_figures.py "$run/word_shards" "$run/words/pack" "$run/figures.json"
