"""Whether a script may use an engine that spawns processes: each of them runs the script again from its beginning.

Knows scripts; knows nothing of engines.
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
"""The variable that says how vLLM starts processes."""

_UNGUARDED = (
    "vLLM computes in processes that it spawns, and each of them runs {file} again from its beginning: put what it "
    'does into a function, and call that under `if __name__ == "__main__":`'
)


def refuse_unguarded() -> None:
    """RuntimeError where a script asks at its top level: the processes that are spawned would ask again, and fail."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or os.environ.get(METHOD, "spawn") != "spawn":
        return
    if getattr(getattr(main, "__spec__", None), "name", "").endswith(".__main__"):
        return  # `python -m package`: multiprocessing leaves that alone
    frame = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is main.__dict__):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is not None and Path(file).suffix == ".py" and not _guarded(Path(file), frame.f_lineno):
        raise RuntimeError(_UNGUARDED.format(file=file))


def _guarded(file: Path, line: int) -> bool:
    """Whether this line stands in an `if` at top level that asks for `__name__`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError):
        return True
    return any(
        isinstance(node, ast.If)
        and node.lineno <= line <= (node.end_lineno or line)
        and any(isinstance(name, ast.Name) and name.id == "__name__" for name in ast.walk(node.test))
        for node in tree.body
    )
