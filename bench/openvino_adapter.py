"""Measure whether OpenVINO GenAI can apply a LoRA adapter itself, in place of our merge, and at what cost.

    python -m bench.openvino_adapter [ROUNDS]

The runtime finds the layers of an adapter by the names of the model's MatMul nodes. A model made from a GGUF file has
generated names ("MatMul_46"), so this script saves that model once, renames the nodes and loads the saved model with
the adapter. Prompts are sets of five passages of the demo's questions; variants take turns. The results are in
openvino_adapter.md.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openvino  # type: ignore[import-untyped]
from openvino_genai import (
    Adapter,
    AdapterConfig,
    ContinuousBatchingPipeline,
    GenerationConfig,
    LLMPipeline,
    SchedulerConfig,
)

from bench.openvino_merged import EXACT, WRITTEN, conversations
from rankr1_rag.backends.hub import ADAPTER
from rankr1_rag.backends.openvino import lora, weights
from rankr1_rag.backends.openvino.lora import F16, merge

LAYERS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The MatMul nodes of one block with weights of their own, in the order in which the runtime creates them."""

ANSWER, TIMED = 40, 4


def named_model(base: Path, folder: Path) -> Path:
    """Save the model that the runtime makes of a GGUF file, its MatMul nodes named as in Hugging Face."""
    raw, named = folder / "raw", folder / "named"
    raw.mkdir()
    named.mkdir()
    (raw / base.name).symlink_to(base)  # the runtime writes next to the file
    LLMPipeline(str(raw / base.name), "CPU", enable_save_ov_model=True)
    model = openvino.Core().read_model(raw / "openvino_model.xml")
    nodes = [op for op in model.get_ordered_ops() if op.get_type_name() == "MatMul" and has_weights(op)]
    nodes.sort(key=lambda op: int(op.friendly_name.rpartition("_")[2]))
    metadata = weights.read_header(base).metadata
    blocks = int(str(metadata[f"{metadata['general.architecture']}.block_count"]))
    for place in range(blocks * len(LAYERS)):
        block, layer = divmod(place, len(LAYERS))
        nodes[place].friendly_name = f"model.layers.{block}.{LAYERS[layer]}"
    openvino.save_model(model, named / "openvino_model.xml", compress_to_fp16=False)
    for file in raw.glob("openvino_*tokenizer.*"):
        file.rename(named / file.name)
    return named


def has_weights(node: Any) -> bool:
    """Whether the second input comes from a constant."""
    source = node.input(1).get_source_output().get_node()
    while source.get_type_name() != "Constant" and source.inputs():
        source = source.input(0).get_source_output().get_node()
    return bool(source.get_type_name() == "Constant")


class Variant:
    """A pipeline on one file or folder, without prefix caching."""

    def __init__(self, path: Path, properties: dict[str, Any]) -> None:
        scheduler = SchedulerConfig()
        scheduler.num_kv_blocks = 1_024
        scheduler.enable_prefix_caching = False
        begin = time.perf_counter()
        self.pipeline = ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
        self.loading = time.perf_counter() - begin
        self.tokenizer = self.pipeline.get_tokenizer()
        self.answers: list[str] = []
        self.requests = 0

    def ask(self, texts: list[str], tokens: int, to_the_end: bool = False) -> float:
        """Seconds to answer all of them, side by side."""
        config = GenerationConfig(max_new_tokens=tokens, ignore_eos=to_the_end, apply_chat_template=False)
        begin = time.perf_counter()
        self.answers = [one.m_generation_ids[0] for one in self.pipeline.generate(texts, [config] * len(texts))]
        return time.perf_counter() - begin

    def stepped(self, text: str) -> str:
        """One answer by add_request and step, as the backend's worker asks."""
        config = GenerationConfig(max_new_tokens=ANSWER, apply_chat_template=False)
        self.requests += 1
        tokens = self.tokenizer.encode(text, add_special_tokens=False).input_ids
        handle = self.pipeline.add_request(self.requests, tokens, config)
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        return str(self.tokenizer.decode(handle.read_all()[0].generated_ids))

    def times(self, texts: list[str]) -> list[float]:
        """Seconds: prompts read one by one, one text written, 16 side by side, all prompts answered."""
        read = sum(self.ask([text], 1) for text in texts)
        written = []
        for short in ([texts[0][-200:]], [text[-200:] for text in texts * 4]):
            written.append(self.ask(short, WRITTEN, True) - self.ask(short, 1, True))
        return [read, *written, self.ask(texts, ANSWER)]


def main(rounds: int) -> None:
    base, adapter_folder = weights.find(None), weights.adapter(None, None)
    assert adapter_folder is not None
    read = lora.read_adapter(adapter_folder)
    (scale,) = {low.scale for low in read.layers.values()}
    adapter = Adapter(str(adapter_folder / ADAPTER))
    with tempfile.TemporaryDirectory() as place:
        merged = Path(place) / "merged.gguf"
        begin = time.perf_counter()
        with merged.open("wb") as out:
            merge(base, read, out, F16)
        merging = time.perf_counter() - begin
        named = named_model(base, Path(place))
        naming = time.perf_counter() - begin - merging
        modes = AdapterConfig.Mode
        variants = {
            "merged, float16 (today)": Variant(merged, {}),
            "base alone, Q4_1": Variant(base, {}),
            "adapter, MODE_STATIC": Variant(named, {"adapters": AdapterConfig(adapter, scale, modes.MODE_STATIC)}),
            "adapter, MODE_DYNAMIC": Variant(named, {"adapters": AdapterConfig(adapter, scale, modes.MODE_DYNAMIC)}),
            "merged, exact": Variant(merged, EXACT),
        }
    print(f"merging takes {merging:.1f} s, saving with names {naming:.1f} s\n")
    report(variants, rounds)


def report(variants: dict[str, Variant], rounds: int) -> None:
    today = next(iter(variants))
    tokenizer = variants[today].tokenizer
    texts = [str(tokenizer.apply_chat_template(one, add_generation_prompt=True)) for one in conversations()[::2][:24]]
    before = {name: variant.stepped(texts[0]) for name, variant in variants.items()}
    answers = {}
    for name, variant in variants.items():
        variant.ask(texts, ANSWER)
        answers[name] = variant.answers
        print(f"answered: {name}", file=sys.stderr, flush=True)
    timed = [name for name in variants if name != "merged, exact"]
    ratios: dict[str, list[list[float]]] = {name: [] for name in timed}
    for _ in range(rounds):
        seconds = {name: variants[name].times(texts[:TIMED]) for name in timed}
        print({name: [round(one, 2) for one in seconds[name]] for name in timed}, file=sys.stderr, flush=True)
        for name in timed:
            ratios[name].append([a / b for a, b in zip(seconds[name], seconds[today], strict=True)])
    print("| | loading, s | read | written alone | 16 side by side | answered | as today | as exact | first answer |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, variant in variants.items():
        cells = ["–"] * 4
        if name in ratios:
            cells = [f"{statistics.median(one):.2f}" for one in zip(*ratios[name], strict=True)]
        same = [
            sum(one == other for one, other in zip(answers[name], answers[reference], strict=True))
            for reference in (today, "merged, exact")
        ]
        applied = "the same" if before[name] == variant.stepped(texts[0]) else "not adapted"
        print(f"| {name} | {variant.loading:.1f} | {' | '.join(cells)} | {same[0]} | {same[1]} | {applied} |")
    print(f"\nof {len(texts)} answers; {rounds} rounds")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
