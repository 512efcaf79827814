"""Datasets and images in an object store: a real S3-compatible server, over the command line."""

import io
import json
import os
import signal
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
from conftest import Run
from runs import SETTINGS, assert_same, hashes, wait_for
from s3_server import flaky_server, s3_server

from generators.sources.photos import photos
from segswap.data.manifest import DatasetError, read_manifest
from segswap.data.shards import read_pairs

pytest.importorskip("moto.server", reason="moto's server is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")
pytestmark = pytest.mark.slow
BUCKET = "segswap-test"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
NO_FILES = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip


@pytest.fixture(scope="session")
def generate(generate_process: Run) -> Run:
    """In a process of its own always: these tests change its environment and its disk."""
    return generate_process


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        client(url).create_bucket(Bucket=BUCKET)
        yield url


def client(url: str) -> Any:
    """boto3's, to look at the store without the code under test."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a",
        aws_secret_access_key="b",
    )  # fmt: skip


@pytest.fixture(scope="module")
def few(flags: list[str]) -> list[str]:
    """The flags of a run of nine shards."""
    return [*flags, "--pairs", "120"]


@pytest.fixture(scope="module")
def undisturbed(generate: Run, few: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The local dataset of these flags."""
    out = tmp_path_factory.mktemp("undisturbed") / "dataset"
    generate(out, *few, "--workers=0")
    return out


class Store:
    """A part of the bucket."""

    def __init__(self, endpoint: str, prefix: str) -> None:
        self.client, self.prefix = client(endpoint), f"{prefix}/"
        self.url = f"s3://{BUCKET}/{prefix}"

    def objects(self) -> dict[str, Any]:
        """All objects by their names below the prefix."""
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=self.prefix)
        return {o["Key"].removeprefix(self.prefix): o for o in listed.get("Contents", ())}

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=self.prefix + name)["Body"].read()

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=self.prefix + name, Body=data)

    def shards(self) -> list[str]:
        return sorted(name for name in self.objects() if name.endswith(".tar"))

    def download(self, folder: Path) -> Path:
        for name in self.objects():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.get(name))
        return folder

    def upload(self, folder: Path) -> None:
        for path in folder.iterdir():
            self.put(path.name, path.read_bytes())


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What the commands know of the store; local copies lie in the folder that is returned."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in {**KEYS, **NO_FILES, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    local = tmp_path / "tmp"
    local.mkdir()
    # Ray's sockets need a shorter path.
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", str(local))
    fsspec.filesystem("s3").clear_instance_cache()
    return local


@pytest.fixture
def store(endpoint: str, environment: Path, request: pytest.FixtureRequest) -> Store:
    return Store(endpoint, f"{request.node.originalname}/dataset")


def copies(local: Path) -> list[Path]:
    """The local copies that were left."""
    return [path for path in local.glob("segswap-*/*/*/*") if path.is_file()]


# --- the same bytes ----------------------------------------------------------------------------


def test_workers_write_the_same_dataset(
    generate: Run, few: list[str], undisturbed: Path, store: Store, tmp_path: Path,
    environment: Path,
) -> None:  # fmt: skip
    generate(store.url, *few, "--workers", 2)
    assert_same(store.download(tmp_path / "copy"), undisturbed)
    assert not copies(environment)
    done = generate(store.url, *few, "--workers", 2)
    assert "is complete already" in done.stdout
    # Also by the environment variables of fsspec.
    variables = {**os.environ, "FSSPEC_S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}
    del variables["AWS_ENDPOINT_URL"]
    done = generate(store.url, *few, "--workers=0", env=variables)
    assert "is complete already" in done.stdout


def test_images_and_annotations_of_a_store(
    generate: Run, few: list[str], undisturbed: Path, shapes: tuple[Path, Path], store: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    store.upload(shapes[1])
    given = ["--annotations", f"{store.url}/shapes.json", "--images", store.url]
    generate(tmp_path / "out", *few, *given, "--workers=0")
    assert hashes(tmp_path / "out") == hashes(undisturbed)


def test_a_folder_of_images_and_backgrounds_of_a_store(
    generate: Run, store: Store, tmp_path: Path
) -> None:
    """A broken image in it is skipped as a local one is."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    annotations, photographs = photos()
    for image in json.loads(annotations.read_bytes())["images"][:6]:
        pixels = cv2.imread(str(photographs / image["file_name"]))
        cv2.imwrite(str(folder / f"{image['id']}.png"), cv2.resize(pixels, (160, 120)))
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "empty.jpg").write_bytes(b"")
    store.upload(folder)
    common = ["--pairs", 6, "--size", 64, "--objects", 1, "--workers=0", "--max-skipped", 1]
    generate(tmp_path / "here", "--images", folder, "--backgrounds", folder, *common)
    generate(tmp_path / "there", "--images", store.url, "--backgrounds", store.url, *common)
    assert hashes(tmp_path / "here") == hashes(tmp_path / "there")
    skipped = [read_manifest(tmp_path / name)["skipped"] for name in ("here", "there")]
    assert skipped[0] == skipped[1]
    assert {item["image"] for item in skipped[0]} == {"broken.jpg", "empty.jpg"}


# --- faults ------------------------------------------------------------------------------------


class Watch:
    """Looks at every shard as soon as it can be seen."""

    def __init__(self, store: Store) -> None:
        self.store, self.seen = store, set[str]()

    def __call__(self) -> int:
        for name in set(self.store.shards()) - self.seen:
            data = self.store.get(name)
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                assert len(tar.getnames()) == int(SETTINGS["shard_pairs"]) * 5
            assert data[-1024:] == bytes(1024)
            self.seen.add(name)
        return len(self.seen)


@pytest.mark.parametrize("how", ["inline", pytest.param("workers", marks=pytest.mark.slow)])
def test_killed_in_the_middle_and_run_again(
    start: Callable[..., subprocess.Popen[str]], generate: Run, few: list[str], undisturbed: Path,
    endpoint: str, environment: Path, tmp_path: Path, how: str,
) -> None:  # fmt: skip
    """kill -9 of all its processes, then the same command: the same bytes, nothing left."""
    store = Store(endpoint, f"killed-{how}/dataset")
    watch = Watch(store)
    process = start(store.url, *few, *(["--workers=0"] if how == "inline" else ["--workers", 2]))
    wait_for(lambda: watch() >= 4, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    watch()
    before = store.objects()
    assert "segswap.json" not in before
    generate(store.url, *few, "--workers=0")
    after = store.objects()
    made = [name for name in before if name.endswith(".tar")]
    kept = [name for name in made if before[name]["LastModified"] == after[name]["LastModified"]]
    # A shard whose record was not yet written is made again: one a worker at most.
    assert len(kept) >= len(made) - (1 if how == "inline" else 2) > 0
    assert_same(store.download(tmp_path / "copy"), undisturbed)
    # Local files without a name: also of those killed, nothing is left but copies of the index,
    # which the finished run has removed.
    assert not copies(environment)
    assert not [path for path in environment.iterdir() if not path.is_dir()]


def test_a_store_that_fails_one_request_in_ten(
    generate: Run, few: list[str], undisturbed: Path, store: Store, endpoint: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with flaky_server(endpoint, 0.1, seed=1) as flaky:
        monkeypatch.setenv("AWS_ENDPOINT_URL", flaky.url)
        generate(store.url, *few, "--workers=0")
    assert sum(flaky.failed.values()) >= 5
    assert len(flaky.failed) >= 3
    assert_same(store.download(tmp_path / "copy"), undisturbed)


def test_images_of_a_store_that_fails_one_request_in_ten(
    generate: Run, shapes: tuple[Path, Path], store: Store, endpoint: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """No image is taken for a broken one."""
    store.upload(shapes[1])
    common = ["--pairs", 30, "--size", 64, "--objects", 1, "--workers=0"]
    generate(tmp_path / "here", "--annotations", shapes[0], "--images", shapes[1], *common)
    with flaky_server(endpoint, 0.1, seed=3) as flaky:
        monkeypatch.setenv("AWS_ENDPOINT_URL", flaky.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # boto's own attempts
        generate(tmp_path / "there", "--annotations", shapes[0], "--images", store.url, *common)
    assert sum(flaky.failed.values()) >= 3
    assert hashes(tmp_path / "here") == hashes(tmp_path / "there")
    assert read_manifest(tmp_path / "there")["skipped"] == []


# --- what a user may get wrong -----------------------------------------------------------------


def refused(generate: Run, *arguments: object, **options: Any) -> str:
    begun = time.monotonic()
    source = [] if "--images" in arguments else ["--demo"]
    flags = [*source, "--pairs", 2, "--size", 64, "--workers=0"]
    done = generate(*arguments, *flags, status=1, **options)
    assert "Traceback" not in done.stderr
    assert time.monotonic() - begun < 60  # the point is that it ends; fast machines need 10 s
    return done.stderr


def test_a_missing_bucket(generate: Run, environment: Path) -> None:
    assert "s3://no-such-bucket does not exist" in refused(generate, "s3://no-such-bucket/x")
    message = refused(generate, environment / "out", "--images", "s3://no-such-bucket/x")
    assert "s3://no-such-bucket does not exist" in message


def test_no_images_there(generate: Run, store: Store, tmp_path: Path) -> None:
    message = refused(generate, tmp_path / "out", "--images", store.url)
    assert f"{store.url} holds no image" in message


def test_an_endpoint_that_is_down(
    generate: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    message = refused(generate, store.url)
    assert f"{store.url} cannot be listed" in message
    assert "127.0.0.1:9" in message


def test_credentials(generate: Run, monkeypatch: pytest.MonkeyPatch, environment: Path) -> None:
    """Wrong ones, and none, end the run at once."""
    with s3_server() as endpoint:
        client(endpoint).create_bucket(Bucket=BUCKET)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        _check_from_now(endpoint, b"0")
        try:
            message = refused(generate, f"s3://{BUCKET}/x")
            assert f"s3://{BUCKET}/x cannot be listed" in message
            assert "Access Key" in message
            for name in KEYS:
                monkeypatch.delenv(name)
            message = refused(generate, f"s3://{BUCKET}/x")
            assert "Unable to locate credentials" in message
        finally:
            _check_from_now(endpoint, b"inf")


def _check_from_now(endpoint: str, requests: bytes) -> None:
    """After so many requests moto's server checks credentials, in all servers of this process."""
    request = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", requests, {"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(request).close()


def test_other_files_are_refused_and_left(generate: Run, store: Store) -> None:
    store.put("notes.txt", b"mine")
    assert "is not empty and holds no dataset" in refused(generate, store.url)
    assert "is a file; expected a folder" in refused(generate, f"{store.url}/notes.txt")
    assert set(store.objects()) == {"notes.txt"}


def test_another_configuration_is_refused(generate: Run, store: Store) -> None:
    common = ["--demo", "--size", 64, "--workers=0"]
    generate(store.url, "--pairs", 2, *common)
    before = store.objects()
    done = generate(store.url, "--pairs", 3, *common, status=1)
    assert "pairs was 2, is 3" in done.stderr
    assert store.objects() == before


# --- reading back ------------------------------------------------------------------------------


def test_read_back(photos_dataset: Path, store: Store, environment: Path) -> None:
    """With this project's reader, and without it."""
    store.upload(photos_dataset)
    for split in ("train", "val"):
        here, there = read_pairs(photos_dataset, split), read_pairs(store.url, split)
        for mine, other in zip(here, there, strict=True):
            np.testing.assert_array_equal(mine.target, other.target)
            np.testing.assert_array_equal(mine.target_mask, other.target_mask)
            assert mine.background == other.background
    with (
        fsspec.open(f"{store.url}/train-000000.tar") as file,
        tarfile.open(fileobj=file, mode="r|") as tar,
    ):
        assert sum(member.name.endswith(".json") for member in tar) == 5
    with pytest.raises(DatasetError, match="is no finished dataset"):
        read_manifest(f"s3://{BUCKET}/nothing")
