"""The runs that made an adapter, oldest first, so that its card tells of all that it was trained on.

Each is what `settings.json` says, with what its examples came from. They stand in the card's metadata, one line of
JSON, which is YAML too, and are read from there by whoever trains the adapter further:

    rankr1_runs: [{"training": "sft", "data": […], "files": {…}, …, "examples": 990, "sources": {"mine": 990}}]

Knows cards, settings and examples; knows no model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rankr1_rag.backends import hub
from rankr1_rag.errors import BackendError, FileError
from rankr1_rag.train.examples import Example, read_examples, share
from rankr1_rag.train.folder import CARD, SETTINGS, Folder, digest
from rankr1_rag.train.material import Material
from rankr1_rag.train.settings import Training

Record = dict[str, Any]

_KEY = "rankr1_runs: "


def before(settings: Training) -> list[Record]:
    """The runs that made the adapter which these settings go on from; none for a new one.

    An adapter that tells nothing of its runs is one of which only the `made` name is known.
    """
    adapter = hub.weights(settings.model, settings.adapter).adapter
    return [] if adapter is None else _made(adapter)


def own(folder: Folder, material: Material) -> Record:
    """The run in this folder."""
    return {**folder.told, "sets": len(material.sets), **_counted(material.examples)}


def line(runs: Sequence[Record]) -> str:
    """The line of a card's metadata."""
    return _KEY + json.dumps(runs)


def _made(adapter: hub.Source) -> list[Record]:
    return _by_card(adapter) or _by_settings(adapter) or [{"made": adapter.name}]


def _by_card(adapter: hub.Source) -> list[Record]:
    with suppress(BackendError, OSError, ValueError):
        lines = adapter.file(CARD).read_text(encoding="utf-8").splitlines()
        found: list[Any] = next((json.loads(one.removeprefix(_KEY)) for one in lines if one.startswith(_KEY)), [])
        return [one for one in found if isinstance(one, dict)]
    return []


def _by_settings(adapter: hub.Source) -> list[Record]:
    """What the folder of a run says whose card does not."""
    with suppress(BackendError, OSError):
        told = hub.read_json(adapter.file(SETTINGS))
        earlier = told.get("adapter")
        return [*(_made(hub.find(earlier, hub.ADAPTER_CONFIG)) if earlier else []), {**told, **_sources(told)}]
    return []


def _sources(told: Record) -> Record:
    """Where its examples came from, if the files still are what they were."""
    with suppress(OSError, FileError, KeyError):
        if all(digest(Path(name)) == known for name, known in told["files"].items()):
            return _counted(share(read_examples(*told["data"]), told["share"], told["seed"]))
    return {}


def _counted(examples: Sequence[Example]) -> Record:
    sources = Counter(one.source or "not told" for one in examples)
    return {"examples": len(examples), "sources": dict(sources.most_common())}
