"""That what a step frees is kept for the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

SIZE = 512
"""MiB."""

PROGRAM = f"""
import ctypes, sys
from rankr1_rag.train.memory import keep

def held():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))

if sys.argv[1] == "kept":
    keep()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before, block = held(), library.malloc({SIZE} * 2**20)
ctypes.memset(block, 1, {SIZE} * 2**20)
library.free(block)
print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
@pytest.mark.parametrize(("how", "kept"), [("kept", True), ("as it comes", False)])
def test_memory_that_is_freed_stays_with_the_process(how: str, kept: bool) -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert (int(told.stdout) > SIZE / 2) == kept
