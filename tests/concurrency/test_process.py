"""What a reranker does to the process around it: imports, forks, Ctrl-C, leaving without close()."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

import rankr1_rag

START = """
    import asyncio, os, sys, threading, time
    from rankr1_rag import LoopError, Passage, Reranker
    from rankr1_rag.backends.scripted import Scripted
    second = Reranker(Scripted(lambda m: "<answer>[2]</answer>"), in_flight=2)
    def rank(reranker=second):
        return reranker.rank("q", ["a", "b"]).order
    async def wait(messages):
        print("waiting", flush=True)
        await asyncio.sleep(60)
    slow = Reranker(Scripted(wait))
"""


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(START) + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_importing_the_package_and_ranking_loads_nothing_heavy() -> None:
    done = python("""
        rank()
        heavy = {"openai", "openvino_genai", "torch", "numpy", "rich", "typer", "jinja2", "sqlite3", "tenacity"}
        print(sorted(heavy & set(sys.modules)))
    """)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_public_names_are_all_there_and_sorted() -> None:
    assert rankr1_rag.__all__ == sorted(rankr1_rag.__all__)
    assert all(getattr(rankr1_rag, name).__name__ == name for name in rankr1_rag.__all__)
    assert set(rankr1_rag.__all__) <= set(dir(rankr1_rag))
    with pytest.raises(AttributeError, match="Rerank0r"):
        _ = rankr1_rag.Rerank0r


def test_python_exits_without_close() -> None:
    done = python("""
        threading.Thread(target=rank, args=(slow,), daemon=True).start()
        time.sleep(0.5)
        print("left")
    """)
    assert (done.returncode, done.stdout.split()) == (0, ["waiting", "left"])
    assert "Task was destroyed" not in done.stderr


ONE = "[('q', ['a', 'b'])]"
WAITING = """
def items():
    yield 'q', ['a', 'b']
    print('waiting', flush=True)
    time.sleep(60)
list(second.rank_many(items()))
"""


@pytest.mark.parametrize(
    "call",
    [
        "rank(slow)",
        "asyncio.run(slow.arank('q', ['a', 'b']))",
        f"list(slow.rank_many({ONE}))",
        f"list(slow.rank_many({ONE}, live=True))",
        WAITING,
    ],
)
def test_ctrl_c_ends_a_ranking_at_once(call: str) -> None:
    code = textwrap.dedent(START) + call
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert errors.strip().endswith("KeyboardInterrupt")


OWN_LOOP = "os._exit(0 if rank() == (1, 0) else 1)"
RESULTS = "results = second.rank_many([('q', ['a', 'b'])] * 6); next(results)"
NOT_THE_RESULTS = """
try:
    next(results)
except LoopError:
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("before", "in_child", "after", "printed"),
    [("rank()", OWN_LOOP, "rank()", "(1, 0)"), (RESULTS, NOT_THE_RESULTS, "len(list(results))", "5")],
    ids=["a loop of its own", "not the results of its parent"],
)
def test_a_forked_child_has_a_loop_of_its_own_and_not_the_results_of_its_parent(
    before: str, in_child: str, after: str, printed: str
) -> None:
    child = f"\nif (child := os.fork()) == 0:\n{textwrap.indent(in_child, '    ')}\n    os._exit(1)"
    done = python(f"{before}{child}\nassert os.waitpid(child, 0)[1] == 0\nprint({after})")
    assert done.stdout.strip() == printed, done.stderr


def test_closing_while_python_exits_is_quiet() -> None:
    done = python("""
        class Late:
            def __del__(self, reranker=second):
                reranker.close()
        print(rank())
        late = Late()
    """)
    assert (done.stdout.strip(), done.stderr) == ("(1, 0)", "")


def test_results_do_not_depend_on_the_hash_seed() -> None:
    code = """
        import random
        def noisy(messages):
            text = messages[1]["content"]
            return f"<answer>[{random.Random(text).randint(1, text.count(chr(10) + '['))}]</answer>"
        for algorithm in ("ahead", "bubblesort", "heapsort", "tournament", "window"):
            format = "listwise-v1" if algorithm == "window" else None
            reranker = Reranker(Scripted(noisy), size=7, votes=3, algorithm=algorithm, format=format)
            ranking = reranker.rank("q", map(str, range(50)))
            print(ranking.order, [c.set for c in ranking.trace])
    """
    outputs = {python(code, env={"PYTHONHASHSEED": seed, "PATH": ""}).stdout for seed in ("0", "1", "77")}
    assert len(outputs) == 1
    assert outputs != {""}
