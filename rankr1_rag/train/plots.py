"""The course of a training run as one picture: reward or loss, form, length, accuracy on held-out sets. By matplotlib.

Knows the lines of the log; knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_PANELS = (
    ("Reward", ("reward",), None),
    ("Loss", ("loss",), None),
    ("Held-out sets", (), ("accuracy", "format_rate")),
    ("Completion, tokens", ("completion_tokens",), ("completion_tokens",)),
    ("Form kept, training", ("format_rate",), None),
    ("Entropy", ("entropy",), None),
)
"""A panel's title, what of the trained sets it shows, and what of the held-out ones."""


def write_plots(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A PNG with a panel for each of these that the log tells of; none where the log is empty."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    shown = [panel for panel in _PANELS if any(_curves(records, panel))]
    if not shown:
        return
    rows = -(-len(shown) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(10, 3 * rows), squeeze=False, layout="constrained")
    for axis, panel in zip(axes.flat, shown, strict=False):
        axis.set_title(panel[0], loc="left", fontsize=11)
        for name, steps, values, marker in _curves(records, panel):
            axis.plot(steps, values, marker, label=name, linewidth=1.2, markersize=4)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _curves(records: Sequence[Mapping[str, Any]], panel: tuple[str, Any, Any]) -> list[tuple[str, Any, Any, str]]:
    """Name, steps, values and line of every curve of a panel that has a point."""
    _, trained, held = panel
    found = []
    for name in trained:
        points = [(one["step"], one[name]) for one in records if name in one]
        found.append((f"{name.replace('_', ' ')}, training", points, "-"))
    for name in held or ():
        points = [(one["step"], one["held_out"][name]) for one in records if "held_out" in one]
        found.append((f"{name.replace('_', ' ')}, held out", points, "o-"))
    return [(name, *zip(*points, strict=True), line) for name, points, line in found if points]  # type: ignore[misc]
