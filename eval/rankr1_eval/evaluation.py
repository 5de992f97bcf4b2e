"""One evaluation of multi-hop questions: the stages put together over the systems that were asked for.

Knows every part by its values; nothing of the command line. What is asked and finished is never asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from rankr1_eval import pipeline, systems
from rankr1_eval.baselines import FirstStage
from rankr1_eval.pipeline import Tell, asked_with, quietly
from rankr1_eval.reader import PROMPT, Reader
from rankr1_eval.run_folder import Folder, Rankings, Records, cost_of, digest, read_of, retrieved_of
from rankr1_eval.scoring import EvaluatedRun, Read, SystemRun
from rankr1_eval.systems import FREE, Order, System, parse
from rankr1_eval.types import Question
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Query


@dataclass(frozen=True)
class _Files:
    """The records of one system: of its orders, None where it has none, and of what was read of the first k."""

    spec: System
    orders: Records | None
    reads: Mapping[int, Records]


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on what, by whom. `source` tells where the questions come from; `ks` what the reader sees.

    Without a reader nothing is read and systems without an order are left out; `ks` are where support recall is told.
    """

    dataset: str
    questions: Sequence[Question]
    corpus: Sequence[Passage]
    source: Mapping[str, object]
    first_stage: FirstStage
    systems: Sequence[System]
    ks: Sequence[int]
    reranker: Reranker
    reader: Reader | None
    seed: int = 0

    def __post_init__(self) -> None:
        """ValueError where the systems, their settings and what is read do not go together."""
        if self.reranker.retrieve is not None:
            raise ValueError(
                "the reranker's own retrieve= may find what the corpus lacks: leave it out and name the system "
                "rank-r1:hops=2+retrieve=true, which searches the corpus"
            )
        for spec in self._systems:
            if spec.kind == "rank-r1":
                self._reranker(spec)
        if self.reader and max(self.ks) > self.first_stage.n and any(spec.ordered for spec in self.systems):
            raise ValueError(f"the first {max(self.ks)} passages are to be read of {self.first_stage.n} candidates")

    def run(self, folder: Folder, tell: Tell = quietly) -> EvaluatedRun:
        """Go through the stages, and what came of them. StageError where a model failed for some questions."""
        kept = folder.questions(self.source)
        told = {**self.source, **self.first_stage.telling(self.corpus)}
        found = folder.candidates(told)
        files = [self._files(spec, folder, told) for spec in self._systems]  # so that nothing is asked before all fit
        tell("load", len(self.questions), pipeline.load(kept, self.questions))
        folder.write_passages(self.corpus)
        first = self.first_stage.over(self.questions, self.corpus)
        tell("retrieve", len(self.questions), pipeline.retrieve(found, self.questions, first))
        return EvaluatedRun(
            name=folder.path.name,
            dataset=self.dataset,
            questions=tuple(self.questions),
            passages=self._passages,
            candidates=self.first_stage.n,
            systems=tuple(self._system(one, found, tell) for one in files),
            settings=self.telling(told),
            cutoffs=tuple(self.ks),
        )

    def telling(self, told: Mapping[str, object]) -> dict[str, Any]:
        """The settings for the reader of the report."""
        reads = self.reader.backend.model if self.reader else ""
        asked = {spec.name: self._asked(spec) for spec in self._systems if spec.kind == "rank-r1"}
        return {
            **told,
            "questions": len(self.questions),
            "passages": len(self.corpus),
            "read": list(self.ks) if self.reader else [],
            "supports": sum(len(question.supports) for question in self.questions),
            "absent": sum(id not in self._passages for question in self.questions for id in question.supports),
            "models": {"reranker": self.reranker.plan.backend.model} | ({"reader": reads} if reads else {}),
            "reader": self._reading,
            "systems": asked,
        }

    @property
    def _systems(self) -> list[System]:
        """Those that were asked for, and behind them those that cost nothing, to be ranked and not read."""
        asked = [spec for spec in self.systems if spec.ordered or self.reader]
        kinds = {spec.kind for spec in asked}
        return [*asked, *(spec for spec in parse(FREE) if spec.kind not in kinds)]

    @cached_property
    def _passages(self) -> Mapping[str, Passage]:
        return {passage.id: passage for passage in self.corpus}

    @cached_property
    def _search(self) -> Callable[[str], list[Passage]]:
        """The first stage for any text. ValueError where it has nothing to search with."""
        return self.first_stage.search(self.corpus)

    @cached_property
    def _reading(self) -> dict[str, object]:
        if self.reader is None:
            return {}
        return {"reader": self.reader.backend.identity, "tokens": self.reader.tokens, "prompt": PROMPT}

    def _files(self, spec: System, folder: Folder, candidates: Mapping[str, object]) -> _Files:
        """The records of a system, opened: FileError where they were made with other settings."""
        asked = {**self._asked(spec), "candidates": digest(sorted(candidates.items()))} if spec.ordered else {}
        orders = folder.orders(spec, asked) if spec.ordered else None  # first: it tells a changed setting by its name
        ks = [k for k in self.ks if spec in self.systems and self.reader] if spec.ordered else [0]
        order, source = digest(sorted(asked.items(), key=str)), digest(self.source)
        reads = {k: folder.reads(spec, k, {**self._reading, "k": k, "order": order, "source": source}) for k in ks}
        return _Files(spec, orders, reads)

    def _system(self, files: _Files, found: Records, tell: Tell) -> SystemRun:
        """Order the candidates as the system says, then read."""
        spec, records = files.spec, files.orders
        if records is None:
            read = self._read(files.reads[0], 0, partial(self._given, spec), tell)
            return SystemRun(spec.name, reads=dict.fromkeys(self.ks, read))
        tell(records.stage, len(self.questions), self._order(spec, records, found))
        orders = {question.query.id: tuple(records[question.query.id]["order"]) for question in self.questions}
        queries = {question.query.id: question.query for question in self.questions}
        return SystemRun(
            name=spec.name,
            orders=orders,
            reads={k: self._read(kept, k, partial(self._first, orders, k), tell) for k, kept in files.reads.items()},
            rankings=Rankings(queries, records, self._passages) if spec.kind == "rank-r1" else {},
            costs={} if spec.kind in FREE else {id: cost_of(records[id]) for id in queries},
            retrieved={id: retrieved_of(records[id]) for id in queries} if spec.settings.get("retrieve") else {},
        )

    def _order(self, spec: System, records: Records, found: Records) -> Iterator[str]:
        """The stage rerank of one system."""

        def pool(query: Query) -> tuple[Passage, ...]:
            return pipeline.candidates(found[query.id], self._passages)

        if spec.kind == "rank-r1":
            return pipeline.rerank(records, [one.query for one in self.questions], pool, self._reranker(spec))
        return pipeline.reorder(records, self.questions, pool, self._reorder(spec))

    def _reorder(self, spec: System) -> Callable[[Question, Sequence[Passage]], Order]:
        """The order of a system without a reasoning model."""
        if spec.kind == "oracle":
            return lambda question, passages: systems.oracle(passages, question.supports)
        if spec.kind == "random":
            return lambda question, passages: systems.shuffled(question.query, passages, self.seed)
        if spec.kind == "none":
            return lambda question, passages: tuple(range(len(passages)))
        by = systems.dense(spec.model) if spec.kind == "dense" else systems.cross_encoder(spec.model)
        return lambda question, passages: by(question.query, passages)

    def _reranker(self, spec: System) -> Reranker:
        """The reranker with the system's own settings, on the same backend. ValueError that names the system."""
        settings = dict(spec.settings)
        try:
            if "retrieve" in settings:
                settings["retrieve"] = self._search if settings["retrieve"] else None
            return replace(self.reranker, **settings) if settings else self.reranker
        except (ValueError, TypeError) as error:
            raise ValueError(f"system {spec.name!r}: {error}") from error

    def _asked(self, spec: System) -> dict[str, object]:
        """What the order of a system depends on, beside its candidates."""
        if spec.kind == "random":
            return {"seed": self.seed}
        if spec.kind != "rank-r1":
            return {"model": spec.model} if spec.model else {}
        return asked_with(self._reranker(spec))

    def _read(
        self, records: Records, k: int, context: Callable[[Question], tuple[Passage, ...]], tell: Tell
    ) -> Mapping[str, Read]:
        """The stage read of one system at one k."""
        assert self.reader is not None
        title = f"{records.stage}, first {k}" if k else records.stage
        reading = pipeline.read(records, self.questions, context, self.reader, self.reranker.in_flight)
        tell(title, len(self.questions), reading)
        return {question.query.id: read_of(records[question.query.id]) for question in self.questions}

    def _first(self, orders: Mapping[str, tuple[str, ...]], k: int, question: Question) -> tuple[Passage, ...]:
        return tuple(self._passages[id] for id in orders[question.query.id][:k])

    def _given(self, spec: System, question: Question) -> tuple[Passage, ...]:
        """The supports, as far as the corpus has them, or nothing."""
        supports = question.supports if spec.kind == "gold" else ()
        return tuple(self._passages[id] for id in supports if id in self._passages)
