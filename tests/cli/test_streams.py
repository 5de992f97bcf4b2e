"""Pipes and devices in the place of files."""

import json
import os
import signal
import subprocess
import threading
from typing import Any

import pytest

pytestmark = pytest.mark.third_party

LINE = json.dumps({"query": "which?", "passages": ["number 1", "number 0"]}) + "\n"


def test_a_pipe_is_read_once_and_a_device_is_written_to(shell: Any) -> None:
    os.mkfifo(shell.folder / "pipe")
    feeder = threading.Thread(target=(shell.folder / "pipe").write_text, args=(LINE,))
    feeder.start()
    out = shell.run("rerank", "pipe", "-o", "/dev/stdout")
    feeder.join()
    assert json.loads(out)["rankr1"]["order"] == [1, 0]
    assert shell.run("rerank", "/dev/stdin", "-o", "/dev/null", input=LINE) == ""
    assert "1 query in" in shell.said


def test_a_result_comes_out_before_the_next_line_comes_in_and_ctrl_c_ends_the_wait(shell: Any) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        shell.command("rerank", "-"), cwd=shell.folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        late = threading.Timer(20, process.kill)
        late.start()
        for _ in range(2):
            process.stdin.write(LINE)  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            assert json.loads(process.stdout.readline())["rankr1"]["order"] == [1, 0]  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        late.cancel()
        errors = process.stderr.read()  # type: ignore[union-attr]
    assert "Traceback" not in errors
    assert "Fatal" not in errors
