"""The card of a trained adapter, README.md beside it: all runs that made it, with data, digests and settings; versions
and scores of the last.

Knows a run's folder and records of runs; knows no model. Licences are the data's own: whoever trains says them in a
file beside each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rankr1_rag.files import writing
from rankr1_rag.train import chain
from rankr1_rag.train.chain import Record
from rankr1_rag.train.folder import CARD, Folder
from rankr1_rag.train.settings import Training

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
        f"---\nbase_model: {settings.model}\nlibrary_name: peft\ntags: [reranking, rank-r1, lora]\n"
        f"{chain.line(runs)}\n---",
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
