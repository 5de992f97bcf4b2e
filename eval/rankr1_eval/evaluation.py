"""One evaluation of multi-hop questions: the stages put together over the rows that were asked for.

Knows every part by its values; nothing of the command line. What is asked and finished is never asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from rankr1_eval import pipeline, reorder
from rankr1_eval.asked import asked_with
from rankr1_eval.firststage import FirstStage
from rankr1_eval.folder import Folder, Rankings, cost_of, digest, read_of
from rankr1_eval.pipeline import Tell, quietly
from rankr1_eval.reader import PROMPT, Reader
from rankr1_eval.records import Records
from rankr1_eval.results import Read, Row, Run
from rankr1_eval.rows import FREE, RowSpec, parse
from rankr1_eval.types import Question
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Query


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on what, by whom. `source` tells where the questions come from; `ks` what the reader sees."""

    dataset: str
    questions: Sequence[Question]
    corpus: Sequence[Passage]
    source: Mapping[str, object]
    first_stage: FirstStage
    rows: Sequence[RowSpec]
    ks: Sequence[int]
    reranker: Reranker
    reader: Reader
    seed: int = 0

    def run(self, folder: Folder, tell: Tell = quietly) -> Run:
        """Go through the stages, and what came of them. StageError where a model failed for some questions."""
        kept = folder.questions(self.source)
        tell("load", len(self.questions), pipeline.load(kept, self.questions))
        folder.write_passages(self.corpus)
        told = {**self.source, **self.first_stage.telling(self.corpus)}
        found = folder.candidates(told)
        first = self.first_stage.over(self.questions, self.corpus)
        tell("retrieve", len(self.questions), pipeline.retrieve(found, self.questions, first))
        return Run(
            name=folder.path.name,
            dataset=self.dataset,
            questions=tuple(self.questions),
            passages=self._passages,
            candidates=self.first_stage.n,
            rows=tuple(self._row(spec, folder, found, told, tell) for spec in self._rows),
            settings=self.telling(told),
        )

    def telling(self, told: Mapping[str, object]) -> dict[str, Any]:
        """The settings for the reader of the report."""
        asked = {spec.name: self._asked(spec) for spec in self._rows if spec.kind == "rank-r1"}
        return {
            **told,
            "questions": len(self.questions),
            "passages": len(self.corpus),
            "read": list(self.ks),
            "reader": self._reading,
            "rows": asked,
        }

    @property
    def _rows(self) -> list[RowSpec]:
        """Those that were asked for, and behind them those that cost nothing, to be ranked and not read."""
        kinds = {spec.kind for spec in self.rows}
        return [*self.rows, *(spec for spec in parse(FREE) if spec.kind not in kinds)]

    @cached_property
    def _passages(self) -> Mapping[str, Passage]:
        return {passage.id: passage for passage in self.corpus}

    @cached_property
    def _reading(self) -> dict[str, object]:
        return {"reader": self.reader.backend.identity, "tokens": self.reader.tokens, "prompt": PROMPT}

    def _row(self, spec: RowSpec, folder: Folder, found: Records, told: Mapping[str, object], tell: Tell) -> Row:
        """Order the candidates as the row says, then read."""
        if not spec.ordered:
            read = self._read(spec, folder, 0, lambda question: self._given(spec, question), {}, tell)
            return Row(spec.name, reads=dict.fromkeys(self.ks, read))
        asked = {**self._asked(spec), "candidates": digest(sorted(told.items()))}
        records = folder.orders(spec, asked)
        tell(records.stage, len(self.questions), self._order(spec, records, found))
        orders = {question.query.id: tuple(records[question.query.id]["order"]) for question in self.questions}
        reads: dict[int, Mapping[str, Read]] = {}
        for k in self.ks if spec in self.rows else ():
            context = partial(self._first, orders, k)
            reads[k] = self._read(spec, folder, k, context, asked, tell)
        queries = {question.query.id: question.query for question in self.questions}
        return Row(
            name=spec.name,
            orders=orders,
            reads=reads,
            rankings=Rankings(queries, records, self._passages) if spec.kind == "rank-r1" else {},
            costs={} if spec.kind in FREE else {id: cost_of(records[id]) for id in queries},
        )

    def _order(self, spec: RowSpec, records: Records, found: Records) -> Iterator[str]:
        """The stage rerank of one row."""

        def pool(query: Query) -> tuple[Passage, ...]:
            return pipeline.candidates(found[query.id], self._passages)

        if spec.kind == "rank-r1":
            return pipeline.rerank(records, [one.query for one in self.questions], pool, self._reranker(spec))
        return pipeline.reorder(records, self.questions, pool, self._reorder(spec))

    def _reorder(self, spec: RowSpec) -> Callable[[Question, Sequence[Passage]], reorder.Order]:
        """The order of a row without a reasoning model."""
        if spec.kind == "oracle":
            return lambda question, passages: reorder.oracle(passages, question.supports)
        if spec.kind == "random":
            return lambda question, passages: reorder.shuffled(question.query, passages, self.seed)
        if spec.kind == "none":
            return lambda question, passages: tuple(range(len(passages)))
        by = reorder.dense(spec.model) if spec.kind == "dense" else reorder.cross_encoder(spec.model)
        return lambda question, passages: by(question.query, passages)

    def _reranker(self, spec: RowSpec) -> Reranker:
        """The reranker with the row's own settings, on the same backend. ValueError where they do not go together."""
        return replace(self.reranker, **spec.settings) if spec.settings else self.reranker

    def _asked(self, spec: RowSpec) -> dict[str, object]:
        """What the order of a row depends on, beside its candidates."""
        if spec.kind == "random":
            return {"seed": self.seed}
        if spec.kind != "rank-r1":
            return {"model": spec.model} if spec.model else {}
        return asked_with(self._reranker(spec))

    def _read(
        self,
        spec: RowSpec,
        folder: Folder,
        k: int,
        context: Callable[[Question], tuple[Passage, ...]],
        asked: Mapping[str, object],
        tell: Tell,
    ) -> Mapping[str, Read]:
        """The stage read of one row at one k."""
        told = {**self._reading, "k": k, "order": digest(sorted(asked.items(), key=str)), "source": digest(self.source)}
        records = folder.reads(spec, k, told)
        title = f"{records.stage}, first {k}" if k else records.stage
        reading = pipeline.read(records, self.questions, context, self.reader, self.reranker.in_flight)
        tell(title, len(self.questions), reading)
        return {question.query.id: read_of(records[question.query.id]) for question in self.questions}

    def _first(self, orders: Mapping[str, tuple[str, ...]], k: int, question: Question) -> tuple[Passage, ...]:
        return tuple(self._passages[id] for id in orders[question.query.id][:k])

    def _given(self, spec: RowSpec, question: Question) -> tuple[Passage, ...]:
        """The supports, as far as the corpus has them, or nothing."""
        supports = question.supports if spec.kind == "gold" else ()
        return tuple(self._passages[id] for id in supports if id in self._passages)
