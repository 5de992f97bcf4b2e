"""The container files are consistent with the package; where a container engine exists the image is built and run."""

import json
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml

from rankr1_rag.server import ServerConfig
from rankr1_rag.server.app import LAST
from rankr1_rag.server.metrics import Metrics
from rankr1_rag.settings import options as options_of

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
ENGINE = shutil.which("docker") or shutil.which("podman")


def engine_runs() -> bool:
    """Whether there is a container engine, with its daemon."""
    return ENGINE is not None and not subprocess.run([ENGINE, "info"], capture_output=True, timeout=60).returncode


def test_the_dashboard_shows_only_figures_that_exist() -> None:
    dashboard = json.loads((ROOT / "deploy" / "dashboard.json").read_text(encoding="utf-8"))
    shown = " ".join(one["expr"] for panel in dashboard["panels"] for one in panel["targets"])
    used = set(re.findall(r"rankr1_\w+", shown))
    there = {family.name for family in Metrics().registry.collect()}
    assert {re.sub("_(total|bucket|sum|count)$", "", name) for name in used} == there
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_image_copies_what_exists_and_runs_as_a_user() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for path in line.split():
            assert (ROOT / path).exists()
            assert f"!{path}" in ignored
    assert {*",".join(re.findall(r"/src\[([\w,]+)\]", DOCKERFILE)).split(",")} <= extras.keys()
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert [stage.split()[2] for stage in stages] == ["gpu", "cpu"]  # the last one is the default
    for stage in stages:
        assert re.search(r"^USER rankr1$", stage, re.MULTILINE)
        arguments = json.loads(re.findall(r"^ENTRYPOINT (.+)$", stage, re.MULTILINE)[0])
        known = {f"--{name.replace('_', '-')}" for name in options_of(ServerConfig)} | {"--backend"}
        assert {one for one in arguments if one.startswith("--")} <= known


def test_the_services_are_pinned_and_listen_on_this_machine_only() -> None:
    assert COMPOSE["services"].keys() == {"rankr1", "prometheus", "grafana"}
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "build" in service or re.search(r":v?\d+\.\d+", service["image"])
        assert {one["source"] for one in service.get("configs", ())} <= COMPOSE["configs"].keys()
    for config in COMPOSE["configs"].values():
        yaml.safe_load(config["content"])
    grace = COMPOSE["services"]["rankr1"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > ServerConfig().grace + 2 + LAST


@pytest.mark.slow
def test_the_image_is_built_and_answers() -> None:
    if ENGINE is None or not engine_runs():
        pytest.skip("there is no container engine that runs")
    subprocess.run([ENGINE, "build", "-t", "rankr1-test", str(ROOT)], check=True, timeout=1_800)
    command = [
        ENGINE,
        "run",
        "--rm",
        "-d",
        "-p",
        "127.0.0.1:18000:8000",
        "-e",
        "RANKR1_KEY=key-of-a-test-1234",
        "rankr1-test",
    ]
    container = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    try:
        end = time.monotonic() + 300
        headers = {"Authorization": "Bearer key-of-a-test-1234"}
        with httpx.Client(base_url="http://127.0.0.1:18000", headers=headers, timeout=60, trust_env=False) as client:
            while True:
                try:
                    if client.get("/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert time.monotonic() < end
                time.sleep(1)
            body = {"query": "how long does a flea live", "documents": ["Dogs bark.", "A flea may live for 100 days."]}
            assert len(client.post("/v1/rerank", json=body).json()["results"]) == 2
    finally:
        subprocess.run([ENGINE, "stop", container], check=True, timeout=60)
