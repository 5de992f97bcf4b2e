"""The card of a trained adapter, README.md beside it: data with digests, settings, versions, scores, and the command.

Knows a run's folder; knows no model. Licences are the data's own: whoever trains says them in a file beside each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rankr1_rag.files import writing
from rankr1_rag.train.folder import Folder, digests
from rankr1_rag.train.material import Material
from rankr1_rag.train.settings import Training

_LIBRARIES = ("rankr1-rag", "torch", "transformers", "trl", "peft", "datasets", "accelerate")


def write_card(settings: Training, folder: Folder, material: Material) -> None:
    """README.md of the run, for the adapter that stands beside it."""
    with writing(folder.path / "README.md") as out:
        out.write(card(settings, folder.records(), material))


def card(settings: Training, records: list[dict[str, Any]], material: Material) -> str:
    """The text."""
    kind = type(settings).__name__
    sources = Counter(one.source or "not told" for one in material.examples)
    told = {name: value for name, value in settings.telling().items() if name not in ("model", "out", "data")}
    parts = [
        f"---\nbase_model: {settings.model}\nlibrary_name: peft\ntags: [reranking, rank-r1, lora]\n---",
        f"# A LoRA adapter for reranking, by {'GRPO' if kind == 'GRPO' else 'supervised training'}",
        f"Trained by `rankr1 train {kind.lower()}` on {settings.model}, to be asked in the prompt format "
        f"`{settings.format}`, in sets of {settings.size}.",
        "## Data\n\n" + _table(("file", "sha256, first 16 digits"), digests(settings)),
        f"{len(material.examples):,} examples, {len(material.sets):,} sets. "
        + "Sources: "
        + ", ".join(f"{name} {count:,}" for name, count in sources.most_common())
        + ". The licences of these data sets hold for what is made of them.",
        "## Settings\n\n```json\n" + json.dumps(told, indent=1) + "\n```",
        "## Scores\n\n" + _scores(records),
        "## Versions\n\n" + _table(("package", "version"), _versions()),
    ]
    return "\n\n".join(parts) + "\n"


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
