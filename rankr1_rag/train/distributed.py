"""The processes of one run, one a device, as `accelerate launch` and `torchrun` start them: the main one alone writes.

Whatever is asked of `Processes` is asked by all of them, in the same order: each waits for the others there. Knows
accelerate; knows nothing of training.
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
"""So long one waits for another: that downloads a model, or measures a last batch more. A launcher ends those whose
fellow has died, so nobody waits for the dead."""

_NUMBERS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Where launchers tell a process its number."""


def is_main() -> bool:
    """Whether this process speaks for all: it is the main one, or the only one. Known without torch."""
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

    def told(self, find: Callable[[], T]) -> T:
        """What the main process finds, told to all of them; what it raises is raised in all of them."""
        if self.count == 1:
            return find()
        said: list[Any] = [_outcome(find) if self.main else None]
        import_module("accelerate.utils").broadcast_object_list(said)
        found, error = said[0]
        if error is not None:
            raise error
        return found  # type: ignore[no-any-return]  # it came as it was sent

    def gathered(self, found: Sequence[T]) -> list[T]:
        """What all of them found, in all of them, that of the main one first."""
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
    """The processes that a launcher started, on this kind of device: "cuda" is then the own GPU of each."""
    torch: Any = import_module("torch")
    accelerate: Any = import_module("accelerate")
    cpu = device == "cpu" or not torch.cuda.is_available()
    state = accelerate.PartialState(cpu=cpu, timeout=PATIENCE)
    if state.num_processes > 1:
        atexit.register(state.destroy_process_group)  # else its threads are there at the very end, which aborts Python
    return Processes(state.process_index, state.num_processes)


def _outcome(find: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return find(), None
    except Exception as error:  # the others would wait for what never comes
        return None, error
