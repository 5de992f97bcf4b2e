"""A llama of a few thousand weights as a GGUF file or checkpoint, LoRA adapters for it, and ways to ask any model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rankr1_rag.backends import Backend, Request
from rankr1_rag.types import Completion, Message

Array = NDArray[Any]


def ask(text: str, begun: str | None = None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": text}]
    return messages if begun is None else [*messages, {"role": "assistant", "content": begun}]


def complete(backend: Backend, *requests: Request, close: bool = False) -> list[Completion]:
    """The completions of requests made at once."""

    async def together() -> list[Completion]:
        try:
            return await asyncio.wait_for(asyncio.gather(*map(backend.complete, requests)), 400)
        finally:
            if close:
                await backend.close()

    return asyncio.run(together())


def once(backend: Backend, request: Request) -> Completion:
    """The only completion of a backend that is closed then."""
    return complete(backend, request, close=True)[0]


def python(file: Path, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code as a script of its own, in this file."""
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env={**environment, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )


def errors_without(file: Path, module: str, call: str, *packages: str) -> list[str]:
    """The modules that a call imports, then its ImportErrors where one of these packages is not installed."""
    code = f"""
        import importlib.machinery, sys
        from {module} import {call.split("(")[0]}
        {call}
        print(*sorted(set(sys.modules) & set(sys.argv[1:])))
        find = importlib.machinery.PathFinder.find_spec
        for absent in sys.argv[1:]:
            hide = lambda name, *rest: None if name == absent else find(name, *rest)
            importlib.machinery.PathFinder.find_spec = hide
            try:
                {call}
            except ImportError as error:
                print(repr(str(error)))
    """
    done = python(file, code, *packages)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


BLOCKS, WIDTH, HEADS, KV_HEADS, INNER = 3, 64, 4, 2, 96

TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def shape(module: str, inner: int) -> tuple[int, int]:
    """Of a linear layer in a block, (out, in)."""
    small = {"self_attn.k_proj": WIDTH // 2, "self_attn.v_proj": WIDTH // 2}
    if module == "mlp.down_proj":
        return WIDTH, inner
    return (inner if module.startswith("mlp") else small.get(module, WIDTH)), WIDTH


def make_model(path: Path, kind: GGMLQuantizationType, architecture: str = "llama", inner: int = INNER) -> Path:
    """Random weights, the linear layers in this type, the others in Q8_0 and F32, with metadata of every sort."""
    dice = np.random.default_rng(5)
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(512)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_file_type(3)
    writer.add_rope_freq_base(100_000.0)
    writer.add_token_list(["<a>", "Ġb", "日本"])
    writer.add_token_types([3, 1, 1])
    writer.add_bool("a.flag", True)
    writer.add_array("some.numbers", [1.5, -2.5])
    embedding = quants.quantize(dice.normal(size=(3, WIDTH)).astype(np.float32), GGMLQuantizationType.Q8_0)
    writer.add_tensor("token_embd.weight", embedding, raw_dtype=GGMLQuantizationType.Q8_0)
    for block in range(BLOCKS):
        writer.add_tensor(f"blk.{block}.attn_norm.weight", np.ones(WIDTH, np.float32))
        for module, tensor in TENSORS.items():
            weights = quants.quantize(dice.normal(size=shape(module, inner)).astype(np.float32), kind)
            writer.add_tensor(f"blk.{block}.{tensor}.weight", weights, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_adapter(
    folder: Path,
    modules: Sequence[str] = tuple(TENSORS),
    rank: int = 4,
    tensors: Mapping[str, Array] | None = None,
    blocks: int = BLOCKS,
    dtype: type = np.float16,
    inner: int = INNER,
    **config: Any,
) -> Path:
    """Random matrices for these modules of all blocks, and other tensors besides."""
    dice, made = np.random.default_rng(6), {}
    for block in range(blocks):
        for name in modules:
            rows, columns = shape(name, inner)
            begin = f"base_model.model.model.layers.{block}.{name}"
            made[f"{begin}.lora_A.weight"] = dice.normal(size=(rank, columns)).astype(dtype)
            made[f"{begin}.lora_B.weight"] = dice.normal(size=(rows, rank)).astype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**made, **(tensors or {})}, folder / "adapter_model.safetensors")
    settings: dict[str, Any] = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    settings |= {"base_model_name_or_path": "its/base", "target_modules": [name.split(".")[-1] for name in modules]}
    (folder / "adapter_config.json").write_text(json.dumps(settings | config), encoding="utf-8")
    return folder


def write_bfloat16(path: Path, matrices: Mapping[str, Array]) -> None:
    """A safetensors file of float32 matrices cut to bfloat16, which numpy has no type for."""
    header, data = {}, b""
    for name, matrix in matrices.items():
        cut = (matrix.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": matrix.shape, "data_offsets": [len(data), len(data) + len(cut)]}
        data += cut
    begin = json.dumps(header).encode()
    path.write_bytes(len(begin).to_bytes(8, "little") + begin + data)


def tensors(path: Path) -> dict[str, tuple[str, Array]]:
    """Type and values, dequantised, of every tensor, read by gguf's own reader."""
    return {
        tensor.name: (tensor.tensor_type.name, quants.dequantize(np.array(tensor.data), tensor.tensor_type))
        for tensor in GGUFReader(path).tensors
    }


def metadata(path: Path) -> dict[str, Any]:
    """Every field but those that count."""
    fields = GGUFReader(path).fields.items()
    return {name: field.contents() for name, field in fields if not name.startswith("GGUF.")}


CHATML = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_checkpoint(folder: Path, layers: int = 2, head_dim: int = 16) -> Path:
    """A llama of random weights for transformers, with a tokenizer trained on a few sentences."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|im_end|>", "<|im_start|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    sentences = ["The capital of France is the city of Paris.", "<think>It names a word.</think> <answer>[12]</answer>"]
    tokenizer.train_from_iterator(sentences, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[0])
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(4)
    size: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": layers}
    size |= {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": head_dim}
    size |= {"max_position_embeddings": 2_048, "initializer_range": 0.3, "vocab_size": len(fast)}
    config = LlamaConfig(**size, bos_token_id=None, eos_token_id=0, pad_token_id=0)
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data[0] = 0  # so that it ends no story by itself
    model.save_pretrained(folder)
    return folder


def make_peft_adapter(folder: Path, base: Path, rank: int, **size: int) -> Path:
    """A LoRA of random weights, strong enough to be seen, for the model in `base` or for one of another size."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base)
    config.update(size)
    torch.manual_seed(rank)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "o_proj"])
    adapted = get_peft_model(model, lora)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_" in name:
                weights.normal_(0.0, 0.2)
    adapted.peft_config["default"].base_model_name_or_path = "its/base"
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder
