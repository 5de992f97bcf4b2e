"""`python -m bench`: every table again, written beside this file. Takes about a quarter of an hour on two cores."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

subprocess.run([sys.executable, HERE / "selection.py", "--out", HERE / "selection.md"], check=True)
for name in ("ballot", "overhead", "rerank"):
    report = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True, stdout=subprocess.PIPE).stdout
    (HERE / f"{name}.md").write_bytes(report)
    print(f"wrote bench/{name}.md")
