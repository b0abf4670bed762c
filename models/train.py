"""Train a network by a recipe: `python -m models.train`, or `relume train`.

The loop, from top to bottom. A recipe (models/recipes) says what decides the result; what a step
needs lies in models/training: the run, the updates, snapshots, the log. An epoch's images and all
that is drawn for them depend on seed, epoch and place alone (models/data), so that a snapshot
between any two updates is enough to go on as if nothing had happened.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from models.augment import augmentation, evaluation
from models.augment.device import apply
from models.data.loader import Batch, batches
from models.errors import DeviceError, ImageError, LegacyModelError
from models.recipes import DEFAULT, Recipe, by_epoch
from models.terminal import reports_errors, step
from models.training import processes as launching
from models.training import snapshots
from models.training.curves import Curve, drawn, save_picture
from models.training.display import Bar, clock
from models.training.flags import Asked, asked_for
from models.training.flags import parser as parser  # of `relume train`, as every command has one
from models.training.log import TABLE, Epoch, read_epochs
from models.training.network import set_bn_momentum
from models.training.result import write_onnx
from models.training.run import Run, begin, keep, open_split, save, totals, weights_of, written
from models.training.scores import TOP, UNREAD, Ahead, Feed, gathered, interval, score
from models.training.slices import Statistics, settle
from models.training.stopping import Stop, Stopped
from models.training.timeline import explained, listed, settings
from models.training.updates import prepare

TYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(run: Run) -> None:
    """Train to the recipe's last epoch, from wherever the run is."""
    for epoch in range(run.progress.validated + 1, run.recipe.epochs + 1):
        bar = train_epoch(run, epoch)
        if run.processes.world > 1:  # a signal may end them before they are through validation
            save(run)
        settle(run.network, run.recipe.statistics, run.processes)
        ahead = validate(run)
        finish_epoch(run, epoch, ahead, bar)
        stop = run.processes.largest(run.stop.signal)[0]
        save(run, must=bool(stop))
        if stop:
            raise Stopped(stop)


def train_epoch(run: Run, epoch: int) -> Bar:
    """Do the updates of an epoch that are left of it."""
    recipe, progress, steps = run.recipe, run.progress, run.steps
    set_bn_momentum(run.network, recipe, epoch)
    run.network.train()
    done = progress.update - (epoch - 1) * steps
    sums = torch.tensor(progress.sums, dtype=torch.float64, device=run.processes.device)
    shown = run.processes.leads
    bar = Bar(f"epoch {epoch}/{recipe.epochs}", steps, done, shown=shown)
    begun = time.perf_counter()
    unread: list[str] = []
    for batch in feed(run, epoch, done):
        waited = time.perf_counter() - begun
        number = progress.update % steps
        count = images_of(recipe, len(run.train), number)
        prepare(run.optimizer, recipe, recipe.place(progress.update + 1, len(run.train)))
        sums += update(run, batch, count)
        unread += batch.replaced
        progress.update += 1
        progress.seconds += time.perf_counter() - begun
        begun = time.perf_counter()
        bar.advance(number + 1, count, waited)
        if progress.update % run.options.log_every == 0:
            log_updates(run, epoch, sums, bar)
        pause(run, sums)
    bar.clear()
    unread = [one for part in run.processes.gather(unread) for one in part or ()]
    run.log.unread(progress.update, "training", unread)
    totals(run, sums)
    progress.sums = tuple(sums.tolist())
    return bar


def feed(run: Run, epoch: int, done: int) -> Iterator[Batch]:
    """Return the batches of an epoch that are left of it; this process's part of each."""
    recipe, processes = run.recipe, run.processes
    level = by_epoch(recipe.aug_levels, epoch, 1)
    return batches(
        run.train,
        run.order,
        augmentation(recipe.augmentation, level=level),
        epoch=epoch,
        batch_size=recipe.batch_size,
        start_batch=done,
        last=recipe.last,
        rank=processes.rank,
        world=processes.world,
        workers=run.options.workers,
        seed=recipe.seed,
        on_bad=run.options.on_bad,
    )


def images_of(recipe: Recipe, images: int, number: int) -> int:
    """Return how many images the batch of that number, from 0, has on all processes together."""
    left = (recipe.draws or images) - number * recipe.batch_size
    return recipe.batch_size if recipe.last == "fill" else min(recipe.batch_size, left)


def update(run: Run, batch: Batch, count: int) -> Tensor:
    """Change the weights once; return loss, wrong guesses (first, first five), images: sums.

    Args:
        run: The run.
        batch: This process's part of the batch.
        count: Images of all the batch. Gradients are divided by it, whatever the parts' sizes.
    """
    recipe, device = run.recipe, run.processes.device
    run.optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    cut = max(min(recipe.accumulate, len(batch.labels)), 1)
    tensors = (batch.pixels, batch.matrix, batch.vector, batch.labels)
    statistics = Statistics(run.network, recipe.statistics) if cut > 1 else None
    for number, part in enumerate(zip(*(one.tensor_split(cut) for one in tensors), strict=True)):
        pixels, matrix, vector, labels = (one.to(device, non_blocking=True) for one in part)
        with alone(run, last=number == cut - 1):
            sums += backward(run, apply(pixels, matrix, vector), labels, count)
        if statistics:
            statistics.end_part()
    if statistics:
        statistics.end_batch()
    if recipe.clip:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.average is not None:
        run.average.follow(run.network.parameters())
    return sums


def backward(run: Run, images: Tensor, labels: Tensor, count: int) -> Tensor:
    """Add the gradient of the mean loss over `count` images; return the sums of this part."""
    recipe, device = run.recipe, run.processes.device
    if recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    mixed = recipe.amp != "none"
    empty = not len(labels)
    if empty:  # fewer images than processes: this one has to take its part in the others' sum
        run.network.eval()
        images = images.new_zeros(1, *images.shape[1:])
    with torch.autocast(device.type, TYPES[recipe.amp], enabled=mixed):
        outputs = run.computes(images)
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    if empty:
        run.network.train()
        # an auxiliary head is not computed here, and its gradients are waited for as well
        weights = sum(one.sum() for one in run.network.parameters())
        torch.autograd.backward(0 * (logits.sum() + weights))
        return torch.zeros(4, dtype=torch.float64, device=device)
    loss = loss_of(logits, labels, recipe)
    total = sum((recipe.aux_weight * loss_of(one, labels, recipe) for one in auxiliary), loss)
    # DistributedDataParallel takes the mean over processes, which is not the mean over images
    torch.autograd.backward(run.scaler.scale(total * run.processes.world / count))
    with torch.no_grad():
        guesses = logits.float().topk(min(TOP, logits.shape[1])).indices
        right = guesses == labels[:, None]
        missed = len(labels) - torch.stack([right[:, 0].sum(), right.sum()])
        number = torch.tensor([len(labels)], device=device)
        return torch.cat([loss.detach()[None], missed, number]).double()


def loss_of(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Return the sum of the images' losses; log probabilities are logits as well."""
    return cross_entropy(
        logits.float(), labels, label_smoothing=recipe.label_smoothing, reduction="sum"
    )


def alone(run: Run, *, last: bool) -> AbstractContextManager[None]:
    """Keep a part's gradients from being shared before the batch's last part has been added."""
    shared = getattr(run.computes, "_orig_mod", run.computes)  # what torch.compile has wrapped
    if last or not isinstance(shared, DistributedDataParallel):
        return nullcontext()
    return shared.no_sync()


def log_updates(run: Run, epoch: int, sums: Tensor, bar: Bar) -> None:
    """Write a line on the epoch so far."""
    loss, top1, top5, count = totals(run, sums)
    group = run.optimizer.param_groups[0]
    run.log.line(
        "train",
        run.progress.update,
        epoch=epoch,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        loss=loss / max(count, 1),
        top1=100 * top1 / max(count, 1),
        top5=100 * top5 / max(count, 1),
        images_per_second=bar.images_per_second,
        data_wait=bar.wait,
    )


def pause(run: Run, sums: Tensor) -> None:
    """Save if it is time to, and stop if asked to: all processes at the same update."""
    due = time.monotonic() - run.saved_at > run.options.save_every
    stop, save_now = run.processes.largest(run.stop.signal, run.processes.leads and due)
    if stop or save_now:
        totals(run, sums)
        run.progress.sums = tuple(sums.tolist())
        save(run, must=bool(stop))
    if stop:
        raise Stopped(stop)


def validate(run: Run) -> Ahead | None:
    """Return how many classes stand before the right one, for every image; None if not leading."""
    weights = weights_of(run)
    run.network.eval()
    found = []
    view = evaluation(run.recipe.evaluation)
    given = Feed(run.recipe.batch_size, run.options.workers, run.options.on_bad)

    def forward(images: Tensor) -> Tensor:
        if run.recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = functional_call(run.network, weights, (images,))
        return logits

    with torch.inference_mode():
        for pair in score(forward, run.val, view, run.processes, given):
            found.append(pair)
            if run.processes.world == 1 and run.stop.signal:
                save(run, must=True)
                raise Stopped(run.stop.signal)
    return gathered(found, len(run.val), run.processes)


def finish_epoch(run: Run, epoch: int, ahead: Ahead | None, bar: Bar) -> None:
    """Write the epoch down, and the artifact if it is the best so far."""
    progress = run.progress
    sums = torch.tensor(progress.sums, dtype=torch.float64, device=run.processes.device)
    loss, top1, top5, count = run.processes.sum(sums).tolist()
    progress.sums = (0.0, 0.0, 0.0, 0.0)
    progress.validated = epoch
    if ahead is None:
        return
    read = ahead[ahead != UNREAD]
    unread = [run.val.where(one) for one in np.flatnonzero(ahead == UNREAD).tolist()]
    run.log.unread(progress.update, "validation", unread)
    val_top1, val_top5 = (interval(read, top).error for top in (1, TOP))
    group = run.optimizer.param_groups[0]
    row = Epoch(
        epoch,
        progress.update,
        group["lr"],
        group["weight_decay"],
        loss / count,
        100 * top1 / count,
        100 * top5 / count,
        val_top1,
        val_top5,
        bar.images_per_second,
        bar.wait,
        progress.seconds,
    )
    run.log.epoch(row)
    print(
        f"epoch {epoch}/{run.recipe.epochs}  train loss {row.train_loss:.4f} "
        f"error {row.train_top1:.2f}  validation error {row.val_top1:.2f} / {row.val_top5:.2f}  "
        f"{row.images_per_second:,.0f} images/s  data {row.data_wait:.0%}  "
        f"{clock(progress.seconds)}",
        flush=True,
    )
    if val_top1 < progress.best_error and written(run, lambda: keep(run, "best")):
        progress.best_epoch, progress.best_error = epoch, val_top1


def finish(run: Run) -> None:
    """Write the artifacts of the last and the best weights, and draw the curve."""
    if not run.processes.leads:
        return
    folder = run.options.out
    keep(run, "last")
    rows = read_epochs(folder / TABLE, torn="skip")
    train_points = tuple((float(row.epoch), row.train_top1) for row in rows)
    val_points = tuple((float(row.epoch), row.val_top1) for row in rows)
    print(drawn({"training error, %": train_points, "validation error, %": val_points}))
    try:
        save_picture(folder / "curve.png", [Curve(run.name, train_points, val_points)])
    except DeviceError as error:
        print(f"note: {error}", file=sys.stderr)
    for name in ("last", "best"):
        if not (folder / f"{name}.pt").exists():  # the disk was full whenever one was the best
            continue
        with step(f"exporting {folder / name}.onnx, verified"):
            write_onnx(folder / f"{name}.pt")
    best = run.progress
    print(f"best: epoch {best.best_epoch}, {best.best_error:.2f} % of the images wrong")
    print(f"{folder}: best.pt and best.onnx (`relume serve {folder / 'best.onnx'}`), last.*, log.*")
    if run.recipe.name == DEFAULT:
        print("next: `relume train --list` shows the seeds' recipes, `--recipe NAME --explain` one")


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train, or show what would be trained."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    asked = asked_for(arguments)
    if asked.what == "list":
        print(listed(), end="")
        return 0
    if asked.what == "explain":
        print(settings(asked.recipe))
        options = asked.options
        images = len(open_split(options, "train")) if options.data else asked.recipe.images
        print(explained(asked.recipe, images, options.save_every), end="")
        return 0
    if asked.devices > 1 and not launching.launched():
        saved = asked.options.out / snapshots.NAME
        if asked.options.resume:
            snapshots.check_there(saved)
        before = (0, snapshots.stamp(saved))  # of no run, or of an earlier one
        return launching.start_many(
            asked.devices, arguments, lambda: snapshots.stamp(saved) not in before
        )
    try:
        return run_asked(asked)
    except ImageError:  # which only the process has met whose image it is
        raise
    except LegacyModelError:
        if launching.rank() == 0:  # one of all says it
            raise
        return 1
    except RuntimeError as error:
        if not launching.parted(error):
            raise
        raise DeviceError("another process of the run has died, and this one ends too") from error
    finally:
        launching.leave()


def run_asked(asked: Asked) -> int:
    """Train to the end, or until a signal asks to stop."""
    recipe, options = asked.recipe, asked.options
    processes = launching.join(options.device)
    if launching.launched():  # the same command begins the run and, started again, goes on
        there = (options.out / snapshots.NAME).exists()
        again = there and (options.resume or processes.begun())
        options = dataclasses.replace(options, resume=again)
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS draws by lot
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not options.deterministic
    with Stop() as stop:
        run = begin(recipe, options, processes, stop)
        processes.note_begun()
        if processes.leads:
            print(settings(recipe))
            print(f"{run.train.name}: {len(run.train):,} images, validation {len(run.val):,}")
            if options.resume:
                done, epoch = run.progress.update, run.progress.validated + 1
                print(f"going on at update {done:,}, in epoch {epoch:,} of {recipe.epochs:,}")
        try:
            train(run)
        except Stopped as stopped:
            if processes.leads:
                saved = options.out / snapshots.NAME
                done = run.progress.update
                on = "the same command with --resume goes on"
                print(f"{stopped}: saved {saved} at update {done:,}; {on}")
            return 128 + stopped.number
        finally:
            run.log.close()
        finish(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
