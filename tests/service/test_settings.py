"""Settings come from the environment, once, and wrong ones are named."""

import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError
from service.settings import KEYS, SettingError, Settings, artifacts, unknown

ROOT = Path(__file__).resolve().parents[2]
DEPLOYING = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")


def test_every_setting_is_known() -> None:
    """No variable that the service reads, and none of others, is told of."""
    assert unknown({**dict.fromkeys(KEYS.values(), ""), "PATH": "/bin", "RELUME_X": ""}) == []


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set, and a variable that is set to nothing counts as not set."""
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"CLASSIFY_PORT": "", "OTHER": "x"}) == Settings()


GIVEN = {
    "models": ("folder", Path("folder")),
    "model": ("some/irv2.onnx", Path("some/irv2.onnx")),
    "default_model": ("irv2", "irv2"),
    "reload_s": ("0.5", 0.5),
    "engine": ("openvino", "openvino"),
    "device": ("cuda", "cuda"),
    "precision": ("bf16", "bf16"),
    "threads": ("3", 3),
    "workers": ("2", 2),
    "max_batch": ("16", 16),
    "queue": ("5", 5),
    "max_images": ("7", 7),
    "max_upload_bytes": ("1000", 1000),
    "max_pixels": ("2000", 2000),
    "max_connections": ("9", 9),
    "header_s": ("1", 1.0),
    "body_s": ("2.5", 2.5),
    "request_s": ("3", 3.0),
    "drain_s": ("4", 4.0),
    "tokens": ("one, two,", ("one", "two")),
    "cors_origins": ("https://a.example", ("https://a.example",)),
    "url_hosts": ("a.example,b.example", ("a.example", "b.example")),
    "log_format": ("json", "json"),
    "traces": ("http://collector:4318", "http://collector:4318"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
}


def test_every_setting_is_read() -> None:
    """Each variable reaches its field, with its type."""
    assert set(GIVEN) == set(KEYS)
    read = Settings.from_env({KEYS[name]: text for name, (text, _) in GIVEN.items()})
    assert vars(read) == {name: value for name, (_, value) in GIVEN.items()}


@pytest.mark.parametrize("value", [",", " ", " , ,"])
def test_tokens_that_are_none_let_nobody_in(value: str) -> None:
    """A variable that was meant to close the service does not open it."""
    with pytest.raises(SettingError, match=r"^CLASSIFY_TOKENS: found no token, expected some"):
        Settings.from_env({"CLASSIFY_TOKENS": value})


def test_tokens_are_not_shown() -> None:
    """Settings may be logged; secrets may not."""
    assert "secret" not in repr(Settings(tokens=("secret",)))


def test_one_file_goes_before_the_folder() -> None:
    """Who names one model is served that."""
    assert Settings().source == Path("artifacts")
    assert Settings(model=Path("a.onnx")).source == Path("a.onnx")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("CLASSIFY_DEVICE", "gpu", "auto, cuda or cpu"),
        ("CLASSIFY_ENGINE", "tf", "onnxruntime or openvino"),
        ("CLASSIFY_PRECISION", "int8", "float32 or bf16"),
        ("CLASSIFY_LOG_FORMAT", "xml", "text or json"),
        ("CLASSIFY_BODY_S", "soon", "seconds"),
        ("CLASSIFY_BODY_S", "-1", "seconds from 0"),
        ("CLASSIFY_BODY_S", "nan", "seconds from 0"),
        ("CLASSIFY_HEADER_S", "0", "seconds above 0"),
        ("CLASSIFY_BODY_S", "0.0", "seconds above 0"),
        ("CLASSIFY_REQUEST_S", "0", "seconds above 0"),
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


def test_a_file_is_taken_as_it_is_and_a_folder_by_its_artifacts(tmp_path: Path) -> None:
    """Every .onnx of a folder counts, but for those that are being written."""
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for file in (second, first, tmp_path / "irv2.pt", tmp_path / ".a.onnx.part.onnx"):
        file.touch()
    assert artifacts(first) == [first]
    assert artifacts(tmp_path) == [first, second]
    assert artifacts(tmp_path / "gone.onnx") == [tmp_path / "gone.onnx"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([], "found no .onnx: put one there, or set CLASSIFY_MODEL to a file", id="no"),
        pytest.param(["net.t7"], r"found no .onnx: `relume convert .*net\.t7` writes it", id="t7"),
        pytest.param(["net.pt"], r"found no .onnx: `relume onnx .*net\.pt` writes it", id="pt"),
    ],
)
def test_a_folder_without_artifacts_says_what_to_do(
    tmp_path: Path, files: list[str], message: str
) -> None:
    """What was found, and what to set or to run."""
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ArtifactError, match=message):
        artifacts(tmp_path)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("net.t7", "relume convert"),
        ("net.t7.xz", "relume convert"),
        ("net.t7.gz", "relume convert"),
        ("net-0000.params", "relume convert"),
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
        artifacts(Path("folder") / name)


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_documented_with_its_default(field: Field[Any]) -> None:
    """The table in docs/deploying.md has each variable and the default that the code has."""
    rows = re.findall(rf"^\| `{KEYS[field.name]}` \|(.*?)\|", DEPLOYING, re.MULTILINE)
    assert [row.strip() for row in rows] == [shown(field.default)]


def shown(default: object) -> str:
    """Return a default as the table shows it."""
    if isinstance(default, float):
        return f"`{default:g}`"
    return "" if default in (None, "", ()) else f"`{default}`"


@pytest.mark.parametrize("file", ["Dockerfile", "docker-compose.yml", "docs/deploying.md"])
def test_no_file_names_a_setting_that_does_not_exist(file: str) -> None:
    """Images, compose file and docs set only what the service reads."""
    named = set(re.findall(r"CLASSIFY_[A-Z_]*[A-Z]", (ROOT / file).read_text(encoding="utf-8")))
    assert named
    assert named <= set(KEYS.values())
