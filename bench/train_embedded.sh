#!/usr/bin/env bash
# Trains the embedded adapter from nothing: `make train-embedded`, or
#
#     bench/train_embedded.sh [DATA [OUT]]
#
# DATA holds the training samples of HotpotQA, 2WikiMultihopQA and MuSiQue, OUT becomes runs/embedded: examples in data/, a cold
# start in cold/, and in both/ the adapter, trained on with examples in which a support is known already. Some hours on
# two cores. The same command resumes a killed one: existing examples and finished runs stay.
set -euo pipefail
root=$(dirname "$(realpath "$0")")/..
data=$(realpath -m "${1:-$root/../shared/data/train}") out=$(realpath -m "${2:-$root/runs/embedded}")
cd "$root"
sets=(hotpotqa 2wikimultihopqa musique)
files=(hotpotqa_train_500.jsonl 2wikimultihopqa_train_500.json musique_train_100.json)

# A tenth of the questions is held out, the same ones of both kinds. The file that is written last says that both are there.
examples() { # data set, file, name of what is made, further options
    local made="$out/data/$3"
    [ -e "$made-held.jsonl" ] || .venv-test/bin/rankr1-eval examples --dataset "$1" --data "$data/$2" "${@:4}" \
        --out "$made.jsonl" --held-out "$made-held.jsonl"
}

# Options for the examples of these names.
of() {
    local name
    for name in "$@"; do
        printf -- '--data\n%s\n--held-out\n%s\n' "$out/data/$name.jsonl" "$out/data/$name-held.jsonl"
    done
}

train() { # sft or grpo, further options
    .venv-test/bin/python -m bench.shared_prompts "$1" --model .venv-test/smollm2 --format naming-v1 --size 5 --passage-tokens 64 \
        --completion-tokens 48 --dropout 0 --batch 8 "${@:2}"
}

mkdir -p "$out/data"
for i in "${!sets[@]}"; do
    examples "${sets[i]}" "${files[i]}" "${sets[i]}-all"
    examples "${sets[i]}" "${files[i]}" "${sets[i]}" --found 20
    examples "${sets[i]}" "${files[i]}" "${sets[i]}-known" --known
done
mapfile -t plain < <(of "${sets[@]/%/-all}")
mapfile -t both < <(of "${sets[@]}" "${sets[@]/%/-known}")
train sft "${plain[@]}" --target naming --hard 20 --prompt-tokens 544 --rank 8 --alpha 16 --learning-rate 6e-4 --epochs 4 \
    --save 200 --compile --out "$out/cold"
train sft "${both[@]}" --adapter "$out/cold" --target naming --hard 20 --prompt-tokens 1024 --seed 2 --learning-rate 5e-4 \
    --steps 320 --save 80 --held-sets 435 --compile --out "$out/both"
echo "Into the package with it: .venv-test/bin/python -m bench.embed $out/both"
