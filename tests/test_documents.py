"""What the documents say holds: commands and Python run, flags are known, files are there."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from documents import (
    DOCUMENTS,
    NAMES,
    anchors,
    commands,
    fenced,
    lay_out,
    links,
    smaller,
    smaller_python,
)

from pipelines.command import cli
from segswap.matchers.registry import names
from segswap.models.hub import MODEL_FORMAT, SETTINGS, find_model

# `make` and installing are run by CI, completion by others' tests;
# the rest needs a cluster.
NOT_RUN = re.compile(r"^(make|pip|ray) |s3://|--tyro-print-completion")
# Flags that need a file, or end a command before it is parsed.
ELSEWHERE = {"--config", "--tyro-print-completion"}
# Needs an environment of its own; and what its own test runs, on other data.
PYTHON_NOT_RUN = re.compile(r"^from vismatch import|^import (datasets|webdataset|ray)\b", re.M)
PROJECT = (ROOT / "pyproject.toml").read_text()
ALL_COMMANDS = re.findall(r'^(segswap-[a-z-]+) = "', PROJECT, flags=re.MULTILINE)
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@documents
def test_commands_and_python_run_in_the_order_of_the_document(
    document: Path, photos_dataset: Path, tmp_path: Path
) -> None:
    lines = [smaller(line) for line in commands(document) if not NOT_RUN.search(line)]
    blocks = [block for block in fenced(document, "python") if not PYTHON_NOT_RUN.search(block)]
    if not lines and not blocks:
        return
    lay_out(tmp_path, document, photos_dataset)
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    script = smaller_python("\n".join(blocks))
    for command in (["bash", "-c", line] for line in lines):
        _run(command, tmp_path, environment)
    _run([sys.executable, "-c", script], tmp_path, environment)


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@documents
def test_commands_are_understood_and_python_compiles(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(find_model("segswap-tiny"))
    for line in commands(document):
        words = shlex.split(line.partition(" > ")[0])
        if words[0] in ALL_COMMANDS and not ELSEWHERE & set(words):
            cli.parse(config_type(words[0]), words[1:])
        if {"--matcher", "--out"} <= set(words):  # what a later --init starts from
            matcher, out = (words[words.index(flag) + 1] for flag in ("--matcher", "--out"))
            (tmp_path / out).mkdir(exist_ok=True)
            made = {"format": MODEL_FORMAT, "matcher": matcher, "options": {}, "size": 96}
            (tmp_path / out / SETTINGS).write_text(json.dumps(made))
    for block in fenced(document, "python"):
        compile(block, str(document), "exec")


@cache
def config_type(command: str) -> Any:
    """What a command parses its arguments with, as its entry point hands it to `cli.run`."""
    (module,) = re.findall(rf'^{command} = "(.*):main"$', PROJECT, flags=re.MULTILINE)
    taken: list[Any] = []
    run, cli.run = cli.run, lambda kind, *_, **__: taken.append(kind)  # type: ignore
    try:
        import_module(module).main()
    finally:
        cli.run = run
    return taken[0]


@cache
def flags(command: str) -> set[str]:
    """The flags that a command has, as its help shows them."""
    variants = {
        "segswap-train": [["--matcher", name] for name in names()],
        "segswap-train-proposer": [["--method", name] for name in ("ldf", "seam", "sccam")],
    }.get(command, [[]])
    said = io.StringIO()
    for words in variants:
        with redirect_stdout(said), pytest.raises(SystemExit):
            cli.parse(config_type(command), [*words, "--help"])
    return set(re.findall(r"--[a-z][a-z0-9.-]*", said.getvalue()))


@documents
def test_flags_that_are_named_in_a_sentence_exist(document: Path) -> None:
    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", text):
        span = " ".join(span.split())
        named = re.findall(r"(?<=[\s(])--[a-z][a-z0-9.-]*|^--[a-z][a-z0-9.-]*", span)
        first = span.split()[0]
        if script := re.match(r"python (benchmarks/\w+\.py)", span):
            assert (ROOT / script[1]).is_file(), span
            assert all(f'"{flag}"' in benchmarks for flag in named), span
        elif first in ALL_COMMANDS:
            assert set(named) <= flags(first), span
        elif first.startswith("--") and first != "--tyro-print-completion":
            known = any(set(named) <= flags(command) for command in ALL_COMMANDS)
            assert known or all(f'"{flag}"' in benchmarks for flag in named), span


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))],
    ids=lambda path: path.name,
)
def test_what_is_linked_is_there(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


def test_the_page_of_the_package_index_needs_no_file_beside_it() -> None:
    assert re.findall(r'^readme = "([^"]*)"', PROJECT, flags=re.MULTILINE) == ["docs/package.md"]
    assert links(ROOT / "docs" / "package.md") == []


@documents
def test_extras_that_are_named_exist(document: Path) -> None:
    extras = set(re.findall(r"^([a-z0-9]+) = \[", PROJECT, flags=re.MULTILINE))
    for named in re.findall(r"segswap\[([a-z0-9,]+)\]", document.read_text()):
        assert set(named.split(",")) <= extras, named
