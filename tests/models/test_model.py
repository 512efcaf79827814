"""Models on disk, in the package and on the hub: found, loaded, saved, described."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import textured
from huggingface_hub import HfApi, errors
from made_models import save_model

import segswap
from segswap.matchers.registry import build
from segswap.models import hub
from segswap.models.model import Model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a model, to damage."""
    return save_model(tmp_path / "saved")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package's folder of models, with two."""
    monkeypatch.setattr(hub, "_SHIPPED", tmp_path / "package")
    for seed, name in enumerate(("segswap-base", "segswap-large")):
        save_model(tmp_path / "package" / name, seed)
    return tmp_path / "package"


def same_weights(one: Model, other: Model) -> bool:
    pairs = zip(one.matcher.parameters(), other.matcher.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_importing_segswap_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, segswap; found = {'torch', 'ray', 'cv2'} & set(sys.modules); "
        "assert not found, found; assert callable(segswap.load); assert 'torch' in sys.modules; "
        "assert 'ray' not in sys.modules; from segswap import Match, Model, shipped; "
        "assert Model.match and Match.points and shipped() is not None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_segswap_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="lode"):
        segswap.lode  # noqa: B018


# --- where models are ------------------------------------------------------------------------


def test_a_folder_comes_before_a_shipped_model(
    package: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parent)
    assert segswap.shipped() == ["segswap-base", "segswap-large"]
    assert segswap.load().folder == package / "segswap-base"
    assert segswap.load("segswap-large").folder == package / "segswap-large"
    saved.rename("segswap-large")
    assert segswap.load("segswap-large").folder == Path("segswap-large")


def test_what_is_nowhere_is_refused_with_what_there_is(package: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder, no model of this package") as caught:
        segswap.load("segswap-bace")
    said = str(caught.value)
    assert "segswap-base, segswap-large" in said
    assert said.endswith("did you mean segswap-base?")
    for where in ("../elsewhere", "runs/of/yesterday", "/nowhere", "a b/c"):
        with pytest.raises(ValueError, match="no hub id") as caught:
            segswap.load(where)
        assert "did you mean" not in str(caught.value)


def test_folders_and_files_without_a_model_are_refused(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.json and model\.safetensors missing"):
        segswap.load(tmp_path)
    with pytest.raises(ValueError, match=r"model\.json is a file; expected the folder"):
        segswap.load(saved / "model.json")
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"\(model\.safetensors missing\)"):
        segswap.load(saved)


@pytest.mark.parametrize("revision", [None, "v2", "refs/pr/1"])
def test_a_hub_id_downloads_the_models_files_alone(
    revision: str | None, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append((name, options))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = segswap.load("some.one/match_er" + (f"@{revision}" if revision else ""))
    assert same_weights(model, segswap.load(saved))
    files = ["model.json", "model.safetensors", "README.md"]
    assert asked == [("some.one/match_er", {"revision": revision, "allow_patterns": files})]


def refusal(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    return kind("refused", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (refusal(errors.GatedRepoError, 403), ValueError, "gated; ask for access"),
        (refusal(errors.RepositoryNotFoundError, 401), ValueError, "or it is private"),
        (refusal(errors.RevisionNotFoundError, 404), ValueError, "has no revision 'v9'"),
        (refusal(errors.HfHubHTTPError, 500), RuntimeError, "cannot be fetched: refused"),
        (errors.LocalEntryNotFoundError("none"), RuntimeError, "the hub is not reached"),
        (errors.OfflineModeIsEnabled("off"), RuntimeError, "HF_HUB_OFFLINE"),
        (TimeoutError("slow"), RuntimeError, "cannot be fetched: slow"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(
    error: Exception, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(kind, match=message) as caught:
        segswap.load("some/one@v9")
    # Perhaps a folder was meant.
    assert str(caught.value).startswith("there is no folder some/one, and on the Hugging Face hub")


def load_offline(home: Path, *names: str) -> subprocess.CompletedProcess[str]:
    code = f"import segswap\nfor name in {names}: print(segswap.load(name).folder)"
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )


def test_offline_the_hubs_own_cache_is_used(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--some--one"
    folder = save_model(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    done = load_offline(tmp_path, "some/one", f"some/one@{COMMIT}", "some/other")
    assert done.stdout.splitlines() == [str(folder)] * 2
    assert done.returncode == 1
    assert "RuntimeError: there is no folder some/other" in done.stderr
    assert "HF_HUB_OFFLINE is set" in done.stderr


# --- loading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\x80\x04K\x01."),
        ("model.safetensors", None),  # cut short
        ("model.json", b"{"),
        ("model.json", b"[]"),
        ("model.json", b"{}"),
        ("model.json", b"\xff\xfe"),
        ("model.json", b'{"matcher": "magic", "options": {}, "size": 64}'),
        ("model.json", b'{"matcher": "correlation", "options": {"depth": 3}, "size": 64}'),
        ("model.json", b'{"matcher": "correlation", "options": []}'),
        ("model.json", b'{"matcher": "correlation", "options": {}}'),
        ("model.json", b'{"matcher": "correlation", "options": {}, "size": 100}'),
        ("model.json", b'{"matcher": "correlation", "options": {}, "size": "64"}'),
    ],
)
def test_a_damaged_model_is_refused(name: str, content: bytes | None, saved: Path) -> None:
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="holds a model that cannot be loaded"):
        segswap.load(saved)


def test_a_model_of_another_format_or_matcher_is_refused_with_what_differs(saved: Path) -> None:
    settings = json.loads((saved / "model.json").read_text())
    assert settings["format"] == 1
    (saved / "model.json").write_text(json.dumps(settings | {"format": 2}))
    with pytest.raises(ValueError, match="of format 2, and this version of segswap reads 1"):
        segswap.load(saved)
    (saved / "model.json").write_text(json.dumps(settings))
    model = segswap.load(saved)
    first, second, *_ = model.matcher.state_dict()
    own = model.matcher.state_dict
    changed = dict(own())
    changed["old.weight"] = changed.pop(first)
    changed[second] = torch.cat([changed[second].flatten()] * 2)
    model.matcher.state_dict = lambda: changed  # type: ignore[method-assign, assignment]
    model.save(saved)
    with pytest.raises(ValueError, match="this version's correlation matcher") as caught:
        segswap.load(saved)
    assert f"1 missing ({first}, ...), 1 unknown (old.weight, ...)" in str(caught.value)
    assert f"1 of another shape ({second}, ...)" in str(caught.value)


def test_a_device_that_is_not_there_is_refused(saved: Path) -> None:
    for device in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"the device '{device}' is not there"):
            segswap.load(saved, device=device)


def test_images_are_brought_to_another_size_on_request(saved: Path) -> None:
    own, larger = segswap.load(saved), segswap.load(saved, size=96)
    images = textured(70, 90, 0), textured(64, 64, 1)
    assert own.predict(*images).to_target.shape == (8, 8, 2)
    assert larger.predict(*images).to_target.shape == (12, 12, 2)
    assert larger.match(*images).source_mask.shape == (70, 90)
    assert (own.settings["size"], larger.settings["size"]) == (64, 96)
    # Its answers are others, and so is what indexes and kept predictions know it by.
    assert larger.fingerprint == f"96 px {own.fingerprint}"
    assert segswap.load(saved, size=64).fingerprint == own.fingerprint
    assert Model.from_pretrained(saved, size=96).settings == larger.settings


@pytest.mark.parametrize("size", [-8, 0, 4, 65])
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(saved: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"^size {size} is no multiple of 8, the matcher's stride"):
        segswap.load(saved, size=size)


# --- saving ----------------------------------------------------------------------------------


def test_saved_model_gives_the_same_answers(saved: Path, tmp_path: Path) -> None:
    model = segswap.load(saved)
    source, target = textured(64, 64, 0), textured(64, 64, 1)
    model.save(tmp_path / "new" / "again")
    again = segswap.load(tmp_path / "new" / "again")
    for a, b in zip(
        model.predict(source, target).__dict__.values(),
        again.predict(source, target).__dict__.values(), strict=True,
    ):  # fmt: skip
        assert np.array_equal(a, b)
    assert not again.matcher.training
    assert again.settings == model.settings
    assert {path.name for path in again.folder.iterdir()} == {"model.json", "model.safetensors"}


def test_half_precision_takes_half_the_room_and_loads_as_float32(
    saved: Path, tmp_path: Path
) -> None:
    whole = segswap.load(saved)
    whole.save(tmp_path / "half", half=True)
    half = segswap.load(tmp_path / "half")
    bytes_of = [(folder / "model.safetensors").stat().st_size for folder in (half.folder, saved)]
    assert bytes_of[0] < 0.55 * bytes_of[1]
    assert {p.dtype for p in half.matcher.parameters()} == {torch.float32}
    assert not same_weights(whole, half)
    for a, b in zip(whole.matcher.parameters(), half.matcher.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    matcher = build("correlation")
    name, parameter = next(iter(matcher.named_parameters()))
    parameter.data.fill_(1e6)
    model = Model(matcher, {"matcher": "correlation", "options": {}, "size": 64})
    with pytest.raises(ValueError, match=f"{name} holds numbers too large for half precision"):
        model.save(tmp_path, half=True)
    model.save(tmp_path)
    assert same_weights(segswap.load(tmp_path), model)


def write_scores(folder: Path) -> None:
    scores = {"mask_iou": 0.5, "mask_precision": 0.75, "pck_1": 0.25, "pck_5": 0.625}
    written = {"step": 50} | {f"val_{name}": value for name, value in scores.items()}
    (folder / "scores.json").write_text(json.dumps(written))


def test_pretrained_models_come_with_a_card(saved: Path, tmp_path: Path) -> None:
    model = segswap.load(saved)
    model.save_pretrained(tmp_path / "plain")
    card = (tmp_path / "plain" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: segswap\n")
    assert f'segswap.load("{tmp_path / "plain"}")' in card
    assert '"matcher": "correlation"' in card
    assert "## Scores" not in card
    assert same_weights(Model.from_pretrained(tmp_path / "plain"), model)
    # A run's best scores are shown, whichever it has.
    write_scores(saved)
    model.save_pretrained(tmp_path / "scored")
    scored = (tmp_path / "scored" / "README.md").read_text()
    assert "at step 50" in scored
    assert "| mask IoU | mask precision | PCK@1% | PCK@5% |" in scored
    assert "| 0.500 | 0.750 | 0.250 | 0.625 |" in scored


@pytest.mark.parametrize("name", segswap.shipped())
def test_the_cards_of_models_that_ship_say_what_binds_their_weights(name: str) -> None:
    card = (hub.find_model(name) / "README.md").read_text()
    front, text = card.split("---\n")[1], card.split("## Licence")[1]
    assert "license: other" in front
    assert "license: mit" not in front
    for part in ("MIT", "trained on", "for research"):
        assert part in " ".join(text.split())


def test_a_new_card_claims_no_licence_of_the_weights(saved: Path, tmp_path: Path) -> None:
    segswap.load(saved).save_pretrained(tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text()
    assert "license:" not in card
    assert "bound by the licences of the pictures that they were trained on" in card


def test_a_card_that_is_there_is_kept_and_passed_on(saved: Path, tmp_path: Path) -> None:
    (saved / "README.md").write_text("by hand")
    segswap.load(saved).save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == "by hand"
    (tmp_path / "copy" / "README.md").write_text("another")
    segswap.load(saved).save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == "another"


def test_push_to_hub_uploads_a_model_that_loads(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = segswap.load(saved), []

    class Repository:
        repo_id = "some/one"

    class Commit:
        commit_url = "https://huggingface.co/some/one/commit/1"

    def create_repo(self: HfApi, repo_id: str, **options: object) -> Repository:
        made.append((self.token, repo_id, options))
        return Repository()

    def upload_folder(
        self: HfApi, *, repo_id: str, folder_path: str, commit_message: str
    ) -> Commit:
        assert (repo_id, commit_message) == ("some/one", "First")
        files = {path.name for path in Path(folder_path).iterdir()}
        assert files == {"model.json", "model.safetensors", "README.md"}
        assert 'segswap.load("some/one")' in (Path(folder_path) / "README.md").read_text()
        assert same_weights(segswap.load(folder_path), model)
        return Commit()

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    url = model.push_to_hub("one", private=True, token="hf_x", commit_message="First")
    assert url == Commit.commit_url
    assert made == [("hf_x", "one", {"private": True, "exist_ok": True})]
