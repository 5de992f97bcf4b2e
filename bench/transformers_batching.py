"""Measure the Transformers backend's own batching against plain calls of `generate()` on waiting requests.

    python -m bench.transformers_batching CHECKPOINT [ROUNDS QUERIES [CASE …]]

CHECKPOINT is a folder made by `python -m bench.checkpoint`. `MicroBatched` below is the rival: one thread takes the
requests that wait, pads them on the left and calls `model.generate` once. Both backends rerank the same queries
with 20 candidates each, in turns; the results are in transformers_batching.md.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rankr1_rag import Cost, Query, Ranking, Reranker, demo
from rankr1_rag.backends import Backend, Request, hub
from rankr1_rag.backends.local_model import before_stop
from rankr1_rag.backends.transformers import Transformers
from rankr1_rag.backends.transformers import model as models
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Completion, Passage

ADAPTER = Path(demo.__file__).parents[1] / "embedded"
CASES: dict[str, tuple[bool, int, int]] = {
    "label8": (False, 0, 8),
    "label16": (False, 0, 16),
    "adapter8": (True, 0, 8),
    "adapter16": (True, 0, 16),
    "think8": (False, 64, 8),
    "think16": (False, 64, 16),
    "adapter-think8": (True, 64, 8),
    "adapter-think16": (True, 64, 16),
}
"""Whether with the adapter, reasoning tokens, queries in flight."""


class MicroBatched:
    """A backend of one thread: everyone who waits and asks alike is computed by one call of `generate`."""

    def __init__(self, model: str, adapter: str | None, name: str, max_batch: int = 16) -> None:
        weights = hub.weights(model, adapter, name)
        self._settings = models.ModelSettings(weights.base, weights.adapter, "auto", None, None, max_batch)
        self._name = weights.name
        self._text = models.ModelTokenizer(weights.base)
        self._waiting: list[tuple[models.TokenizedRequest, Future[Completion]]] = []
        self._news = threading.Condition()
        self._closed = False
        self.calls: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def model(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return f"microbatched:{self._name}"

    @property
    def context(self) -> int | None:
        return hub.context(self._settings.base, None)

    @property
    def can_continue(self) -> bool:
        return True

    def count(self, text: str) -> int:
        return int(self._text.count(text))

    async def complete(self, request: Request) -> Completion:
        future: Future[Completion] = Future()
        prepared = self._text.prepare(request, self.context)
        with self._news:
            if not self._thread.is_alive():
                self._thread.start()
            self._waiting.append((prepared, future))
            self._news.notify()
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        import torch

        model = models.load(self._settings)
        tokenizer = self._text.load()
        ends = models.ends(model, tokenizer)
        while batch := self._next_batch():
            self.calls.append(len(batch))
            try:
                with torch.inference_mode():
                    completions = self._generate(torch, model, tokenizer, ends, [one for one, _ in batch])
                for (_, future), completion in zip(batch, completions, strict=True):
                    if future.set_running_or_notify_cancel():
                        future.set_result(completion)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(BackendError(f"transformers: {models.short(error)}"))

    def _next_batch(self) -> list[tuple[models.TokenizedRequest, Future[Completion]]]:
        """Up to `max_batch` requests like the oldest one, those that continue an assistant message first."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            self._waiting = [one for one in self._waiting if not one[1].cancelled()]
            self._waiting.sort(key=lambda one: one[0].request.messages[-1]["role"] != "assistant")  # stable
            batch = [one for one in self._waiting if kind(one[0]) == kind(self._waiting[0][0])]
            batch = batch[: self._settings.max_batch]
            self._waiting = [one for one in self._waiting if all(one is not other for other in batch)]
            return batch

    def _generate(
        self,
        torch: Any,
        model: Any,
        tokenizer: Any,
        ends: tuple[int, ...],
        batch: list[models.TokenizedRequest],
    ) -> list[Completion]:
        longest = max(len(one.prompt) for one in batch)
        ids = torch.tensor([[ends[0]] * (longest - len(one.prompt)) + one.prompt for one in batch])
        mask = torch.tensor([[0] * (longest - len(one.prompt)) + [1] * len(one.prompt) for one in batch])
        request = batch[0].request
        options: dict[str, Any] = {"max_new_tokens": max(one.most for one in batch), "do_sample": False}
        if request.temperature > 0:  # one seed for all: samples depend on the company
            torch.manual_seed(request.seed * 1_000_003 + request.sample)
            options |= {"do_sample": True, "temperature": request.temperature, "top_p": 1.0, "top_k": 0}
        if request.stop:
            options |= {"stop_strings": list(request.stop), "tokenizer": tokenizer}
        if batch[0].choices is not None:
            trees = [one.choices for one in batch]
            options["max_new_tokens"] = max(depth(tree) for tree in trees)
            options["prefix_allowed_tokens_fn"] = lambda row, said: allowed(trees[row], said[longest:].tolist(), ends)
        written = model.generate(
            input_ids=ids, attention_mask=mask, pad_token_id=ends[0], eos_token_id=list(ends), **options
        )[:, longest:].tolist()
        return [self._completion(one, tokens, ends) for one, tokens in zip(batch, written, strict=True)]

    def _completion(self, prepared: models.TokenizedRequest, tokens: list[int], ends: tuple[int, ...]) -> Completion:
        if prepared.choices is not None:
            node = prepared.choices
            for token in tokens:
                node = node.next.get(token, node)
            while node.whole is None:
                (node,) = node.next.values()
            return Completion(node.whole, len(prepared.prompt), completion_tokens=len(tokens), finish_reason="stop")
        tokens = tokens[: prepared.most]
        end = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
        text = before_stop(self._text.decode(tokens[:end]), prepared.request.stop)
        stopped = tokens[end - 1] in ends or self._text.has_stopped(tokens[:end], prepared.request.stop)
        reason = "stop" if stopped else "length"
        return Completion(text, len(prepared.prompt), completion_tokens=end, finish_reason=reason)


def kind(prepared: models.TokenizedRequest) -> tuple[object, ...]:
    """Requests of one kind can share a call."""
    request = prepared.request
    seed = (request.seed, request.sample) if request.temperature > 0 else None
    return prepared.choices is not None, request.temperature, request.stop, seed


def depth(tree: models.ChoiceTree | None) -> int:
    """Tokens until only one choice is left; its end needs no model."""
    if tree is None or tree.only_rest() is not None:
        return 0
    return 1 + max(depth(node) for node in tree.next.values())


def allowed(tree: models.ChoiceTree | None, said: list[int], ends: tuple[int, ...]) -> list[int]:
    """Tokens that continue a choice; an end token where one is whole or certain."""
    for token in said:
        if tree is None or token not in tree.next:
            return [ends[0]]
        tree = tree.next[token]
    if tree is None or not tree.next or tree.only_rest() is not None:
        return [ends[0]]
    return [*tree.next, *(ends[:1] if tree.whole is not None else ())]


def load(queries: int = 20) -> list[tuple[Query, tuple[Passage, ...]]]:
    """Queries of the demo with 20 candidates; the last five are asked again, about the next 20."""
    questions = demo.questions()
    first_stage = demo.BM25(demo.passages())
    found = [first_stage.search(question.query.text, 40) for question in questions]
    items = [(one.query, best[:20]) for one, best in zip(questions, found, strict=True)]
    items += [
        (Query(f"{one.query.id}-b", one.query.text), best[20:]) for one, best in zip(questions, found, strict=True)
    ]
    return items[:queries]


def rank(backend: Backend, tokens: int, in_flight: int, items: list[Any]) -> tuple[float, Cost, list[Ranking]]:
    """Comparisons a second, what they cost, and the rankings."""
    reranker = Reranker(backend, k=3, size=5, reasoning_tokens=tokens, in_flight=in_flight)
    begin = time.perf_counter()
    results = dict(reranker.rank_many(items))
    seconds = time.perf_counter() - begin
    rankings = [one for _, one in sorted(results.items()) if isinstance(one, Ranking)]
    assert len(rankings) == len(items), results
    cost = sum((one.cost for one in rankings), Cost())
    return cost.comparisons / seconds, cost, rankings


def main(checkpoint: str, rounds: int, queries: int, cases: list[str]) -> None:
    import torch

    torch.set_num_threads(2)
    items = load(queries)
    print("| case | comparisons/s | micro-batched | ratio | forced | cached | requests a call | same first passage |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    backends: dict[bool, tuple[Transformers, MicroBatched]] = {}
    for case in cases:
        adapted, tokens, in_flight = CASES[case]
        if adapted not in backends:
            adapter = str(ADAPTER) if adapted else None
            name = "SmolLM2-135M-Rank-R1" if adapted else "SmolLM2-135M-Instruct"
            backends[adapted] = (
                Transformers(checkpoint, adapter=adapter, name=name),
                MicroBatched(checkpoint, adapter, name),
            )
            for backend in backends[adapted]:
                rank(backend, 0, 8, items[:1])  # loads the model
        today, micro = backends[adapted]
        speeds: list[tuple[float, float]] = []
        micro.calls.clear()
        for turn in range(rounds):
            pair = {}
            for backend in (today, micro) if turn % 2 == 0 else (micro, today):
                pair[backend is micro] = rank(backend, tokens, in_flight, items)
            speeds.append((pair[False][0], pair[True][0]))
            print(f"  {case}: {speeds[-1][0]:.2f} {speeds[-1][1]:.2f}", file=sys.stderr, flush=True)
        ratios = [a / b for a, b in speeds]
        forced = " / ".join(f"{pair[key][1].forced} of {pair[key][1].comparisons}" for key in (False, True))
        same = sum(a.passages[0].id == b.passages[0].id for a, b in zip(pair[False][2], pair[True][2], strict=True))
        cells = [
            case,
            f"{statistics.mean(a for a, _ in speeds):.2f}",
            f"{statistics.mean(b for _, b in speeds):.2f}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            forced,
            f"{pair[False][1].cached_tokens / pair[False][1].prompt_tokens:.0%}",
            f"{statistics.mean(micro.calls):.1f}",
            f"{same} of {len(items)}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    rounds, queries = [int(number) for number in sys.argv[2:4]] or [2, 20]
    main(sys.argv[1], rounds, queries, sys.argv[4:] or list(CASES))
