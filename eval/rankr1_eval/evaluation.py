"""One evaluation of multi-hop questions: the stages over all its systems. What is finished is never asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from rankr1_eval import pipeline
from rankr1_eval.baselines import FirstStage
from rankr1_eval.pipeline import Progress, quietly, result_settings
from rankr1_eval.retrieval.dense import MODEL, check_model
from rankr1_eval.run_folder import ORDER, RANKING, READING, Rankings, RunFolder, cost_of, digest
from rankr1_eval.scoring import EvaluatedRun, SystemRun
from rankr1_eval.systems import FREE, Order, System, cross_encoder, dense, oracle, parse, shuffled
from rankr1_eval.types import Question
from rankr1_rag.io.files import writing
from rankr1_rag.io.journal import Journal
from rankr1_rag.io.jsonl import to_line
from rankr1_rag.reader import Read, Reader
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Query


@dataclass(frozen=True)
class Evaluation:
    """Systems on questions. `source` says where the questions come from; `ks` are how many passages the reader sees.

    Without a reader nothing is read and systems without an order are left out; support recall is reported at `ks`.
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
        """ValueError where the systems, their settings and the numbers of passages do not go together."""
        if self.reranker.retrieve is not None:
            raise ValueError(
                "retrieve= of the reranker may find what the corpus lacks: name the system "
                "rank-r1:hops=2+retrieve=true instead, which searches the corpus"
            )
        for system in self._all_systems:
            if system.kind == "rank-r1":
                self._reranker(system)
        if self.reader and max(self.ks) > self.first_stage.n and any(system.ordered for system in self.systems):
            raise ValueError(
                f"the reader cannot see {max(self.ks)} of {self.first_stage.n} candidates: lower --read or --k, or "
                "raise --candidates"
            )

    def run(self, folder: RunFolder, progress: Progress = quietly) -> EvaluatedRun:
        """Go through the stages. StageError where a model failed for some questions."""
        loaded = folder.records("questions.jsonl", "load", self.source, {"question": "a string"})
        depends_on = {**self.source, **self.first_stage.settings(self.corpus)}
        found = folder.records("candidates.jsonl", "retrieve", depends_on, {"candidates": "an array"})
        files = [self._open(system, folder, depends_on) for system in self._all_systems]  # nothing is asked before
        loaded_models = [
            (system.model or MODEL, orders)
            for system, (orders, _) in zip(self._all_systems, files, strict=True)
            if system.kind in ("dense", "cross-encoder")
        ]
        cache = self.first_stage.cache  # with embeddings in it the model may not be needed
        if self.first_stage.retriever == "dense" and not (cache and any(cache.glob("embeddings-*.npy"))):
            loaded_models.append((self.first_stage.model, found))
        for model, records in loaded_models:
            if records is not None and any(question.query.id not in records for question in self.questions):
                check_model(model)
        folder.mark_results()
        progress("load", len(self.questions), pipeline.load(loaded, self.questions))
        with writing(folder.path / "passages.jsonl") as out:  # for other retrievers
            out.writelines(to_line(asdict(passage)) for passage in self.corpus)
        first_stage = self.first_stage.over(self.questions, self.corpus)
        progress("retrieve", len(self.questions), pipeline.retrieve(found, self.questions, first_stage))
        models = {"reranker": self.reranker.plan.backend} | ({"reader": self.reader.backend} if self.reader else {})
        supports = [id for question in self.questions for id in question.supports]
        return EvaluatedRun(
            name=folder.path.name,
            dataset=self.dataset,
            questions=tuple(self.questions),
            passages=self._passages,
            candidates=self.first_stage.n,
            systems=tuple(
                self._run_system(system, *records, found, progress)
                for system, records in zip(self._all_systems, files, strict=True)
            ),
            settings={
                **depends_on,
                "questions": len(self.questions),
                "passages": len(self.corpus),
                "read": list(self.ks) if self.reader else [],
                "supports": len(supports),
                "absent": sum(id not in self._passages for id in supports),
                "models": {name: backend.model for name, backend in models.items()},
                "reader": self._reader_settings,
                "systems": {one.name: self._order_settings(one) for one in self._all_systems if one.kind == "rank-r1"},
            },
            cutoffs=tuple(self.ks),
        )

    @cached_property
    def _all_systems(self) -> list[System]:
        """The systems asked for, then those that cost nothing, which are ranked and not read."""
        systems = [system for system in self.systems if system.ordered or self.reader]
        kinds = {system.kind for system in systems}
        return [*systems, *(system for system in parse(FREE) if system.kind not in kinds)]

    @cached_property
    def _passages(self) -> Mapping[str, Passage]:
        return {passage.id: passage for passage in self.corpus}

    @cached_property
    def _search(self) -> Callable[[str], list[Passage]]:
        return self.first_stage.search(self.corpus)

    @cached_property
    def _reader_settings(self) -> dict[str, object]:
        if self.reader is None:
            return {}
        return {"reader": self.reader.backend.identity, "tokens": self.reader.tokens, "prompt": self.reader.prompt}

    def _order_settings(self, system: System) -> dict[str, Any]:
        """What the order of a system depends on besides its candidates."""
        if system.kind == "random":
            return {"seed": self.seed}
        if system.kind == "rank-r1":
            return result_settings(self._reranker(system))
        return {"model": system.model} if system.model else {}

    def _reranker(self, system: System) -> Reranker:
        """The reranker with the system's own settings, on the same backend. ValueError that names the system."""
        settings = dict(system.settings)
        try:
            if "retrieve" in settings:
                settings["retrieve"] = self._search if settings["retrieve"] else None
            return replace(self.reranker, **settings) if settings else self.reranker
        except (ValueError, TypeError) as error:
            raise ValueError(f"system {system.name!r}: {error}") from error

    def _open(
        self, system: System, folder: RunFolder, depends_on: Mapping[str, object]
    ) -> tuple[Journal | None, dict[int, Journal]]:
        """The records of a system's orders, None where it has none, and of the readings by k.

        FileError where they were made with other settings.
        """
        name, orders, settings, ks = system.file, None, {}, [0] if self.reader else []
        if system.ordered:
            settings = {**self._order_settings(system), "candidates": digest(sorted(depends_on.items()))}
            fields = RANKING if system.kind == "rank-r1" else ORDER
            orders = folder.records(f"rerank/{name}.jsonl", f"rerank {system.name}", settings, fields)
            ks = list(self.ks) if self.reader and system in self.systems else []
        order, source = digest(sorted(settings.items(), key=str)), digest(self.source)
        reads = {}
        for k in ks:
            file = f"read/{name}@{k}.jsonl" if system.ordered else f"read/{name}.jsonl"
            reading = {**self._reader_settings, "k": k, "order": order, "source": source}
            reads[k] = folder.records(file, f"read {system.name}", reading, READING)
        return orders, reads

    def _run_system(
        self, system: System, orders: Journal | None, reads: Mapping[int, Journal], found: Journal, progress: Progress
    ) -> SystemRun:
        """The stages rerank and read of one system."""
        queries = {question.query.id: question.query for question in self.questions}
        ranked: dict[str, tuple[str, ...]] = {}
        if orders is not None:

            def pool(query: Query) -> tuple[Passage, ...]:
                return tuple(self._passages[id] for id, _ in found[query.id]["candidates"])

            if system.kind == "rank-r1":
                ids = pipeline.rerank(orders, list(queries.values()), pool, self._reranker(system))
            else:
                ids = pipeline.reorder(orders, self.questions, pool, self._baseline(system))
            progress(orders.kind, len(queries), ids)
            ranked = {id: tuple(orders[id]["order"]) for id in queries}
        answers = {k: self._read(system, k, records, ranked, progress) for k, records in reads.items()}
        if orders is None:
            return SystemRun(system.name, reads=dict.fromkeys(self.ks, answers[0]))
        retrieves = bool(system.settings.get("retrieve"))
        return SystemRun(
            name=system.name,
            orders=ranked,
            reads=answers,
            rankings=Rankings(queries, orders, self._passages) if system.kind == "rank-r1" else {},
            costs={} if system.kind in FREE else {id: cost_of(orders, id) for id in queries},
            retrieved={id: int(orders[id]["rankr1"].get("retrieved", 0)) for id in queries} if retrieves else {},
        )

    def _baseline(self, system: System) -> Callable[[Question, Sequence[Passage]], Order]:
        """The order of a system without a reasoning model."""
        if system.kind == "oracle":
            return lambda question, passages: oracle(passages, question.supports)
        if system.kind == "random":
            return lambda question, passages: shuffled(question.query, passages, self.seed)
        if system.kind == "none":
            return lambda question, passages: tuple(range(len(passages)))
        by = dense(system.model) if system.kind == "dense" else cross_encoder(system.model)
        return lambda question, passages: by(question.query, passages)

    def _read(
        self, system: System, k: int, records: Journal, orders: Mapping[str, Sequence[str]], progress: Progress
    ) -> Mapping[str, Read]:
        """The stage read of one system at one k; 0 for a system without an order."""
        assert self.reader is not None

        def context(question: Question) -> tuple[Passage, ...]:
            if system.ordered:
                ids: Sequence[str] = orders[question.query.id][:k]
            else:
                ids = question.supports if system.kind == "gold" else ()
            return tuple(self._passages[id] for id in ids if id in self._passages)

        title = f"{records.kind}, first {k}" if k else records.kind
        in_flight = self.reranker.in_flight or getattr(self.reader.backend, "capacity", None) or 64
        reading = pipeline.read(records, self.questions, context, self.reader, in_flight)
        progress(title, len(self.questions), reading)
        kept = {question.query.id: records[question.query.id] for question in self.questions}
        return {
            id: Read(**{name: record[name] for name in Read.__annotations__ if name in record})
            for id, record in kept.items()
        }
