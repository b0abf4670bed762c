"""What serving costs, next to the engine alone and to what people use otherwise.

    python benchmarks/serve.py resnet-50.onnx PICTURES... [--seconds 5] [--rounds 3] [--json]

Starts each server in turn, sends it the same JPEGs from a process of its own over 1, 8 and 64
connections, and stops it; that again for each round, so that a slow minute of the machine hits all
that is compared. Every figure is the median of the rounds. Images a second count answers of status
200; core ms is the processor time that the server took for one of them, which hardly depends on
what else the machine does; p50 and p99 are times from question to answer; memory is the
proportional set size of the server and all its processes after the load; ready is the time from
the start of the process to the first answer.

    engine       onnxruntime alone: one run on all cores for 1 connection, one run a core otherwise
    relume       this service; with --openvino also on OpenVINO, with --int8 FILE also that file
    fastapi      a plain handler of FastAPI: decode, preprocess, run, in its thread pool
    litserve     LitServe of the extra `bench`, one worker with batches; litserve-2: two workers

All of them decode and preprocess by the same functions and run the same file. Needs Linux.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.cores import usable_cores
from models.decoding import decode
from models.preprocess import preprocess
from models.session import Session, sharing_sessions

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = (1, 8, 64)
START_S = 120  # of the slowest peer, on a busy machine
BATCH = 8

NETWORK = """
import sys
from pathlib import Path
import numpy as np
from models.decoding import decode
from models.image_network import ImageNetwork
from models.postprocess import top_k
from models.preprocess import preprocess
from models.session import Session

class Network:
    def __init__(self, threads=None):
        self.network = ImageNetwork.of_session(Session(Path(sys.argv[1]), "cpu", threads))
    def row(self, data):
        return preprocess(decode(data), self.network.input)
    def run(self, batch):
        return self.network.probabilities(batch)
    def answer(self, row):
        best = top_k(row, self.network.spec.labels, 5)
        return {"predictions": [vars(one) for one in best]}
"""

FASTAPI = (
    NETWORK
    + """
import uvicorn
from fastapi import FastAPI, UploadFile

app, network = FastAPI(), Network()

@app.post("/classify")
def classify(img: UploadFile):
    return network.answer(network.run(network.row(img.file.read())[None])[0])

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""
)

LITSERVE = (
    NETWORK
    + """
import litserve

class Api(litserve.LitAPI):
    def setup(self, device):
        self.network = Network(THREADS)
    def decode_request(self, request):
        return self.network.row(request["img"].file.read())
    def batch(self, rows):
        return np.stack(rows)
    def unbatch(self, rows):
        return list(rows)
    def predict(self, batch):
        return self.network.run(batch)
    def encode_response(self, row):
        return self.network.answer(row)

if __name__ == "__main__":
    api = Api(max_batch_size=MOST, batch_timeout=0.0, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    server.run(port=int(sys.argv[2]), log_level="error", generate_client_file=False)
"""
)


class Load(NamedTuple):
    """What a load was answered."""

    rate: float  # images a second
    core_ms: float  # of the server's processors, for one image
    p50_ms: float
    p99_ms: float
    errors: int


class Figures(NamedTuple):
    """What was measured of one server in one round."""

    loads: dict[int, Load]
    memory_mb: float
    ready_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a table or one JSON object."""
    given = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="relume-serve-") as folder:
        rows = _measured(given, _servers(given, Path(folder)))
    print(json.dumps(rows, default=vars) if given.json else _table(rows))
    return 0


def _measured(
    given: argparse.Namespace, servers: Mapping[str, tuple[list[str], dict[str, str]]]
) -> dict[str, Figures]:
    pictures = [path.read_bytes() for path in given.pictures]
    found: dict[str, list[Figures]] = {name: [] for name in ("engine", *servers)}
    for _ in range(given.rounds):
        found["engine"].append(_engine(given.model, pictures, given.seconds))
        for name, (command, environ) in servers.items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            found[name].append(_server(command, environ, given.pictures, given.seconds))
    return {name: _median(rounds) for name, rounds in found.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare ways to serve an artifact.")
    parser.add_argument("model", type=Path, help=".onnx of relume")
    parser.add_argument("pictures", type=Path, nargs="+", help="JPEG files")
    parser.add_argument("--seconds", type=float, default=5, help="of each load (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of all servers (default 3)")
    parser.add_argument("--openvino", action="store_true", help="relume on OpenVINO as well")
    parser.add_argument("--int8", type=Path, help="relume with this file as well, on OpenVINO")
    parser.add_argument("--only", nargs="+", help="these servers only, by name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _servers(
    given: argparse.Namespace, folder: Path
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the command and the environment of each server; PORT stands for the port."""

    def script(name: str, text: str) -> tuple[list[str], dict[str, str]]:
        path = folder / f"{name}.py"
        path.write_text(text)
        return [sys.executable, str(path), str(given.model), "PORT"], {"PYTHONPATH": str(ROOT)}

    def ours(model: Path, **settings: str) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "service", "--model", str(model), "--port", "PORT"]
        keys = {f"CLASSIFY_{key.upper()}": value for key, value in settings.items()}
        return command, {"PYTHONPATH": str(ROOT), "CLASSIFY_DEVICE": "cpu", **keys}

    half = str(max(1, usable_cores() // 2))
    lit = LITSERVE.replace("MOST", str(BATCH))
    servers = {
        "relume": ours(given.model),
        "fastapi": script("fastapi_server", FASTAPI),
        "litserve": script("lit", lit.replace("WORKERS", "1").replace("THREADS", "None")),
        "litserve-2": script("lit2", lit.replace("WORKERS", "2").replace("THREADS", half)),
    }
    if given.openvino:
        servers["relume ov"] = ours(given.model, engine="openvino")
        servers["relume bf16"] = ours(given.model, engine="openvino", precision="bf16")
    if given.int8:
        servers["relume int8"] = ours(given.int8, engine="openvino")
    return {name: one for name, one in servers.items() if not given.only or name in given.only}


def _engine(model: Path, pictures: Sequence[bytes], seconds: float) -> Figures:
    """Measure onnxruntime alone, in this process: rows are ready, answers are dropped."""
    spec = Session(model).spec.input
    assert spec is not None
    rows = [preprocess(decode(one), spec)[None] for one in pictures]
    cores = usable_cores()
    wide, narrow = sharing_sessions(model, [cores, 1])
    wide.run(rows[0])
    loads = {1: _runs(wide, rows, 1, seconds)}
    many = _runs(narrow, rows, cores, seconds)
    loads.update({count: many for count in CONNECTIONS[1:]})
    memory, ready = _engine_alone(model)
    return Figures(loads, memory, ready)


def _engine_alone(model: Path) -> tuple[float, float]:
    """Return what a process of the engine takes: megabytes, and seconds to its first answer."""
    code = "import sys; from pathlib import Path; from models.session import Session; "
    code += "import numpy as np; s = Session(Path(sys.argv[1])); n = [1, *s.input_shapes[0][1:]]; "
    code += "s.run(np.zeros(n, 'f4')); print('ready', flush=True); input()"
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(model)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as alone:
        assert alone.stdout is not None
        alone.stdout.readline()
        ready = time.perf_counter() - started
        memory = _memory_mb(alone.pid)
        alone.kill()
    return memory, ready


def _runs(session: Session, rows: Sequence[np.ndarray], count: int, seconds: float) -> Load:
    times: list[float] = []
    end = time.perf_counter() + seconds

    def work(at: int) -> None:
        while (start := time.perf_counter()) < end:
            session.run(rows[at % len(rows)])
            times.append(time.perf_counter() - start)
            at += 1

    began, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=work, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _load(times, time.perf_counter() - began, time.process_time() - cpu, 0)


def _load(times: list[float], took: float, cpu: float, errors: int) -> Load:
    if not times:
        return Load(0.0, float("nan"), float("nan"), float("nan"), errors)
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return Load(len(times) / took, cpu * 1000 / len(times), float(p50), float(p99), errors)


def _server(
    command: list[str], environ: dict[str, str], pictures: Sequence[Path], seconds: float
) -> Figures:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(port) if one == "PORT" else one for one in command]
    with _running(command, environ) as process:
        ready = _await_ready(process, port)
        loads = {}
        for connections in CONNECTIONS:
            _sent(process.pid, port, connections, pictures, min(1.0, seconds))  # what a start costs
            loads[connections] = _sent(process.pid, port, connections, pictures, seconds)
        return Figures(loads, _memory_mb(process.pid), ready)


@contextmanager
def _running(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **environ},
        cwd=tempfile.gettempdir(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        tree = _tree(process.pid)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for pid in tree:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int) -> float:
    start = time.perf_counter()
    while time.perf_counter() - start < START_S:
        if process.poll() is not None:
            raise SystemExit(f"error: {process.args!r} ended with {process.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as one:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            if one.recv(12).startswith(b"HTTP/1.1"):
                return time.perf_counter() - start
        time.sleep(0.02)
    raise SystemExit(f"error: {process.args!r} was not ready within {START_S} s")


def _cpu_s(pid: int) -> float:
    """Return the seconds that a process and all that it started have computed."""
    ticks = 0
    for one in _tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _sent(pid: int, port: int, connections: int, pictures: Sequence[Path], seconds: float) -> Load:
    """Load a server from a process of its own."""
    command = [sys.executable, __file__, "--load", str(port), str(connections), str(seconds)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    cpu = _cpu_s(pid)
    result = subprocess.run(
        [*command, *map(str, pictures)], env=environ, check=True, capture_output=True
    )
    told = json.loads(result.stdout)
    return _load(told["times"], told["took"], _cpu_s(pid) - cpu, told["errors"])


def load(port: int, connections: int, seconds: float, pictures: Sequence[Path]) -> None:
    """Send pictures over so many connections, each waiting for its answer; print the times."""
    requests = [_request(path.read_bytes()) for path in pictures]
    times: list[float] = []
    errors = 0

    async def client(at: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (start := time.perf_counter()) < end:
            writer.write(requests[at % len(requests)])
            status = await _status(reader)
            if status == 200:
                times.append(time.perf_counter() - start)
            else:
                errors += 1
            at += 1
        writer.close()

    async def run() -> None:
        await asyncio.gather(*map(client, range(connections)))

    began = time.perf_counter()
    end = began + seconds
    asyncio.run(run())
    print(json.dumps({"times": times, "took": time.perf_counter() - began, "errors": errors}))


def _request(picture: bytes) -> bytes:
    body = b'--x\r\nContent-Disposition: form-data; name="img"; filename="a.jpg"\r\n'
    body += b"Content-Type: image/jpeg\r\n\r\n" + picture + b"\r\n--x--\r\n"
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    return head + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])


def _tree(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found, at = [pid], 0
    while at < len(found):
        with suppress(OSError):
            for task in Path(f"/proc/{found[at]}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        at += 1
    return found


def _memory_mb(pid: int) -> float:
    total = 0
    for one in _tree(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _median(rounds: Sequence[Figures]) -> Figures:
    loads = {
        count: Load(
            statistics.median(one.loads[count].rate for one in rounds),
            statistics.median(one.loads[count].core_ms for one in rounds),
            statistics.median(one.loads[count].p50_ms for one in rounds),
            statistics.median(one.loads[count].p99_ms for one in rounds),
            sum(one.loads[count].errors for one in rounds),
        )
        for count in CONNECTIONS
    }
    memory = statistics.median(one.memory_mb for one in rounds)
    return Figures(loads, memory, statistics.median(one.ready_s for one in rounds))


def _table(rows: dict[str, Figures]) -> str:
    head = "".join(f"{f'{count} connections':>37}" for count in CONNECTIONS)
    names = f"{'images/s':>10}{'core ms':>9}{'p50 ms':>8}{'p99':>6}{'bad':>4}"
    lines = [f"{'':12}{head}{'MB':>8}{'ready s':>9}", f"{'':12}{names * len(CONNECTIONS)}"]
    for name, figures in rows.items():
        loads = "".join(
            f"{one.rate:10.1f}{one.core_ms:9.1f}{one.p50_ms:8.0f}{one.p99_ms:6.0f}{one.errors:4}"
            for one in figures.loads.values()
        )
        lines.append(f"{name:12}{loads}{figures.memory_mb:8.0f}{figures.ready_s:9.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        port, connections, seconds, *paths = sys.argv[2:]
        load(int(port), int(connections), float(seconds), [Path(path) for path in paths])
    else:
        sys.exit(main())
