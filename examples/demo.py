"""Convert the example checkpoint, serve it, and classify the example pictures over HTTP.

`make demo` runs this; `python examples/demo.py --help` lists its flags.
"""

import argparse
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from models.errors import LegacyModelError
from models.terminal import reports_errors

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "examples" / "efficientnet_lite0.t7"
HOST = "127.0.0.1"

READY_S = 120  # loading takes a second; a first start from a slow disk under load takes more
ANSWER_S = 60
STOP_S = 15  # the service gives requests in flight 8 seconds
SHOWN = 3  # of the five classes of an answer


class DemoError(LegacyModelError):
    """The demo cannot go on."""


class Answer(NamedTuple):
    """What the service says of one picture: class names and probabilities, best first."""

    picture: str
    classes: list[tuple[str, float]]


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; Ctrl-C while it serves is its ordinary end."""
    given = _parser().parse_args(argv)
    port = free_port(given.port)
    signal.signal(signal.SIGTERM, _interrupt)
    model = convert(CHECKPOINT, given.out.resolve())
    with serving(model, port) as server:
        wait_until_ready(server, port)
        pictures = sorted(CHECKPOINT.parent.glob("*.jpg"))
        print(table([classify(picture, port) for picture in pictures]))
        if not given.once:
            with suppress(KeyboardInterrupt):
                print(invitation(pictures[0], port), flush=True)
                keep_serving(server)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Convert, serve and classify the examples.")
    parser.add_argument(
        "--port", type=int, default=8000, help="port, 0: any (default: %(default)s)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        default=ROOT / "artifacts",
        help="folder of the converted model (default: artifacts)",
    )
    parser.add_argument("--once", action="store_true", help="stop after the answers")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Let SIGTERM end the server too, as Ctrl-C does."""
    raise KeyboardInterrupt


def free_port(wanted: int) -> int:
    """Return that port, or any free one for 0.

    Raises:
        DemoError: Another program listens there, or the port cannot be had.
    """
    if not 0 <= wanted <= 65535:
        raise DemoError(f"port {wanted}: expected 0 to 65535")
    try:
        with socket.create_server((HOST, wanted)) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise DemoError(
            f"port {wanted}: {os.strerror(error.errno or 0)}: choose another, "
            "`make demo PORT=8001` or --port 8001"
        ) from error


def convert(checkpoint: Path, folder: Path) -> Path:
    """Return the checkpoint's ONNX form; it is made if it is missing or older.

    Raises:
        DemoError: The conversion failed; it has said why.
    """
    model = folder / f"{checkpoint.stem}.onnx"
    if model.exists() and model.stat().st_mtime >= checkpoint.stat().st_mtime:
        print(f"{_short(model)} is up to date", file=sys.stderr)
        return model
    print(f"converting {_short(checkpoint)}", file=sys.stderr, flush=True)
    command = ["relume", "convert", str(checkpoint), "-o", str(folder), "--force"]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)
    if done.returncode:
        raise DemoError(f"{_short(checkpoint)}: conversion ended with status {done.returncode}")
    return model


@contextmanager
def serving(model: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the service on that port, and end it on every way out."""
    command = ["service", "--model", str(model), "--host", HOST, "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT)
    try:
        yield server
    finally:
        stop(server)


def stop(server: "subprocess.Popen[bytes]") -> None:
    """End the process: by request, and after `STOP_S` seconds by force."""
    server.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_S)
    finally:  # a second Ctrl-C must not leave it behind either
        server.kill()
        server.wait()


def wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Return once `/readyz` says so.

    Raises:
        DemoError: The service ended, or is not ready after `READY_S` seconds.
    """
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DemoError(
                f"the service ended with status {server.returncode} before it was ready"
            )
        try:
            if ask(port, "GET", "/readyz").status == http.HTTPStatus.OK:
                return
        except OSError:  # it opens its port when the model is loaded
            pass
        time.sleep(0.1)
    raise DemoError(f"the service is not ready after {READY_S} seconds")


class Reply(NamedTuple):
    """Status and JSON of an HTTP answer."""

    status: int
    content: Any


def ask(port: int, method: str, path: str, body: bytes = b"", kind: str = "") -> Reply:
    """Send one request to the service; no proxy of the environment is asked."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_S)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        return Reply(response.status, json.loads(response.read()))
    finally:
        connection.close()


def classify(picture: Path, port: int) -> Answer:
    """Return the service's answer for one picture.

    Raises:
        DemoError: The service refuses the picture.
    """
    body, kind = multipart("img", picture.name, picture.read_bytes())
    status, content = ask(port, "POST", "/classify", body, kind)
    if status != http.HTTPStatus.OK:
        raise DemoError(f"{picture.name}: the service answers {status}: {content.get('detail')}")
    best = content["predictions"][:SHOWN]
    return Answer(picture.name, [(entry["label"], entry["probability"]) for entry in best])


def multipart(field: str, name: str, content: bytes) -> tuple[bytes, str]:
    """Return a form of one file, and its Content-Type.

    Source: RFC 7578; quotes and line ends in names are escaped as browsers do.
    """
    boundary = secrets.token_hex(16)
    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{quoted}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def table(answers: Sequence[Answer]) -> str:
    """Return the answers as lines: picture, probability, class; the best class first."""
    width = max(len(answer.picture) for answer in answers)
    lines = [""]
    for answer in answers:
        names = [answer.picture] + [""] * (len(answer.classes) - 1)
        for name, (label, probability) in zip(names, answer.classes, strict=True):
            lines.append(f"  {name:<{width}}  {probability:6.1%}  {label}")
    return "\n".join(lines)


def invitation(picture: Path, port: int) -> str:
    """Return what a reader can do now."""
    address = f"http://{HOST}:{port}"
    return (
        f"\n  open in a browser:  {address}"
        f"\n  or on a shell:      curl -F img=@{_short(picture)} {address}/classify"
        "\n  stop with Ctrl-C"
    )


def keep_serving(server: "subprocess.Popen[bytes]") -> None:
    """Return when the service has been stopped.

    Raises:
        DemoError: It died.
    """
    if status := server.wait():
        raise DemoError(f"the service ended with status {status}")


def _short(path: Path) -> str:
    """Return the path as it is typed from the clone, where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    sys.exit(main())
