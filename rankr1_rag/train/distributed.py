"""The processes of one run, one per device, as `accelerate launch` and `torchrun` start them.

Only the main process writes. All processes must call the methods of `Processes` in the same order: each waits for the
others.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long one process waits for another, which may download a model. A launcher ends all processes if one dies."""

_NUMBERS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Environment variables in which launchers pass the number of a process."""


def is_main() -> bool:
    """Whether this is the main process, or the only one. Needs no torch."""
    return all(os.environ.get(name, "0") == "0" for name in _NUMBERS)


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run as one of them sees them: its `number`, 0 for the main one, and how many there are."""

    number: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes."""
        return self.number == 0

    def from_main(self, find: Callable[[], T]) -> T:
        """The result of `find` in the main process, in all processes; an exception is raised in all of them."""
        if self.count == 1:
            return find()
        shared: list[Any] = [_outcome(find) if self.main else None]
        import_module("accelerate.utils").broadcast_object_list(shared)
        found, error = shared[0]
        if error is not None:
            raise error
        return found  # type: ignore[no-any-return]  # it came as it was sent

    def gathered(self, found: Sequence[T]) -> list[T]:
        """The items of all processes, in all processes, those of the main one first."""
        if self.count == 1:
            return list(found)
        return list(import_module("accelerate.utils").gather_object(list(found)))

    def wait(self) -> None:
        """Until all of them are here."""
        if self.count > 1:
            import_module("accelerate").PartialState().wait_for_everyone()


ALONE = Processes()
"""The only process of its run."""


def joined(device: str | None) -> Processes:
    """The processes of this run; with device "cuda" each has its own GPU."""
    torch: Any = import_module("torch")
    accelerate: Any = import_module("accelerate")
    cpu = device == "cpu" or not torch.cuda.is_available()
    state = accelerate.PartialState(cpu=cpu, timeout=PATIENCE)
    if state.num_processes > 1:
        atexit.register(state.destroy_process_group)  # else its threads are alive at exit, which aborts Python
    return Processes(state.process_index, state.num_processes)


def _outcome(find: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return find(), None
    except Exception as error:  # the others would wait for what never comes
        return None, error
