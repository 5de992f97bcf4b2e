"""How long the attacks last: `RANKR1_ATTACKS=10` in the environment means ten times the examples."""

from __future__ import annotations

import os

from hypothesis import settings

SCALE = float(os.environ.get("RANKR1_ATTACKS", "1"))

settings.register_profile("attacks", settings.get_profile("untimed"), max_examples=max(1, round(100 * SCALE)))


def examples(n: int) -> settings:
    """Decorates a property with `n` examples, times the scale: `@examples(200)` above `@given(…)`."""
    return settings(settings.get_profile("attacks"), max_examples=max(1, round(n * SCALE)))
