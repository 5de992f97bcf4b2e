#!/usr/bin/env bash
# Trains both embedded adapters from nothing: `make train-embedded`, or
#
#     bench/train_embedded.sh [--small] [DATA [MORE [OUT]]]
#
# DATA holds the training samples of HotpotQA, 2WikiMultihopQA and MuSiQue, MORE the questions of other sources, OUT becomes
# runs/embedded. In it are the examples (first/ and data/) and a folder for each run. cold/ and both/ learn to name a passage, of
# three data sets; label/, labels/ and more/ go on with all sources, from windows of longer passages, with the labels behind
# the passages, too. more/ is the adapter of the reranker, reader/ that of the reader; naming/ is an experiment. Many hours on two cores, each of which
# computes half of each step. The same command resumes a killed one: existing examples and finished runs stay. --small tries
# all of it in some minutes: few examples, two steps a run, OUT is runs/embedded-small.
set -euo pipefail
small=()
if [ "${1:-}" = --small ]; then
    small=(--steps 2 --save 2 --held-sets 4 --batch 2 --no-compile)
    shift
fi
root=$(realpath "$(dirname "$0")/..")
from_root() { realpath -m --relative-to="$root" "$1"; } # relative, as the cards of the adapters show these paths
data=$(from_root "${1:-$root/../shared/data/train}") more=$(from_root "${2:-$root/../shared/data/train-more}")
out=$(from_root "${3:-$root/runs/embedded${small:+-small}}")
cd "$root"
official=(hotpotqa 2wikimultihopqa musique)
files=(hotpotqa_train_500.jsonl 2wikimultihopqa_train_500.json musique_train_100.json)
paragraphs=(hotpotqa_amor hotpotqa_hipporag ircot)
single=(fairytaleqa nq_oracle qed clapnq squad2 xquad covidqa medquad pubmedqa openbookqa fever)
answered=(hotpotqa_amor hotpotqa_hipporag ircot fairytaleqa nq_oracle qed squad2 xquad)
measured=(hotpotqa 2wikimultihopqa musique nq_oracle covidqa fairytaleqa medquad openbookqa)

# A tenth of the questions is held out, the same ones of all kinds. The file that is written last says that both are there.
examples() { # data set, file, name of what is made, further options
    local made="$out/first/$3"
    [ -e "$made-held.jsonl" ] || .venv-test/bin/rankr1-eval examples --dataset "$1" --data "$data/$2" "${@:4}" \
        ${small:+--questions 40} --out "$made.jsonl" --held-out "$made-held.jsonl"
}

# Options for the examples of these names in a folder.
of() { # option, folder, names
    local name
    for name in "${@:3}"; do
        printf -- '%s\n%s\n' "$1" "$out/$2/$name.jsonl"
    done
}

train() { # name, sft or reader, further options
    OMP_NUM_THREADS=1 .venv-test/bin/torchrun --nproc-per-node 2 -m bench.shared_prompts "$2" --model .venv-test/smollm2 \
        --size 5 --dropout 0 --batch 8 --compile "${@:3}" ${small[@]+"${small[@]}"} --out "$out/$1"
}

mkdir -p "$out/first" "$out/data"
for i in "${!official[@]}"; do
    examples "${official[i]}" "${files[i]}" "${official[i]}-all"
    examples "${official[i]}" "${files[i]}" "${official[i]}" --found 20
    examples "${official[i]}" "${files[i]}" "${official[i]}-known" --known
done
if [ ! -e "$out/data/README.md" ]; then
    .venv-test/bin/python -m bench.training_data "$data" "$more" "$out/data" ${small:+40} > "$out/data/README.part"
    mv "$out/data/README.part" "$out/data/README.md"
fi

heads=(--format naming-v1 --target naming --passage-tokens 64 --hard 20 --completion-tokens 48)
mapfile -t plain < <(of --data first "${official[@]/%/-all}"; of --held-out first "${official[@]/%/-all-held}")
mapfile -t both < <(of --data first "${official[@]}" "${official[@]/%/-known}"
    of --held-out first "${official[@]/%/-held}" "${official[@]/%/-known-held}")
train cold sft "${heads[@]}" "${plain[@]}" --prompt-tokens 544 --rank 8 --alpha 16 --seed 0 --learning-rate 6e-4 --epochs 4 --save 200
train both sft "${heads[@]}" "${both[@]}" --adapter "$out/cold" --prompt-tokens 1024 --seed 2 --learning-rate 5e-4 --steps 320 \
    --save 80 --held-sets 435

windows=(--smallest 2 --passage-tokens 96 --clip window --hard 20 --prompt-tokens 1024)
mapfile -t mix < <(of --data data "${official[@]}" "${paragraphs[@]}" hotpotqa_ecm strategyqa_paragraphs "${single[@]}" \
    "${official[@]/%/-known}" "${paragraphs[@]/%/-known}"; of --held-out data "${measured[@]/%/-held}")
label=(--format label-v2 --target label --completion-tokens 16)
naming=(--format naming-v2 --target naming --completion-tokens 48)
train label sft "${windows[@]}" "${mix[@]}" "${label[@]}" --adapter "$out/both" --seed 1 --learning-rate 1.2e-3 --steps 400 \
    --save 100 --held-sets 192
train labels sft "${windows[@]}" "${mix[@]}" "${label[@]}" --adapter "$out/label" --seed 2 --learning-rate 1e-3 --steps 1600 \
    --save 200 --held-sets 384
train more sft "${windows[@]}" "${mix[@]}" "${label[@]}" --adapter "$out/labels" --seed 4 --learning-rate 8e-4 --steps 1600 \
    --save 200 --held-sets 384
train naming sft "${windows[@]}" "${mix[@]}" "${naming[@]}" --adapter "$out/labels" --seed 3 --learning-rate 5e-4 --steps 200 \
    --save 100 --held-sets 384

mapfile -t read < <(of --data data "${official[@]}" "${answered[@]}"; of --held-out data "${official[@]/%/-held}")
train reader reader "${read[@]}" --hard 10 --completion-tokens 96 --rank 8 --alpha 16 --seed 3 --learning-rate 1e-3 --steps 1200 \
    --save 300 --held-sets 192
echo "Into the package with them:"
for pair in "more SmolLM2-135M-Rank-R1" "reader SmolLM2-135M-Reader"; do
    echo "    .venv-test/bin/python -m bench.embed $out/$pair"
done
