"""Starting and ending: one line for each thing that can be wrong, and a clean end."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from models import session
from service.server import END_S, main
from tests.service.conftest import encoded, plain
from tests.tiny_onnx import Tiny

ROOT = Path(__file__).resolve().parents[2]
START_S = 30  # imports on a slow disk


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an environment without settings, and its signal handlers back."""
    for key in ("MODEL", "DEVICE", "HOST", "PORT"):
        monkeypatch.delenv(f"CLASSIFY_{key}", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def running(
    *flags: str, program: Sequence[str] = ("-m", "service")
) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Start the service as users do, and give its process, its address and what it said."""
    command = [sys.executable, *program, "--port", "0", "--device", "cpu", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line.rstrip())
                if line.startswith("listening on "):
                    yield process, line.split()[-1], said
                    break
            else:
                pytest.fail(f"the service did not start: {said}")
        finally:
            process.kill()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_serves_until_it_is_told_to_stop(tiny_model: Path, end: signal.Signals) -> None:
    """It says what serves and where, answers, and ends with 0 on both signals."""
    with running("--model", str(tiny_model)) as (process, address, said):
        assert said[0] == "model: tiny"
        assert said[1] == "device: cpu: asked for"
        assert said[2].startswith("checked: onnxruntime, for want of a self-test: off by ")
        assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+", said[3])
        assert httpx.get(f"{address}/readyz").status_code == 200
        response = httpx.post(f"{address}/classify", files={"img": encoded(plain("blue"))})
        assert response.json()["predictions"][0]["label"] == "blue"
        process.send_signal(end)
        assert process.wait(timeout=START_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "stopped\n"


ENDLESS = """
import sys, time
from service import served, server
served.decode = lambda *_, **__: time.sleep(60)
sys.exit(server.main())
"""


def test_it_ends_although_an_image_is_being_decoded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is told, and what no thread can be told to stop ends with the process, with 0."""
    monkeypatch.setenv("CLASSIFY_DRAIN_S", "1")
    flags = ("--model", str(tiny_model))
    with (
        running(*flags, program=("-c", ENDLESS)) as (process, address, _),
        ThreadPoolExecutor(1) as client,
    ):
        image = {"img": encoded(plain("red"))}
        asked = client.submit(httpx.post, f"{address}/classify", files=image, timeout=30)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=1 + END_S + 20) == 0  # and not the minute that decoding takes
        assert asked.result().status_code in (500, 503)


def test_the_environment_serves_a_folder(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without flags the variables decide; a folder with one artifact is enough."""
    monkeypatch.setenv("CLASSIFY_MODEL", str(tiny_model.parent))
    monkeypatch.setenv("CLASSIFY_HOST", "::1")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        monkeypatch.setenv("CLASSIFY_HOST", "localhost")
    with running() as (_, address, _):
        assert httpx.get(f"{address}/healthz").json() == {"status": "alive"}


def fails(capsys: pytest.CaptureFixture[str], *flags: str, page: str = "") -> str:
    """Run a service that cannot start; return the one line that it says, less the page's name."""
    assert main(list(flags)) == 1
    out, err = capsys.readouterr()
    end = f" (relume explain {page})\n" if page else "\n"
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert err.endswith(end)
    return err.removeprefix("error: ").removesuffix(end)


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The path is named."""
    path = tmp_path / "gone.onnx"
    said = fails(capsys, "--model", str(path), page="artifact-error")
    assert said == f"{path}: no such file"


def test_without_a_model_it_is_said_where_one_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`relume serve` alone, in a folder where nothing was converted yet."""
    monkeypatch.chdir(tmp_path)
    said = fails(capsys, page="artifact-error")
    assert said == (
        "artifacts: no such folder: make it and put an .onnx there, or name one: "
        "`relume serve FILE.onnx`"
    )


def test_a_damaged_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """So is what onnxruntime thinks of it, without its stack."""
    path = tmp_path / "cut.onnx"
    path.write_bytes(Tiny().bytes()[:-10])
    assert "can load: " in fails(capsys, "--model", str(path), "--device", "cpu")


def test_a_model_without_image_input_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What the warm-up notices ends the start like everything else."""
    path = Tiny(outputs=3).write(tmp_path / "odd.onnx")
    message = fails(capsys, "--model", str(path), "--device", "cpu")
    assert message.startswith(f"{path}: found an output of shape (1, 3)")


def test_a_wrong_setting_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong value stops the start and is named."""
    monkeypatch.setenv("CLASSIFY_QUEUE", "many")
    said = fails(capsys, page="setting-error")
    assert said == "CLASSIFY_QUEUE: found 'many', expected a whole number from 1"


def test_a_misspelt_setting_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A line each at the start, without the value, and with the setting that may be meant."""
    monkeypatch.setenv("CLASSIFY_TOKEN", "a secret")
    monkeypatch.setenv("CLASSIFY_SOMETHING_ELSE_ALTOGETHER", "")
    monkeypatch.setenv("CLASSIFIER", "somebody else's")
    assert main(["--model", str(tmp_path / "gone.onnx"), "--port", "0"]) == 1
    assert capsys.readouterr().err.splitlines()[:-1] == [
        "warning: CLASSIFY_SOMETHING_ELSE_ALTOGETHER: no such setting",
        "warning: CLASSIFY_TOKEN: no such setting; did you mean CLASSIFY_TOKENS?",
    ]


def test_a_flag_goes_before_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was typed now wins over what was set before, even over nonsense."""
    monkeypatch.setenv("CLASSIFY_PORT", "nonsense")
    monkeypatch.setenv("CLASSIFY_MODEL", "elsewhere")
    path = tmp_path / "gone.onnx"
    said = fails(capsys, "--port", "0", "--model", str(path), page="artifact-error")
    assert said == f"{path}: no such file"


def test_cuda_without_gpu_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """Who asks for the GPU is never served from the CPU."""
    monkeypatch.setattr(session.runtime(), "get_available_providers", lambda: [session.CPU])
    message = fails(capsys, "--model", str(tiny_model), "--device", "cuda")
    assert message.startswith("CUDA was asked for, and onnxruntime ")


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    """The address and what to set are named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ["--model", str(tiny_model), "--device", "cpu", "--port", str(port)]
        message = fails(capsys, *flags)
    assert message == f"127.0.0.1:{port}: Address already in use: set --port"


def test_an_unknown_host_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """So is a host that this machine does not know."""

    def create_server(*arguments: object, **options: object) -> socket.socket:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_server", create_server)
    flags = ["--model", str(tiny_model), "--device", "cpu", "--host", "nowhere.invalid"]
    assert fails(capsys, *flags) == "nowhere.invalid: Name or service not known: set --host"


def test_a_wrong_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags that cannot be are answered as every command does: usage, and 2."""
    with pytest.raises(SystemExit, match="2"):
        main(["--port", "nonsense"])
    assert "argument --port: invalid int value" in capsys.readouterr().err
