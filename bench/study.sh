#!/usr/bin/env bash
# Support recall on the dev samples, reranked by the embedded checkpoint or by another, in one hop and in several:
#
#     bench/study.sh DATA OUT [OPTIONS OF rankr1-eval qa]
#
# DATA holds the samples, OUT gets a run for each data set. Rows of one run share what was asked: fusion costs nothing, and a second
# hop only its own comparisons. For a GPU, with Rank-R1-7B as it is and a reader:
#
#     bench/study.sh DATA runs/study-7b --backend vllm --model ielabgroup/Rank-R1-7B-v0.1 --read 5
#
# Killed, the same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- --no-read --option max_batch=8
rows=${ROWS:-none,dense,rank-r1,rank-r1:fusion=off,rank-r1:hops=2,rank-r1:hops=2+fusion=off,rank-r1:hops=2+retrieve=true}

study() { # data set, file
    .venv-eval/bin/rankr1-eval qa --dataset "$1" --data "$data/$2" --k 5 --rows "$rows" --out "$out/$1" "${@:3}"
}

study hotpotqa hotpotqa/dev_distractor_sample.json "$@"
study 2wikimultihopqa 2wikimultihopqa/dev_sample.json "$@"
study musique musique/musique_ans_v1.0_dev_sample.jsonl "$@"
