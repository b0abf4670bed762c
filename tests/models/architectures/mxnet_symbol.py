"""A symbol file of MXNet's ResNet, and the shapes in its .params, read as far as the tests need.

Not a converter: eleven operators with the settings that these files have, everything else is a
KeyError; numbers are skipped.
"""

import ast
import json
import lzma
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.graph import Graph, Input, Node, Shape
from models.ops import infer

_V1, _V2 = 0xF993FAC8, 0xF993FAC9
_WIDTHS = {0: 4, 1: 8, 2: 2}  # bytes of float32, float64, float16


def param_shapes(path: Path) -> dict[str, Shape]:
    """Return the shape of every array of a .params file (or .params.xz) by its name."""
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    at = 16  # magic and a reserved word

    def take(code: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(f"<{code}", data, at)
        at += struct.calcsize(f"<{code}")
        return value

    shapes = []
    for _ in range(take("Q")):
        first = take("I")
        if first == _V2:
            take("i")  # dense
        sized = "Q" if first in (_V1, _V2) else "I"
        dimensions = take("I") if first in (_V1, _V2) else first
        shape = tuple(take(sized) for _ in range(dimensions))
        take("Q")  # device
        width = _WIDTHS[take("i")]
        at += width * math.prod(shape)
        shapes.append(shape)
    names = []
    for _ in range(take("Q")):
        length = take("Q")
        names.append(take(f"{length}s").decode())
    return dict(zip(names, shapes, strict=True))


def _settings(node: dict[str, Any]) -> dict[str, Any]:
    given = node.get("attrs") or node.get("attr") or {}
    given = {**given, **node.get("param", {})}
    found = {}
    for key, value in given.items():
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found


def _pool(given: dict[str, Any], shape: Shape) -> tuple[str, dict[str, Any]]:
    if given.get("global_pool"):
        assert given["pool_type"] == "avg"
        return "AvgPool2d", {"kernel_size": shape[2:], "stride": 1}
    assert (given["pool_type"], given.get("pooling_convention", "valid")) == ("max", "valid")
    sizes = {"kernel_size": given["kernel"], "stride": given["stride"], "padding": given["pad"]}
    return "MaxPool2d", sizes


def _op(kind: str, given: dict[str, Any], shape: Shape) -> tuple[str, dict[str, Any]]:
    """Return what an operator is in the middle form, for an input of this shape."""
    if kind == "Convolution":
        sizes = {"kernel_size": given["kernel"], "stride": given.get("stride", (1, 1))}
        return "Conv2d", {
            "in_channels": shape[1],
            "out_channels": given["num_filter"],
            **sizes,
            "padding": given.get("pad", (0, 0)),
            "bias": not given["no_bias"],
        }
    if kind == "BatchNorm":
        momentum = 1 - given.get("momentum", 0.9)
        return "BatchNorm2d", {"num_features": shape[1], "eps": given["eps"], "momentum": momentum}
    if kind == "Activation":
        assert given["act_type"] == "relu"
        return "ReLU", {}
    if kind == "Pooling":
        return _pool(given, shape)
    if kind == "FullyConnected":
        return "Linear", {"in_features": shape[1], "out_features": given["num_hidden"]}
    return {
        "Flatten": ("Flatten", {}),
        **dict.fromkeys(("_Plus", "_plus", "elemwise_add"), ("Add", {})),
    }[kind]


def _operators(symbol: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield each operator with the names of what it reads, arrays among them."""
    nodes = symbol["nodes"]
    for node in nodes:
        if node["op"] != "null":
            yield node, [nodes[one[0]]["name"] for one in node["inputs"]]


def symbol_graph(path: Path, image: Shape) -> tuple[Graph, dict[str, Shape], dict[str, bool]]:
    """Return the graph of a symbol as far as its logits, and what it says of its arrays.

    These are the shapes that the operators need, and whether each BatchNorm's scale is fixed.
    """
    symbol = json.loads(path.read_text())
    shapes: dict[str, Shape] = {"data": image}
    names = {"data": "input"}
    arrays: dict[str, Shape] = {}
    fixed: dict[str, bool] = {}
    made: list[Node] = []
    for node, reads in _operators(symbol):
        if node["op"] == "SoftmaxOutput":
            continue
        given = _settings(node)
        sources = [name for name in reads if name in shapes]
        op, attrs = _op(node["op"], given, shapes[sources[0]])
        found = infer(op, attrs, [shapes[name] for name in sources])
        shapes[node["name"]] = found.shape
        name = names[node["name"]] = node["name"].replace(".", "_")
        made.append(Node(name, op, tuple(names[one] for one in sources), found.attrs))
        kinds = {"weight": "weight", "bias": "bias"}
        if op == "BatchNorm2d":
            fixed[node["name"]] = bool(given.get("fix_gamma", True))
            kinds = {"weight": "gamma", "bias": "beta"}
            arrays[f"aux:{node['name']}_moving_mean"] = found.tensors["running_mean"]
            arrays[f"aux:{node['name']}_moving_var"] = found.tensors["running_var"]
        for tensor, kind in kinds.items():
            if tensor in found.tensors:
                arrays[f"arg:{node['name']}_{kind}"] = found.tensors[tensor]
    return Graph((Input("input", image),), tuple(made), (made[-1].name,)), arrays, fixed
