"""Training, from the examples to an adapter that backends load: by the real trainers, on SmolLM2."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from rankr1_rag.backends import Request
from rankr1_rag.backends.openvino import weights
from rankr1_rag.backends.transformers import Transformers
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.errors import BackendError, FileError
from rankr1_rag.train.config import GRPO, SFT, ReaderTraining, Training
from rankr1_rag.train.evaluate import measure
from rankr1_rag.train.grpo import grpo
from rankr1_rag.train.model import load
from rankr1_rag.train.prompts import asked, read_training_data
from rankr1_rag.train.run_dir import Processes, RunDir
from rankr1_rag.train.sft import sft
from rankr1_rag.train.trainer import shared_out

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    # of the libraries, about their own future
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]


EMBEDDED = weights.SHIPPED[weights.EMBEDDED]
PATIENCE = 600
"""Seconds for a run of a few steps."""

LAUNCHED = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCHED += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
"""Two processes on this CPU: with `--cpu` the launcher would start one and leave the others to MPI."""


@pytest.fixture
def common(smollm2: Path, examples: Path, held_out: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(smollm2),
        "data": (str(examples),),
        "held_out": (str(held_out),),
        "out": str(tmp_path / "run"),
        "format": "naming-v1",
        "size": 3,
        "prompt_tokens": 512,
        "completion_tokens": 32,
        "rank": 4,
        "batch": 4,
        "save": 2,
        "learning_rate": 1e-3,
        "dropout": 0.0,
        "device": "cpu",
    }


def supervised(common: dict[str, Any], **further: Any) -> SFT:
    return SFT(**{**common, "target": "naming", "epochs": 2, **further})


def reinforced(common: dict[str, Any], **further: Any) -> GRPO:
    return GRPO(**{**common, "batch": 2, "steps": 4, "generations": 4, "completion_tokens": 8, **further})


def command(settings: Training) -> list[str]:
    """The command line of these settings."""
    said = [sys.executable, "-m", "rankr1_rag", "train", settings.kind]
    for field in fields(settings):
        value = getattr(settings, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            given = one is not None and not isinstance(one, bool)
            said += [f"--{field.name.replace('_', '-')}", str(one)] if given else []
    return said


def finish(command: list[str]) -> None:
    """Run the command to its end."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def kill_and_resume(step: int, command: list[str], run: RunDir, by: signal.Signals = signal.SIGKILL) -> None:
    """Begin a run, end it when it has this checkpoint, and run the same command again to its end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    try:
        while not (run.checkpoints / f"checkpoint-{step}" / "trainer_state.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(by)
        process.wait()
    assert not run.done
    finish(command)


def same(one: RunDir, other: RunDir) -> bool:
    """Whether both adapters are the same to the last bit."""
    ours, theirs = (load_file(folder.path / "adapter_model.safetensors") for folder in (one, other))
    return all((ours[name] == theirs[name]).all() for name in theirs)


def steps(folder: RunDir) -> list[tuple[int, bool]]:
    return [(line["step"], "held_out" in line) for line in folder.records()]


def test_supervised_training_learns_and_tells_what_it_did(common: dict[str, Any]) -> None:
    settings = supervised(common, epochs=8, save=6)
    folder = sft(settings)
    lines = folder.records()
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert [line["step"] for line in lines if "held_out" in line] == [0, 6, 12, 18, 24]
    card = (folder.path / "README.md").read_text(encoding="utf-8")
    shown = (settings.data[0], "made 12", "naming-v1", "| 24 | 4 |", "transformers", settings.model, "A new adapter")
    assert [one for one in shown if one not in card] == []
    assert (folder.path / "training.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.smoke
def test_a_reader_learns_to_answer_and_a_killed_run_of_it_goes_on(common: dict[str, Any], tmp_path: Path) -> None:
    common = {name: value for name, value in common.items() if name != "format"}
    whole = ReaderTraining(**{**common, "epochs": 4, "save": 4, "missing": 0.2, "out": str(tmp_path / "whole")})
    scores = [line["held_out"] for line in sft(whole).records() if "held_out" in line]
    assert scores[-1]["f1"] > scores[0]["f1"]
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert [one for one in ("for reading", "`reader-v1`", "| F1 |", '"missing": 0.2') if one not in card] == []
    kill_and_resume(4, command(replace(whole, out=common["out"])), run := RunDir(Path(common["out"])))
    assert same(run, RunDir(tmp_path / "whole"))


@pytest.mark.smoke
def test_a_killed_run_goes_on_to_the_same_adapter(common: dict[str, Any], thin: Path, tmp_path: Path) -> None:
    settings = supervised({**common, "model": str(thin)}, epochs=10, save=10)
    whole = sft(replace(settings, out=str(tmp_path / "whole")))
    kill_and_resume(10, command(settings), run := RunDir(Path(settings.out)))
    assert steps(run) == steps(whole)
    assert same(run, whole)


def test_a_killed_reinforcement_goes_on_to_the_same_adapter(common: dict[str, Any], tmp_path: Path) -> None:
    format = CHECKPOINTS[weights.EMBEDDED].format.name  # the form that it keeps
    drawn = {"completion_tokens": 32, "temperature": 1.6, "learning_rate": 1e-4}
    settings = reinforced(common, adapter=str(EMBEDDED), format=format, held_out=(), **drawn)
    whole = grpo(replace(settings, out=str(tmp_path / "whole")))
    kill_and_resume(2, command(settings), run := RunDir(Path(settings.out)))
    assert whole.records()[-1]["reward_deviation"] > 0  # there was something to learn after the kill
    assert run.records() == whole.records()
    assert same(run, whole)


def test_two_processes_are_one_run(common: dict[str, Any], thin: Path, tmp_path: Path) -> None:
    """On two devices, killed and asked again: the steps and the losses of one, logged once, and one adapter."""
    settings = supervised({**common, "model": str(thin), "save": 1}, epochs=1)
    whole = sft(replace(settings, out=str(tmp_path / "whole")))
    kill_and_resume(1, [*LAUNCHED, *command(settings)[1:]], run := RunDir(Path(common["out"])), signal.SIGTERM)
    assert steps(run) == steps(whole)
    losses, alone = ([line["loss"] for line in one.records() if "loss" in line] for one in (run, whole))
    assert losses == pytest.approx(alone, rel=0.002)
    assert (run.checkpoints / "checkpoint-3" / "rng_state_1.pth").exists()  # the second was there


@pytest.mark.smoke
def test_reinforcement_on_two_processes_logs_once_reward_form_and_length(common: dict[str, Any], thin: Path) -> None:
    settings = reinforced({**common, "model": str(thin)}, steps=2, save=1, generations=2, completion_tokens=4)
    finish([*LAUNCHED, *command(settings)[1:]])
    run = RunDir(Path(common["out"]))
    assert steps(run) == [(0, True), (1, False), (1, True), (2, False), (2, True)]
    assert run.done
    logged = [line for line in run.records() if "loss" in line]
    assert {"reward", "format_rate", "accuracy", "completion_tokens", "entropy"} <= logged[-1].keys()
    assert "Reward" not in (run.path / "README.md").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize(
    ("batch", "device_batch", "devices", "shares"),
    [(8, None, 1, (8, 1)), (8, None, 4, (2, 1)), (8, 2, 2, (2, 2)), (8, 1, 8, (1, 1)), (6, None, 3, (2, 1))],
)
def test_a_step_is_shared_out_to_the_devices(
    batch: int, device_batch: int | None, devices: int, shares: tuple[int, int]
) -> None:
    assert shared_out(batch, device_batch, Processes(0, devices)) == shares


def test_a_checkpoint_that_a_kill_left_unfinished_is_not_gone_on_from(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    for step, state in ((2, "{}"), (10, '{"global_st')):
        path = folder.checkpoints / f"checkpoint-{step}"
        path.mkdir(parents=True)
        (path / "adapter_model.safetensors").touch()
        (path / "trainer_state.json").write_text(state)
    assert folder.checkpoint() == folder.checkpoints / "checkpoint-2"
    assert not (folder.checkpoints / "checkpoint-10").exists()


def test_reinforcement_learning_makes_what_is_rewarded_likelier(common: dict[str, Any], tmp_path: Path) -> None:
    """From a start that keeps the form now and then to one that keeps it more often: the reward alone teaches it."""
    start = sft(supervised(common, out=str(tmp_path / "start"), epochs=10, share=1.0, save=30))
    settings = reinforced(
        common,
        **{"adapter": str(start.path), "learning_rate": 1e-4, "held_out": ()},
        **{"steps": 16, "batch": 4, "generations": 8, "completion_tokens": 32},
    )
    rewards = [line["reward"] for line in grpo(settings).records() if "reward" in line]
    assert sum(rewards[4:]) > sum(rewards[:4])


@pytest.mark.smoke
async def test_the_adapter_answers_in_the_backend_as_it_was_trained(common: dict[str, Any]) -> None:
    folder = sft(supervised(common, epochs=4, save=12))
    settings = supervised({**common, "adapter": str(folder.path)})
    trained, material = load(settings), read_training_data(settings)
    prompts = [asked(one, settings, trained.count)[0] for one in material.held_out]
    found = measure(trained, prompts, material.held_out, settings.prompt_format, 32)
    backend = Transformers(common["model"], adapter=str(folder.path), dtype="float32")
    try:
        texts = [(await backend.complete(Request(prompt, 32, 0.0))).text for prompt in prompts]
    finally:
        await backend.close()
    right = [
        settings.prompt_format.strict(text, 3) == (one.right,)
        for text, one in zip(texts, material.held_out, strict=True)
    ]
    assert sum(right) / len(right) == found.accuracy


def test_the_paper_s_settings_are_the_defaults() -> None:
    paper = GRPO(model="m", data=("d",), out="o")
    assert (paper.generations, paper.learning_rate, paper.rank, paper.alpha, paper.dropout) == (8, 1e-5, 16, 32, 0.05)
    assert (paper.prompt_tokens, paper.completion_tokens, paper.size, paper.format) == (4096, 2048, 20, "rank-r1-v0.1")
    assert replace(paper, size=5).size == 5


@pytest.mark.smoke
def test_a_finished_run_is_left_as_it_is_and_takes_no_other_settings_or_data(
    common: dict[str, Any], examples: Path, thin: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.jsonl"
    shutil.copy(examples, copy)
    settings = supervised({**common, "model": str(thin), "data": (str(copy),)})
    folder = sft(settings)
    kept = json.loads((folder.path / "settings.json").read_text(encoding="utf-8"))
    assert (kept["training"], kept["size"], len(kept["files"])) == ("sft", 3, 2)
    before = (folder.path / "adapter_model.safetensors").stat().st_mtime_ns
    assert sft(settings).done
    assert (folder.path / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(FileError, match=r"holds a run with size 3 \(got 4\)"):
        sft(replace(settings, size=4))
    copy.write_text(copy.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(FileError, match="holds a run with files"):
        sft(settings)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"held_out": "data"}, "trained on too"),
        ({"prompt_tokens": 8192}, r"8,192 tokens"),
        ({"prompt_tokens": 60, "completion_tokens": 32}, "query 'q"),
        ({"completion_tokens": 9}, r"takes \d+ tokens and completion_tokens is 9"),
    ],
    ids=["trained and measured on", "the model's context", "no clipping fits", "a longer target"],
)
def test_data_that_do_not_fit_are_refused(common: dict[str, Any], wrong: dict[str, Any], problem: str) -> None:
    wrong = {name: common["data"] if value == "data" else value for name, value in wrong.items()}
    with pytest.raises(ValueError, match=problem):
        sft(supervised(common, **wrong))


def test_an_adapter_of_another_model_is_refused(common: dict[str, Any], thin: Path) -> None:
    with pytest.raises(BackendError, match="does not fit the model"):
        sft(supervised({**common, "model": str(thin)}, adapter=str(EMBEDDED)))


@pytest.mark.parametrize(
    ("kind", "wrong", "problem"),
    [
        (SFT, {"size": 21}, "size=21"),
        (SFT, {"share": 0.0}, "share=0.0"),
        (SFT, {"learning_rate": 0.0}, "learning_rate=0.0"),
        (SFT, {"format": "rank-r2"}, "format='rank-r2'"),
        (SFT, {"target": "naming", "format": "label-v1"}, "target='naming' does not fit format='label-v1'"),
        (SFT, {"data": ()}, r"data=\(\): name at least one file"),
        (SFT, {"device": "tpu"}, "device='tpu'"),
        (GRPO, {"temperature": 0.0}, "temperature=0"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(kind: type[Training], wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kind(**{"model": "m", "data": ("d",), "out": "o", **wrong})


@pytest.mark.parametrize(
    ("batch", "device_batch", "devices", "problem"),
    [
        (8, None, 3, "3 devices: choose a multiple of 3"),
        (8, 3, 2, "with device_batch=3: choose a multiple of 6"),
    ],
)
def test_a_step_that_cannot_be_shared_out_evenly_is_refused(
    batch: int, device_batch: int | None, devices: int, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        shared_out(batch, device_batch, Processes(0, devices))
