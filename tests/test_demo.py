"""Tests of examples/demo.py."""

import email
import email.policy
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from examples.demo import (
    HOST,
    Answer,
    DemoError,
    classify,
    convert,
    free_port,
    invitation,
    keep_serving,
    main,
    multipart,
    stop,
    table,
    wait_until_ready,
)
from tests.oracles import ROOT

DEMO_S = 240  # converting takes ten seconds, under load a multiple of that


def parsed(body: bytes, kind: str) -> email.message.EmailMessage:
    """Read a form with the standard library's MIME parser, an implementation that is not ours."""
    message = email.message_from_bytes(
        b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body, policy=email.policy.HTTP
    )
    assert isinstance(message, email.message.EmailMessage)
    return message


@pytest.mark.parametrize(
    "content",
    [b"", bytes(range(256)), b"\r\n--\r\n", b"--", b"\r\n\r\n"],
    ids=["empty", "every byte", "like a boundary", "dashes", "line ends"],
)
def test_a_form_carries_the_file_byte_for_byte(content: bytes) -> None:
    """What goes into the form is what a MIME parser takes out of it."""
    (part,) = parsed(*multipart("img", "cat.jpg", content)).iter_parts()
    assert part.get_payload(decode=True) == content
    assert part.get_param("name", header="content-disposition") == "img"
    assert part.get_filename() == "cat.jpg"


def test_a_file_name_cannot_break_the_form() -> None:
    """Quotes and line ends in a name are escaped, so that they end neither name nor header."""
    (part,) = parsed(*multipart("img", 'a"b\r\nc.jpg', b"content")).iter_parts()
    assert part.get_filename() == "a%22b%0D%0Ac.jpg"
    assert part.get_payload(decode=True) == b"content"


def test_each_form_has_a_boundary_of_its_own() -> None:
    """The boundary is random: no file can be made that contains it."""
    assert multipart("img", "cat.jpg", b"")[1] != multipart("img", "cat.jpg", b"")[1]


def test_a_busy_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Who starts the demo twice reads that the port is taken, and how to choose another."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    line = f"error: port {port}: Address already in use: choose another, `make demo PORT=8001`"
    assert re.fullmatch(f"{re.escape(line)}[^\n]*\n", capsys.readouterr().err)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    """Numbers outside 0 to 65535 are named in the error."""
    with pytest.raises(DemoError, match=f"port {port}: expected 0 to 65535"):
        free_port(port)


def test_port_0_is_any_free_port() -> None:
    """With 0 the system chooses, and the number it chose comes back."""
    assert free_port(0) > 0


def test_a_model_that_is_up_to_date_is_not_converted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second start of the demo does not convert: the source here could not be."""
    source, model = tmp_path / "net.t7", tmp_path / "net.onnx"
    source.touch()
    model.touch()
    os.utime(source, (1, 1))
    assert convert(source, tmp_path) == model
    assert capsys.readouterr().err == f"{model} is up to date\n"


def test_a_conversion_that_fails_ends_the_demo(tmp_path: Path) -> None:
    """A failed conversion is an error with its status; no old model is served instead."""
    source, model = tmp_path / "net.t7", tmp_path / "net.onnx"
    model.touch()
    os.utime(model, (1, 1))
    source.write_bytes(b"not a checkpoint")
    with pytest.raises(DemoError, match=r"net.t7: conversion ended with status 1"):
        convert(source, tmp_path)


@contextmanager
def program(text: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_service_that_dies_early_is_noticed_at_once() -> None:
    """The demo does not wait for a service that has ended."""
    with (
        program("import sys; sys.exit(3)") as server,
        pytest.raises(DemoError, match="the service ended with status 3 before it was ready"),
    ):
        wait_until_ready(server, free_port(0))


def test_a_service_that_never_gets_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a time limit, and the error says it."""
    monkeypatch.setattr("examples.demo.READY_S", 0.2)
    with (
        program("import time; time.sleep(60)") as server,
        pytest.raises(DemoError, match="the service is not ready after 0.2 seconds"),
    ):
        wait_until_ready(server, free_port(0))


def test_a_service_that_dies_later_is_noticed() -> None:
    """While it serves, the demo ends with the service and says so."""
    with (
        program("import sys; sys.exit(3)") as server,
        pytest.raises(DemoError, match="the service ended with status 3$"),
    ):
        keep_serving(server)


def test_a_service_that_was_stopped_is_no_error() -> None:
    """Status 0 is the ordinary end of the service, and so of the demo."""
    with program("") as server:
        keep_serving(server)


def test_a_service_that_does_not_listen_is_ended_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is left behind, not even one that ignores SIGTERM."""
    monkeypatch.setattr("examples.demo.STOP_S", 0.2)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    with program(f"{deaf}; time.sleep(60)") as server:
        assert server.stdout is not None
        server.stdout.readline()
        stop(server)
        assert server.returncode == -signal.SIGKILL


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """Serve that answer to one request."""

    class Fixed(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keep the test's output free of requests."""

    with HTTPServer((HOST, 0), Fixed) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield server.server_port
        thread.join()


def test_a_refused_picture_is_an_error_with_the_reason(tmp_path: Path) -> None:
    """What the service says against a picture is passed on."""
    picture = tmp_path / "cat.jpg"
    picture.write_bytes(b"no picture")
    with (
        answering(422, b'{"detail": "found 10 bytes"}') as port,
        pytest.raises(DemoError, match="cat.jpg: the service answers 422: found 10 bytes"),
    ):
        classify(picture, port)


def test_the_table_shows_the_best_classes_of_each_picture() -> None:
    """One block a picture, the name once, the classes under each other."""
    answers = [
        Answer("cat.jpg", [("tiger cat", 0.5), ("tabby", 0.25)]),
        Answer("coffee.jpg", [("espresso", 0.951)]),
    ]
    assert table(answers).splitlines() == [
        "",
        "  cat.jpg      50.0%  tiger cat",
        "               25.0%  tabby",
        "  coffee.jpg   95.1%  espresso",
    ]


def test_the_invitation_can_be_typed_as_it_stands() -> None:
    """Address and curl line name the port and a picture that is there."""
    text = invitation(ROOT / "examples" / "cat.jpg", 8001)
    assert "http://127.0.0.1:8001\n" in text
    assert "curl -F img=@examples/cat.jpg http://127.0.0.1:8001/classify\n" in text


def test_every_example_picture_has_its_licence() -> None:
    """No picture and no network lies among the examples without a word on where it is from."""
    notice = (ROOT / "examples" / "NOTICE.md").read_text(encoding="utf-8")
    examples = [*(ROOT / "examples").glob("*.jpg"), *(ROOT / "examples").glob("*.t7")]
    assert len(examples) == 5
    assert [file.name for file in examples if f"`{file.name}`" not in notice] == []


# --- from end to end ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def started(artifacts: Path, *flags: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "examples/demo.py", "--port", "0", "-o", str(artifacts), *flags]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C for its group is none for the tests
    )


@pytest.mark.slow
def test_the_demo_converts_serves_and_classifies(artifacts: Path) -> None:
    """From the checkpoint to the classes in one command, and nothing is left running."""
    with started(artifacts, "--once") as demo:
        printed, told = demo.communicate(timeout=DEMO_S)
    assert demo.returncode == 0, told
    best = dict(re.findall(r"^  (\w+)\.jpg +[\d.]+%  (.+)$", printed, re.MULTILINE))
    assert best == {
        "camera": "tripod",
        "cat": "tiger cat",
        "coffee": "espresso",
        "rocket": "missile",
    }
    assert "Traceback" not in told
    assert_ended(demo.pid)


CTRL_C: Callable[[int], None] = lambda group: os.killpg(group, signal.SIGINT)  # noqa: E731


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [CTRL_C, lambda demo: os.kill(demo, signal.SIGTERM)],
    ids=["Ctrl-C", "SIGTERM to the demo alone"],
)
def test_the_demo_ends_when_it_is_told_to(artifacts: Path, end: Callable[[int], None]) -> None:
    """It serves until then, ends with 0, shows no traceback and leaves no process behind."""
    with started(artifacts) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Ctrl-C" in line:
                break
        end(demo.pid)
        _, told = demo.communicate(timeout=DEMO_S)
    assert demo.returncode == 0, told
    assert "Traceback" not in told
    assert_ended(demo.pid)


def assert_ended(group: int) -> None:
    """Nothing of the demo's process group is left."""
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.killpg(group, 0)
