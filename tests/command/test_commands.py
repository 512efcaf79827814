"""What all commands have in common: a help that is quick, and the flags and rules of every one."""

import importlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipelines.command import cli
from pipelines.command.messages import said
from pipelines.command.progress import Progress
from pipelines.command.tasks import cores
from pipelines.command.workers import Workers, spare_cores
from pipelines.generation.config import GenerateConfig
from pipelines.training.config import TrainConfig, command_line

ROOT = Path(__file__).parents[2]
SCRIPTS = dict(
    re.findall(r'^(segswap[\w-]*) = "([\w.]+:\w+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
)
HEAVY = ("torch", "ray", "cv2", "timm", "skimage", "scipy", "numba", "huggingface_hub")
# What a command has to be given: what it works on, and flags. Nothing of it has to be there.
ENOUGH: dict[str, tuple[list[str], list[str]]] = {
    "segswap-generate": (["pairs"], ["--images", "photos"]),
    "segswap-train": (["pairs"], ["--out", "run"]),
    "segswap-eval": (["pairs"], ["--model", "segswap-tiny"]),
    "segswap-match": (["a.jpg", "b.jpg"], []),
    "segswap-index": (["photos"], ["--out", "index"]),
    "segswap-retrieve": (["index", "query.jpg"], []),
    "segswap-discover": (["photos"], ["--out", "found"]),
    "segswap-benchmark": (["tss", "root"], ["--baseline", "sift"]),
    "segswap-demo": ([], ["--out", "demo"]),
    "segswap-look": (["pairs"], ["--out", "page.html"]),
    "segswap-check": (["pairs"], []),
    "segswap-train-style": (["photos", "paintings"], ["--out", "style"]),
    "segswap-train-proposer": (["photos"], ["--masks", "masks", "--out", "runs/ldf"]),
}
every_command = pytest.mark.parametrize("name", SCRIPTS)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process; returns exit status, standard output and standard error."""

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        module, function = SCRIPTS[name].split(":")
        monkeypatch.setattr(sys, "argv", [f"/some/where/{name}", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            getattr(importlib.import_module(module), function)()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


@every_command
def test_help_is_quick_and_tells_what_every_command_has(name: str) -> None:
    """Not timed: it imports nothing that takes long."""
    module, function = SCRIPTS[name].split(":")
    code = f"""
import sys
sys.argv = ["/some/where/{name}", "--help"]
from {module} import {function}
try:
    {function}()
except SystemExit as ended:
    assert not ended.code
print("imported:", *sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *shown, imported = done.stdout.splitlines()
    assert imported == "imported:"
    text = "\n".join(shown)
    assert text.startswith(f"usage: {name} ")
    for flag in ("--config FILE", "--print-config", "--quiet", "--verbose", "--version"):
        assert flag in text
    assert "--inline" not in text


@every_command
def test_settings_are_printed_as_a_file_that_is_read_again(
    name: str, command: Command, tmp_path: Path
) -> None:
    inputs, flags = ENOUGH[name]
    status, printed, told = command(name, *inputs, *flags, "--print-config")
    assert (status, told) == (0, "")
    assert isinstance(yaml.safe_load(printed), dict)
    (tmp_path / "settings.yaml").write_text(printed)
    read = command(name, *inputs, "--config", tmp_path / "settings.yaml", "--print-config")
    assert read == (0, printed, "")


@every_command
def test_nothing_is_written_unasked(name: str, command: Command) -> None:
    """No command has a name of its own for a file or folder that it makes."""
    inputs, flags = ENOUGH[name]
    settings = yaml.safe_load(command(name, *inputs, *flags, "--print-config")[1])
    made = {settings.get(key) for key in ("out", "json", "png", "predictions", "masks")}
    if name == "segswap-train-proposer":
        made -= {"masks"}  # which it reads
    assert made - {None} == set(flags[flags.index("--out") + 1 :] if "--out" in flags else [])


def test_a_printed_file_gives_the_same_config(tmp_path: Path) -> None:
    flags = ["--categories", "cat", "dog", "--annotations", "a.json", "--images", "photos",
             "--one.ratio", "0.1", "0.4", "--workers", "3"]  # fmt: skip
    config = cli.parse(GenerateConfig, ["out", *flags])
    (tmp_path / "settings.yaml").write_text(cli.as_yaml(config))
    again = cli.parse(GenerateConfig, ["out", "--config", str(tmp_path / "settings.yaml")])
    assert again == config
    training = ["pairs", "--out", "run", "--loss-mask", "0.5", "--mixture", "1"]
    trained: TrainConfig = cli.parse(command_line, training)
    (tmp_path / "settings.yaml").write_text(cli.as_yaml(trained))
    read: TrainConfig = cli.parse(
        command_line, ["pairs", "--config", str(tmp_path / "settings.yaml")]
    )
    assert read.resolved == trained.resolved
    assert read.weights["mask"] == 0.5


@every_command
def test_version(name: str, command: Command) -> None:
    status, printed, told = command(name, "--version")
    assert (status, told) == (0, "")
    assert re.fullmatch(r"segswap \d+\.\d+\.\d+\n", printed)


def test_quiet_leaves_the_result_and_verbose_adds_to_it(
    command: Command, photos_dataset: Path, tmp_path: Path
) -> None:
    look = ["segswap-look", photos_dataset, "--pairs", 2, "--png", tmp_path / "sheet.png"]
    status, printed, told = command(*look)
    assert status == 0
    assert "sheet.png: 2 pairs" in printed
    assert told.startswith("pairs: 2/2 pairs")
    assert command(*look, "--quiet") == (0, printed, "")
    status, again, told = command(*look, "--verbose")
    assert (status, again) == (0, printed)
    assert "split: train" in told
    assert re.search(r"^\d+\.\d s$", told, re.MULTILINE)


def test_errors_are_said_under_quiet_and_traced_under_verbose(
    command: Command, tmp_path: Path
) -> None:
    nowhere = tmp_path / "none"
    status, printed, told = command("segswap-check", nowhere, "--quiet")
    assert (status, printed) == (1, "")
    assert told.startswith(f"error: {nowhere}")
    assert "Traceback" not in told
    status, _, told = command("segswap-check", nowhere, "--verbose")
    assert status == 1
    assert "Traceback" in told
    assert told.splitlines()[-1].startswith("error: ")
    status, _, told = command("segswap-check", nowhere, "--verbose", "--quiet")
    assert status == 2
    assert "opposites" in told


def test_progress_is_not_shown_to_who_wants_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("loud", 1, "items").add(1)
    assert "loud: 1/1 items" in capsys.readouterr().err
    with said(logging.WARNING):
        Progress("silent", 1, "items").add(1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("segswap-generate", ["out", "--workers", -1], "--workers is -1; expected at least 0"),
        ("segswap-generate", ["out", "--workers", 0, "--address", "auto"],
         "--workers 0 works without Ray; leave out --address"),
        ("segswap-eval", ["pairs"], "nothing to score: give --model, --baseline, or both"),
        ("segswap-look", ["pairs"], "nothing to write: give --out PAGE.html"),
        ("segswap-retrieve", ["index"], "QUERY"),
        ("segswap-demo", [], "--out"),
        ("segswap-train", ["pairs"], "--out"),
        ("segswap-train-style", ["a", "b", "--out", "c", "--crop", 100], "--crop is 100"),
        ("segswap-train-proposer", ["a", "--out", "c"], "give --masks FOLDER"),
        ("segswap-check", ["pairs", "--jsn", "x"], "--json"),
        ("segswap-check", ["pairs", "--config"], "--config needs the path of a YAML file"),
    ],
)  # fmt: skip
def test_a_malformed_command_line_is_status_2(
    name: str, arguments: list[object], message: str, command: Command
) -> None:
    status, printed, told = command(name, *arguments)
    assert (status, printed) == (2, "")
    assert message in " ".join("".join(c for c in told if c not in "│╭╮╰╯─").split())
    assert "/some/where" not in told


def test_workers_are_by_default_the_cores() -> None:
    assert Workers().workers == cores() <= (os.cpu_count() or 1)
    assert Workers(0).inline
    assert not Workers(1).inline
    assert 1 <= spare_cores() <= 8
    assert TrainConfig(("pairs",), "run").workers == spare_cores()


def test_shell_completion(tmp_path: Path, command: Command) -> None:
    """The script that docs/commands.md tells of completes flags and their values in bash."""
    status, script, _ = command("segswap-benchmark", "--tyro-print-completion", "bash")
    assert status == 0
    (tmp_path / "completion").write_text(script)
    probe = f"""
source {tmp_path / "completion"}
complete -p segswap-benchmark
COMP_WORDS=(segswap-benchmark --ba); COMP_CWORD=1; COMP_LINE="segswap-benchmark --ba"
COMP_POINT=${{#COMP_LINE}}
"$(complete -p segswap-benchmark | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "--baseline" in done.stdout.splitlines()[-1]
