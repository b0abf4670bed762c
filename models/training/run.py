"""A run as one value: begun by a recipe or from a snapshot, saved, and what is kept of it."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.checkpoint import Checkpoint, read
from models.data import open_samples
from models.data.order import Balanced, Order, Shuffled
from models.data.samples import Samples
from models.data.small_images import Split, fashion_mnist
from models.errors import ParityError, RecipeError, ResumeError
from models.optimizer import Optimizer
from models.presets import PRESETS
from models.recipes import DEFAULT, Recipe
from models.terminal import described
from models.training import snapshots
from models.training.display import tell_damage
from models.training.flags import Options
from models.training.folder import START, prepare_folder, take_folder
from models.training.log import Log
from models.training.network import (
    Average,
    Factory,
    factory_of,
    read_start,
    take_weights,
)
from models.training.processes import Processes
from models.training.recompute import GIB, find_units, plan, recompute
from models.training.result import checkpoint_of, write_pt
from models.training.slices import slice_batch_norm, slices_of
from models.training.snapshots import Identity, Progress, Snapshot
from models.training.stopping import Stop
from models.training.updates import (
    buffers_of,
    build_optimizer,
    prepare,
    restore_buffers,
    take_buffers,
)

SPLITS: tuple[Split, Split] = ("train", "val")
DRAWS = 1_000_003  # between the seeds of two processes' dropout; the recipe's own gives the weights


@dataclass
class Run:
    """Everything that a run holds.

    `network` is the module whose state counts; `computes` is what a step calls: the same, shared
    among processes or compiled.
    """

    recipe: Recipe
    options: Options
    processes: Processes
    train: Samples
    val: Samples
    make: Factory
    network: nn.Module
    computes: nn.Module
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler
    average: Average | None
    log: Log
    stop: Stop
    order: Order
    progress: Progress = field(default_factory=Progress)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def steps(self) -> int:
        """Updates of an epoch."""
        return self.recipe.steps(len(self.train))

    @property
    def name(self) -> str:
        """What its artifacts are called: as its folder, for the recipe may have other images."""
        return self.options.out.resolve().name.replace("@", "-") or self.recipe.name

    @property
    def identity(self) -> Identity:
        """What a run that goes on from this one's snapshot must have in common with it."""
        return Identity(self.recipe, self.train.digest, self.val.digest, self.processes.world)


def begin(recipe: Recipe, options: Options, processes: Processes, stop: Stop) -> Run:
    """Return a run at its first update, or where its folder's snapshot was taken.

    Raises:
        LegacyModelError: Whatever stands against the run, before anything is changed.
    """
    prepare_folder(options, processes)
    train, val = open_data(recipe, options, processes)
    checkpoint, state = start_of(recipe, options)
    make = factory_of(recipe, checkpoint)
    network, computes = build_network(recipe, options, processes, make)
    optimizer = build_optimizer(recipe, network)
    if checkpoint is not None and not options.resume:
        anew = take_weights(network, checkpoint, recipe)
        if anew and processes.leads:
            print(f"--init: {recipe.classes:,} classes, so that {', '.join(anew)} begin anew")
    if state is not None:
        take_buffers(optimizer, network, state.buffers)
    run = Run(
        recipe,
        options,
        processes,
        train,
        val,
        make,
        network,
        computes,
        optimizer,
        torch.amp.GradScaler(processes.device.type, enabled=recipe.amp == "fp16"),
        Average(network, recipe.ema) if recipe.ema else None,
        Log(options.out, leads=processes.leads, tensorboard=options.tensorboard),
        stop,
        order_of(recipe, train),
    )
    if options.resume:
        restore(run, snapshots.load_snapshot(options.out / snapshots.NAME))
    check_agreed(run)
    if processes.leads and not options.resume:
        take_folder(recipe, options, checkpoint)
    return run


def check_agreed(run: Run) -> None:
    """Raise ResumeError, in every process, where not all are about to train the same."""
    progress = run.progress
    found = run.processes.share((run.identity, run.steps, progress.update, progress.validated))
    for rank, (identity, *_) in enumerate(found):
        if said := identity.differences(found[0][0]).values():
            raise ResumeError(f"process {rank} against the first one: {'; '.join(said)}")
    snapshots.check_shared([place for _, *place in found])


def open_data(recipe: Recipe, options: Options, processes: Processes) -> tuple[Samples, Samples]:
    """Return the images to train on, and those to validate on.

    Raises:
        RecipeError: Nobody said where they are.
        DataError: They are not as the recipe needs them.
    """
    if options.data is not None:
        train, val = (open_split(options, split, recipe.classes) for split in SPLITS)
        for samples in (train, val) if processes.leads else ():
            tell_damage(samples)
        recipe.steps(len(train))  # refuses too few
        return train, val
    if recipe.dataset != DEFAULT:
        raise RecipeError(f"--data: recipe {recipe.name} needs the folder of {recipe.dataset}")
    if not processes.leads:
        processes.wait()  # it may have to be downloaded, once
    (small, said), (held_out, _) = (fashion_mnist(split) for split in SPLITS)
    if processes.leads:
        print(said)
        processes.wait()
    recipe.steps(len(small))
    return small, held_out


def open_split(options: Options, split: Split, classes: int | None = None) -> Samples:
    """Return the images of a split, without damaged records where unreadable ones are skipped."""
    assert options.data is not None
    damage: Literal["refuse", "skip"] = "skip" if options.on_bad == "skip" else "refuse"
    return open_samples(options.data, split, classes=classes, damage=damage)


def start_of(recipe: Recipe, options: Options) -> tuple[Checkpoint | None, Optimizer | None]:
    """Return what `--init` starts from; where a run goes on, what it has kept of that."""
    kept = options.out / START
    if options.resume:
        return (read(kept) if kept.exists() else None), None
    if options.init is None:
        return None, None
    given, preset = options.init, recipe.evaluation
    return read_start(given, options.out, preset, with_optimizer=options.optimizer)


def build_network(
    recipe: Recipe, options: Options, processes: Processes, make: Factory
) -> tuple[nn.Module, nn.Module]:
    """Return the network and what a step calls, on the device, with the recipe's new weights."""
    torch.manual_seed(recipe.seed)
    slices = slices_of(recipe, processes.world)

    def sliced() -> nn.Module:
        made = make()
        if slices > 1:
            slice_batch_norm(made, slices, recipe.statistics)
        return made

    network = sliced().to(processes.device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub lacks it
    if options.memonger is not None:
        spend_time(network, sliced, recipe, options, processes)
    computes: Any = network
    if processes.world > 1:
        given = [processes.device.index] if processes.device.type == "cuda" else None
        computes = DistributedDataParallel(network, given, forward_sync_buffers=False)
    if recipe.compile:
        computes = torch.compile(computes)
    torch.manual_seed(recipe.seed + DRAWS * (processes.rank + 1))
    return network, computes


def spend_time(
    network: nn.Module, make: Factory, recipe: Recipe, options: Options, processes: Processes
) -> None:
    """Let the network compute activations again instead of keeping them, as `--memonger` says."""
    assert options.memonger is not None
    height, width = PRESETS[recipe.evaluation].crop
    images = -(-recipe.batch_size // (processes.world * recipe.accumulate))
    units = find_units(make, (images, 3, height, width))
    share = 1 if recipe.amp == "none" else 2  # activations of half the size
    chosen = plan(units, options.memonger * GIB * share)
    recompute(network, units, chosen)
    if processes.leads:
        print(
            f"memonger: {chosen.peak / share / GIB:.2f} GiB of activations in place of "
            f"{chosen.whole / share / GIB:.2f}: {len(chosen.segments)} stretches are computed again"
        )


def order_of(recipe: Recipe, samples: Samples) -> Order:
    """Return what the recipe's epochs consist of."""
    if recipe.order == "balanced":
        return Balanced(samples.labels, recipe.draws, recipe.seed)
    return Shuffled(len(samples), recipe.seed)


def save(run: Run, *, must: bool = False) -> None:
    """Put a snapshot in place; unless it `must` be, a disk that is full only delays it.

    Raises:
        RecipeError: The weights are not finite, which a loss from before the update does not tell.
    """
    check_finite(run, "weights are", run.network.parameters())
    own = {
        "random": snapshots.random_state(),
        "threads": torch.get_num_threads(),
        "buffers": {name: one.cpu() for name, one in run.network.named_buffers()},
        "sums": run.progress.sums,
    }
    everyone = run.processes.gather(own)
    run.saved_at = time.monotonic()
    if not run.processes.leads:
        return
    path = run.options.out / snapshots.NAME
    snapshot = Snapshot(
        run.identity,
        run.steps,
        run.progress,
        dict(run.network.state_dict()),
        buffers_of(run.optimizer, run.network),
        dict(run.scaler.state_dict()),
        run.average.state() if run.average else {},
        everyone,
    )
    if must:
        snapshots.save_snapshot(path, snapshot)
    else:
        written(run, lambda: snapshots.save_snapshot(path, snapshot))


def check_finite(run: Run, what: str, numbers: Iterable[Tensor]) -> None:
    """Raise RecipeError if some are not finite, before a snapshot has them."""
    if not all(bool(one.isfinite().all()) for one in numbers):
        raise RecipeError(
            f"update {run.progress.update:,}: the {what} not finite: a lower --lr, or --clip; "
            f"{run.options.out / snapshots.NAME} is from before"
        )


def totals(run: Run, sums: Tensor) -> list[float]:
    """Return the sums over all processes, which call this at the same update.

    Raises:
        RecipeError: They are not finite, on whichever process: before a snapshot has them.
    """
    total = run.processes.sum(sums)
    check_finite(run, "loss is", [total])
    return [float(one) for one in total]


def written(run: Run, write: Callable[[], None]) -> bool:
    """Write a file in the course of a run, which no failure of that ends; tell whether it is there.

    What was there before stays.
    """
    try:
        write()
        return True
    except (OSError, ParityError) as error:
        reason = described(error) if isinstance(error, OSError) else str(error)
        said = f"update {run.progress.update:,}: {reason}; the file from before is whole"
        print(f"warning: {said}", file=sys.stderr)
        run.log.line("warning", run.progress.update, text=said)
        return False


def restore(run: Run, snapshot: Snapshot) -> None:
    """Go on where a snapshot was taken.

    Raises:
        ResumeError: It is of a run that differs in more than is allowed, or of another network.
    """
    for said in snapshots.check_same(run.identity, snapshot.identity, run.options.allow):
        print(f"note: {said}", file=sys.stderr)
    snapshots.check_fits(run.network, snapshot.network)
    run.network.load_state_dict(snapshot.network)
    run.progress = snapshot.progress
    run.progress.update = snapshots.place_of(snapshot, run.recipe, run.steps)
    if run.progress.update:  # what the log says of an epoch whose updates are all done
        prepare(run.optimizer, run.recipe, run.recipe.place(run.progress.update, len(run.train)))
    restore_buffers(run.optimizer, run.network, snapshot.momentum)
    if snapshot.scaler:
        run.scaler.load_state_dict(snapshot.scaler)
    if run.average is not None:
        run.average = Average(run.network, run.recipe.ema)  # of these weights, if of none before
        if snapshot.average:
            run.average.restore(snapshot.average)
    if run.processes.world == len(snapshot.processes):
        restore_own(run, snapshot.processes[run.processes.rank])
    else:
        share_out(run, snapshot.processes)


def restore_own(run: Run, own: Mapping[str, Any]) -> None:
    """Give a process what it alone had: its statistics, its sums, its random numbers."""
    for name, buffer in run.network.named_buffers():
        buffer.copy_(own["buffers"][name])
    run.progress.sums = own["sums"]
    snapshots.set_random_state(own["random"])
    if run.options.deterministic:  # sums over threads depend on how many there are
        torch.set_num_threads(own["threads"])


def share_out(run: Run, processes: Sequence[Mapping[str, Any]]) -> None:
    """Give a process its part of what another number of processes had.

    Statistics are those that would have stayed, see `settle`; the leading one's sums are all.
    """
    if run.recipe.statistics == "mean":
        for name, buffer in run.network.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.stack([one["buffers"][name] for one in processes]).mean(0))
    sums = torch.tensor([one["sums"] for one in processes], dtype=torch.float64).sum(0)
    run.progress.sums = tuple((sums if run.processes.leads else 0 * sums).tolist())


def weights_of(run: Run) -> dict[str, Tensor]:
    """Return the weights that are validated and kept: averaged ones, if the recipe averages."""
    state = dict(run.network.state_dict())
    return {**state, **run.average.weights} if run.average is not None else state


def keep(run: Run, name: str) -> None:
    """Write the weights that count as an artifact of that name.

    Raises:
        OSError: It could not be written.
        ParityError: The weights are not finite.
    """
    made = checkpoint_of(run.name, run.recipe, run.make, weights_of(run), run.val)
    write_pt(run.options.out / f"{name}.pt", made)
