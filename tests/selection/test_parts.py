"""The grammar: step, best, together, play; and what the package may import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import rankr1_rag.selection as selection_package
from rankr1_rag.selection import Done, Part, Selection, best, play, step, together


def several(number: int) -> Part[int]:
    """Asks `number` rounds of one pair, returns the last winner."""
    winner = -1
    for turn in range(number):
        winner = yield from best([2 * turn, 2 * turn + 1])
    return winner


def test_the_best_is_asked_for_in_first_stage_order_and_the_best_of_one_not_at_all() -> None:
    assert step(best([7])) == Done(7)
    part = best([9, 2, 5])
    assert step(part) == [(2, 5, 9)]
    assert step(part, [(5, 9)]) == Done(5)


def test_parts_in_parallel_share_a_round_until_each_is_done() -> None:
    part = together([several(1), several(0), several(3), several(2)])
    assert step(part) == [(0, 1), (0, 1), (0, 1)]
    assert step(part, [(0,), (1,), (0,)]) == [(2, 3), (2, 3)]
    assert step(part, [(2,), (3,)]) == [(4, 5)]
    assert step(part, [(5,)]) == Done([0, -1, 5, 3])


def test_a_part_with_several_sets_a_round_gets_all_its_answers() -> None:
    part = together([together([best([0, 1]), best([2, 3])]), together([best([4, 5])])])
    assert step(part) == [(0, 1), (2, 3), (4, 5)]
    assert step(part, [(1,), (2,), (5,)]) == Done([[1, 2], [5]])
    assert step(together([])) == Done([])


@pytest.mark.parametrize("answers", [[(0,)], [(0,), (0,), (0,)]])
def test_parts_in_parallel_take_one_answer_a_set(answers: list[tuple[int, ...]]) -> None:
    part = together([several(1), several(2)])
    step(part)
    with pytest.raises(ValueError, match="a round of 2 sets"):
        step(part, answers)


def test_play_drives_a_selection_with_a_function_whose_error_reaches_the_caller() -> None:
    def pair() -> Selection:
        winner = yield from best([3, 4])
        return [winner]

    assert play(pair(), lambda shown: (max(shown),)) == [4]

    def judge(shown: tuple[int, ...]) -> tuple[int, ...]:
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="no power"):
        play(selection_package.heapsort(5, 1, 3), judge)


def test_selection_imports_the_standard_library_alone_and_only_step_catches_the_end_of_a_generator() -> None:
    for file in Path(selection_package.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        outside = {name.split(".")[0] for name in names if not name.startswith("rankr1_rag.selection")}
        assert outside <= sys.stdlib_module_names - {"asyncio", "threading", "time", "concurrent"}, file
        caught = [node for node in nodes if isinstance(node, ast.Name) and node.id == "StopIteration"]
        assert len(caught) == (1 if file.stem == "rounds" else 0), file
