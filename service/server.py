"""`python -m service`, or `relume serve`: classify images over HTTP."""

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from types import FrameType

import uvicorn

from models.terminal import escaped, new_parser, reports_errors
from service.app import create_app
from service.connections import Connection, Limits
from service.observation import log_to_stderr
from service.settings import KEYS, Settings, unknown
from service.workers import serve_by_workers

END_S = 1.5  # with the default `drain_s` less than the ten seconds after which `docker stop` kills


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; both are the ordinary end and give 0."""
    flags = vars(parser().parse_args(argv))
    given = {KEYS[name]: str(value) for name, value in flags.items() if value is not None}
    for line in unknown(os.environ):
        print(f"warning: {escaped(line)}", file=sys.stderr)
    settings = Settings.from_env({**os.environ, **given})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        log_to_stderr(settings.log_format)
        if settings.workers > 1:
            return serve_by_workers(settings, _listen, _say)
        asyncio.run(serve(settings, lambda: _listen(settings.host, settings.port), _say))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


async def serve(
    settings: Settings,
    listener: Callable[[], socket.socket],
    say: Callable[[list[str], socket.socket], None],
) -> None:
    """Load the models, then open the port, then serve until a signal.

    The lifespan is run here and not by uvicorn, which would print a traceback for a missing model.

    Args:
        settings: What to serve, and how.
        listener: Opens the port; called once the models are ready.
        say: Is given the lines that describe what serves, and the port.
    """
    app = create_app(settings)
    limits = Limits(settings.header_s, settings.max_connections, app.state.metrics.refused)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        http=partial(Connection, limits),  # type: ignore[arg-type]  # it is called, and no more
        ws="none",
        backlog=settings.max_connections,
        timeout_graceful_shutdown=ceil(settings.drain_s),
    )
    async with app.router.lifespan_context(app):
        with listener() as opened:
            lines: list[str] = []
            for served in app.state.service.catalog.served:
                lines += [f"model: {served.name}", f"device: {served.engine.reason}"]
                lines += [f"checked: {served.checked}"]
            say(lines, opened)
            try:
                await uvicorn.Server(config).serve(sockets=[opened])
            finally:
                _end_within(END_S)


def _end_within(seconds: float) -> None:
    """End the process after so long: Python would wait for a thread that decodes, however long."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _say(lines: list[str], listener: socket.socket) -> None:
    for line in [*lines, f"listening on {_address(listener)}"]:
        print(escaped(line), file=sys.stderr, flush=True)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        OSError: It cannot be had; the address is named, which the system's own message leaves out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise OSError(error.errno, f"{error.strerror}: set --host", host) from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(error.errno, f"{reason}: set --port", f"{host}:{port}") from error
    # Connections inherit it. asyncio sets it only on sockets made with IPPROTO_TCP, which this is
    # not, and without it the body of an answer waits 40 ms for the client to confirm its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stop(number: int, frame: FrameType | None) -> None:
    """End an unfinished start at once; while it serves, uvicorn takes the signal, then repeats it.

    Without a handler the first process of a container would not even notice SIGTERM.
    """
    raise KeyboardInterrupt


def parser() -> argparse.ArgumentParser:
    """Return the parser of `relume serve`."""
    parser = new_parser(
        "Classify images over HTTP. A flag goes before its environment variable; docs/deploying.md "
        "lists the variables that have no flag.",
        "relume serve irv2.onnx                          # and open http://127.0.0.1:8000",
        "relume serve --models artifacts --port 9000",
        "curl -F img=@cat.jpg http://127.0.0.1:8000/classify",
    )
    parser.add_argument(
        "model", metavar="PATH", nargs="?", default=argparse.SUPPRESS, help="same as --model"
    )
    parser.add_argument("--model", metavar="PATH", help=".onnx file or its folder (CLASSIFY_MODEL)")
    parser.add_argument(
        "--models", metavar="DIR", help="folder of .onnx files, kept up with (CLASSIFY_MODELS)"
    )
    parser.add_argument("--host", metavar="H", help="address to listen on (CLASSIFY_HOST)")
    parser.add_argument("--port", metavar="N", type=int, help="port, 0: any (CLASSIFY_PORT)")
    parser.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), help="what computes (CLASSIFY_DEVICE)"
    )
    parser.add_argument(
        "--engine", choices=("onnxruntime", "openvino"), help="by which (CLASSIFY_ENGINE)"
    )
    parser.add_argument(
        "--precision", choices=("float32", "bf16"), help="what is computed in (CLASSIFY_PRECISION)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, help="processes on the one port (CLASSIFY_WORKERS)"
    )
    return parser
