"""Models of strangers: nothing but their two files is opened, whatever these say."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from made_models import save_kinds_model, save_model
from runs import in_process

import segswap
from pipelines.match.config import main as match_command
from pipelines.training.config import main as train_command
from segswap.models.hub import shipped


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_kinds_model(tmp_path_factory.mktemp("kinds") / "model")


def of_transformer(**options: Any) -> dict[str, Any]:
    return {"matcher": "transformer", "options": options}


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"size": 320.0}, "size is a number; expected an integer"),
    ({"size": True}, "size is true or false"),
    ({"size": 8 * 10**9}, "size 8000000000 is no multiple of 8, .* up to 8192"),
    ({"size": -64}, "size -64 is no multiple"),
    ({"size": 2**70}, "up to 8192"),
    ({"options": None}, "options is null; expected an object"),
    ({"options": {"depth": 3}}, "has no option depth"),
    ({"options": {"width": "64"}}, "width is '64'; expected int"),
    ({"options": {"width": 64.0}}, "width is 64.0; expected int"),
    ({"options": {"width": True}}, "width is True"),
    ({"options": {"width": 4 * 10**6}}, "of another shape"),  # 10**14 weights
    ({"options": {"width": 6}}, "cannot be loaded"),
    ({"matcher": ["correlation"]}, "matcher is a list; expected text"),
    ({"matcher": "magic"}, "unknown matcher 'magic'"),
    ({"matcher": "../correlation"}, "unknown matcher"),
    ({"matcher": "base"}, "unknown matcher 'base'"),
    ({"format": 2}, "of format 2"),
    ({"format": None}, "of format None"),
    ({"backbone": 5}, "backbone is an integer; expected text or null"),
    ({"backbone": "0" * 64}, "its backbone is the file with the SHA-256 000"),
    (of_transformer(backbone_weights="timm"), "hold backbone_weights, which says where"),
    (of_transformer(backbone_weights="/etc/passwd"), "hold backbone_weights"),
    (of_transformer(backbone_weights=None), "hold backbone_weights"),
    (of_transformer(backbone="hf-hub:some/one"), "unknown timm model"),
    (of_transformer(backbone="local-dir:/tmp"), "unknown timm model"),
    (of_transformer(backbone=5), "backbone is 5; expected str"),
    (of_transformer(backbone="convnext_xxlarge"), "missing"),
    (of_transformer(backbone="vit_giant_patch14_dinov2"), "no features of stride 16"),
    (of_transformer(model_size="huge"), "model_size is 'huge'; expected one of tiny, small"),
    (of_transformer(freeze_backbone=1), "freeze_backbone is 1; expected bool"),
    (of_transformer(dropout="0.1"), "dropout is '0.1'; expected float"),
    ({"matcher": "semantic", "options": {"detail_weights": "/etc/passwd"}}, "detail_weights"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_settings_that_cannot_be_are_refused(
    change: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path / "model")
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    opened: list[str] = []
    monkeypatch.setattr(timm, "create_model", _without_pretrained(timm.create_model))
    sys.addaudithook(lambda name, of: opened.append(str(of[0])) if name == "open" else None)
    with pytest.raises(ValueError, match=said) as caught:
        segswap.load(folder)
    assert str(folder) in str(caught.value)
    assert "/etc/passwd" not in opened


def _without_pretrained(create: Any) -> Any:
    def checked(*names: Any, **options: Any) -> Any:
        assert not options.get("pretrained"), "it reaches for the network"
        return create(*names, **options)

    return checked


@pytest.mark.parametrize("name", ["matcher", "options", "size"])
def test_a_missing_key_is_named(name: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    settings = json.loads((folder / "model.json").read_text())
    del settings[name]
    (folder / "model.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=rf"model\.json has no {name}; expected"):
        segswap.load(folder)


def test_another_backbone_in_the_shared_ones_place(kinds: Path, tmp_path: Path) -> None:
    settings = json.loads((kinds / "model.json").read_text())
    settings["options"]["backbone"] = "tf_efficientnet_lite0"
    (tmp_path / "model.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes((kinds / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"shares the backbone that ships, .* and has tf_"):
        segswap.load(tmp_path)


def test_commands_say_so_in_a_sentence(dataset: str, data: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "model.json").write_text('{"matcher": "correlation", "options": {}, "size": 320.0}')
    image = str(next((data / "coco_mini" / "train2017").glob("*.jpg")))
    done = in_process(match_command, "segswap-match", image, image, "--model", folder)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "model.json's size is a number; expected an integer" in done.stderr
    done = in_process(
        train_command, "segswap-train", dataset, "--init", folder, "--out", tmp_path / "run"
    )
    assert done.returncode in (1, 2)
    assert "model.json's size is a number" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("name", [*shipped(), "made"])
def test_loading_leaves_all_random_numbers_as_they_are(name: str, tmp_path: Path) -> None:
    where = name if name != "made" else save_model(tmp_path / "made")
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    segswap.load(where)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()


@pytest.mark.parametrize("size", [64.0, "64", True, 8200, 10**12])
def test_a_size_that_cannot_be_is_refused(size: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"up to 8192; expected 8, 16, 24, \.\.\. pixels"):
        segswap.load(save_model(tmp_path / "model"), size=size)


@pytest.mark.parametrize("scores", ["[]", '{"step": "a"}', '{"step": 1, "val_pck_1": "x"}'])
def test_scores_that_are_none_are_named(scores: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "scores.json").write_text(scores)
    with pytest.raises(ValueError, match=r"scores\.json"):
        segswap.load(folder).save_pretrained(tmp_path / "card")
