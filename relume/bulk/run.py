"""`relume classify -o`: parts planned, compared with what is there, and done by an engine."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module

from models.terminal import escaped
from relume.bulk import manifest, results, sources
from relume.bulk.flags import PART, Shard
from relume.bulk.folder import result_folder
from relume.bulk.packages import optional
from relume.bulk.parts import Part
from relume.bulk.progress import Progress
from relume.bulk.results import BROKEN
from relume.bulk.tables import Columns
from relume.bulk.worker import Engine, Job, Numbered, Worker, sha256
from relume.classifier import Options


def run(given: argparse.Namespace, options: Options) -> int:
    """Do the parts of a shard that are not done; 1 when images of them are broken.

    Raises:
        LegacyModelError: As `sources.planned`, `manifest.agree` and `Worker` say.
    """
    optional("pyarrow.parquet", "parquet")
    optional("fsspec", "parquet")
    count = given.part or PART
    columns = Columns(given.column, given.id_column)
    parts = sources.planned(given.images, count, columns)
    job = Job(
        given.out,
        len(parts),
        given.model,
        sha256(given.model),
        given.device,
        given.threads,
        options,
        bool(given.skip_unreachable),
    )
    folder = result_folder(given.out)
    manifest.agree(folder, given.out, _described(job, parts, count, columns))
    shard = given.shard or Shard(0, 1)
    mine = range(shard.number, len(parts), shard.of)
    there = results.finished(folder, len(parts))
    progress = Progress(len(mine), sum(number in there for number in mine))
    try:
        _engine(given)(job, [(one, parts[one]) for one in mine if one not in there], progress)
    except KeyboardInterrupt:
        progress.clear()
        print(escaped(f"{job.out}: {progress.line()}; run it again to go on"), file=sys.stderr)
        raise
    progress.clear()
    _tell(given, job, progress, shard)
    return 1 if progress.broken else 0


def _described(job: Job, parts: Sequence[Part], count: int, columns: Columns) -> dict[str, object]:
    """Return what must be the same in all processes of a run."""
    return {
        "format": 1,
        "model_sha256": job.model_sha256,
        "top": job.options.top,
        "crops": job.options.crops,
        "ignore_exif": not job.options.orientation,
        "part": count,
        "column": columns.images,
        "id_column": columns.ids,
        "parts": len(parts),
        manifest.LISTING: sources.digest(parts),
    }


def _engine(given: argparse.Namespace) -> Engine:
    if given.engine != "ray":
        return _in_this_process
    engine: Engine = import_module("relume.bulk.ray_engine").engine(given.workers, given.address)
    return engine


def _in_this_process(job: Job, parts: Numbered, progress: Progress) -> None:
    if not parts:
        return
    worker = Worker(job)
    for number, part in parts:
        worker.do(number, part, lambda result: progress.add(1, result.error is not None))
        progress.finish_part()


def _tell(given: argparse.Namespace, job: Job, progress: Progress, shard: Shard) -> None:
    line = progress.line()
    if progress.skipped and not progress.done:
        line = f"nothing left to do: {progress.skipped:,} parts were done before; see {BROKEN}/ too"
    print(f"{escaped(job.out)}: {line}", file=sys.stderr)
    if shard.of > job.parts:
        idle = f"{shard.of - job.parts:,} of {shard.of:,} shards have nothing to do"
        advice = "--part N cuts smaller ones, in a new folder"
        print(f"parts in all: {job.parts:,}, so {idle}; {advice}", file=sys.stderr)
    if progress.broken:
        where = escaped(f"{job.out.rstrip('/')}/{BROKEN}")
        print(f"error: {progress.broken:,} could not be classified: see {where}", file=sys.stderr)
    if given.json:
        said = {
            "out": job.out,
            "model_sha256": job.model_sha256,
            "parts": job.parts,
            "shard": f"{shard.number}/{shard.of}",
            "done": progress.done,
            "skipped": progress.skipped,
            "images": progress.images,
            "broken": progress.broken,
            "seconds": round(progress.seconds, 3),
        }
        print(json.dumps(said))
