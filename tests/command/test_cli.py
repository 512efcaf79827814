"""Command lines and YAML files: flags win, unknown names are errors that name the nearest one."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
import yaml
from conftest import Run

from generators.composition.recipe import Recipe
from pipelines.command import cli
from pipelines.generation.config import GenerateConfig, Inputs, main, parse_blend


@dataclass(frozen=True)
class Inner:
    """A group of settings."""

    limits: tuple[float, float] = (0.0, 1.0)
    """Two numbers."""


@dataclass(frozen=True)
class Config:
    """A job."""

    out: Annotated[str, tyro.conf.Positional] = "out"
    """Where to."""
    long_name: int = 3
    """A number."""
    inline: bool = False
    """A switch."""
    kind: Literal["a", "b"] = "a"
    """A choice."""
    note: str | None = None
    """A text."""
    inner: Inner = Inner()
    """A group."""


def parse(tmp_path: Path, arguments: list[str], text: str | None = None) -> Config:
    if text is not None:
        (tmp_path / "job.yaml").write_text(text)
        arguments = [*arguments, "--config", str(tmp_path / "job.yaml")]
    return cli.parse(Config, arguments)


YAML = """
long_name: 7
inline: true
kind: b
note: a text of words
inner:
  limits: [0.25, -4]
"""


def test_a_file_gives_every_kind_of_setting(tmp_path: Path) -> None:
    config = parse(tmp_path, ["here"], YAML)
    assert config == Config("here", 7, True, "b", "a text of words", Inner((0.25, -4.0)))


@pytest.mark.parametrize("flags", [["--long-name", "1"], ["--long-name=1"]])
@pytest.mark.parametrize("first", [True, False])
def test_flags_win_over_the_file(tmp_path: Path, flags: list[str], first: bool) -> None:
    (tmp_path / "job.yaml").write_text(YAML)
    named = ["--config", str(tmp_path / "job.yaml")]
    config = cli.parse(Config, [*flags, *named] if first else [*named, *flags])
    assert config.long_name == 1
    assert config.kind == "b"


def test_flags_with_underscores_win_over_the_file(tmp_path: Path) -> None:
    assert parse(tmp_path, ["--long_name", "1"], YAML).long_name == 1


def test_a_switch_can_be_turned_off_again(tmp_path: Path) -> None:
    assert not parse(tmp_path, ["--no-inline"], YAML).inline
    assert not parse(tmp_path, [], "inline: false").inline
    assert parse(tmp_path, ["--inline"], "inline: false").inline


def test_nulls_are_left_out(tmp_path: Path) -> None:
    assert parse(tmp_path, [], "note: null") == Config()


def test_a_config_round_trips_through_yaml(tmp_path: Path) -> None:
    config = Config("x", 9, True, "b", "-dash", Inner((0.1, 1e-7)))
    settings = {key: value for key, value in cli.as_dict(config).items() if key != "out"}
    assert json.loads(json.dumps(settings)) == settings
    settings["note"] = "plain"  # a text that begins with a dash cannot be told from a flag
    again = parse(tmp_path, ["x"], yaml.safe_dump(settings))
    assert again == Config("x", 9, True, "b", "plain", Inner((0.1, 1e-7)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 3", "expected settings as `name: value`"),
        ("a: [", "job.yaml"),
        ("3", "expected settings"),
        ("config: other.yaml", "config is for the command line alone"),
    ],
)
def test_files_that_hold_no_settings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(tmp_path, [], text)


def test_config_needs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse(Config, ["--config"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --config needs the path of a YAML file\n"
    with pytest.raises(ValueError, match=r"none\.yaml"):
        cli.parse(Config, ["--config", str(tmp_path / "none.yaml")])


# --- segswap-generate --------------------------------------------------------------------------


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The message of a command line that is malformed; in this process, which saves a second."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["segswap-generate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        return message_of(shown.err)

    return run


def message_of(text: str) -> str:
    """An error without the frame that is drawn around it, on one line."""
    return " ".join("".join(c for c in text if c not in "│╭╮╰╯─").split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", 5], "--size is 5; expected at least 64"),
        (["--pairs", 0], "--pairs and --val-pairs are both 0: nothing to make"),
        (["--pairs", -3], "--pairs is -3; expected at least 0"),
        (["--shard-pairs", 0], "--shard-pairs is 0; expected at least 1"),
        (["--workers", -1], "--workers is -1; expected at least 0"),
        (["--seed", -1], "--seed is -1"),
        (["--style", "histogram"], "--style and --styles go together"),
        (["--styles", "."], "--style and --styles go together"),
        (["--annotations", "a.json"], "--annotations needs --images"),
        (
            [],
            "give --images FOLDER, with COCO's --annotations FILE where there are some, or take "
            "the built-in photographs by --demo",
        ),
        (["--demo", "--images", "."], "--demo has photographs of its own; leave out --images"),
        (["--demo", "--only", 3], "--only and --show go together"),
        (["--demo", "--only", -3, "--show", "a.png"], "--only is -3"),
        (["--demo", "--only", 3, "--show", "a.jpg"], "--show is a.jpg; expected a name ending in"),
        (["--demo", "--only", 3, "--show", "a.png", "--dry-run"], "--only makes one pair alone"),
        (
            ["--demo", "--only", 3, "--show", "a.png", "--pairs", 0, "--val-pairs", 1],
            "--only is a pair of the train split, of which --pairs 0 makes none",
        ),
        (["--blend", "poison"], "--blend has 'poison'; expected names of poisson, poisson-mixed,"),
        (["--blend", "paste:0"], "--blend has 'paste:0'"),
        (["--blend", ""], "--blend has ''"),
        (["--segment-area", 0.5, 0.1], "--segment-area is (0.5, 0.1)"),
        (["--val-share", 1], "--val-share is 1.0"),
        (["--objects", 3], "invalid choice '3'"),
        (["--pairs", "many"], "invalid literal for int() with base 10: 'many'"),
        (["--one.ratio", 0.5, 1.5], "ratio is (0.5, 1.5); expected two rising shares"),
        (["--one.objects", 5], "objects is 5; expected 1 to 4"),
        (["--two.scale", 0, 1], "scale is (0.0, 1.0); expected two rising positive numbers"),
        (["--one.dilation", -1], "dilation is -1"),
        (["--pairz", 3], "--pairs INT"),
        (["--one.rotatoin", 3], "--one.rotation FLOAT"),
    ],
)
def test_bad_values_are_one_message(
    refused: Callable[..., str], tmp_path: Path, flags: list[object], message: str
) -> None:
    assert message in refused(tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_bad_value_as_a_user_sees_it(generate: Run, tmp_path: Path) -> None:
    done = generate(tmp_path / "out", "--blend", "poison", status=2)
    assert "--blend has 'poison'; expected names of poisson" in message_of(done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [("pairz: 3", "--pairs INT"), ("one:\n  rotatoin: 3", "--one.rotation FLOAT"),
     ("size: 5", "--size is 5"), ("out: here", "Unrecognized options: --out")],
)  # fmt: skip
def test_bad_keys_of_a_file_are_one_message(
    refused: Callable[..., str], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "job.yaml").write_text(text)
    assert message in refused(tmp_path / "out", "--config", tmp_path / "job.yaml")


def test_out_is_required(refused: Callable[..., str]) -> None:
    assert "OUT" in refused()


def test_help_names_every_setting(generate: Run) -> None:
    text = generate("--help").stdout
    for name in cli.as_dict(GenerateConfig("x", inputs=Inputs(demo=True))):
        assert name == "out" or f"--{name.replace('_', '-')}" in text


def test_blends() -> None:
    assert parse_blend("poisson") == {"poisson": 1.0}
    assert parse_blend("poisson:3, paste:0.5") == {"poisson": 3.0, "paste": 0.5}
    for text in ("paste:nan", "paste:inf", "paste:-1", "paste:x", "paste,,", "Paste"):
        with pytest.raises(ValueError, match="--blend has"):
            parse_blend(text)


def test_recipes_check_themselves() -> None:
    Recipe()
    for change in ({"ratio_steps": 0}, {"crop": 1.5}, {"min_share": -0.1}, {"rotation": -3.0}):
        name, value = next(iter(change.items()))
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            Recipe(**change)
