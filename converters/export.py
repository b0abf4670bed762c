"""`relume export`: an artifact on its way out, to another library or another server."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from models.engines import BATCH_CUDA
from models.errors import ArtifactError
from models.terminal import at_least, new_parser, reports_errors

LIBRARIES = ("timm", "torchvision")
SERVERS = ("triton",)


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume export`."""
    parser = new_parser(
        "Write the weights of an Inception as a state dictionary with exactly the names and shapes "
        "of timm's or torchvision's own network; or an .onnx as a model repository that NVIDIA's "
        "Triton serves.",
        "relume export irv2.pt -o irv2.safetensors --to timm",
        "relume export irv2.onnx -o triton --to triton",
    )
    parser.add_argument(
        "source", type=Path, metavar="NAME", help=".pt or .safetensors of relume; .onnx for triton"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="what to write: .safetensors, or any other ending for torch.save's own form; "
        "for triton the repository's folder",
    )
    parser.add_argument(
        "--to", choices=(*LIBRARIES, *SERVERS), required=True, help="whose form it gets"
    )
    parser.add_argument(
        "--max-batch",
        type=at_least(1),
        metavar="N",
        help=f"with triton: images that are run at once, at most (default: {BATCH_CUDA})",
    )
    parser.add_argument("--force", action="store_true", help="overwrite what is there")
    return parser


@reports_errors
def export(argv: Sequence[str] | None = None) -> int:
    """Write an artifact's weights as another library names them, or all of it for a server."""
    given = export_parser().parse_args(argv)
    if given.to in SERVERS:
        from converters import triton

        batch = BATCH_CUDA if given.max_batch is None else given.max_batch
        triton.export(given.source, given.out, max_batch=batch, force=given.force)
        return 0
    if given.max_batch is not None:
        raise ArtifactError(f"--max-batch: {given.to} takes weights alone; triton has batches")
    from converters import library  # torch takes a second to load

    library.export(given.source, given.out, given.to, force=given.force)
    return 0
