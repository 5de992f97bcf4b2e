#!/usr/bin/env bash
# Hop-aware reranking of the dev samples, with the embedded checkpoint or another: evidence, answers, and what they cost.
#
#     bench/study.sh DATA OUT [OPTIONS OF rankr1-eval qa] > bench/study.md
#
# DATA holds musique/musique_ans_v1.0_dev_sample.jsonl, 2wikimultihopqa/dev_sample.json and hotpotqa/dev_distractor_sample.json, in the
# official formats (put your own there); DENSE names an embedding model or its folder. OUT gets a run for each data set. Rows of one run share what was asked: fusion costs nothing, and a second
# hop only its own comparisons. Without options the embedded model reranks all questions and reads for 60 of each set, in OUT/read.
# For a GPU, with Rank-R1-7B, which was trained for no second hop, and an adapter that was (vLLM beside rankr1-eval:
# `.venv-test/bin/pip install "vllm>=0.32"`), each its own reader, or with --reader-base-url and --reader-model a common one:
#
#     bench/study.sh DATA runs/study-7b --backend vllm --model ielabgroup/Rank-R1-7B-v0.1 --read 5
#     bench/study.sh DATA runs/study-hops --backend vllm --model Qwen/Qwen2.5-7B-Instruct --adapter ADAPTER --format rank-r1-v0.1 \
#         --reasoning-tokens 2032 --read 5
#
# Killed, the same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
exec 3>&1 >&2  # the tables alone are printed
data=$1 out=$2
shift 2
options=("$@")
[ $# -gt 0 ] || options=(--no-read --option max_batch=8)
dense=${DENSE:-sentence-transformers/all-MiniLM-L6-v2}
rows=none,dense:$dense,rank-r1,rank-r1:fusion=off,rank-r1:hops=2,rank-r1:hops=2+fusion=off,rank-r1:hops=2+retrieve=true
read=none,rank-r1,rank-r1:hops=2,rank-r1:hops=2+retrieve=true,gold,no-context
[ $# -eq 0 ] || rows+=,gold,no-context

study() { # data set, file
    local asked=(.venv-test/bin/rankr1-eval qa --dataset "$1" --data "$data/$2" --k 5)
    "${asked[@]}" --systems "$rows" --out "$out/$1" "${options[@]}"
}

answers() { # data set, file
    local asked=(.venv-test/bin/rankr1-eval qa --dataset "$1" --data "$data/$2" --k 5)
    "${asked[@]}" --systems "$read" --out "$out/read/$1" --store "$out/$1/completions.sqlite" --questions 60 --option max_batch=8
}

each() {
    "$1" musique musique/musique_ans_v1.0_dev_sample.jsonl
    "$1" 2wikimultihopqa 2wikimultihopqa/dev_sample.json
    "$1" hotpotqa hotpotqa/dev_distractor_sample.json
}

each study
[ $# -gt 0 ] || { mkdir -p "$out/read" && each answers; }
.venv-test/bin/python -m bench.eval_study "$out" >&3
