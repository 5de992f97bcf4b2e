"""Puts a trained adapter into the package, as the embedded default: float16 tensors, its settings, its card.

    .venv-test/bin/python -m bench.embed RUN

RUN is the folder of `rankr1 train`. Paths of the machine it was trained on are not taken along.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy
from safetensors.numpy import load_file, save_file

from rankr1_rag.checkpoints import BASE
from rankr1_rag.train.run_dir import ADAPTER

PACKAGE = Path(__file__).parent.parent / "rankr1_rag" / "embedded"


def embed(run: Path) -> None:
    """Write the three files."""
    tensors = {name: tensor.astype(numpy.float16) for name, tensor in load_file(run / ADAPTER).items()}
    save_file(tensors, PACKAGE / ADAPTER, metadata={"format": "pt"})
    config = json.loads((run / "adapter_config.json").read_text(encoding="utf-8"))
    model = config["base_model_name_or_path"]
    config["base_model_name_or_path"] = BASE
    (PACKAGE / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    card = (run / "README.md").read_text(encoding="utf-8").replace(model, BASE)
    (PACKAGE / "README.md").write_text(card + _LICENCES, encoding="utf-8")
    for file in PACKAGE.iterdir():
        file.chmod(0o644)


_LICENCES = """
## Licences

The weights it changes, SmolLM2-135M-Instruct, are under Apache-2.0. It was trained on questions and paragraphs of the
training splits of

| data set | questions, with those held out | licence |
|---|---|---|
| HotpotQA (https://hotpotqa.github.io) | 500 | CC BY-SA 4.0 |
| 2WikiMultihopQA (https://github.com/Alab-NII/2wikimultihop) | 500 | Apache-2.0 |
| MuSiQue (https://github.com/StonyBrookNLP/musique) | 100 | CC BY 4.0 |

and on nothing else: not on MS MARCO, which is for non-commercial research. No text of them is in it. The adapter itself
is under Apache-2.0, as this project is.
"""

if __name__ == "__main__":
    embed(Path(sys.argv[1]))
