"""Sets of real passages as the embedded default is asked about them."""

from rankr1_rag import demo
from rankr1_rag.checkpoints import CHECKPOINTS, EMBEDDED
from rankr1_rag.prompt import clip
from rankr1_rag.types import Message

CHECKPOINT = CHECKPOINTS[EMBEDDED]


def conversations() -> list[list[Message]]:
    """Thirty: each support of the demo's questions among four other passages, at every place in turn."""
    corpus, made = demo.passages(), []
    for question in demo.questions():
        others = [passage for passage in corpus if passage.id not in question.supports]
        for support in question.supports:
            at = len(made)
            shown = [others[(7 * at + 11 * step) % len(others)] for step in range(CHECKPOINT.size - 1)]
            shown.insert(at % CHECKPOINT.size, next(passage for passage in corpus if passage.id == support))
            lines = [clip(CHECKPOINT.format.line(passage), 256, len) for passage in shown]
            made.append(CHECKPOINT.format.messages(question.query.text, lines))
    return made
