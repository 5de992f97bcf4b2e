"""The folder of one training run: its settings, its checkpoints, its log, and the adapter that it ends with.

    out/settings.json          what the run was told, with a digest of every file it reads
    out/log.jsonl              one line a logged step
    out/checkpoints/           where a killed run goes on
    out/adapter_model.safetensors, adapter_config.json, README.md, training.png      the result

Of several processes the main one alone locks and writes. Knows files; knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankr1_rag.backends import hub
from rankr1_rag.errors import FileError
from rankr1_rag.io.files import locked, writing
from rankr1_rag.train.config import Training
from rankr1_rag.train.distributed import Processes

ADAPTER = "adapter_model.safetensors"
CARD, SETTINGS = "README.md", "settings.json"
STATE = "trainer_state.json"
"""What the trainer writes last into a checkpoint."""

_BESIDE = {"out", "device", "device_batch", "compile", "checkpointing", "vllm", "save"}
"""Settings that a run may go on with changed: where and how fast, not what."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A run's folder."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """The JSON-lines log."""
        return self.path / "log.jsonl"

    @property
    def told(self) -> dict[str, Any]:
        """What the run was told when it began. FileError where that is damaged."""
        return _read(self.path / SETTINGS)

    @property
    def done(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / ADAPTER).exists()

    def checkpoint(self) -> Path | None:
        """The newest whole checkpoint; one that a kill left unfinished is removed."""
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=_step, reverse=True)
        for path in found:
            if _whole(path):
                return path
            shutil.rmtree(path)
        return None

    def records(self) -> list[dict[str, Any]]:
        """The lines of the log; an unfinished last one is left out."""
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def cut_log(self, step: int) -> None:
        """Forget what was logged after a step: from there the run goes on."""
        kept = [record for record in self.records() if record["step"] <= step]
        with writing(self.log) as out:
            out.writelines(json.dumps(record) + "\n" for record in kept)


@contextmanager
def opened(settings: Training, processes: Processes) -> Iterator[Folder]:
    """The folder of this run, ours alone. FileError where it holds a run of other settings, or another is at work."""
    path = Path(settings.out).expanduser()
    with ExitStack() as held:

        def begin() -> None:
            path.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path / ".lock"))
            _settled(path / SETTINGS, _told(settings))

        processes.told(begin)
        yield Folder(path)


def digest(path: Path) -> str:
    """16 hex digits over the content of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _told(settings: Training) -> dict[str, Any]:
    kind = type(settings).__name__.lower()
    files = {name: digest(Path(name)) for name in (*settings.data, *settings.held_out)}
    adapter = hub.weights(settings.model, settings.adapter).adapter
    weights = digest(adapter.file(hub.ADAPTER)) if adapter else None
    return {"training": kind, **settings.telling(), "files": files, "adapter_weights": weights}


def _settled(file: Path, told: dict[str, Any]) -> None:
    """Settings are written by the run that begins, and must be the same in one that goes on."""
    if file.exists():
        _same(file, told)
    else:
        with writing(file) as out:
            json.dump(told, out, indent=1)


def _read(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileError(file, None, f"it is damaged ({error}): remove the folder, or give another --out") from error
    return dict(told)


def _same(file: Path, told: dict[str, Any]) -> None:
    earlier = _read(file)
    for name in told.keys() & earlier.keys() - _BESIDE:  # what an earlier version told nothing of is not compared
        if earlier[name] != told[name]:
            raise FileError(
                file,
                None,
                f"this folder holds a run with {name} {earlier[name]!r}, not {told[name]!r}: give the same to go "
                "on with it, or another --out",
            )


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _whole(path: Path) -> bool:
    try:
        json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (path / ADAPTER).exists()
