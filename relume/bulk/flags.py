"""The flags of classifying in bulk; none of them means anything without `-o`."""

import argparse
from typing import NamedTuple

from models.terminal import at_least

BULK = (
    "part",
    "shard",
    "column",
    "id_column",
    "skip_unreachable",
    "engine",
    "workers",
    "address",
    "json",
)
PART = 1_000  # images: some minutes of a core, which is what a killed worker does again


class Shard(NamedTuple):
    """A share of the parts: those whose number leaves `number` when divided by `of`."""

    number: int
    of: int


def add(parser: argparse.ArgumentParser) -> None:
    """Add the flags, each None where it is not given."""
    bulk = parser.add_argument_group(
        "many images", "IMAGE may then be a .rec, .parquet or .tar, too, and any of them a URL"
    )
    bulk.add_argument("-o", "--out", metavar="DIR", help="write Parquet files there, print nothing")
    bulk.add_argument(
        "--part", type=at_least(1), metavar="N", help=f"images of a part (default {PART:,})"
    )
    bulk.add_argument("--shard", type=_shard, metavar="I/N", help="of N shares do I, from 0")
    bulk.add_argument("--column", metavar="NAME", help="of Parquet: image bytes, paths or URLs")
    bulk.add_argument("--id-column", metavar="NAME", help="of Parquet: what the images are called")
    bulk.add_argument(
        "--skip-unreachable",
        action="store_true",
        default=None,
        help="an image whose server or store cannot be reached is broken, and ends nothing",
    )
    bulk.add_argument(
        "--engine", choices=("local", "ray"), help="what runs the parts (default local)"
    )
    bulk.add_argument(
        "--workers", type=at_least(1), metavar="N", help="of Ray (default: all that it has)"
    )
    bulk.add_argument(
        "--address", metavar="HOST:PORT", help="of a Ray cluster, or auto (default: one of its own)"
    )
    bulk.add_argument(
        "--json",
        action="store_true",
        default=None,
        help="print one object about the run at its end",
    )


def check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End with a usage error where flags do not go together."""
    if given.out is None:
        for name in BULK:
            if getattr(given, name) is not None:
                parser.error(f"--{name.replace('_', '-')} needs -o")
    elif given.format is not None:
        parser.error("--format is what is printed; -o writes Parquet")
    if given.engine != "ray" and (given.workers or given.address):
        parser.error("--workers and --address need --engine ray")


def _shard(text: str) -> Shard:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 0 to N - 1")
    return Shard(int(index), int(count))
