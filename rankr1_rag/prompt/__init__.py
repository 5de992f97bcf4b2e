"""Text: how a comparison is shown to a model and how its answer is read. The only place where labels exist.

`Format` is one frozen value with `render`, `parse` and `force`, shared by inference, evaluation and the training
reward; `FORMATS` holds them by name. `sanitise` and `clip` make passages safe and short. This package does not know
algorithms, engines or backends: a passage is text, an answer is places in the shown order.
"""

from rankr1_rag.prompt.format import Forced, Format
from rankr1_rag.prompt.formats import FORMATS
from rankr1_rag.prompt.label_probabilities import shares
from rankr1_rag.prompt.texts import Special, clip, clip_to_window, sanitise, special_pattern, tokens

__all__ = [
    "FORMATS",
    "Forced",
    "Format",
    "Special",
    "clip",
    "clip_to_window",
    "sanitise",
    "shares",
    "special_pattern",
    "tokens",
]
