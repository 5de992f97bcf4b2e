#!/usr/bin/env bash
# Trains both embedded adapters from nothing: `make train-embedded`, or
#
#     bench/train_embedded.sh [DATA [MORE [OUT]]]
#
# DATA holds the training samples of HotpotQA, 2WikiMultihopQA and MuSiQue, MORE the questions of other sources, OUT becomes
# runs/embedded: examples in data/, then a folder for each run. broad/ learns to rerank from all sources, hops/ goes on with
# questions of several hops in which a support may be known already, grpo/ with reinforcement learning: that is the
# adapter of the reranker. reader/ learns to answer. Many hours on two cores. The same command resumes a killed one: existing
# examples and finished runs stay.
set -euo pipefail
root=$(dirname "$(realpath "$0")")/..
data=$(realpath -m "${1:-$root/../shared/data/train}") more=$(realpath -m "${2:-$root/../shared/data/train-more}")
out=$(realpath -m "${3:-$root/runs/embedded}")
cd "$root"
official=(hotpotqa 2wikimultihopqa musique)
paragraphs=(hotpotqa_amor hotpotqa_hipporag ircot strategyqa_paragraphs)
sentences=(hotpotqa_ecm strategyqa_facts entailmentbank)
single=(fairytaleqa nq_oracle qed clapnq squad2 xquad covidqa medquad pubmedqa openbookqa fever)
answered=(hotpotqa_amor hotpotqa_hipporag ircot fairytaleqa nq_oracle qed squad2 xquad covidqa)
measured=(hotpotqa 2wikimultihopqa musique nq_oracle covidqa fairytaleqa medquad openbookqa)

# Options for the examples of these names.
of() { # option, names
    local name
    for name in "${@:2}"; do
        printf -- '%s\n%s\n' "$1" "$out/data/$name.jsonl"
    done
}

train() { # sft, grpo or reader, further options
    .venv-test/bin/python -m bench.shared_prompts "$1" --model .venv-test/smollm2 --prompt-tokens 1024 --dropout 0 --batch 8 \
        "${@:2}"
}

ranking=(--format naming-v1 --size 5 --smallest 2 --passage-tokens 96 --clip window --hard 20 --completion-tokens 96)

mkdir -p "$out/data"
if [ ! -e "$out/data/README.md" ]; then
    .venv-test/bin/python -m bench.training_data "$data" "$more" "$out/data" > "$out/data/README.part"
    mv "$out/data/README.part" "$out/data/README.md"
fi
mapfile -t all < <(of --data "${official[@]}" "${paragraphs[@]}" "${sentences[@]}" "${single[@]}" "${official[@]/%/-known}")
mapfile -t hops < <(of --data "${official[@]}" "${paragraphs[@]}" "${official[@]/%/-known}" "${paragraphs[@]/%/-known}")
mapfile -t held < <(of --held-out "${measured[@]/%/-held}")
mapfile -t held_hops < <(of --held-out "${official[@]/%/-held}" "${official[@]/%/-known-held}")
mapfile -t read < <(of --data "${official[@]}" "${answered[@]}")
mapfile -t held_read < <(of --held-out "${official[@]/%/-held}")
train sft "${ranking[@]}" "${all[@]}" "${held[@]}" --target naming --rank 16 --alpha 32 --learning-rate 6e-4 \
    --steps 1600 --save 200 --held-sets 192 --compile --out "$out/broad"
train sft "${ranking[@]}" "${hops[@]}" "${held_hops[@]}" --target naming --adapter "$out/broad" --seed 1 --learning-rate 4e-4 \
    --epochs 2 --steps 900 --save 150 --held-sets 192 --compile --out "$out/hops"
train grpo "${ranking[@]}" "${all[@]}" "${held[@]}" --adapter "$out/hops" --seed 2 --temperature 1.3 --learning-rate 2e-4 \
    --generations 8 --steps 100 --save 50 --held-sets 192 --out "$out/grpo"
train reader "${read[@]}" "${held_read[@]}" --size 5 --hard 10 --completion-tokens 32 --rank 16 --alpha 32 \
    --learning-rate 5e-4 --epochs 2 --save 200 --held-sets 192 --compile --out "$out/reader"
echo "Into the package with them: .venv-test/bin/python -m bench.embed $out/grpo SmolLM2-135M-Rank-R1, and $out/reader"
