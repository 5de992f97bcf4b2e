#!/usr/bin/env bash
# Trains both embedded adapters from nothing: `make train-embedded`, or
#
#     bench/train_embedded.sh [DATA [MORE [OUT]]]
#
# DATA holds the training samples of HotpotQA, 2WikiMultihopQA and MuSiQue, MORE the questions of other sources, OUT becomes
# runs/embedded. In it are the examples (first/ and data/) and a folder for each run: cold/ learns the form, both/ goes on
# with examples in which a support is known already, mix/ with questions of all sources, grpo/ by reinforcement learning:
# that is the adapter of the reranker. reader/ learns to answer. Many hours on two cores, half of which compute half of each
# step. The same command resumes a killed one: existing examples and finished runs stay.
set -euo pipefail
root=$(dirname "$(realpath "$0")")/..
data=$(realpath -m "${1:-$root/../shared/data/train}") more=$(realpath -m "${2:-$root/../shared/data/train-more}")
out=$(realpath -m "${3:-$root/runs/embedded}")
cd "$root"
official=(hotpotqa 2wikimultihopqa musique)
files=(hotpotqa_train_500.jsonl 2wikimultihopqa_train_500.json musique_train_100.json)
paragraphs=(hotpotqa_amor hotpotqa_hipporag ircot)
single=(fairytaleqa nq_oracle qed clapnq squad2 xquad covidqa medquad pubmedqa openbookqa fever)
answered=(hotpotqa_amor hotpotqa_hipporag ircot fairytaleqa nq_oracle qed squad2 xquad covidqa)
measured=(hotpotqa 2wikimultihopqa musique nq_oracle covidqa fairytaleqa medquad openbookqa)

# A tenth of the questions is held out, the same ones of all kinds. The file that is written last says that both are there.
examples() { # data set, file, name of what is made, further options
    local made="$out/first/$3"
    [ -e "$made-held.jsonl" ] || .venv-test/bin/rankr1-eval examples --dataset "$1" --data "$data/$2" "${@:4}" \
        --out "$made.jsonl" --held-out "$made-held.jsonl"
}

# Options for the examples of these names in a folder.
of() { # option, folder, names
    local name
    for name in "${@:3}"; do
        printf -- '%s\n%s\n' "$1" "$out/$2/$name.jsonl"
    done
}

train() { # sft, grpo or reader, further options
    OMP_NUM_THREADS=1 .venv-test/bin/torchrun --nproc-per-node 2 -m bench.shared_prompts "$1" --model .venv-test/smollm2 \
        --dropout 0 --batch 8 "${@:2}"
}

mkdir -p "$out/first" "$out/data"
for i in "${!official[@]}"; do
    examples "${official[i]}" "${files[i]}" "${official[i]}-all"
    examples "${official[i]}" "${files[i]}" "${official[i]}" --found 20
    examples "${official[i]}" "${files[i]}" "${official[i]}-known" --known
done
if [ ! -e "$out/data/README.md" ]; then
    .venv-test/bin/python -m bench.training_data "$data" "$more" "$out/data" > "$out/data/README.part"
    mv "$out/data/README.part" "$out/data/README.md"
fi
heads=(--format naming-v1 --target naming --size 5 --passage-tokens 64 --hard 20 --completion-tokens 48)
windows=(--format naming-v1 --size 5 --smallest 2 --passage-tokens 96 --clip window --hard 20 --prompt-tokens 1024 --completion-tokens 64)
mapfile -t plain < <(of --data first "${official[@]/%/-all}"; of --held-out first "${official[@]/%/-all-held}")
mapfile -t both < <(of --data first "${official[@]}" "${official[@]/%/-known}"
    of --held-out first "${official[@]/%/-held}" "${official[@]/%/-known-held}")
mapfile -t mix < <(of --data data "${official[@]}" "${paragraphs[@]}" hotpotqa_ecm strategyqa_paragraphs "${single[@]}" \
    "${official[@]/%/-known}" "${paragraphs[@]/%/-known}"; of --held-out data "${measured[@]/%/-held}")
mapfile -t read < <(of --data data "${official[@]}" "${answered[@]}"; of --held-out data "${official[@]/%/-held}")
train sft "${heads[@]}" "${plain[@]}" --prompt-tokens 544 --rank 8 --alpha 16 --learning-rate 6e-4 --epochs 4 --save 200 \
    --compile --out "$out/cold"
train sft "${heads[@]}" "${both[@]}" --adapter "$out/cold" --prompt-tokens 1024 --seed 2 --learning-rate 5e-4 --steps 320 \
    --save 80 --held-sets 435 --compile --out "$out/both"
train sft "${windows[@]}" "${mix[@]}" --adapter "$out/both" --target naming --seed 1 --learning-rate 5e-4 --steps 1600 \
    --save 200 --held-sets 192 --compile --out "$out/mix"
train grpo "${windows[@]}" "${mix[@]}" --adapter "$out/mix" --seed 2 --temperature 1.3 --learning-rate 2e-4 \
    --generations 8 --steps 200 --save 50 --held-sets 192 --out "$out/grpo"
train reader "${read[@]}" --size 5 --hard 10 --completion-tokens 32 --rank 8 --alpha 16 --learning-rate 5e-4 --epochs 2 \
    --save 200 --held-sets 192 --compile --out "$out/reader"
echo "Into the package with them: .venv-test/bin/python -m bench.embed $out/grpo SmolLM2-135M-Rank-R1, and $out/reader"
