"""A real OpenAI-compatible server in a process of its own, which can be killed and started again at its address."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

SCRIPT = r"""
import json, re, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet: a second one waits 40 ms for the acknowledgement of the first

    def do_GET(self):
        self.send(len(asked))

    def do_POST(self):
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        asked.append(prompt)
        time.sleep(float(sys.argv[2]))
        shown = re.findall(r"^\[(\d+)\] .*?(\d+)$", prompt, re.MULTILINE) or [("1", "0")]
        label = min(shown, key=lambda pair: int(pair[1]))[0]
        message = {"role": "assistant", "content": f"<think>the lowest</think> <answer>[{label}]</answer>"}
        self.send({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def send(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


class Mortal:
    """Judges as a perfect model would, `delay` seconds for each answer."""

    def __init__(self, delay: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self._command = [sys.executable, "-c", SCRIPT, str(self._port), str(delay)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"

    @property
    def asked(self) -> int:
        """Number of completions requested since it was started."""
        with urlopen(self.url, timeout=10) as answer:
            return int(json.load(answer))

    def kill(self) -> None:
        """SIGKILL: its connections break off. Safe to call twice."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def mortal(delay: float = 0.0) -> Iterator[Mortal]:
    server = Mortal(delay)
    try:
        yield server
    finally:
        server.kill()
