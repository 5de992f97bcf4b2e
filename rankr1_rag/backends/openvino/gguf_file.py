"""GGUF files: a header read and checked, and a copy of a file in which some tensors have other values.

Corrupt or cut off, a GGUF file makes openvino-genai crash the whole process: hence the check. In a copy all but those
tensors is the same byte for byte; what a vocabulary or a chat template says is not even read. Knows the layout
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); knows no runtime, no model and no adapter.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

from rankr1_rag.errors import BackendError

F16, Q8_0 = 1, 8
FLOATS = {0, F16, 30}
"""Types of tensors."""

Change = tuple[int, Callable[[], bytes]]
"""Another content of a tensor: its type, and what makes its bytes once they are needed."""

BLOCKS = {  # tensor type: elements and bytes of one block
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its shape, the innermost dimension first, its type, and where in the file it begins."""

    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def size(self) -> int:
        """Bytes; 1 where the type is not known here."""
        per_block, size = BLOCKS.get(self.kind, (prod(self.shape) or 1, 1))
        return prod(self.shape) // per_block * size


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself; arrays in the metadata are None. The metadata take the bytes before `metadata_end`.

    `file_type` is where the number stands that says of what type most tensors are, if one does.
    """

    path: Path
    metadata: dict[str, str | int | None]
    tensors: dict[str, Tensor]
    metadata_end: int
    file_type: int | None

    @property
    def alignment(self) -> int:
        """Tensors begin at multiples of it."""
        return int(self.metadata.get("general.alignment") or 32)

    def content(self, name: str) -> bytes:
        """The bytes of a tensor."""
        with self.path.open("rb") as file:
            file.seek(self.tensors[name].offset)
            return file.read(self.tensors[name].size)


def read(path: Path) -> Header:
    """The header of a file. BackendError unless it is whole and all tensors lie inside the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data).header(path)
    except (OSError, ValueError, struct.error, KeyError, OverflowError, MemoryError) as error:
        raise BackendError(
            f"{path} cannot be loaded ({error}): it is not a GGUF file, or is damaged or cut off; download it again"
        ) from error


def write(out: BinaryIO, header: Header, changes: Mapping[str, Change], file_type: int) -> None:
    """The file of this header, but with these tensors, and this number as its type if it tells one."""
    with header.path.open("rb") as base:
        begin = bytearray(base.read(header.metadata_end))
    if header.file_type is not None:
        struct.pack_into("<I", begin, header.file_type, file_type)
    tensors = {
        name: replace(tensor, kind=changes[name][0]) if name in changes else tensor
        for name, tensor in header.tensors.items()
    }
    at = 0
    for name, tensor in tensors.items():
        begin += _information(name, tensor, at)
        at += tensor.size + _missing(tensor.size, header.alignment)
    out.write(begin + bytes(_missing(len(begin), header.alignment)))
    for name, tensor in tensors.items():
        content = changes[name][1]() if name in changes else header.content(name)
        out.write(content + bytes(_missing(tensor.size, header.alignment)))


def _information(name: str, tensor: Tensor, offset: int) -> bytes:
    encoded, dimensions = name.encode("utf-8", "surrogateescape"), len(tensor.shape)
    return struct.pack(
        f"<Q{len(encoded)}sI{dimensions}QIQ", len(encoded), encoded, dimensions, *tensor.shape, tensor.kind, offset
    )


def _missing(size: int, alignment: int) -> int:
    """Bytes up to the next multiple."""
    return -size % alignment


class _Cursor:
    """Reads a GGUF file, version 2 or 3, little-endian, from its beginning."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4
        self._file_type: int | None = None
        if data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")

    def header(self, path: Path) -> Header:
        if (version := self._one("I")) not in (2, 3):
            raise ValueError(f"GGUF version {version}")
        tensors, pairs = self._one("Q"), self._one("Q")
        metadata = dict(self._pair() for _ in range(pairs))
        header = Header(path, metadata, {}, self._at, self._file_type)
        found = dict(self._tensor() for _ in range(tensors))
        start = self._at + _missing(self._at, header.alignment)
        for name, tensor in found.items():
            header.tensors[name] = replace(tensor, offset=start + tensor.offset)
        size = max((tensor.offset + tensor.size for tensor in header.tensors.values()), default=start)
        if size > len(self._data):
            raise ValueError(f"{len(self._data):,} bytes of at least {size:,}")
        return header

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
        return self._data[self._at - length : self._at].decode("utf-8", "surrogateescape")

    def _pair(self) -> tuple[str, str | int | None]:
        name, kind = self._string(), self._one("I")
        if name == "general.file_type" and kind == _UINT32:
            self._file_type = self._at
        return name, self._value(kind)

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

    def _tensor(self) -> tuple[str, Tensor]:
        """Its name, and it with the offset as the file has it: behind the header."""
        name = self._string()
        shape = tuple(self._one("Q") for _ in range(self._one("I")))
        return name, Tensor(shape, self._one("I"), self._one("Q"))
