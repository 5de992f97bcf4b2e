"""What a reranker does to the process around it: imports, forks, Ctrl-C, leaving without close()."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


SLOW = """
    import asyncio, sys
    from rankr1_rag import Reranker
    from rankr1_rag.backends.scripted import Scripted
    async def slow(messages):
        print("asked", flush=True)
        await asyncio.sleep(60)
    reranker = Reranker(Scripted(slow))
"""


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = python("""
        import sys
        import rankr1_rag
        from rankr1_rag import Reranker, Passage
        from rankr1_rag.backends.scripted import Scripted
        Reranker(Scripted(lambda m: "<answer>[1]</answer>")).rank("q", ["a", "b"])
        heavy = {"openai", "openvino_genai", "torch", "numpy", "rich", "typer", "jinja2", "sqlite3"}
        print(sorted(heavy & set(sys.modules)))
    """)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_public_names_are_all_there_and_sorted() -> None:
    import rankr1_rag

    assert rankr1_rag.__all__ == sorted(rankr1_rag.__all__)
    assert all(getattr(rankr1_rag, name).__name__ == name for name in rankr1_rag.__all__)
    assert set(rankr1_rag.__all__) <= set(dir(rankr1_rag))
    with pytest.raises(AttributeError, match="Rerank0r"):
        _ = rankr1_rag.Rerank0r


def test_leaving_without_close_ends_python_quietly() -> None:
    done = python(
        SLOW
        + """
    import threading, time
    threading.Thread(target=lambda: reranker.rank("q", ["a", "b"]), daemon=True).start()
    time.sleep(0.5)
    print("left")
    """
    )
    assert done.returncode == 0
    assert done.stdout.split() == ["asked", "left"]
    assert "Task was destroyed" not in done.stderr


@pytest.mark.parametrize("call", ["reranker.rank('q', ['a', 'b'])", "list(reranker.rank_many([('q', ['a', 'b'])]))"])
def test_ctrl_c_ends_a_ranking_at_once(call: str) -> None:
    code = textwrap.dedent(SLOW) + call
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert errors.strip().endswith("KeyboardInterrupt")


def test_a_forked_child_reranks_on_a_loop_of_its_own() -> None:
    done = python("""
        import os
        from rankr1_rag import Reranker
        from rankr1_rag.backends.scripted import Scripted
        reranker = Reranker(Scripted(lambda m: "<answer>[2]</answer>"))
        assert reranker.rank("q", ["a", "b"]).order == (1, 0)
        child = os.fork()
        if child == 0:
            os._exit(0 if reranker.rank("q", ["a", "b"]).order == (1, 0) else 1)
        assert os.waitpid(child, 0)[1] == 0
        print(reranker.rank("q", ["a", "b"]).order)
    """)
    assert done.stdout.strip() == "(1, 0)", done.stderr


def test_the_rankings_of_a_parent_are_not_the_childs_to_read() -> None:
    done = python("""
        import os
        from rankr1_rag import LoopError, Reranker
        from rankr1_rag.backends.scripted import Scripted
        reranker = Reranker(Scripted(lambda m: "<answer>[2]</answer>"), in_flight=2)
        results = reranker.rank_many([("q", ["a", "b"])] * 6)
        next(results)
        child = os.fork()
        if child == 0:
            try:
                next(results)
            except LoopError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        print(len(list(results)))
    """)
    assert done.stdout.strip() == "5", done.stderr


def test_closing_while_python_leaves_is_quiet() -> None:
    done = python("""
        from rankr1_rag import Reranker
        from rankr1_rag.backends.scripted import Scripted
        class Late:
            def __init__(self):
                self.reranker = Reranker(Scripted(lambda m: "<answer>[2]</answer>"))
                print(self.reranker.rank("q", ["a", "b"]).order)
            def __del__(self):
                self.reranker.close()
        late = Late()
    """)
    assert (done.stdout.strip(), done.stderr) == ("(1, 0)", "")


def test_results_do_not_depend_on_the_hash_seed() -> None:
    code = """
        import random
        from rankr1_rag import Reranker
        from rankr1_rag.backends.scripted import Scripted
        def noisy(messages):
            text = messages[1]["content"]
            return f"<answer>[{random.Random(text).randint(1, text.count(chr(10) + '['))}]</answer>"
        for algorithm in ("ahead", "bubblesort", "heapsort", "tournament"):
            reranker = Reranker(Scripted(noisy), size=7, votes=3, algorithm=algorithm)
            ranking = reranker.rank("q", [str(n) for n in range(50)])
            print(ranking.order, [c.set for c in ranking.trace])
    """
    outputs = {python(code, env={"PYTHONHASHSEED": seed, "PATH": ""}).stdout for seed in ("0", "1", "77")}
    assert len(outputs) == 1
    assert outputs != {""}
