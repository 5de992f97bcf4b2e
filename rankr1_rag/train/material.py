"""Examples as what the trainers read: messages, and what is to be written or rewarded.

Rows of all epochs stand one after another, already in the order in which they are trained on. Knows examples, formats
and token counts; knows no trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rankr1_rag.train.examples import Example, read_examples, share
from rankr1_rag.train.model import Trained
from rankr1_rag.train.prompts import messages
from rankr1_rag.train.sets import TrainingSet, sets
from rankr1_rag.train.settings import SFT, Training
from rankr1_rag.train.targets import target
from rankr1_rag.types import Message

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Material:
    """The sets to train on, in order, and those to measure on; `examples` of them were taken."""

    sets: tuple[TrainingSet, ...]
    held_out: tuple[TrainingSet, ...]
    examples: tuple[Example, ...]


def read(settings: Training) -> Material:
    """What these settings train on. FileError for bad files; ValueError where a held-out example is trained on too."""
    examples = share(read_examples(*settings.data), settings.share, settings.seed)
    held = read_examples(*settings.held_out) if settings.held_out else []
    _apart(examples, held)
    train = [
        one
        for epoch in range(settings.epochs)
        for one in sets(examples, size=settings.size, seed=settings.seed, hard=settings.hard, epoch=epoch)
    ]
    measured = sets(held, size=settings.size, seed=settings.seed, hard=settings.hard)[: settings.held_sets]
    return Material(tuple(train), tuple(measured), tuple(examples))


def supervised(material: Material, settings: SFT, trained: Trained) -> list[dict[str, Any]]:
    """Rows of token ids, and which of them are learnt: the completion and its end. ValueError where that is too long.

    Rendered as the backends render it, so that what is learnt is what will be asked.
    """
    rows = []
    for one in material.sets:
        prompt = trained.ids(asked(one, settings, trained.count))
        text = target(settings.target, one.passages[one.right], one.right + 1, settings.prompt_format)
        learnt = [*trained.tokenizer(text, add_special_tokens=False).input_ids, trained.tokenizer.eos_token_id]
        if len(learnt) > settings.completion_tokens:
            raise ValueError(
                f"query {one.query.id!r}: what is to be learnt takes {len(learnt)} tokens and completion_tokens is "
                f"{settings.completion_tokens}: give more"
            )
        rows.append({"input_ids": prompt + learnt, "completion_mask": [0] * len(prompt) + [1] * len(learnt)})
    return rows


def rewarded(material: Material, settings: Training, count: Count) -> list[dict[str, Any]]:
    """Rows of prompt, number of passages and the place of the right one."""
    return [
        {"prompt": asked(one, settings, count), "n": len(one.passages), "right": one.right} for one in material.sets
    ]


def asked(one: TrainingSet, settings: Training, count: Count) -> list[Message]:
    """The messages of a set, clipped as they are when a reranker asks. ValueError names the query."""
    return messages(
        one,
        settings.prompt_format,
        count,
        context=settings.context,
        think_tokens=settings.completion_tokens if settings.prompt_format.reasoning else 0,
        query_tokens=settings.query_tokens,
        passage_tokens=settings.passage_tokens,
    )


def _apart(examples: Iterable[Example], held: Iterable[Example]) -> None:
    """ValueError where a query is both trained and measured on."""
    texts = {one.query.text for one in examples}
    for one in held:
        if one.query.text in texts:
            raise ValueError(
                f"held_out: the query {one.query.text!r:.80} is trained on too, so measuring on it would tell nothing: "
                "give other examples"
            )
