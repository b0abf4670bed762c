"""Settings come from the environment, once, and wrong ones are named."""

import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError
from service.settings import KEYS, SettingError, Settings, model_file

ROOT = Path(__file__).resolve().parents[2]
DEPLOYING = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set, and a variable that is set to nothing counts as not set."""
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"CLASSIFY_PORT": "", "OTHER": "x"}) == Settings()


def test_every_setting_is_read() -> None:
    """Each variable reaches its field, with its type."""
    environ = {
        "CLASSIFY_MODEL": "some/irv2.onnx",
        "CLASSIFY_DEVICE": "cuda",
        "CLASSIFY_THREADS": "3",
        "CLASSIFY_MAX_BATCH": "16",
        "CLASSIFY_QUEUE": "5",
        "CLASSIFY_MAX_UPLOAD_BYTES": "1000",
        "CLASSIFY_MAX_PIXELS": "2000",
        "CLASSIFY_HOST": "::1",
        "CLASSIFY_PORT": "0",
    }
    assert set(environ) == set(KEYS.values())
    assert Settings.from_env(environ) == Settings(
        Path("some/irv2.onnx"), "cuda", 3, 16, 5, 1000, 2000, "::1", 0
    )


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("CLASSIFY_DEVICE", "gpu", "auto, cuda or cpu"),
        ("CLASSIFY_THREADS", "0", "a whole number from 1 to 1024"),
        ("CLASSIFY_MAX_BATCH", "many", "a whole number from 1"),
        ("CLASSIFY_QUEUE", "-1", "a whole number from 1"),
        ("CLASSIFY_MAX_UPLOAD_BYTES", "10MB", "a whole number from 1"),
        ("CLASSIFY_MAX_PIXELS", "1e6", "a whole number from 1"),
        ("CLASSIFY_PORT", "65536", "a whole number from 0 to 65535"),
        ("CLASSIFY_PORT", "tcp://10.0.0.1:80", "a whole number from 0 to 65535"),
    ],
)
def test_a_wrong_value_names_key_value_and_wanted_type(key: str, value: str, wanted: str) -> None:
    """The message is enough to mend the environment."""
    message = f"{key}: found {value!r}, expected {wanted}"
    with pytest.raises(SettingError, match=f"^{re.escape(message)}$"):
        Settings.from_env({key: value})


def test_a_file_is_taken_as_it_is_and_a_folder_by_its_only_artifact(tmp_path: Path) -> None:
    """A folder with one .onnx serves that, whatever else lies beside it."""
    only = tmp_path / "irv2.onnx"
    for file in (only, tmp_path / "irv2.pt", tmp_path / "irv2.t7"):
        file.touch()
    assert model_file(only) == only
    assert model_file(tmp_path) == only
    assert model_file(tmp_path / "gone.onnx") == tmp_path / "gone.onnx"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([], "found no .onnx: put one there, or set CLASSIFY_MODEL to a file", id="no"),
        pytest.param(
            ["b.onnx", "a.onnx"],
            "found a.onnx, b.onnx: name one, with --model or CLASSIFY_MODEL",
            id="two",
        ),
        pytest.param(["net.t7"], r"found no .onnx: `relume convert .*net\.t7` writes it", id="t7"),
        pytest.param(["net.pt"], r"found no .onnx: `relume onnx .*net\.pt` writes it", id="pt"),
    ],
)
def test_a_folder_without_its_one_artifact_says_what_to_do(
    tmp_path: Path, files: list[str], message: str
) -> None:
    """None or several: what was found is listed, and what to set or to run is said."""
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ArtifactError, match=message):
        model_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("net.t7", "relume convert"),
        ("net.t7.xz", "relume convert"),
        ("net.t7.gz", "relume convert"),
        ("net.pt", "relume onnx"),
        ("net.safetensors", "relume onnx"),
    ],
)
def test_a_checkpoint_is_answered_with_the_command_that_converts_it(
    name: str, command: str
) -> None:
    """Whoever names a .t7 or .pt learns how to make the .onnx of it."""
    with pytest.raises(
        ArtifactError, match=rf"the service runs \.onnx: `{command} folder/{name}` writes it"
    ):
        model_file(Path("folder") / name)


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_documented_with_its_default(field: Field[Any]) -> None:
    """The table in docs/deploying.md has each variable and the default that the code has."""
    rows = re.findall(rf"^\| `{KEYS[field.name]}` \| (.+?) \|", DEPLOYING, re.MULTILINE)
    assert rows == ["onnxruntime's" if field.default is None else f"`{field.default}`"]


@pytest.mark.parametrize("file", ["Dockerfile", "docker-compose.yml", "docs/deploying.md"])
def test_no_file_names_a_setting_that_does_not_exist(file: str) -> None:
    """Images, compose file and docs set only what the service reads."""
    named = set(re.findall(r"CLASSIFY_[A-Z_]*[A-Z]", (ROOT / file).read_text(encoding="utf-8")))
    assert named
    assert named <= set(KEYS.values())
