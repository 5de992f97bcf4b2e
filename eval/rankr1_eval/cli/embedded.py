"""How the embedded model is asked in an evaluation, trained or not, where no option says otherwise. Knows settings."""

from __future__ import annotations

from dataclasses import replace

from rankr1_rag.checkpoints import BASE, EMBEDDED
from rankr1_rag.cli.settings import BackendName, Settings

ALONE = "max_batch=1"
WARNING = f"{BASE} has 135 million parameters and was never trained for this: it shows that the path works."


def is_embedded(settings: Settings) -> bool:
    """Whether these settings ask the embedded model, trained or not."""
    return settings.backend is BackendName.openvino and settings.model in (None, EMBEDDED, BASE)


def repeatable(settings: Settings) -> Settings:
    """The embedded model computes one request at a time.

    Beside others near ties fall either way (bench/openvino.md): a run that was killed would go on to another result.
    """
    given = settings.option or []
    if not is_embedded(settings) or any(one.replace("-", "_").startswith("max_batch=") for one in given):
        return settings
    return replace(settings, option=[*given, ALONE])
