"""A llama of a few thousand weights as a GGUF file, and LoRA adapters for it, both made without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from numpy.typing import NDArray
from safetensors.numpy import save_file

Array = NDArray[Any]

BLOCKS, WIDTH, HEADS, KV_HEADS, INNER = 3, 64, 4, 2, 96


def shapes(inner: int = INNER) -> dict[str, tuple[int, int]]:
    """Of the linear layers in a block, (out, in)."""
    return {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (WIDTH // 2, WIDTH),
        "self_attn.v_proj": (WIDTH // 2, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (inner, WIDTH),
        "mlp.up_proj": (inner, WIDTH),
        "mlp.down_proj": (WIDTH, inner),
    }


TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


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
        for name, shape in shapes(inner).items():
            weights = quants.quantize(dice.normal(size=shape).astype(np.float32), kind)
            writer.add_tensor(f"blk.{block}.{TENSORS[name]}.weight", weights, raw_dtype=kind)
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
            rows, columns = shapes(inner)[name]
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
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=head_dim,
        max_position_embeddings=2_048,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
