"""Training data: the messages of each set as a reranker would send them, with what is to be written or rewarded.

Rows hold all epochs, in training order. In supervised training the completion is the label alone, or reasoning that
names the passage and its label: a small model that names its choice first learns much faster than from labels alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

from rankr1_rag.engine.query import Budget
from rankr1_rag.io.collection import within
from rankr1_rag.prompt import Format
from rankr1_rag.reader import UNANSWERABLE, reading_messages
from rankr1_rag.train.config import GRPO, SFT, ReaderTraining, RerankerTraining, Training
from rankr1_rag.train.data import Example, Reading, TrainingSet, name, read_examples, readings, sets, share, target
from rankr1_rag.train.model import Trained
from rankr1_rag.types import Clip, Message

Count: TypeAlias = Callable[[str], int | None]
Drawn: TypeAlias = TrainingSet | Reading


def messages(
    set: TrainingSet,
    format: Format,
    count: Count,
    *,
    context: int | None,
    reasoning_tokens: int,
    query_tokens: int | None = None,
    passage_tokens: int | None = None,
    clip: Clip = "head",
) -> tuple[list[Message], Sequence[str]]:
    """The messages of a set, and the lines shown of its passages. ValueError if the context, in tokens, is too short.

    Arguments as those of `Reranker`; `context` None is no limit, `count` gives None where it cannot tell.
    """
    thinks = reasoning_tokens * format.reasoning
    n = len(set.passages)
    budget = Budget(format, n, thinks, query_tokens, passage_tokens, len(set.known), clip)
    with within(f"query {set.query.id!r}"):
        texts = budget.fit(set.query.text, set.passages + set.known, SimpleNamespace(context=context, count=count))
    return format.messages(texts.query, texts.lines[:n], texts.lines[n:]), texts.lines[:n]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The sets to train on, in order, and those to measure on; `examples` of them were taken."""

    sets: tuple[Drawn, ...]
    held_out: tuple[Drawn, ...]
    examples: tuple[Example, ...]


def read_training_data(settings: Training) -> TrainingData:
    """The data of a run. FileError for malformed files; ValueError if a held-out example is also a training example."""
    examples = share(read_examples(*settings.data), settings.share, settings.seed)
    held = read_examples(*settings.held_out) if settings.held_out else []
    trained = {one.query.text for one in examples}
    if both := next((one.query.text for one in held if one.query.text in trained), None):
        raise ValueError(
            f"held_out: the query {both!r:.80} is trained on too, so its score would mean nothing: use other examples"
        )

    def drawn(some: Sequence[Example], epoch: int, smallest: int | None) -> list[Drawn]:
        size, seed, hard = settings.size, settings.seed, settings.hard
        if isinstance(settings, ReaderTraining):
            return [*readings(some, size=size, seed=seed, hard=hard, epoch=epoch, missing=settings.missing)]
        return [*sets(some, size=size, seed=seed, hard=hard, epoch=epoch, smallest=smallest)]

    smallest = settings.smallest if isinstance(settings, RerankerTraining) else None
    train = [one for epoch in range(settings.epochs) for one in drawn(examples, epoch, smallest)]
    measured = drawn(held, 0, None)[: settings.held_sets] if held else []
    return TrainingData(tuple(train), tuple(measured), tuple(examples))


def supervised(drawn: Sequence[Drawn], settings: SFT | ReaderTraining, trained: Trained) -> list[dict[str, Any]]:
    """Rows of token ids, and which of them are learned: the completion and its end. ValueError where that is too long.

    Rendered as the backends render it, so that what is learned is what will be asked.
    """
    rows = []
    for one in drawn:
        shown, lines = asked(one, settings, trained.count)
        prompt = trained.ids(shown)
        if isinstance(one, Reading):
            text = one.answer or UNANSWERABLE
        else:
            assert isinstance(settings, SFT)
            format = settings.prompt_format
            named = name(one, lines, format) if settings.target == "naming" else ""
            text = target(settings.target, one.right + 1, format, named)
        learned = [*trained.tokenizer(text, add_special_tokens=False).input_ids, trained.tokenizer.eos_token_id]
        if len(learned) > settings.completion_tokens:
            raise ValueError(
                f"query {one.query.id!r}: the completion to learn takes {len(learned)} tokens and completion_tokens is "
                f"{settings.completion_tokens}: use more"
            )
        rows.append({"input_ids": prompt + learned, "completion_mask": [0] * len(prompt) + [1] * len(learned)})
    return rows


def rewarded(material: TrainingData, settings: GRPO, count: Count) -> list[dict[str, Any]]:
    """Rows of prompt, number of passages and the place of the right one."""
    return [
        {"prompt": asked(one, settings, count)[0], "n": len(one.passages), "right": one.right}
        for one in material.sets
        if isinstance(one, TrainingSet)
    ]


def asked(one: Drawn, settings: Training, count: Count) -> tuple[list[Message], Sequence[str]]:
    """The messages of a set or reading, clipped as in use, and the lines of a set. ValueError names the query."""
    if isinstance(one, Reading):
        with within(f"query {one.query.id!r}"):
            context, tokens = settings.context, settings.completion_tokens
            return reading_messages("reader-v1", one.query.text, one.passages, context, count, tokens), ()
    assert isinstance(settings, RerankerTraining)
    return messages(
        one,
        settings.prompt_format,
        count,
        context=settings.context,
        reasoning_tokens=settings.completion_tokens if settings.prompt_format.reasoning else 0,
        query_tokens=settings.query_tokens,
        passage_tokens=settings.passage_tokens,
        clip=settings.clip,
    )
