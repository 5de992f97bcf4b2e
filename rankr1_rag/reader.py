"""The reader: a question and passages become a prompt, and a model's text a short answer string.

A model that was trained to read gets a prompt of its own. Of the others, small ones answer in
sentences whatever the instruction; after five worked examples they mostly do not. The places and people of the examples
with passages are invented, so that no data set holds them; those without passages are common knowledge. The kinds of
answers alternate and the last is no yes or no, which small models would copy.
"""

from __future__ import annotations

import asyncio
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from rankr1_rag.backends import Backend, Request
from rankr1_rag.concurrency.event_loop import private_loop, raise_backend_error
from rankr1_rag.prompt import Special, clip, sanitise, special_pattern, tokens
from rankr1_rag.types import Message, Passage

WITH_PASSAGES: tuple[tuple[str, str, str], ...] = (
    (
        "The Glass Orchard: The Glass Orchard is a 1962 film directed by Paul Renner.\n\n"
        "Night Ferry: Night Ferry is a 1958 film directed by Otto Lang.",
        "Was The Glass Orchard released before Night Ferry?",
        "no",
    ),
    (
        "Tolva: Tolva is a town in Belmara.\n\nQuell: Quell is a village in Belmara.",
        "Are Tolva and Quell in the same country?",
        "yes",
    ),
    (
        "Ada Brandt: Ada Brandt (born 1901) was a Belmaran poet.\n\nJon Sella: Jon Sella (born 1897) was a novelist.",
        "Who was born first, Ada Brandt or Jon Sella?",
        "Jon Sella",
    ),
    (
        "Harrow Bridge: Harrow Bridge is an iron bridge over the River Lenn, designed by Clara Voss.\n\n"
        "Clara Voss: Clara Voss (born 12 May 1831) was a Belmaran engineer.",
        "When was the designer of Harrow Bridge born?",
        "12 May 1831",
    ),
    (
        "Mount Ardel: Mount Ardel is a peak of 2,210 metres in the Corvan range.\n\n"
        "Corvan range: The Corvan range lies in the north of Belmara and was first mapped by Ines Pruett in 1874.",
        "Who first mapped the range in which Mount Ardel lies?",
        "Ines Pruett",
    ),
)
"""Passages, question, answer."""

ALONE: tuple[tuple[str, str, str], ...] = (
    ("", "Is Lyon the capital of France?", "no"),
    ("", "Were Galileo and Raphael both born in Italy?", "yes"),
    ("", "Who was born first, Isaac Newton or Albert Einstein?", "Isaac Newton"),
    ("", "In what year did the Second World War end?", "1945"),
    ("", "Who wrote the play that Verdi's Otello is based on?", "William Shakespeare"),
)
"""The same without passages."""


SYSTEM = (
    "Answer the question with the information in the passages. Reply with the answer alone, as short as possible: "
    "a name, a date, a number, or yes or no. No sentence, no explanation."
)
SYSTEM_ALONE = (
    "Answer the question. Reply with the answer alone, as short as possible: a name, a date, a number, or yes or no. "
    "No sentence, no explanation."
)
MARGIN = 192
"""Tokens kept free for the chat template."""

Prompt = Literal["five-examples-v1", "reader-v1"]
"""The prompt for any model, and that of models that `rankr1 train reader` trained."""

SYSTEM_TRAINED = "Answer the question from the passages, as briefly as possible, or write: unanswerable"
UNANSWERABLE = "unanswerable"
"""The answer of a trained reader where the passages do not hold it."""

_REASONING = re.compile(r"^.*</think>", re.DOTALL)
_LEAD = re.compile(r"^(?:the\s+)?(?:short\s+|final\s+)?answer(?:\s+is\b\s*:?|\s*[:\-])\s*", re.IGNORECASE)
_NEXT = re.compile(r"\n\s*Question\s*:", re.IGNORECASE)
_MARKED = re.compile(r"\banswer\s*:\s*(.+)", re.IGNORECASE)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL)
_QUOTES = "\"'`*\u201c\u201d\u2018\u2019\u00ab\u00bb"


@dataclass(frozen=True, slots=True)
class Read:
    """A reading: the answer string taken from the reader's text ("" where there was none), the text, the cost.

    `stored` is True where the reader was not asked; `seconds` are then meaningless.
    """

    answer: str
    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader on a backend: greedy, at most `tokens` of completion, more for models that reason before they answer.

    Leaving it closes the backend, where it is the reader's `own`.
    """

    backend: Backend
    tokens: int = 32
    own: bool = False
    prompt: Prompt = "five-examples-v1"

    def messages(self, question: str, passages: Sequence[Passage]) -> list[Message]:
        """The prompt of `reading_messages` for this backend."""
        context, count = self.backend.context, self.backend.count
        special = special_pattern(getattr(self.backend, "special_tokens", frozenset()))
        return reading_messages(self.prompt, question, passages, context, count, self.tokens, special)

    async def read(self, question: str, passages: Sequence[Passage]) -> Read:
        """The answer to one question. BackendError for any error of the backend: see `raise_backend_error`."""
        request, task = Request(self.messages(question, passages), max_tokens=self.tokens), asyncio.current_task()
        try:
            completion = await self.backend.complete(request)
        except BaseException as error:
            raise_backend_error(error, self.backend.model, task)
        answer = answer_string(completion.text)
        return Read(
            answer="" if self.prompt == "reader-v1" and answer == UNANSWERABLE else answer,
            text=completion.text,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            stored=completion.stored,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.own and private_loop().alive:
            private_loop().call(self.backend.close())


def reading_messages(
    prompt: Prompt,
    question: str,
    passages: Sequence[Passage],
    context: int | None,
    count: Callable[[str], int | None],
    answer_tokens: int,
    special: Special = None,
) -> list[Message]:
    """The messages with passages best first, clipped equally where `context`, in tokens, is too short for them.

    ValueError where the context has no room for the passages.
    """
    asked = sanitise(question, special).strip()
    lines = [sanitise(f"{one.title}: {one.text}" if one.title else one.text, special).strip() for one in passages]
    messages: list[Message] = [{"role": "system", "content": SYSTEM if lines else SYSTEM_ALONE}]
    if prompt == "reader-v1":
        messages = [{"role": "system", "content": SYSTEM_TRAINED}]
    else:
        for shown, example, answer in WITH_PASSAGES if lines else ALONE:
            messages += [user_turn(shown, example), {"role": "assistant", "content": answer}]
    if context is not None and lines:
        fixed = tokens("".join(message["content"] for message in messages) + asked, count)
        share = (context - MARGIN - answer_tokens - fixed) // len(lines)
        if share < 1:
            raise ValueError(f"the reader's context of {context} tokens has no room for {len(lines)} passages: lower k")
        lines = [clip(line, share, count) for line in lines]
    if prompt == "reader-v1":  # a small model reads better when it knows what for
        lines = [f"Question: {asked}", *lines]
    return [*messages, user_turn("\n\n".join(lines), asked)]


def answer_string(text: str) -> str:
    """The answer in a model's text: the first line after the reasoning and a last "Answer:", without quotes, or "".

    Of a model that was trained to rerank: the text in its answer tags.
    """
    said = _REASONING.sub("", text).strip()
    if said.startswith("<think>"):
        return ""  # reasoning without an end: the budget was too small for an answer
    said = _NEXT.split(said)[0]  # a model that continues with a question of its own
    if tagged := _TAGGED.findall(said):
        said = tagged[-1].strip()
    if marked := _MARKED.findall(said):
        said = marked[-1]
    first = next((line.strip() for line in said.splitlines() if line.strip()), "")
    return _LEAD.sub("", first.strip(_QUOTES + " ")).strip(_QUOTES + " ")


def user_turn(context: str, question: str) -> Message:
    """The passages, where there are any, and the question."""
    beginning = f"{context}\n\n" if context else ""
    return {"role": "user", "content": f"{beginning}Question: {question}\nAnswer:"}


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, white space made single spaces; in this order.

    As the official scripts of SQuAD, HotpotQA, 2WikiMultihopQA and MuSiQue do it.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def token_f1(said: list[str], right: list[str]) -> float:
    """F1 of two multisets of tokens, computed in the official order of operations; 0 where they share none."""
    same = (Counter(said) & Counter(right)).total()
    if not same:
        return 0.0
    precision, recall = same / len(said), same / len(right)
    return 2 * precision * recall / (precision + recall)
