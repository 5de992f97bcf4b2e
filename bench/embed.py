"""Puts a trained adapter into the package: float16 tensors, its settings, its card with the licences of its sources.

    .venv-test/bin/python -m bench.embed RUN NAME

RUN is the folder of `rankr1 train`, NAME that of an embedded model: SmolLM2-135M-Rank-R1 or SmolLM2-135M-Reader. Paths
of the machine it was trained on are not taken along.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy
from safetensors.numpy import load_file, save_file

from rankr1_rag.backends.openvino.weights import BASE, SHIPPED
from rankr1_rag.train.run_dir import ADAPTER

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
    """Write the three files. KeyError for another name, ValueError for a source whose licence is not known."""
    package = SHIPPED[name]
    package.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.astype(numpy.float16) for name, tensor in load_file(run / ADAPTER).items()}
    save_file(tensors, package / ADAPTER, metadata={"format": "pt"})
    config = json.loads((run / "adapter_config.json").read_text(encoding="utf-8"))
    model = config["base_model_name_or_path"]
    config["base_model_name_or_path"] = BASE
    (package / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    card = (run / "README.md").read_text(encoding="utf-8").replace(model, BASE)
    (package / "README.md").write_text(card + licences(card), encoding="utf-8")
    for file in package.iterdir():
        file.chmod(0o644)


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
