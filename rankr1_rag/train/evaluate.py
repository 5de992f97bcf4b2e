"""The reward, and accuracy on held-out sets during training: each set is asked once, greedily, and parsed strictly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from operator import itemgetter
from typing import Any

from rankr1_rag.prompt import Format
from rankr1_rag.reader import UNANSWERABLE, answer_string, normalised, token_f1
from rankr1_rag.train.data import Reading, TrainingSet
from rankr1_rag.train.model import Trained, generating
from rankr1_rag.train.run_dir import ALONE, Processes
from rankr1_rag.types import Message


@dataclass(frozen=True, slots=True)
class Reward:
    """The parts of a reward: the text keeps the `format` exactly, and its label is `right`.

    For a text in another form, `right` follows the lenient parse of inference.
    """

    format: bool
    right: bool

    @property
    def value(self) -> float:
        """1.0 for both parts, else 0.0."""
        return float(self.format and self.right)


def reward(format: Format, text: str, n: int, right: int) -> Reward:
    """The reward of a whole completion for a set of n, of which the passage at position `right` is the positive."""
    kept = format.strict(text, n)
    places = kept or (None if format.is_reasoning(text) else format.parse(text, n))
    return Reward(kept is not None, places is not None and places[0] == right)


BATCH = 16
"""Prompts in a batch of generation."""


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """Scores on `sets` held-out sets: shares of right answers and of kept formats, mean completion length in tokens.

    `places`: how often each place was named, relative to an equal share (1.0 each if balanced).
    """

    sets: int
    accuracy: float
    format_rate: float
    completion_tokens: float
    places: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReadingScores:
    """Scores on `sets` held-out readings: exact matches and F1 of answers, in the share that has one; no answer is 0.

    `answered`: the share that got an answer; `unanswerable`: the share of those without a positive that got none.
    """

    sets: int
    accuracy: float
    f1: float
    answered: float
    unanswerable: float
    completion_tokens: float


def measure(
    trained: Trained,
    asked: Sequence[Sequence[Message]],
    held: Sequence[TrainingSet | Reading],
    format: Format | None,
    most: int,
    processes: Processes = ALONE,
) -> HeldOutScores | ReadingScores:
    """Ask each set once, by all processes; `asked` are its messages, `most` the longest completion in tokens.

    `format` is None for readings.
    """
    batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    with inference(trained.model):
        ours = [
            (place, generate(trained, batches[place], most))
            for place in range(processes.number, len(batches), processes.count)
        ]
    written = chain.from_iterable(batch for _, batch in sorted(processes.gathered(ours), key=itemgetter(0)))
    texts, lengths = zip(*written, strict=True)
    if format is None:
        return reading_scores(texts, lengths, [one for one in held if isinstance(one, Reading)])
    return set_scores(texts, lengths, [one for one in held if isinstance(one, TrainingSet)], format)


def set_scores(
    texts: Sequence[str], lengths: Sequence[int], held: Sequence[TrainingSet], format: Format
) -> HeldOutScores:
    """The scores of completions and their lengths in tokens."""
    rewards = [reward(format, text, len(one.passages), one.right) for text, one in zip(texts, held, strict=True)]
    named = [format.strict(text, len(one.passages)) for text, one in zip(texts, held, strict=True)]
    size = max(len(one.passages) for one in held)
    counts = [sum(answer == (place,) for answer in named) for place in range(size)]
    kept = sum(counts)
    return HeldOutScores(
        sets=len(held),
        accuracy=sum(one.value for one in rewards) / len(held),
        format_rate=sum(one.format for one in rewards) / len(held),
        completion_tokens=sum(lengths) / len(held),
        places=tuple(round(count * size / kept, 3) if kept else 0.0 for count in counts),
    )


def reading_scores(texts: Sequence[str], lengths: Sequence[int], held: Sequence[Reading]) -> ReadingScores:
    """The scores of answers and their lengths in tokens."""
    said = [answer_string(text) for text in texts]
    pairs = [(normalised(one), normalised(asked.answer)) for one, asked in zip(said, held, strict=True) if asked.answer]
    absent = [one == UNANSWERABLE for one, asked in zip(said, held, strict=True) if not asked.answer]
    return ReadingScores(
        sets=len(held),
        accuracy=sum(one == right for one, right in pairs) / max(1, len(pairs)),
        f1=sum(token_f1(one.split(), right.split()) for one, right in pairs) / max(1, len(pairs)),
        answered=sum(one != UNANSWERABLE for one in said) / len(held),
        unanswerable=sum(absent) / max(1, len(absent)),
        completion_tokens=sum(lengths) / len(held),
    )


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """The model as in use: no dropout, no gradients, 16-bit products, uncompiled.

    Compiled layers would be compiled again for every length.
    """
    torch: Any = import_module("torch")
    training = model.training
    model.eval()
    try:
        with (
            torch.compiler.set_stance("force_eager"),
            generating(model),
            torch.autocast(model.device.type, torch.bfloat16),
        ):
            yield
    finally:
        model.train(training)


def generate(trained: Trained, asked: Sequence[Sequence[Message]], most: int) -> list[tuple[str, int]]:
    """The completion of each prompt and its length in tokens."""
    torch: Any = import_module("torch")
    tokenizer, model = trained.tokenizer, trained.model
    prompts = [trained.ids(messages) for messages in asked]
    width, pad = max(map(len, prompts)), tokenizer.pad_token_id
    padded = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    written = model.generate(
        input_ids=padded, attention_mask=mask, max_new_tokens=most, do_sample=False, pad_token_id=pad
    )[:, width:].tolist()
    ends = {tokenizer.eos_token_id, pad}
    cut = [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in written]
    return [(tokenizer.decode(row, skip_special_tokens=True), len(row) + 1) for row in cut]
