"""Puts a trained adapter into the package: float16 tensors, its settings, its card with the licences of its sources.

    .venv-test/bin/python -m bench.embed RUN NAME

RUN is the folder of `rankr1 train`, NAME an embedded model: SmolLM2-135M-Rank-R1 or SmolLM2-135M-Reader. Of a path of
the machine that it was trained on, the last part alone is taken along. What else must be changed is printed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import load_file, save_file

from rankr1_rag.backends.openvino.weights import BASE, EMBEDDED, SHIPPED
from rankr1_rag.train.run_dir import ADAPTER

RUNS = "rankr1_runs: "
LICENCES = (
    ("HotpotQA", "https://hotpotqa.github.io", "CC BY-SA 4.0", r"hotpotqa\w*"),
    ("2WikiMultihopQA", "https://github.com/Alab-NII/2wikimultihop", "Apache-2.0", "2wikimultihopqa"),
    ("MuSiQue", "https://github.com/StonyBrookNLP/musique", "CC BY 4.0", "musique"),
    ("IRCoT demonstrations", "https://github.com/StonyBrookNLP/ircot", "Apache-2.0, and that of each set", "ircot"),
    ("StrategyQA", "https://allenai.org/data/strategyqa", "MIT", r"strategyqa\w*"),
    ("EntailmentBank", "https://allenai.org/data/entailmentbank", "CC BY 4.0", "entailmentbank"),
    ("FairytaleQA", "https://github.com/uci-soe/FairytaleQAData", "Apache-2.0", "fairytaleqa"),
    ("Natural Questions", "https://ai.google.com/research/NaturalQuestions", "CC BY-SA 3.0", "nq_oracle"),
    ("QED", "https://github.com/google-research-datasets/QED", "CC BY-SA 3.0", "qed"),
    ("ClapNQ", "https://github.com/primeqa/clapnq", "Apache-2.0", "clapnq"),
    ("SQuAD and XQuAD", "https://rajpurkar.github.io/SQuAD-explorer", "CC BY-SA 4.0", "squad2|xquad"),
    ("COVID-QA", "https://github.com/deepset-ai/COVID-QA", "Apache-2.0", "covidqa"),
    ("MedQuAD", "https://github.com/abachaa/MedQuAD", "CC BY 4.0", "medquad"),
    ("PubMedQA", "https://pubmedqa.github.io", "MIT", "pubmedqa"),
    ("OpenBookQA", "https://allenai.org/data/open-book-qa", "Apache-2.0", "openbookqa"),
    ("FEVER", "https://fever.ai", "CC BY-SA 3.0", "fever"),
)
"""Data set, address, licence, and the sources of ours that come from it."""


def embed(run: Path, name: str) -> None:
    """Write the three files. ValueError for another name, and for a source whose licence is not known."""
    if name not in SHIPPED:
        raise ValueError(f"NAME={name!r}: no embedded model; use {' or '.join(SHIPPED)}")
    card, runs = portable((run / "README.md").read_text(encoding="utf-8"))
    card += licences(card)
    config = json.loads((run / "adapter_config.json").read_text(encoding="utf-8")) | {"base_model_name_or_path": BASE}
    tensors = {name: tensor.astype(numpy.float16) for name, tensor in load_file(run / ADAPTER).items()}
    package = SHIPPED[name]
    package.mkdir(parents=True, exist_ok=True)
    save_file(tensors, package / ADAPTER, metadata={"format": "pt"})
    (package / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (package / "README.md").write_text(card, encoding="utf-8")
    for file in package.iterdir():
        file.chmod(0o644)
    settings = [f"{key}={runs[-1][key]!r}" for key in ("format", "size", "passage_tokens", "clip") if key in runs[-1]]
    print(f"{package}: {(package / ADAPTER).stat().st_size / 1e6:.1f} MB, {len(runs)} runs")
    if name == EMBEDDED:
        print(f"The table in rankr1_rag/checkpoints.py must have: {', '.join(settings)}")


def portable(card: str) -> tuple[str, list[dict[str, Any]]]:
    """The card without paths of the machine, and the runs in it."""
    line = next(line for line in card.splitlines() if line.startswith(RUNS))
    base = next(line for line in card.splitlines() if line.startswith("base_model: ")).removeprefix("base_model: ")
    named = {base, *(run["model"] for run in json.loads(line.removeprefix(RUNS)))}
    for model in sorted(named, key=len, reverse=True):  # one may be the end of another
        card = card.replace(model, BASE)
    card = re.sub(r"""(?<=["|` ])/(?:[^\s"|`/]+/)*([^\s"|`/]+)""", r"\1", card)
    return card, json.loads(next(line for line in card.splitlines() if line.startswith(RUNS)).removeprefix(RUNS))


def licences(card: str) -> str:
    """The section on licences: those of all sources that the runs in this card name."""
    named = {source for found in re.findall(r'"sources": (\{[^}]*\})', card) for source in json.loads(found)}
    rows = []
    for title, address, licence, pattern in LICENCES:
        if ours := sorted(source for source in named if re.fullmatch(pattern, source)):
            rows.append(f"| {title} ({address}) | {', '.join(ours)} | {licence} |")
            named -= set(ours)
    if named:
        raise ValueError(f"no licence is known of {', '.join(sorted(named))}: add it to LICENCES")
    table = "\n".join(["| data set | sources above | licence |", "|---|---|---|", *rows])
    return f"""
## Licences

The weights it changes, {BASE}, are under Apache-2.0. It was trained on questions and passages of

{table}

and on nothing else: not on MS MARCO, which is for non-commercial research. No text of them is in it. The adapter itself
is under Apache-2.0, as this project is.
"""


if __name__ == "__main__":
    embed(Path(sys.argv[1]), sys.argv[2])
