"""The way of a call of `rank` through the package stays short: few functions in few modules."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import pytest

import rankr1_rag
from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted

ROOT = Path(rankr1_rag.__file__).parent
FUNCTIONS, MODULES = 45, 9


def passed(call: Callable[[], object]) -> set[tuple[str, str]]:
    """The module and the name of every named function of the package that runs meanwhile, in any thread.

    Not counted: comprehensions, lambdas, and the bodies of modules and classes.
    """
    codes: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            codes.add(frame.f_code)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    functions = [code for code in codes if not code.co_name.startswith("<") and code.co_flags & 2]
    return {(str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname) for code in functions}


def test_rank_passes_few_functions_in_few_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = Reranker(Scripted(lambda _: "<think>it is</think> <answer>[2]</answer>"), k=1)
    for _ in range(2):
        # Only the threads that start meanwhile are profiled: the private loop has to be a new one.
        monkeypatch.setattr("rankr1_rag.concurrency.event_loop._current", None)
        path = passed(lambda: reranker.rank("q", ["a", "b", "c"]))
        listing = "\n".join(f"{module} {name}" for module, name in sorted(path))
        assert ("engine/selection_loop.py", "SelectionLoop.run") in path, listing
        assert len(path) <= FUNCTIONS, f"{len(path)} functions:\n{listing}"
        assert len({module for module, _ in path}) <= MODULES, listing
