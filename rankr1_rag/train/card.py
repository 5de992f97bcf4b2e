"""The card of a trained adapter: README.md with all runs that made it, their data and settings, and the last scores.

The runs, oldest first, are one line of JSON in the metadata of the card. Training the adapter further reads them there:

    rankr1_runs: [{"training": "sft", "data": […], "files": {…}, …, "examples": 990, "sources": {"mine": 990}}]

Licences are those of the data; whoever trains states them in a file next to each data file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from rankr1_rag.backends import hub
from rankr1_rag.errors import BackendError
from rankr1_rag.io.files import writing
from rankr1_rag.train.config import RerankerTraining, Training
from rankr1_rag.train.data import Example, read_examples, share
from rankr1_rag.train.prompts import TrainingData
from rankr1_rag.train.run_dir import CARD, SETTINGS, RunDir, digest

Record = dict[str, Any]

_KEY = "rankr1_runs: "


def before(settings: Training) -> list[Record]:
    """The runs that made the adapter these settings continue from; empty for a new adapter.

    An adapter without records is one run with only its name, under `adapter_name`.
    """
    adapter = hub.weights(settings.model, settings.adapter).adapter
    return [] if adapter is None else _made(adapter)


def own(folder: RunDir, material: TrainingData) -> Record:
    """The run in this folder."""
    return {**folder.settings, "sets": len(material.sets), **_counted(material.examples)}


def _made(adapter: hub.CheckpointFiles) -> list[Record]:
    """The runs in its card, else in the folders of its runs, else only its name."""
    with suppress(BackendError, OSError, ValueError, TypeError, RecursionError):
        lines = adapter.file(CARD).read_text(encoding="utf-8").splitlines()
        found: list[Any] = next((json.loads(one.removeprefix(_KEY)) for one in lines if one.startswith(_KEY)), [])
        if runs := [one for one in found if isinstance(one, dict)]:
            return runs
    with suppress(BackendError, OSError):
        run = hub.read_json(adapter.file(SETTINGS))
        earlier = run.get("adapter")
        before = _made(hub.find(earlier, hub.ADAPTER_CONFIG)) if earlier else []
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # its files may have changed since
            if all(digest(Path(name)) == known for name, known in run["files"].items()):
                run |= _counted(share(read_examples(*run["data"]), run["share"], run["seed"]))
        return [*before, run]
    return [{"adapter_name": adapter.name}]


def _counted(examples: Sequence[Example]) -> Record:
    sources = Counter(one.source or "unknown" for one in examples)
    return {"examples": len(examples), "sources": dict(sources.most_common())}


_LIBRARIES = ("rankr1-rag", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
_WAYS = {"sft": "supervised training", "grpo": "GRPO", "reader": "supervised training of a reader"}
_SCORES = {
    "sets": "held-out sets",
    "accuracy": "right",
    "format_rate": "form kept",
    "f1": "F1",
    "answered": "answered",
    "unanswerable": "recognised as unanswerable",
    "completion_tokens": "tokens",
    "places": "places named (1.0: equal share)",
}
"""The scores on held-out sets, and their titles in the card."""
_APART = {"training", "model", "data", "out", "files", "adapter_weights", "examples", "sets", "sources"}
"""Fields of a run that the card shows apart from its settings."""


def write_card(settings: Training, folder: RunDir, runs: Sequence[Record]) -> None:
    """Write README.md of the run next to its adapter; the run is the last of `runs`."""
    versions = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    purpose, form = "reading", "reader-v1"
    if isinstance(settings, RerankerTraining):
        purpose, form = "reranking", settings.format
    grouped = [(way, len(list(some))) for way, some in groupby(map(_way, runs))]
    ways = [way if n == 1 else f"{n} runs of {way}" for way, n in grouped]
    parts = [
        f"---\nbase_model: {settings.model}\nlibrary_name: peft\ntags: [reranking, rank-r1, lora]\n"
        f"{_KEY}{json.dumps(runs)}\n---",
        f"# A LoRA adapter for {purpose}, by {', then '.join(ways)}",
        f"Trained by `rankr1 train {settings.kind}` on {settings.model}, for the prompt format `{form}`, in sets of "
        f"{settings.size}.",
        *(_run(run, f"Run {number} of {len(runs)}") for number, run in enumerate(runs, start=1)),
        "The licences of all these data sets apply to the adapter.",
        "## Scores\n\n" + _scores(folder.records()),
        "## Versions\n\n" + _table(("package", "version"), versions),
    ]
    with writing(folder.path / CARD) as out:
        out.write("\n\n".join(parts) + "\n")


def _way(run: Record) -> str:
    return _WAYS.get(run.get("training", ""), "unknown training")


def _run(run: Record, number: str) -> str:
    """The section of one run: the adapter it began with, its data and its settings."""
    title = f"## {number}: {_way(run)}"
    if "training" not in run:
        return f"{title}\n\nThe adapter `{run.get('adapter_name')}` has no record of its training."
    weights = run.get("adapter_weights")
    adapter = run.get("adapter") or (run.get("model") if weights else None)
    begun = f"It continued from the adapter `{adapter}`" if adapter else "A new adapter"
    if weights:
        begun += f" (sha256 of its weights, first 16 digits: {weights})"
    settings = {name: value for name, value in run.items() if name not in _APART}
    counts = ", ".join(f"{run[name]:,} {name}" for name in ("examples", "sets") if name in run)
    sources = ", ".join(f"{name} {count:,}" for name, count in run.get("sources", {}).items()) or "unknown"
    data = f"{counts}. Sources: {sources}." if counts else f"Sources: {sources}."
    files = _table(("file", "sha256, first 16 digits"), run.get("files", {}))
    return f"{title}\n\n{begun}. {data}\n\n{files}\n\n```json\n{json.dumps(settings, indent=1)}\n```"


def _scores(records: list[dict[str, Any]]) -> str:
    measured = [(one["step"], one["held_out"]) for one in records if "held_out" in one]
    if not measured:
        return "There were no held-out examples."
    lines = ["| step | " + " | ".join(_SCORES[name] for name in measured[-1][1]) + " |"]
    lines.append("|" + "---|" * (1 + len(measured[-1][1])))
    for step, found in measured:
        shown = {name: f"{value:.3f}" if isinstance(value, float) else str(value) for name, value in found.items()}
        shown["completion_tokens"] = f"{found['completion_tokens']:.1f}"
        if "places" in found:
            shown["places"] = " ".join(f"{share:.2f}" for share in found["places"])
        lines.append(f"| {step} | " + " | ".join(shown.values()) + " |")
    return "\n".join(lines)


def _table(heads: tuple[str, str], rows: Mapping[str, str]) -> str:
    return "\n".join(
        [f"| {heads[0]} | {heads[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )
