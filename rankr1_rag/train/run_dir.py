"""The folder of one training run: its settings, its checkpoints, its log, and the adapter that it ends with.

    out/settings.json          the settings, with a digest of every input file
    out/log.jsonl              one line per logged step
    out/checkpoints/           where a killed run resumes
    out/adapter_model.safetensors, adapter_config.json, README.md, training.png      the result

With several processes only the main one locks and writes.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from rankr1_rag.backends import hub
from rankr1_rag.errors import FileError
from rankr1_rag.io.checksum import with_checksum
from rankr1_rag.io.collection import of_kind
from rankr1_rag.io.files import claim_folder, locked, writing
from rankr1_rag.io.journal import parsed
from rankr1_rag.io.trec import warn_once
from rankr1_rag.train.config import Training

ADAPTER = "adapter_model.safetensors"
CARD, SETTINGS = "README.md", "settings.json"

OURS = re.compile(rb'\A\{\s*"training": ')
"""The beginning of the settings of a run."""
FILES = (SETTINGS, CARD, "log.jsonl", "training.png", "adapter_*", "checkpoints/checkpoint-*/", "unfinished/*")
"""All that a run writes."""

_MAY_CHANGE = {"out", "device", "device_batch", "compile", "checkpointing", "vllm", "save"}
"""Settings that may change when a run resumes: they decide where and how fast, not what."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run's folder."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """The JSON-lines log."""
        return self.path / "log.jsonl"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings the run began with. FileError if the file is damaged."""
        file = self.path / SETTINGS
        try:
            settings: dict[str, Any] = of_kind("it", json.loads(file.read_text(encoding="utf-8")), "an object")
        except (ValueError, RecursionError) as error:
            raise FileError(file, None, f"the file is damaged ({error}): use another --out") from error
        return settings

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return (self.path / ADAPTER).exists()

    def checkpoint(self) -> Path | None:
        """The newest complete checkpoint; unfinished ones are removed."""
        named = [path for path in self.checkpoints.glob("checkpoint-*") if path.name[len("checkpoint-") :].isdecimal()]
        for path in sorted(named, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
            with suppress(OSError, ValueError, RecursionError):
                json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # it is written last
                if (path / ADAPTER).exists():
                    return path
            shutil.rmtree(path)
        return None

    def records(self) -> list[dict[str, Any]]:
        """The lines of the log without an unfinished last one. Damaged ones are left out, with a warning."""
        found = []
        with suppress(FileNotFoundError), self.log.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = parsed(line)
                if type(record.get("step")) is int:
                    found.append(record)
                elif line.endswith(b"\n"):
                    warn_once(f"{self.log}:{number}: this line of the log is damaged and left out")
        return found

    def has_scores(self, step: int) -> bool:
        """Whether the log has scores on held-out sets at this step."""
        return any(record["step"] == step and "held_out" in record for record in self.records())

    def cut_log_to_checkpoint(self) -> str | None:
        """The newest checkpoint, where the run resumes; what was logged after it is removed."""
        checkpoint = self.checkpoint()
        step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1
        kept = [record for record in self.records() if record["step"] <= step]
        with writing(self.log) as out:
            out.writelines(with_checksum(json.dumps(record)) + "\n" for record in kept)
        return str(checkpoint) if checkpoint else None


@contextmanager
def opened(settings: Training, processes: Processes) -> Iterator[RunDir]:
    """The folder of this run, locked. FileError if another process uses it or it holds a run with other settings."""
    path = Path(settings.out).expanduser()
    with ExitStack() as held:

        def begin() -> None:
            claim_folder(
                path, SETTINGS, OURS, FILES, [settings.model, settings.adapter, *settings.data, *settings.held_out]
            )
            held.enter_context(locked(path / ".lock"))
            write_or_compare(RunDir(path), settings)

        processes.from_main(begin)
        yield RunDir(path)


def digest(path: Path) -> str:
    """16 hex digits over the content of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def write_or_compare(folder: RunDir, settings: Training) -> None:
    """A new run writes its settings, with digests of the files they name; a resumed run must have the same.

    FileError names the first difference.
    """
    adapter = hub.weights(settings.model, settings.adapter).adapter
    described = {
        "training": settings.kind,
        **settings.to_json(),
        "files": {name: digest(Path(name)) for name in (*settings.data, *settings.held_out)},
        "adapter_weights": digest(adapter.file(hub.ADAPTER)) if adapter else None,
    }
    file = folder.path / SETTINGS
    if not file.exists():
        with writing(file) as out:
            json.dump(described, out, indent=1)
        return
    earlier = folder.settings
    for name in described.keys() & earlier.keys() - _MAY_CHANGE:  # settings unknown to an earlier version are skipped
        if earlier[name] != described[name]:
            problem = f"this folder holds a run with {name} {earlier[name]!r} (got {described[name]!r})"
            raise FileError(file, None, f"{problem}: resume with the same settings, or use another --out")


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

    def from_main(self, find: Callable[[], T]) -> T:
        """The result of `find` in the main process, in all processes; an exception is raised in all of them."""
        if self.count == 1:
            return find()
        shared: list[Any] = [None]
        if self.number == 0:
            try:
                shared = [(find(), None)]
            except Exception as error:  # the others would wait for what never comes
                shared = [(None, error)]
        import_module("accelerate.utils").broadcast_object_list(shared)
        found, failure = shared[0]
        if failure is not None:
            raise failure
        return found  # type: ignore[no-any-return]  # it came as it was sent

    def gathered(self, found: Sequence[T]) -> list[T]:
        """The items of all processes, in all processes, those of the main one first."""
        if self.count == 1:
            return list(found)
        return list(import_module("accelerate.utils").gather_object(list(found)))


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
