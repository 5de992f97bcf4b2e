"""The card of a trained adapter, README.md beside it: all runs that made it, with data, digests and settings; versions
and scores of the last.

Knows a run's folder and records of runs; knows no model. Licences are the data's own: whoever trains says them in a
file beside each.

The runs that made an adapter, oldest first, so that its card tells of all that it was trained on.

Each is what `settings.json` says, with what its examples came from. They stand in the card's metadata, one line of
JSON, which is YAML too, and are read from there by whoever trains the adapter further:

    rankr1_runs: [{"training": "sft", "data": […], "files": {…}, …, "examples": 990, "sources": {"mine": 990}}]

Knows cards, settings and examples; knows no model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rankr1_rag.backends import hub
from rankr1_rag.errors import BackendError, FileError
from rankr1_rag.io.files import writing
from rankr1_rag.train.config import Training
from rankr1_rag.train.data import Example, read_examples, share
from rankr1_rag.train.prompts import Material
from rankr1_rag.train.run_dir import CARD, SETTINGS, Folder, digest

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


_LIBRARIES = ("rankr1-rag", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
_WAYS = {"sft": "supervised training", "grpo": "GRPO"}
_APART = {"training", "model", "data", "out", "files", "adapter_weights", "examples", "sets", "sources"}
"""What a card tells outside a run's settings."""


def write_card(settings: Training, folder: Folder, runs: Sequence[Record]) -> None:
    """README.md of the run, for the adapter that stands beside it; it is the last of these runs."""
    with writing(folder.path / CARD) as out:
        out.write(card(settings, folder.records(), runs))


def card(settings: Training, records: list[dict[str, Any]], runs: Sequence[Record]) -> str:
    """The text."""
    kind = type(settings).__name__.lower()
    parts = [
        f"---\nbase_model: {settings.model}\nlibrary_name: peft\ntags: [reranking, rank-r1, lora]\n{line(runs)}\n---",
        f"# A LoRA adapter for reranking, by {', then '.join(map(_way, runs))}",
        f"Trained by `rankr1 train {kind}` on {settings.model}, to be asked in the prompt format "
        f"`{settings.format}`, in sets of {settings.size}.",
        *(_run(run, f"Run {number} of {len(runs)}") for number, run in enumerate(runs, start=1)),
        "The licences of all these data sets hold for what is made of them.",
        "## Scores\n\n" + _scores(records),
        "## Versions\n\n" + _table(("package", "version"), _versions()),
    ]
    return "\n\n".join(parts) + "\n"


def _way(run: Record) -> str:
    return _WAYS.get(run.get("training", ""), "what is not told")


def _run(run: Record, number: str) -> str:
    """What a run began with, its data and its settings."""
    title = f"## {number}: {_way(run)}"
    if "training" not in run:
        return f"{title}\n\nThe adapter `{run.get('made')}` says neither how nor on what it was trained."
    weights = run.get("adapter_weights")
    adapter = run.get("adapter") or (run.get("model") if weights else None)
    begun = f"It went on from the adapter `{adapter}`" if adapter else "A new adapter"
    if weights:
        begun += f" (sha256 of its weights, first 16 digits: {weights})"
    told = {name: value for name, value in run.items() if name not in _APART}
    settings = "```json\n" + json.dumps(told, indent=1) + "\n```"
    files = _table(("file", "sha256, first 16 digits"), run.get("files", {}))
    return "\n\n".join([title, f"{begun}. {_data(run)}", files, settings])


def _data(run: Record) -> str:
    """As in "990 examples, 8,712 sets. Sources: hotpotqa 450, musique 90."."""
    counts = ", ".join(f"{run[name]:,} {name}" for name in ("examples", "sets") if name in run)
    sources = ", ".join(f"{name} {count:,}" for name, count in run.get("sources", {}).items()) or "not told"
    return f"{counts}. Sources: {sources}." if counts else f"Sources: {sources}."


def _scores(records: list[dict[str, Any]]) -> str:
    measured = [(one["step"], one["held_out"]) for one in records if "held_out" in one]
    if not measured:
        return "Nothing was held out to measure on."
    lines = [
        "| step | held-out sets | right | form kept | tokens | places named, 1.0 is their share |",
        "|" + "---|" * 6,
    ]
    for step, found in measured:
        places = " ".join(f"{share:.2f}" for share in found["places"])
        lines.append(
            f"| {step} | {found['sets']} | {found['accuracy']:.3f} | {found['format_rate']:.3f} | "
            f"{found['completion_tokens']:.1f} | {places} |"
        )
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _table(heads: tuple[str, str], rows: Mapping[str, str]) -> str:
    return "\n".join(
        [f"| {heads[0]} | {heads[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )
