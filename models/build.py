"""A network in the middle form -> a module that runs."""

import math

import torch
from torch import fx, nn

from models.errors import ArtifactError, MisfitError, WeightMismatch
from models.graph import MAX_ELEMENTS, Graph, Network, float32
from models.ops import create, infer, tensor_shapes


def build(network: Network) -> fx.GraphModule:
    """Return a module in evaluation mode that computes the graph with the tensors' own copies.

    Its submodules and `state_dict` carry the node names. Several outputs come as a tuple.

    Raises:
        ArtifactError: The graph has an op, or arguments, that do not exist.
        WeightMismatch: A tensor is missing, unexpected, or has another shape than the graph says.
    """
    module = _wire(network.graph)
    _fill(module, network)
    return module.eval()


def check_shapes(graph: Graph, where: str) -> None:
    """Raise ArtifactError unless every node takes its inputs and gives a tensor of sane size."""
    shapes = {given.name: given.shape for given in graph.inputs}
    for name, shape in shapes.items():
        if not all(size > 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise ArtifactError(f"{where}: damaged graph: input {name} of shape {shape}")
    for node in graph.nodes:
        try:
            found = infer(node.op, node.attrs, [shapes[name] for name in node.inputs])
        except MisfitError as error:
            raise ArtifactError(f"{where}: damaged graph: node {node.name}: {error}") from error
        if math.prod(found.shape) > MAX_ELEMENTS:
            raise ArtifactError(f"{where}: damaged graph: node {node.name} gives {found.shape}")
        shapes[node.name] = found.shape


def _wire(graph: Graph) -> fx.GraphModule:
    graph.check("the network")
    root = nn.Module()
    wiring = fx.Graph()
    values = {given.name: wiring.placeholder(given.name) for given in graph.inputs}
    with torch.device("meta"):
        for node in graph.nodes:
            try:
                _place(root, node.name, create(node.op, node.attrs))
            except (MisfitError, KeyError) as error:
                raise ArtifactError(
                    f"node {node.name}: {error}: damaged, or written by a newer relume"
                ) from error
            values[node.name] = wiring.call_module(
                node.name, tuple(values[name] for name in node.inputs)
            )
    outputs = tuple(values[name] for name in graph.outputs)
    wiring.output(outputs if len(outputs) > 1 else outputs[0])
    return fx.GraphModule(root, wiring, class_name="Network")


def _place(root: nn.Module, path: str, layer: nn.Module) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        if folder not in root._modules:
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    if name in root._modules or hasattr(fx.GraphModule, name):
        raise MisfitError(f"the name {name} is taken")
    root.add_module(name, layer)


def _fill(module: fx.GraphModule, network: Network) -> None:
    graph, given = network.graph, network.tensors
    owners = dict(graph.ties)
    wanted = {
        f"{node.name}.{name}": shape
        for node in graph.nodes
        for name, shape in tensor_shapes(module.get_submodule(node.name)).items()
    }
    _check(wanted, {name: array.shape for name, array in given.items()}, owners)
    tensors = {name: torch.from_numpy(float32(array).copy()) for name, array in given.items()}
    parameters = {name: nn.Parameter(tensors[name]) for name in given if name in wanted}
    for name in wanted:
        owner = owners.get(name, name)
        node, _, tensor = name.rpartition(".")
        layer = module.get_submodule(node)
        if tensor in layer._parameters:
            layer._parameters[tensor] = parameters[owner]
        else:
            layer._buffers[tensor] = tensors[owner]
    for layer in module.modules():
        if "num_batches_tracked" in layer._buffers:
            layer._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.int64)


def _check(
    wanted: dict[str, tuple[int, ...]], given: dict[str, tuple[int, ...]], owners: dict[str, str]
) -> None:
    def of_owner(name: str) -> tuple[int, ...] | None:
        return given.get(owners.get(name, name))

    missing = [name for name in wanted if of_owner(name) is None]
    unexpected = given.keys() - (wanted.keys() - owners.keys())
    misshapen = [
        f"{name} is {found}, expected {shape}"
        for name, shape in wanted.items()
        if (found := of_owner(name)) is not None and found != shape
    ]
    if missing or unexpected or misshapen:
        raise WeightMismatch(
            "the network", missing=missing, unexpected=sorted(unexpected), misshapen=misshapen
        )
