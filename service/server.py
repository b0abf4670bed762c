"""`python -m service`, or `relume serve`: classify images over HTTP."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn

from models.terminal import reports_errors
from service.app import create_app
from service.settings import KEYS, Settings

GRACE_S = 8  # `docker stop` kills after ten


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; both are the ordinary end and give 0."""
    flags = vars(_parser().parse_args(argv))
    given = {KEYS[name]: str(value) for name, value in flags.items() if value is not None}
    settings = Settings.from_env({**os.environ, **given})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        asyncio.run(_serve(settings))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


async def _serve(settings: Settings) -> None:
    """Load the model, then open the port, then serve.

    The lifespan is run here and not by uvicorn, which would print a traceback for a missing model.
    """
    app = create_app(settings)
    config = uvicorn.Config(
        app, lifespan="off", log_level="warning", timeout_graceful_shutdown=GRACE_S
    )
    async with app.router.lifespan_context(app):
        with _listen(settings.host, settings.port) as listener:
            classifier = app.state.served.classifier
            print(f"model: {classifier.spec.name}", file=sys.stderr)
            print(f"device: {classifier.reason}", file=sys.stderr)
            print(f"listening on {_address(listener)}", file=sys.stderr, flush=True)
            await uvicorn.Server(config).serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        OSError: It cannot be had; the address is named, which the system's own message leaves out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise OSError(error.errno, f"{error.strerror}: set --host", host) from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(error.errno, f"{reason}: set --port", f"{host}:{port}") from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stop(number: int, frame: FrameType | None) -> None:
    """End an unfinished start at once; while it serves, uvicorn takes the signal, then repeats it.

    Without a handler the first process of a container would not even notice SIGTERM.
    """
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Classify images over HTTP. A flag goes before its environment variable."
    )
    parser.add_argument("--model", metavar="PATH", help=".onnx file or its folder (CLASSIFY_MODEL)")
    parser.add_argument("--host", metavar="H", help="address to listen on (CLASSIFY_HOST)")
    parser.add_argument("--port", metavar="N", type=int, help="port, 0: any (CLASSIFY_PORT)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), help="CLASSIFY_DEVICE")
    return parser
