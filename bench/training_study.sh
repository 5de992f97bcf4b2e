#!/usr/bin/env bash
# What the labels are worth: untrained, supervised on the label alone, a cold start, and from it GRPO with 18 % and all of the labels,
# and as many sets of all of them supervised.
#
#     bench/training_study.sh DATA OUT > bench/training_study.md
#
# DATA holds the samples; training reads those under train/, the figures come from the others. OUT gets examples in data/ and dev/, a
# folder for each adapter, single comparisons in comparisons/ and rerankings of 30 questions of each set in reranked/. The cold start
# sees 18 % of the questions, so that GRPO on the same ones has seen no other label at all. The embedded checkpoint is asked beside
# them. DENSE names an embedding model or its folder. Some hours on two cores; the same command resumes a killed one.
set -euo pipefail
[ $# = 2 ] || { echo "usage: bench/training_study.sh DATA OUT > bench/training_study.md" >&2; exit 2; }
data=$(realpath "$1") out=$(realpath -m "$2") dense=${DENSE:-sentence-transformers/all-MiniLM-L6-v2}
[ ! -e "$dense" ] || dense=$(realpath "$dense")
cd "$(dirname "$0")/.."
exec 3>&1 >&2  # the tables alone are printed
sets=(hotpotqa 2wikimultihopqa musique)
train=(hotpotqa_train_500.jsonl 2wikimultihopqa_train_500.json musique_train_100.json)
dev=(hotpotqa/dev_distractor_sample.json 2wikimultihopqa/dev_sample.json musique/musique_ans_v1.0_dev_sample.jsonl)
mkdir -p "$out"/{data,dev,comparisons,reranked}

for i in "${!sets[@]}"; do
    make=(.venv-test/bin/rankr1-eval examples --dataset "${sets[i]}")
    made="$out/data/${sets[i]}" asked="$out/dev/${sets[i]}.jsonl"
    [ -e "$made-held.jsonl" ] ||
        "${make[@]}" --data "$data/train/${train[i]}" --found 20 --out "$made.jsonl" --held-out "$made-held.jsonl"
    [ -e "$asked" ] || "${make[@]}" --data "$data/${dev[i]}" --found 20 --out "$asked"
done

train() { # sft or grpo, name, further options
    local options=(--model .venv-test/smollm2 --size 5 --hard 20 --passage-tokens 64 --prompt-tokens 544 --completion-tokens 48
        --dropout 0 --seed 1 --held-sets 256 --out "$out/$2") name
    for name in "${sets[@]}"; do
        options+=(--data "$out/data/$name.jsonl" --held-out "$out/data/$name-held.jsonl")
    done
    .venv-test/bin/python -m bench.shared_prompts "$1" "${options[@]}" "${@:3}"
}

supervised=(--rank 8 --alpha 16 --learning-rate 6e-4 --batch 8 --steps 220 --save 110 --compile)
train sft cold-18 --target naming --format naming-v1 --share 0.18 --epochs 8 "${supervised[@]}"
reinforced=(--adapter "$out/cold-18" --held-sets 64 --format naming-v1 --learning-rate 4e-4 --temperature 1.3 --batch 8 --generations 8
    --epochs 8 --steps 100 --save 50)
train grpo grpo-100 "${reinforced[@]}"
train grpo grpo-18 --share 0.18 "${reinforced[@]}"
train sft sft-100 --held-sets 64 --adapter "$out/cold-18" --target naming --format naming-v1 --epochs 8 "${supervised[@]}" --steps 100 --save 50
train sft label --held-sets 64 --target label --format label-v1 "${supervised[@]}"

# Single comparisons as a reranker meets them; the first model asked is what the next are compared with.
ask() { # name, the model's options
    local file="$out/comparisons/$1.jsonl" first="$out/comparisons/cold-18.jsonl" against=()
    [ "$file" = "$first" ] || against=(--against "$first")
    .venv-test/bin/rankr1-eval comparisons "$out"/dev/*.jsonl --out "$file" --seed 7 --option max_batch=8 "${@:2}" "${against[@]}" \
        --json >"$file.told"
    mv "$file.told" "$out/comparisons/$1.json"  # whole, or as it was
}

rerank() { # name, the model's options
    local i
    for i in "${!sets[@]}"; do
        .venv-test/bin/rankr1-eval qa --dataset "${sets[i]}" --data "$data/${dev[i]}" --questions 30 --k 5 --no-read --option max_batch=8 \
            --systems none,rank-r1:fusion=off,rank-r1:fusion=2 "${@:2}" --out "$out/reranked/$1-${sets[i]}" >/dev/null
    done
}

smollm2=(--model SmolLM2-135M-Instruct)
naming=(--size 5 --format naming-v1 --reasoning-tokens 32 --force unparsed --passage-tokens 64)
label=(--size 5 --format label-v1 --reasoning-tokens 0 --passage-tokens 64)
cold=("${smollm2[@]}" --adapter "$out/cold-18" "${naming[@]}")
all=("${smollm2[@]}" --adapter "$out/grpo-100" "${naming[@]}")
few=("${smollm2[@]}" --adapter "$out/grpo-18" "${naming[@]}")
more=("${smollm2[@]}" --adapter "$out/sft-100" "${naming[@]}")
alone=("${smollm2[@]}" --adapter "$out/label" "${label[@]}")
ask cold-18 "${cold[@]}"
ask grpo-100 "${all[@]}"
ask grpo-18 "${few[@]}"
ask sft-100 "${more[@]}"
ask label "${alone[@]}"
ask untrained "${smollm2[@]}" "${naming[@]}"
ask embedded --dense "$dense"
rerank dense --systems "none,dense:$dense"
rerank cold-18 "${cold[@]}"
rerank grpo-100 "${all[@]}"
rerank grpo-18 "${few[@]}"
rerank label "${alone[@]}"
rerank untrained "${smollm2[@]}" "${naming[@]}"
.venv-test/bin/python -m bench.eval_training_study "$out" >&3
