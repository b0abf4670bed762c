"""The application of Ray Serve: its settings, and a cluster that loses a replica."""

import ast
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service import ray_app
from service.ray_app import NotServed, app, options, settings_of
from service.settings import KEYS, Settings
from tests.oracles import ROOT
from tests.service.conftest import encoded, plain

CONFIG = ROOT / "deploy" / "ray-serve.yaml"
CLIENTS = 8  # more than two replicas are asked to take
WAIT_S = 480  # for a cluster, on a machine that does other things


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of this machine decide."""
    for key in KEYS.values():
        monkeypatch.delenv(key, raising=False)


def test_arguments_go_before_their_variables(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As flags do; a replica has one core unless it is told otherwise, and an absolute path."""
    monkeypatch.setenv("CLASSIFY_QUEUE", "nonsense")
    monkeypatch.chdir(tiny_model.parent)
    settings = settings_of({"model": "tiny.onnx", "queue": 5})
    assert settings == Settings(model=tiny_model, queue=5, threads=1)


def test_without_arguments_the_folder_is_served(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All models that CLASSIFY_MODELS has, or `artifacts`."""
    monkeypatch.setenv("CLASSIFY_MODELS", str(tiny_model.parent))
    assert settings_of({}).source == tiny_model.parent


@pytest.mark.parametrize(
    ("given", "scaling", "expected"),
    [
        ({}, {}, (1, 0, 4)),  # one lane: two images are run, two are ready
        ({"threads": 4}, {}, (4, 0, 16)),
        ({"threads": 4, "max_batch": 1}, {}, (4, 0, 8)),
        ({"device": "cuda"}, {}, (1, 1, 16)),
        ({}, {"target_ongoing_requests": "3"}, (1, 0, 3)),
    ],
    ids=["default", "cores", "batch", "gpu", "asked"],
)
def test_a_replica_takes_its_share(
    given: dict[str, Any], scaling: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    """Cores and GPUs as the settings say, and as many requests as keep it busy."""
    made = options(Settings(**given), scaling)
    share = made["ray_actor_options"]
    target = made["autoscaling_config"].target_ongoing_requests
    assert (share["num_cpus"], share["num_gpus"], target) == expected


def test_the_machine_is_filled_and_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many replicas as there are cores for, where nobody says how many; and the time to end."""
    monkeypatch.setattr(ray_app, "usable_cores", lambda: 7)
    made = options(Settings(threads=2, drain_s=3.0, max_connections=9), {})
    assert made["autoscaling_config"].max_replicas == 3
    assert options(Settings(threads=9), {})["autoscaling_config"].max_replicas == 1
    assert made["graceful_shutdown_timeout_s"] == 3.0
    assert made["max_ongoing_requests"] == made["max_queued_requests"] == 9
    asked = options(Settings(), {"min_replicas": 2, "max_replicas": "40"})["autoscaling_config"]
    assert (asked.min_replicas, asked.max_replicas) == (2, 40)


def test_the_application_is_one_deployment(tiny_model: Path) -> None:
    """Under the name that configuration files give it."""
    assert app({"model": str(tiny_model)})._bound_deployment.name == "classifier"


@pytest.mark.anyio
async def test_a_replica_is_the_service(tiny_model: Path) -> None:
    """Its models are loaded when Serve starts it, and it answers as everywhere."""
    service = ray_app._builder(settings_of({"model": str(tiny_model), "device": "cpu"}))()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://relume")
    async with service.router.lifespan_context(service), client:
        answer = await client.post("/classify", files={"img": encoded(plain("green"))})
    assert answer.json()["predictions"][0]["label"] == "green"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "gone.onnx"}, "/gone.onnx: no such file$"),
        ({"model": "irv2.t7"}, "/irv2.t7: the service runs .onnx: `relume convert "),
        ({"models": "."}, ": found no .onnx: put one there, or set CLASSIFY_MODEL to a file$"),
        ({"queue": "many"}, "^CLASSIFY_QUEUE: found 'many', expected a whole number from 1$"),
        ({"queue": [1]}, r"^CLASSIFY_QUEUE: found '\[1\]', expected a whole number from 1$"),
        ({"mdel": "x"}, "^mdel: no such setting: arguments are models, model, default_model, "),
        ({"port": 80}, "^port: Serve's own configuration has it: arguments are models"),
        ({"max_replicas": 0}, "^max_replicas: found 0: Input should be greater than 0$"),
        (
            {"min_replicas": 3, "max_replicas": 2},
            r"^AutoscalingConfig: Value error, max_replicas \(2\) must be greater than",
        ),
    ],
    ids=["gone", "t7", "empty", "value", "list", "name", "port", "replicas", "range"],
)
def test_what_cannot_be_served_is_one_line(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is started; Serve's command line and its status show it as it is."""
    monkeypatch.chdir(tmp_path)
    if not {"model", "models"} & set(arguments):
        (tmp_path / "artifacts").mkdir()
        (tmp_path / "artifacts/x.onnx").touch()
    with pytest.raises(NotServed, match=message) as raised:
        app(arguments)
    assert "\n" not in raised.value.format_message()


def test_what_the_system_refuses_is_one_line(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the file that it is about."""

    def forbidden(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(ray_app, "artifacts", forbidden)
    with pytest.raises(NotServed, match=f"^{tiny_model}: Permission denied$"):
        app({"model": str(tiny_model)})


def test_without_ray_it_says_what_to_install() -> None:
    """The rest of the service needs no Ray."""
    code = "import sys; sys.modules['ray'] = None; import service.app; import service.ray_app"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: Ray Serve cannot be imported (")
    assert last.endswith("): pip install 'relume[ray]'")


def test_ray_stays_in_one_module() -> None:
    """No other module of the service imports it."""
    for path in (ROOT / "service").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [one for one in ast.walk(tree) if isinstance(one, ast.Import | ast.ImportFrom)]
        names = [getattr(one, "module", None) or one.names[0].name for one in nodes]
        if path.name != "ray_app.py":
            assert not [name for name in names if name.partition(".")[0] == "ray"], path


def test_the_configuration_file_is_serves() -> None:
    """Serve's schema takes it, and every application has a path of its own and real arguments."""
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))
    assert len({one.route_prefix for one in schema.applications}) == len(schema.applications) > 1
    for one in schema.applications:
        assert one.import_path == "service.ray_app:app"
        model = Path(one.args.pop("model"))
        assert model.parent == Path("/artifacts")  # where the images have them
        with pytest.raises(NotServed, match=f"^{model}: no such file$"):
            app({**one.args, "model": str(model)})  # and nothing else is wrong
        scaling = {key: value for key, value in one.args.items() if key not in KEYS}
        assert {"min_replicas", "max_replicas"} <= set(scaling)
        options(Settings(), scaling)


def free_port() -> int:
    """Return a port that neither Ray's workers (10002 to 19999) nor the system give to others."""
    for port in range(20000 + os.getpid() % 10000, 32768):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")


@contextmanager
def cluster(folder: Path, applications: list[dict[str, Any]]) -> Iterator[str]:
    """Run `serve run` as users do, on a cluster of its own; give the address."""
    port = free_port()
    config = {"http_options": {"port": port}, "applications": applications}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("serve")), "run", str(path)]
    environment = {
        **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        "RAY_USAGE_STATS_ENABLED": "0",
        # A proxy that needs more than thrice this to start is killed by Serve, and `serve run` with
        # it: with the five seconds of the default that happens on a machine that does other things.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        "PYTHONPATH": str(ROOT),
    }
    log = (folder / "log").open("w+")
    with log, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as run:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            run.send_signal(signal.SIGINT)
            try:
                run.wait(timeout=60)
            except subprocess.TimeoutExpired:
                run.kill()
            print((folder / "log").read_text(encoding="utf-8"))  # shown where the test fails


def wait_until(true: Any, what: str) -> None:
    """Wait until a function gives something true."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, f"{what} did not happen within {WAIT_S} s"
        time.sleep(0.2)


def is_ready(address: str) -> bool:
    """Tell whether an application answers that it can be asked."""
    try:
        return httpx.get(f"{address}/readyz", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def replicas(application: str) -> set[int]:
    """Return the processes of an application, which Ray names."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if name.startswith(f"ray::ServeReplica:{application}:".encode()):
            found.add(int(path.parent.name))
    return found


@contextmanager
def asked(address: str) -> Iterator[Counter[int]]:
    """Have clients ask without pause, each one question at a time; count the answers."""
    answers: Counter[int] = Counter()
    ended = threading.Event()
    image = encoded(plain("blue"))

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not ended.is_set():
                answer = client.post(f"{address}/classify", files={"img": image})
                answers[answer.status_code] += 1

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.quiet  # two clusters at a time have no room
def test_a_cluster_scales_and_outlives_a_replica(tiny_model: Path, tmp_path: Path) -> None:
    """Two applications answer; the one that is asked gets a second replica, loses one, goes on.

    What was inside the lost replica may fail, at most one request of each client; nothing later.
    """
    name = f"tiny{os.getpid()}"
    share = [{"name": "classifier", "ray_actor_options": {"num_cpus": 0.1}}]
    scaling = {
        **{"max_replicas": 2, "target_ongoing_requests": 1},
        **{"upscale_delay_s": 1, "downscale_delay_s": 600},
    }
    applications = [
        {
            "name": each,
            "route_prefix": f"/{each}",
            "import_path": "service.ray_app:app",
            "args": {"model": str(tiny_model), "device": "cpu", **scaling},
            "deployments": share,
        }
        for each in (name, f"{name}b")
    ]
    with cluster(tmp_path, applications) as address:
        busy, idle = f"{address}/{name}", f"{address}/{name}b"
        wait_until(lambda: is_ready(busy) and is_ready(idle), "readiness")
        first = replicas(name)
        assert len(first) == len(replicas(f"{name}b")) == 1
        with asked(busy) as answers:
            wait_until(lambda: len(replicas(name)) == 2, "a second replica")
            wait_until(lambda: answers[200] > CLIENTS, "an answer")
            os.kill(first.pop(), signal.SIGKILL)
            before = answers.copy()
            wait_until(lambda: answers[200] > before[200] + 20 * CLIENTS, "going on")
            wait_until(lambda: len(replicas(name)) == 2, "a replacement")
        assert sum(answers.values()) - answers[200] <= CLIENTS
        assert len(replicas(f"{name}b")) == 1
        assert is_ready(idle)
