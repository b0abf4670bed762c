"""What many workers do that few do not: simulations for docs/scaling.md, by arithmetic alone.

    python benchmarks/scale.py bulk    a folder of images, shared among 1 to 1,000 workers
    python benchmarks/scale.py serve   requests, shared among 1 to 1,000 replicas
    python benchmarks/scale.py burst   a burst of requests, met by a HorizontalPodAutoscaler
    python benchmarks/scale.py gpu     what GPUs would need, from their makers' datasheets

Each takes its numbers as flags (`--help`), says them, and prints a table, or with --json an object.
Draws are seeded: the same flags give the same figures. Nothing here was run on so many machines;
what one worker does, which all of it begins with, is measured by benchmarks/cost.py.
"""

import argparse
import heapq
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from models.terminal import at_least

WORKERS = (1, 10, 100, 1000)
# TFLOPS of float32 and of dense fp16 (half of what NVIDIA gives with sparsity), without TF32: from
# the datasheets of the T4 (2019), L4 (2023), A100 (2021) and H100 SXM (2023).
GPUS = {"T4": (8.1, 65), "L4": (30.3, 121), "A100": (19.5, 312), "H100 SXM": (67, 989)}
PARTS = (100, 1_000, 10_000)  # images of one
TRIES = 20  # that a part may need, on average, of a slow worker: more would end in years
Row = dict[str, float | int | str]


def number(default: float, least: float, most: float) -> Any:
    """Return a field that is a number of the kind of `least`, from it to `most`."""

    def read(text: str) -> float:
        value = at_least(least)(text)
        if value > most:
            raise argparse.ArgumentTypeError(f"{text!r} is more than {most:,}")
        return value

    return field(default=default, metadata={"read": read})


@dataclass(frozen=True)
class Bulk:
    """A million images and more, cut into parts."""

    images: int = number(100_000_000, 1, 10**12)
    image_s: float = number(0.08, 1e-6, 1e6)  # of one worker
    # of workers' speeds: of their logarithm, one standard deviation
    spread: float = number(0.15, 0.0, 1.0)
    failure_h: float = number(24.0, 1e-3, 1e9)  # between two failures of one worker
    # until a failed worker computes again: a new machine, the model
    restart_s: float = number(120.0, 0.0, 1e6)
    seed: int = number(0, 0, 2**32 - 1)

    @property
    def tries(self) -> float:
        """How often the slowest of thousands begins the largest part, on average."""
        needed = PARTS[-1] * self.image_s * math.exp(4 * self.spread)
        return math.exp(min(needed / (self.failure_h * 3600), 700))


@dataclass(frozen=True)
class Serve:
    """Requests that come at random, to replicas that each answer one after the other."""

    load: float = number(0.8, 0.01, 0.99)  # of what all replicas together can answer
    requests: int = number(200_000, 1, 10**9)
    seed: int = number(0, 0, 2**32 - 1)


@dataclass(frozen=True)
class Burst:
    """Load that rises at once, and an autoscaler that looks now and then."""

    replicas: int = number(1000, 1, 10**6)  # before it, and the least there ever are
    image_s: float = number(0.04, 1e-6, 1e6)  # of one replica, when it is busy
    load: float = number(0.5, 0.01, 0.99)  # of what they can answer, before it
    factor: float = number(3.0, 0.01, 100.0)  # by which the load rises
    burst_s: float = number(1800.0, 1.0, 86400.0)  # for which it does
    # images that wait, for each replica: what the autoscaler aims at
    target: float = number(32.0, 0.01, 1e6)
    cpu: float = number(0.7, 0.0, 1.0)  # share of the processor that it aims at as well
    down: float = number(0.1, 0.0, 1.0)  # share of the replicas that it may end in a minute
    queue: int = number(64, 1, 10**6)  # images that a replica lets wait, before it answers 503
    # by which a metric is late: Prometheus scrapes, the adapter asks
    lag_s: float = number(15.0, 0.0, 3600.0)
    start_s: float = number(45.0, 1.0, 3600.0)  # from a pod's creation to its readiness
    minutes: int = number(60, 1, 1440)


@dataclass(frozen=True)
class Gpu:
    """What no GPU has measured: arithmetic from datasheets."""

    # billions of multiply-adds an image: ResNet-50's (docs/models.md)
    gmac: float = number(4.09, 1e-6, 1e6)
    share: float = number(0.25, 1e-3, 1.0)  # of a datasheet's peak that is reached
    feed_ms: float = number(1.24, 0.0, 1e6)  # of one core, to read, decode and preprocess an image


class Done(NamedTuple):
    """How a job went: seconds to its last image, and if nothing were lost and nobody idle."""

    end_s: float
    ideal_s: float


def bulk(job: Bulk, workers: int, part: int, *, shared: bool) -> Done:
    """Share the parts: each worker has those of its own, or takes the next that nobody has.

    A worker that fails loses the part it was at, and nothing else.
    """
    rng = np.random.default_rng(job.seed)
    seconds = job.image_s * np.exp(rng.normal(0, job.spread, workers))  # of an image, each worker's
    failing = rng.exponential(job.failure_h * 3600, workers)
    parts = -(-job.images // part)
    todo = [parts] if shared else [len(range(first, parts, workers)) for first in range(workers)]
    free = [(0.0, worker) for worker in range(workers)]
    end = 0.0
    while free:
        now, worker = heapq.heappop(free)
        mine = 0 if shared else worker
        if not todo[mine]:
            continue
        todo[mine] -= 1
        needed = seconds[worker] * part
        while failing[worker] < now + needed:
            now = failing[worker] + job.restart_s
            failing[worker] = now + rng.exponential(job.failure_h * 3600)
        end = max(end, now + needed)
        heapq.heappush(free, (now + needed, worker))
    return Done(float(end), float(job.images / (1 / seconds).sum()))


def waits(setting: Serve, replicas: int, policy: str) -> np.ndarray:
    """Return what each request waits before it is begun, in units of the time to answer one.

    Policies: `random` and `in turn`, which know nothing; `two`, the shorter queue of two drawn, as
    Ray Serve's router does; `one queue`, from which every free replica takes.
    """
    rng = np.random.default_rng(setting.seed)
    arrivals = np.cumsum(rng.exponential(1 / (setting.load * replicas), setting.requests))
    drawn = rng.integers(0, replicas, (setting.requests, 2)).tolist()
    # When each has answered all it has; the order is a heap's for one queue.
    free = [0.0] * replicas
    answer = np.empty(setting.requests)
    for index, now in enumerate(arrivals.tolist()):
        match policy:
            case "random":
                chosen = drawn[index][0]
            case "in turn":
                chosen = index % replicas
            case "two":
                chosen = min(drawn[index], key=free.__getitem__)
            case _:
                chosen = 0
        begun = max(now, free[chosen])
        answer[index] = begun - now
        if policy == "one queue":
            heapq.heapreplace(free, begun + 1)
        else:
            free[chosen] = begun + 1
    return answer[setting.requests // 5 :]  # the first find everything idle


class Second(NamedTuple):
    """How things stand at one second of a burst."""

    at: int
    pods: int  # ready or coming
    refused: float  # images, in this second


def burst(setting: Burst) -> Iterator[Second]:
    """Follow a burst second by second; images are a fluid, replicas are whole.

    Source: kubernetes.io, Horizontal Pod Autoscaling: every 15 s the largest of what the metrics
    ask for; nothing within 10 % of them; up by the double or 4 at once; down to the most that was
    asked for in 5 minutes, by no more than the policy lets.
    """
    least, ready, coming = setting.replicas, setting.replicas, [0] * int(setting.start_s)
    waiting, seen = 0.0, [(0.0, setting.load * least)] * (int(setting.lag_s) + 1)
    asked = [least] * 20  # every 15 s, for 5 minutes
    for at in range(-60, setting.minutes * 60):
        rate = setting.load * least * (setting.factor if 0 <= at < setting.burst_s else 1)
        ready += coming.pop(0)
        given = waiting + rate / setting.image_s
        answered = min(given, ready / setting.image_s)
        waiting = min(given - answered, float(setting.queue * ready))
        seen = [*seen[1:], (waiting, answered * setting.image_s)]
        coming.append(0)
        if at % 15 == 0:
            pods = ready + sum(coming)
            asked = [*asked[1:], _wanted(setting, pods, *seen[0])]
            if asked[-1] > pods:
                coming[-1] = min(asked[-1] - pods, max(pods, 4))
            elif at % 60 == 0:
                fewer = pods - max(least, *asked)
                ready -= max(0, min(fewer, int(pods * setting.down), ready - 1))
        yield Second(at, ready + sum(coming), given - answered - waiting)


def _wanted(setting: Burst, pods: int, waiting: float, busy: float) -> int:
    """Return what the autoscaler asks for; `busy` is how many replicas' worth of work is done."""
    ratios = [waiting / pods / setting.target]
    if setting.cpu:
        ratios.append(busy / pods / setting.cpu)
    ratio = max(ratios)
    return pods if abs(ratio - 1) <= 0.1 else math.ceil(pods * ratio)


def bulk_rows(job: Bulk) -> Iterator[Row]:
    """Yield a row for each way of sharing and size of a part: how much of the ideal is reached."""
    for shared in (False, True):
        for part in PARTS:
            row: Row = {"parts": "the next one" if shared else "--shard i/n", "images a part": part}
            for workers in WORKERS:
                done = bulk(job, workers, part, shared=shared)
                row[f"{workers:,}: hours"] = round(done.end_s / 3600, 1)
                row[f"{workers:,}: of the ideal"] = f"{done.ideal_s / done.end_s:.1%}"
            yield row


def serve_rows(setting: Serve) -> Iterator[Row]:
    """Yield a row for each policy: how long requests wait, mean and the longest of a hundred."""
    for policy in ("random", "in turn", "two", "one queue"):
        row: Row = {"replica": policy}
        for replicas in WORKERS:
            answer = waits(setting, replicas, policy)
            row[f"{replicas:,}: mean"] = round(float(answer.mean()), 2)
            row[f"{replicas:,}: p99"] = round(float(np.quantile(answer, 0.99)), 2)
        yield row


def burst_rows(setting: Burst) -> Iterator[Row]:
    """Yield a row for each autoscaler: how many replicas it takes, what is refused meanwhile."""
    scalers = {"queue, Kubernetes' defaults": (0.0, 1.0), "queue, down slowly": (0.0, setting.down)}
    scalers["queue and CPU, down slowly"] = (setting.cpu, setting.down)
    load = setting.load * setting.replicas * setting.factor
    for name, (cpu, down) in scalers.items():
        seconds = list(burst(replace(setting, cpu=cpu, down=down)))
        refusing = [one for one in seconds if one.refused]
        refused = sum(one.refused for one in refusing)
        yield {
            "autoscaler": name,
            "needed": math.ceil(load),
            "most": max(one.pods for one in seconds),
            "refused at first, s": sum(one.at < 120 for one in refusing),
            "and later, s": sum(one.at >= 120 for one in refusing),
            "refused of the burst": f"{refused / (load / setting.image_s * setting.burst_s):.1%}",
        }


def gpu_rows(setting: Gpu) -> Iterator[Row]:
    """Yield a row for each GPU and precision: its rate, its hours, and the cores that feed it."""
    for name, peaks in GPUS.items():
        for precision, peak in zip(("float32", "fp16"), peaks, strict=True):
            rate = setting.share * peak * 1e12 / (2e9 * setting.gmac)
            yield {
                "GPU": name,
                "precision": precision,
                "datasheet, TFLOPS": peak,
                "images/s": round(rate),
                "GPU hours a million": f"{1e6 / rate / 3600:.2f}",
                "cores that feed it": f"{rate * setting.feed_ms / 1000:.1f}",
            }


COMMANDS: dict[str, tuple[type, Callable[..., Iterator[Row]]]] = {
    "bulk": (Bulk, bulk_rows),
    "serve": (Serve, serve_rows),
    "burst": (Burst, burst_rows),
    "gpu": (Gpu, gpu_rows),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description="Simulate many workers.")
    chosen = parser.add_subparsers(dest="command", required=True)
    for name, (kind, simulate) in COMMANDS.items():
        summary = str(kind.__doc__).partition("\n")[0]
        one = chosen.add_parser(name, description=summary, help=summary)
        for known in fields(kind):
            flag, read = f"--{known.name.replace('_', '-')}", known.metadata["read"]
            one.add_argument(flag, type=read, default=known.default, help="default %(default)s")
        one.add_argument("--json", action="store_true", help="print one JSON object")
        one.set_defaults(kind=kind, simulate=simulate)
    given = parser.parse_args(argv)
    setting = given.kind(**{one.name: getattr(given, one.name) for one in fields(given.kind)})
    if isinstance(setting, Bulk) and setting.tries > TRIES:
        parser.error(
            f"a part of {PARTS[-1]:,} images is more than a worker does between two failures: "
            "--failure-h must be more, or --image-s or --spread less"
        )
    rows = list(given.simulate(setting))
    if given.json:
        print(json.dumps({"setting": asdict(setting), "rows": rows}))
    else:
        print(", ".join(f"{name} {value:,}" for name, value in asdict(setting).items()))
        print(table(rows))
    return 0


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(map(_said, row.values())) + " |" for row in rows]
    return "\n".join(lines)


def _said(value: float | int | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
