"""`relume quantize` and `relume verify --precision`: what lower precision does to the answers.

Both hold the classes that lower precision names against those of float32, on pictures that the user
chooses; a file is written only where they agree as often as was asked for.
"""

import argparse
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.cores import usable_cores
from models.decoding import decode
from models.engines import EngineOptions, check_engine, open_engine, stored_precision
from models.errors import ArtifactError, ImageError, ParityError, SpecError
from models.files import refuse_existing, writing
from models.image_network import ImageNetwork
from models.openvino_engine import without_telemetry
from models.preprocess import preprocess
from models.self_test import SelfTest, pictures
from models.session import Session, runtime
from models.terminal import missing_package, new_parser, reports_errors, step
from relume.images import found
from relume.processes import ahead

CALIBRATION = 300  # images, NNCF's own default; more changes little
AGREEMENT = 0.97  # of the best class: what one loses to lower precision should not be noticed
TOP = 5
BATCH = 8


class Agreement(NamedTuple):
    """How often lower precision names the same classes as float32."""

    top1: float  # share of images with the same best class
    top5: float  # share of the five best classes that both name
    largest: float  # difference of a probability
    images: int


def quantize_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume quantize`."""
    parser = _parser(
        "Write an .onnx in int8 or fp16, if it names the same classes as float32.",
        "relume quantize irv2.onnx --images pictures",
        "relume quantize irv2.onnx --images pictures --precision fp16 -o artifacts",
    )
    parser.add_argument(
        "--precision", choices=("int8", "fp16"), default="int8", help="default int8"
    )
    _add_pictures(parser, required=True)
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="folder of the result (default: MODEL's)"
    )
    parser.add_argument("--name", metavar="NAME", help="of the result (default: MODEL-int8)")
    parser.add_argument("--force", action="store_true", help="overwrite the result")
    return parser


@reports_errors
def quantize(argv: Sequence[str] | None = None) -> int:
    """Write an artifact of lower precision, if it agrees with the one of float32."""
    given = quantize_parser().parse_args(argv)
    name = given.name or f"{given.model.stem}-{given.precision}"
    folder = given.out or given.model.parent
    _check_folder(folder)
    target = folder / f"{name}.onnx"
    refuse_existing([target], force=given.force)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with writing() as files:
            temporary = files.new(target)
            agreement = _lowered(given, name, temporary)
            _hold(agreement, given)
    except ModuleNotFoundError as error:
        print(missing_package(error), file=sys.stderr)
        return 1
    _print(given, agreement)
    print(f"  wrote       {target.name} ({target.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
    return 0


def _check_folder(folder: Path) -> None:
    """Raise SpecError where -o names a file, before anything is computed."""
    if folder.is_dir() or (folder.suffix != ".onnx" and not folder.exists()):
        return
    raise SpecError(
        f"-o {folder}: expected a folder; -o {folder.parent} --name {folder.stem} writes that file"
    )


def verify_parser() -> argparse.ArgumentParser:
    """Return the parser of `relume verify --precision`."""
    parser = _parser(
        "Hold the classes of lower precision against those of float32.",
        "relume verify irv2.onnx --precision bf16 --images pictures",
    )
    add_comparison(parser, required=True)
    return parser


def add_comparison(flags: argparse._ActionsContainer, *, required: bool) -> None:
    """Add the flags that say which precision is held against float32, and on what."""
    flags.add_argument(
        "--precision",
        choices=("bf16", "int8", "fp16"),
        required=required,
        help="bf16 of OpenVINO, or what `relume quantize` would write",
    )
    _add_pictures(flags, required=required)


@reports_errors
def verify(argv: Sequence[str] | None = None) -> int:
    """Say how often lower precision names the same classes as float32."""
    given = verify_parser().parse_args(argv)
    try:
        if given.precision == "bf16":
            agreement = _compared(given.model, given.model, given.precision, _images(given.images))
        else:
            with tempfile.TemporaryDirectory() as folder:
                agreement = _lowered(given, given.model.stem, Path(folder) / "lower.onnx")
    except ModuleNotFoundError as error:
        print(missing_package(error), file=sys.stderr)
        return 1
    _print(given, agreement)
    _hold(agreement, given)
    return 0


def _parser(description: str, *examples: str) -> argparse.ArgumentParser:
    parser = new_parser(description, *examples)
    parser.add_argument("model", type=Path, metavar="MODEL", help=".onnx of relume, in float32")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_pictures(flags: argparse._ActionsContainer, *, required: bool) -> None:
    flags.add_argument(
        "--images",
        nargs="+",
        required=required,
        metavar="DIR",
        help="pictures like those it will see; int8 is calibrated on every other of them",
    )
    flags.add_argument(
        "--min-agreement",
        type=float,
        default=AGREEMENT,
        metavar="SHARE",
        help=f"of images whose best class must stay (default {AGREEMENT})",
    )


def _print(given: argparse.Namespace, agreement: Agreement) -> None:
    if given.json:
        print(json.dumps({"precision": given.precision, **agreement._asdict()}))
        return
    print(
        f"  {given.precision:10}  top-1 {agreement.top1:.3f}, top-5 {agreement.top5:.3f} of "
        f"float32's on {agreement.images:,} images, probabilities within {agreement.largest:.2g}"
    )


def _hold(agreement: Agreement, given: argparse.Namespace) -> None:
    if agreement.top1 < given.min_agreement:
        raise ParityError(
            f"{given.model}: in {given.precision} the best class is float32's on "
            f"{agreement.top1:.1%} of {agreement.images:,} images, expected at least "
            f"{given.min_agreement:.1%}: serve float32, or allow less with --min-agreement"
        )


def _images(arguments: Sequence[str]) -> list[Path]:
    """Return the pictures, in an order that mixes folders; two at least."""
    paths = list(found(arguments))
    if len(paths) < 2:
        raise SpecError(f"--images: found {len(paths)}, expected 2 pictures at least")
    order = np.random.default_rng(0).permutation(len(paths))
    return [paths[at] for at in order]


def _lowered(given: argparse.Namespace, name: str, target: Path) -> Agreement:
    """Write the file of lower precision, measured."""
    images = _images(given.images)
    session = Session(given.model)
    if stored_precision(session.metadata, str(given.model)) != "float32":
        raise ArtifactError(f"{given.model}: is of lower precision already: give the float32 file")
    network = ImageNetwork.of_session(session)
    if given.precision == "int8":
        calibration, images = images[::2][:CALIBRATION], images[1::2]
        with step(f"calibrating on {len(calibration)} images"):
            proto = _int8(given.model, network, calibration)
    else:
        proto = _fp16(given.model)
    precision: dict[str, Any] = {"name": given.precision, "of": _sha256(given.model)}
    texts = {"model_spec": replace(network.spec, name=name).to_json()}
    _save(proto, target, texts | {"precision": json.dumps(precision)})
    texts["self_test"] = _self_test(target, network).to_json()
    _save(proto, target, texts | {"precision": json.dumps(precision)})
    agreement = _compared(given.model, target, "float32", images)
    measured = agreement._asdict()
    precision.update({key: measured[key] for key in ("top1", "top5", "images")})
    _save(proto, target, texts | {"precision": json.dumps(precision)})
    return agreement


def _int8(model: Path, network: ImageNetwork, images: Sequence[Path]) -> Any:
    """Return the model with convolutions and products of bytes, as QuantizeLinear says it."""
    without_telemetry()
    nncf, onnx = import_module("nncf"), import_module("onnx")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    proto = onnx.load(model)
    name = proto.graph.input[0].name
    rows = [row[None] for row in _rows(images, network)]
    data = nncf.Dataset(rows, lambda row: {name: row})
    return nncf.quantize(proto, data, subset_size=len(rows))


def _fp16(model: Path) -> Any:
    """Return the model in half precision; what goes in and comes out stays float32."""
    runtime()  # without its telemetry, before anything of it is imported
    float16 = import_module("onnxruntime.transformers.float16")
    proto = import_module("onnx").load(model)
    return float16.convert_float_to_float16(proto, keep_io_types=True)


def _save(proto: Any, target: Path, texts: Mapping[str, str]) -> None:
    """Write the file with these texts in place of those that it had."""
    kept = {one.key: one.value for one in proto.metadata_props} | dict(texts)
    del proto.metadata_props[:]
    for key, value in kept.items():
        proto.metadata_props.add(key=key, value=value)
    import_module("onnx").save_model(proto, target)


def _self_test(target: Path, network: ImageNetwork) -> SelfTest:
    """Return what onnxruntime gives for the file of lower precision.

    Other engines are held against that. How far it is from float32 is judged on real pictures: the
    rings of the self-test are like nothing that int8 was calibrated on.
    """
    session = Session(target)
    rows = [session.run(row[None])[0] for row in pictures(network.input)]
    return SelfTest(np.concatenate(rows), 0.0)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compared(model: Path, other: Path, precision: str, images: Sequence[Path]) -> Agreement:
    """Return how often the engine or the file of lower precision agrees with float32."""
    exact = ImageNetwork.of_session(Session(model))
    options = EngineOptions(device="auto")
    if precision == "bf16":
        options = EngineOptions("openvino", "cpu", "bf16")
    engine = open_engine(other, options)
    check_engine(engine, exact.input)
    lower = ImageNetwork(
        str(other), exact.spec, engine.inputs, lambda batch: engine.run(batch, alone=True)
    )
    same1 = same5 = largest = 0.0
    count = 0
    with step(f"comparing on {len(images)} images"):
        for batch in _batches(_rows(images, exact)):
            ours, theirs = lower.probabilities(batch), exact.probabilities(batch)
            best, wanted = (np.argsort(-one, axis=1, kind="stable") for one in (ours, theirs))
            same1 += float((best[:, 0] == wanted[:, 0]).sum())
            for mine, yours in zip(best[:, :TOP], wanted[:, :TOP], strict=True):
                same5 += len(set(mine) & set(yours)) / len(yours)
            largest = max(largest, float(np.abs(ours - theirs).max()))
            count += len(batch)
    if not count:
        raise SpecError("--images: found no picture that can be read")
    return Agreement(same1 / count, same5 / count, largest, count)


def _rows(images: Sequence[Path], network: ImageNetwork) -> Iterator[np.ndarray]:
    """Yield the pictures as rows; those that cannot be read are named and left out."""

    def row(path: Path) -> np.ndarray | str:
        try:
            return preprocess(decode(path.read_bytes()), network.input)
        except (ImageError, OSError) as error:
            return f"{path}: {error}"

    cores = usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        for one in ahead(lambda path: pool.submit(row, path), images, 2 * cores):
            if isinstance(one, str):
                print(f"left out: {one}", file=sys.stderr)
            else:
                yield one


def _batches(rows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    batch: list[np.ndarray] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
