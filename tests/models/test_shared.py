"""Models on the backbone that ships: saved without it, and loaded with it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import textured
from huggingface_hub import HfApi
from safetensors.torch import load_file
from training_runs import small_config, stop_after

import segswap
from pipelines.training.job import train
from segswap.backbones import shipped
from segswap.backbones.shipped import NAME, SHA256
from segswap.matchers.registry import build
from segswap.models.model import Model

OPTIONS = {"model_size": "tiny", "backbone": NAME}


def model_with(weights: str | None, freeze: bool = True) -> Model:
    options = {**OPTIONS, "freeze_backbone": freeze}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        matcher = build("transformer", **options, backbone_weights=weights)
    return Model(matcher, {"matcher": "transformer", "options": options, "size": 64})


@pytest.fixture(scope="module")
def model() -> Model:
    """A model on the backbone that ships; no test may change it."""
    return model_with("shipped")


def shares(folder: Path) -> bool:
    """Whether a saved model is without its backbone, by its files."""
    held = any(key.startswith("backbone.") for key in load_file(folder / "model.safetensors"))
    named = json.loads((folder / "model.json").read_text()).get("backbone")
    assert named == (None if held else SHA256)
    return not held


def same_answers(one: Model, other: Model) -> bool:
    first, second = (m.predict(textured(64, 64, 0), textured(64, 64, 1)) for m in (one, other))
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_model_on_the_backbone_that_ships_holds_its_own_weights_alone(
    model: Model, tmp_path: Path
) -> None:
    model.save(tmp_path / "one")
    assert shares(tmp_path / "one")
    own = {name for name, _ in model.matcher.named_parameters() if "backbone" not in name}
    assert load_file(tmp_path / "one" / "model.safetensors").keys() == own
    again = segswap.load(tmp_path / "one")
    assert same_answers(model, again)
    assert again.settings == model.settings
    again.save(tmp_path / "two")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    model.save(tmp_path / "half", half=True)
    again = segswap.load(tmp_path / "half")
    assert shares(tmp_path / "half")
    assert again.matcher.backbone.has_shipped_weights()


@pytest.mark.parametrize(("weights", "freeze"), [("pip", True), ("shipped", False), (None, True)])
def test_a_backbone_of_other_weights_or_one_that_is_trained_is_saved(
    weights: str | None, freeze: bool, tmp_path: Path
) -> None:
    model = model_with(weights, freeze)
    model.save(tmp_path)
    assert not shares(tmp_path)
    assert same_answers(model, segswap.load(tmp_path))


def test_another_backbone_than_the_one_that_ships_is_refused(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path)
    fingerprint = segswap.load(tmp_path).fingerprint
    settings = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(settings | {"backbone": "f" * 64}))
    with pytest.raises(ValueError, match=r"SHA-256 ffff.* this version of segswap ships") as caught:
        segswap.load(tmp_path)
    assert SHA256 in str(caught.value)
    assert Model(model.matcher, model.settings, tmp_path).fingerprint != fingerprint
    del settings["backbone"]
    (tmp_path / "model.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"missing \(backbone\."):
        segswap.load(tmp_path)


def test_a_damaged_backbone_is_said_when_a_model_needs_it(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path)
    monkeypatch.setattr(shipped, "FILE", tmp_path / "none")
    with pytest.raises(ValueError, match=r"backbone that ships is damaged: .* is gone"):
        segswap.load(tmp_path)


def test_shared_models_go_to_the_hub_and_come_from_it(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    assert shares(tmp_path)
    assert same_answers(Model.from_pretrained(tmp_path), model)
    card = (tmp_path / "README.md").read_text()
    own = sum(v.numel() for v in load_file(tmp_path / "model.safetensors").values())
    assert f"{own:,} of them in this file, the others in the backbone that ships" in card
    assert f'"backbone": "{SHA256}"' in card
    sent = []

    def upload_folder(self: HfApi, *, folder_path: str, **_: str) -> object:
        sent.append(shares(Path(folder_path)) and same_answers(segswap.load(folder_path), model))
        return type("Commit", (), {"commit_url": "url"})

    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: type("R", (), {"repo_id": "a/b"}))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    model.push_to_hub("a/b")
    assert sent == [True]


def test_runs_on_the_backbone_that_ships_leave_it_out_until_it_is_trained(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS, "backbone_weights": "shipped"}
    config = small_config(
        dataset, tmp_path, matcher="transformer", options=options, steps=4, ema=0.9
    )
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert train(config) == 130
    assert shares(Path(config.out))  # of step 2
    assert train(replace(config, resume=True)) == 0
    assert shares(Path(config.out))
    further = replace(config, matcher=None, init=config.out, options={}, steps=2)
    for name, given, shared in (("on", {}, True), ("whole", {"freeze_backbone": False}, False)):
        assert train(replace(further, out=str(tmp_path / name), options=given)) == 0
        assert shares(tmp_path / name) == shared
        segswap.load(tmp_path / name)
