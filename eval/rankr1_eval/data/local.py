"""Local files of records: a JSON list or JSON lines, gzipped where the name ends in `.gz`.

An official list is one long line, so a place in it is an element and a byte. Knows JSON; nothing of what records mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NoReturn

from rankr1_eval.data.dataset import Json
from rankr1_rag.collection import parse_object
from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath, numbered_lines

CUT = "the file is cut short, fetch it anew"
_SPACE = re.compile(r"[ \t\n\r]*")


def records(path: FilePath) -> Iterator[tuple[int | None, Json]]:
    """Each record with its line, which is None in a list that is one line.

    FileError where the file is neither of the two, broken, cut short or empty.
    """
    lines = numbered_lines(path)
    number, first = next(lines)
    begin = first.lstrip()[:1]
    if begin == "[":
        yield from _elements(path, _joined(chain([(number, first)], lines)))
    elif begin == "{":
        yield from _lines(path, chain([(number, first)], lines))
    else:
        page = ": a web page? Fetch the file itself" if begin == "<" else ""
        raise FileError(path, number, f"neither a JSON list nor JSON lines, it begins with {first[:60]!r}{page}")


def whole(path: FilePath) -> Any:  # noqa: ANN401
    """The one JSON value that the file is. FileError where it is none."""
    text = _joined(numbered_lines(path))
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _broken(path, text, 0, "the file", error) from error


def _lines(path: FilePath, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Json]]:
    for number, line in lines:
        try:
            record = parse_object(line)
        except ValueError as error:
            last = f"; this is the last line: {CUT}" if next(lines, None) is None else ""
            raise FileError(path, number, f"{error}{last}") from error
        yield number, record


def _joined(lines: Iterable[tuple[int, str]]) -> str:
    """The text again, blank lines included, so that its lines keep their numbers."""
    parts, before = [], 1
    for number, line in lines:
        parts.append("\n" * (number - before) + line)
        before = number
    return "".join(parts)


def _elements(path: FilePath, text: str) -> Iterator[tuple[int | None, Json]]:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    many = "\n" in text.strip()
    place = _skip(text, text.index("[") + 1)
    number, line, counted = 0, 1, 0
    closed = text.startswith("]", place)
    while not closed:
        number, line, counted = number + 1, line + text.count("\n", counted, place), place
        try:
            element, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise _broken(path, text, place, f"element {number}", error) from error
        if not isinstance(element, dict):
            raise FileError(path, line if many else None, f"element {number} is {element!r:.60}, not an object")
        yield line if many else None, element
        place = _skip(text, end)
        closed = text.startswith("]", place)
        if not closed and not text.startswith(",", place):
            raise _broken(path, text, place, f"the list behind element {number}", "',' or ']' is missing")
        place = _skip(text, place + 1)
    if number == 0:
        place = _skip(text, place + 1)
    if place < len(text):
        raise _broken(path, text, place, "the list", "something follows its end")


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _broken(path: FilePath, text: str, place: int, what: str, problem: Exception | str) -> FileError:
    """The error, with the byte where reading ended, of the line where there are several."""
    if isinstance(problem, json.JSONDecodeError):
        place, problem = problem.pos, problem.msg
    ended = text.rstrip()
    cut = ended[-1:] not in ("]", "}") or place >= len(ended) or str(problem).startswith("Unterminated string")
    if isinstance(problem, RecursionError):
        problem = "JSON nested too deeply to be read"
    start = text.rfind("\n", 0, place) + 1
    byte = len(text[start:place].encode("utf-8", "surrogatepass"))
    line = text.count("\n", 0, place) + 1 if "\n" in ended else None
    return FileError(path, line, f"{what} is broken at byte {byte}: {CUT if cut else problem}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
