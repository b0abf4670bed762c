"""What training costs: a step next to a bare loop, memory with and without --memonger, a real run.

`step`     the median time of an update by the engine, and by the fewest lines that do the same
           with the same module, turn by turn; on a busy machine the processor's time tells more
`memory`   peak memory of a ResNet-200 update at batch 8, each in a process of its own
`fashion`  ResNet-14-v2 on Fashion-MNIST from scratch, by the default recipe; more flags are those
           of `relume train`
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models import train as training
from models.architectures import create
from models.augment.device import apply
from models.data.loader import Batch
from models.data.order import Sequential
from models.data.samples import Arrays
from models.recipes import RECIPES, Recipe, changed
from models.training.flags import Options
from models.training.log import Log, read_epochs
from models.training.network import factory_of
from models.training.processes import Processes
from models.training.recompute import GIB, find_units, plan, recompute
from models.training.run import Run, build_network
from models.training.stopping import Stop
from models.training.updates import build_optimizer

TURNS = 9
LAYERS = {"resnet_v2_cifar_14": (128, 6), "resnet_v2_cifar_8": (4, 60)}  # images, updates of a turn
ALONE, WITH = "alone", "memonger"


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description="What training costs.")
    parser.add_argument("what", choices=("step", "memory", "fashion", ALONE, WITH))
    given, more = parser.parse_known_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"{torch.get_num_threads()} threads", flush=True)
    if given.what == "step":
        step()
    elif given.what == "memory":
        memory()
    elif given.what == "fashion":
        fashion(more)
    else:
        print(json.dumps(peak(given.what == WITH)))
    return 0


def step() -> None:
    """Print the median update of the engine and of a bare loop, turn by turn.

    The second network is so small that the difference is what the engine costs, in milliseconds.
    """
    for network, (size, updates) in LAYERS.items():
        flags = {"amp": "none", "channels_last": "False", "architecture": network}
        recipe = changed(RECIPES["fashion-mnist"], {**flags, "batch_size": str(size)})
        print(f"{network}, batch {size}")
        with tempfile.TemporaryDirectory() as folder:
            run = small_run(recipe, Path(folder), updates)
            made = [batch_of(size, seed) for seed in range(updates)]
            bare = partial(bare_loop, run.make(), made)
            engine = partial(engine_loop, run, made)
            turns = {"bare": bare, "engine": engine}
            for kind, clock in (("time", time.perf_counter), ("processor", time.process_time)):
                compare(kind, clock, turns, updates)


def compare(
    kind: str, clock: Callable[[], float], turns: Mapping[str, Callable[[], None]], updates: int
) -> None:
    """Print the medians of two loops by a clock, and of the turns' ratios and differences."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(TURNS + 1):
        for name, loop in turns.items():
            begun = clock()
            loop()
            if turn:  # the first warms up
                times[name].append(1000 * (clock() - begun) / updates)
    for name, found in times.items():
        print(f"{kind:9} {name:8} {statistics.median(found):8.2f} ms an update")
    pairs = list(zip(times["engine"], times["bare"], strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    more = statistics.median(ours - theirs for ours, theirs in pairs)
    print(f"{kind:9} overhead {100 * (ratio - 1):+.2f} %, {more:+.2f} ms", flush=True)


def small_run(recipe: Recipe, folder: Path, updates: int) -> Run:
    """Return a run of the recipe over as many images as a turn takes."""
    count = updates * recipe.batch_size
    pixels, labels = torch.zeros(count, 8, 8, 1, dtype=torch.uint8).numpy(), torch.zeros(count)
    samples = Arrays("none", [str(one) for one in range(10)], pixels, labels.long().numpy())
    options = Options(out=folder, device="cpu")
    processes = Processes(0, 1, torch.device("cpu"))
    make = factory_of(recipe)
    network, computes = build_network(recipe, options, processes, make)
    return Run(
        recipe,
        options,
        processes,
        samples,
        samples,
        make,
        network,
        computes,
        build_optimizer(recipe, network),
        torch.amp.GradScaler("cpu", enabled=False),
        None,
        Log(folder, leads=True, tensorboard=False),
        Stop(),
        Sequential(count),
    )


def batch_of(size: int, seed: int) -> Batch:
    """Return a batch as the loader makes it."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (size, 32, 32, 3), dtype=torch.uint8, generator=draw)
    labels = torch.randint(10, (size,), generator=draw)
    matrix = torch.eye(3).expand(size, 3, 3).contiguous()
    return Batch(pixels, matrix, torch.zeros(size, 3), labels, labels, ())


def engine_loop(run: Run, made: list[Batch]) -> None:
    """Train an epoch of these batches by the engine."""

    def feed(*_: object) -> Iterator[Batch]:
        return iter(made)

    with patch.object(training, "feed", feed):
        training.train_epoch(run, run.progress.update // len(made) + 1)
    run.progress.sums = (0.0, 0.0, 0.0, 0.0)


def bare_loop(network: nn.Module, made: list[Batch]) -> None:
    """Do the same updates in the fewest lines."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    network.train()
    for batch in made:
        images = apply(batch.pixels, batch.matrix, batch.vector)
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = cross_entropy(network(images), batch.labels)
        torch.autograd.backward(loss)
        optimizer.step()


def memory() -> None:
    """Print the peak memory and the time of a ResNet-200 update with and without recomputation."""
    found = {}
    for name in (ALONE, WITH):
        done = subprocess.run(
            [sys.executable, __file__, name], check=True, capture_output=True, text=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
        one = found[name]
        print(
            f"{name:9} {one['peak'] / GIB:5.2f} GiB at most, {one['before'] / GIB:.2f} before, "
            f"{one['seconds']:.2f} s an update"
        )
    ratio = found[WITH]["seconds"] / found[ALONE]["seconds"]
    print(f"{100 * (ratio - 1):+.0f} % time")


def peak(with_memonger: bool) -> dict[str, float]:
    """Return the peak memory of this process in bytes, and the seconds of an update."""
    make: Callable[[], nn.Module] = partial(create, "resnet_v2_200")
    network = make().train()
    if with_memonger:
        units = find_units(make, (8, 3, 224, 224))
        recompute(network, units, plan(units))
    images, labels = torch.rand(8, 3, 224, 224), torch.arange(8)
    before = _peak_kb()
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        network.zero_grad(set_to_none=True)
        torch.autograd.backward(cross_entropy(network(images), labels))
        seconds.append(time.perf_counter() - begun)
    most = _peak_kb()
    return {"peak": 1024 * most, "before": 1024 * before, "seconds": statistics.median(seconds)}


def _peak_kb() -> int:
    """Return this process's peak; getrusage's would begin with that of who started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def fashion(flags: list[str]) -> None:
    """Train by the default recipe in a folder of its own, and print its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        training.main(["-o", folder, "--force", *flags])
        for row in read_epochs(Path(folder) / "log.csv"):
            print(f"epoch {row.epoch}  error {row.val_top1:.2f} %  {row.images_per_second:.0f}/s")
        print(f"{time.perf_counter() - begun:.0f} s with validation and export")


if __name__ == "__main__":
    sys.exit(main())
