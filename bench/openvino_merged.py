"""In which type should a merged model be written? Speed and nearness to exact arithmetic, as a table.

    python bench/openvino_merged.py [ROUNDS]

Sets of five passages out of the BM25 candidates of the demo's questions, asked as the embedded default is asked. Exact
is float16 computed in float32 with a cache in float32 (a file in float32 cannot be loaded). Types take turns; the
results are in openvino.md.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

from rankr1_rag import demo
from rankr1_rag.backends.openvino import lora, weights
from rankr1_rag.backends.openvino.lora import F16, Q8_0, merge
from rankr1_rag.checkpoints import CHECKPOINTS, EMBEDDED
from rankr1_rag.prompt import clip
from rankr1_rag.types import Message

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
SETS, WRITTEN = 60, 64


def conversations() -> list[list[Message]]:
    known, questions = CHECKPOINTS[EMBEDDED], demo.questions()
    sets = []
    first_stage = demo.BM25(demo.passages())
    for question in questions:
        found = first_stage.search(question.query.text)
        lines = [clip(known.format.line(passage), 4 * (known.passage_tokens or 64), len) for passage in found]
        groups = [lines[at : at + known.size] for at in range(0, len(lines) - known.size + 1, known.size)]
        sets += [known.format.messages(question.query.text, group) for group in groups]
    return sets[:SETS]


class Model:
    """A pipeline on one file."""

    def __init__(self, path: Path, properties: dict[str, Any]) -> None:
        self.size = path.stat().st_size / 1e6
        scheduler = SchedulerConfig()
        scheduler.num_kv_blocks = 1_024
        begin = time.perf_counter()
        self.pipeline = ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
        self.loading = time.perf_counter() - begin
        self.tokenizer = self.pipeline.get_tokenizer()

    def ask(self, texts: list[str], tokens: int, to_the_end: bool = False) -> float:
        """Seconds to answer them all, side by side."""
        config = GenerationConfig(max_new_tokens=tokens, ignore_eos=to_the_end, apply_chat_template=False)
        begin = time.perf_counter()
        self.answers = [one.m_generation_ids[0] for one in self.pipeline.generate(texts, [config] * len(texts))]
        return time.perf_counter() - begin

    def answered(self, texts: list[str]) -> list[str]:
        """One after another, to their ends."""
        said = []
        for text in texts:
            self.ask([text], 40)
            said += self.answers
        return said

    def speed(self, texts: list[str]) -> list[float]:
        """Tokens a second: read alone, written alone, written in a batch of 16 short prompts."""
        read = sum(self.tokenizer.encode(text).input_ids.shape[1] for text in texts)
        speeds = [read / sum(self.ask([text], 1) for text in texts)]
        for short in ([texts[0][-200:]], [text[-200:] for text in texts[:16]]):
            seconds = self.ask(short, WRITTEN, True) - self.ask(short, 1, True)
            speeds.append((WRITTEN - 1) * len(short) / seconds)
        return speeds


def main(rounds: int) -> None:
    base, folder = weights.find(None), weights.adapter(None, None)
    assert folder is not None
    adapter, models = lora.read_adapter(folder), {}
    with tempfile.TemporaryDirectory() as place:
        for name, kind, properties in (("exact", F16, EXACT), ("float16", F16, {}), ("Q8_0", Q8_0, {})):
            path = Path(place) / f"{name}.gguf"
            with path.open("wb") as out:
                merge(base, adapter, out, kind)
            models[name] = Model(path, properties)
    report(models, rounds)


def report(models: dict[str, Model], rounds: int) -> None:
    tokenizer = models["exact"].tokenizer
    texts = [tokenizer.apply_chat_template(one, add_generation_prompt=True) for one in conversations()]
    answers = {name: model.answered(texts) for name, model in models.items()}
    speeds: dict[str, list[list[float]]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            speeds[name].append(model.speed(texts[:20]))
    print("| | MB | loading | read alone | written alone | in a batch of 16 | answers as exact |")
    print("|---|---|---|---|---|---|---|")
    for name, model in models.items():
        same = sum(one == other for one, other in zip(answers[name], answers["exact"], strict=True))
        median = " | ".join(f"{statistics.median(one):,.0f}" for one in zip(*speeds[name], strict=True))
        print(f"| {name} | {model.size:.0f} | {model.loading:.1f} s | {median} | {same} of {len(texts)} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
