"""Files of the Hugging Face hub, from a stand-in of it on loopback: what is downloaded, said and refused."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.backends.small_model import python

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed"),
]

REFUSALS = {"/me/gated": (403, "GatedRepo"), "/me/none": (401, "RepoNotFound"), "/me/model": (404, "EntryNotFound")}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One model, of one file."""

    def do_HEAD(self) -> None:
        repository, _, file = self.path.partition("/resolve/")
        if (repository, file.rpartition("/")[2]) == ("/me/model", "config.json"):
            self.send_response(200)
            headers = {"ETag": '"abc"', "X-Repo-Commit": COMMIT, "Content-Length": "2"}
        else:
            status, code = REFUSALS.get(repository, (500, ""))
            self.send_response(status)
            headers = {"X-Error-Code": code, "Content-Length": "0"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"{}" if self.path.endswith("config.json") and "/me/model/" in self.path else b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Its address, and an empty cache, in the environment."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        yield
        server.shutdown()
        thread.join()


def test_a_download_is_logged_and_a_refusal_names_the_remedy(hub: None, tmp_path: Path) -> None:
    code = """
        import logging
        from rankr1_rag.backends.hub import find
        from rankr1_rag.errors import BackendError
        logging.basicConfig(format="%(message)s")
        logging.getLogger("rankr1_rag").setLevel("INFO")
        model = find("me/model")
        print(model.file("config.json").read_text(), model.file("config.json").read_text(), model.digest)
        for name, file in (("me/model", "other.json"), ("me/gated", "config.json"), ("me/none", "config.json")):
            try:
                find(name).file(file)
            except BackendError as error:
                print(error)
    """
    done = python(tmp_path / "script.py", code)
    said = done.stdout.splitlines()
    assert said[0] == f"{{}} {{}} me/model@{COMMIT}", done.stderr
    assert said[1] == "me/model on the Hugging Face hub holds no other.json"
    assert said[2].startswith("me/gated needs your consent: accept its licence at https://huggingface.co/me/gated")
    assert said[3].startswith("'me/none' is neither a folder here nor, for you, a repository on the Hugging Face hub")
    downloads = [line for line in done.stderr.splitlines() if line.startswith("downloading")]
    wanted = [("config.json", "model"), ("other.json", "model"), ("config.json", "gated"), ("config.json", "none")]
    assert downloads == [f"downloading {file} of me/{name} from the Hugging Face hub" for file, name in wanted]


def test_without_a_network_the_command_for_a_machine_with_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code = "from rankr1_rag.backends.hub import find; find('ielabgroup/Rank-R1-3B').file('config.json')"
    errors = python(tmp_path / "script.py", code).stderr
    assert "cannot be reached: download it where it can (`hf download ielabgroup/Rank-R1-3B`)" in errors
    assert "did you mean 'ielabgroup/Rank-R1-3B-v0.1'?" in errors
