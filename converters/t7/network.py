"""Torch7 modules -> nodes: what a rule sees of its module and of the run that it is part of."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from converters.lowering import Call, Lowered, Lowering, Rules, Value
from converters.t7.memory import Handle, Memory
from converters.t7.module import MAX_DEPTH, Ledger, Module, modules
from converters.t7.objects import Function, Tensor, TorchObject
from models.errors import UnsupportedLayer, WeightMismatch
from models.graph import Array, Shape, numbered

# Files of a few kilobytes can ask for any number of runs, entries and edges, by sharing containers.
MAX_CALLS = 100_000
MAX_ENTRIES = 10_000  # of one table, those of its tables included
MAX_WORK = 1_000_000  # outputs and edges; Inception-ResNet-v2 has 900

# Tensors that a module keeps between calls. They decide nothing in evaluation mode, whatever the
# class: gradients, outputs, and the scratch memory of the layers (each named in nn/<class>.lua).
STATE_FIELDS = frozenset(
    {
        # nn.Module and its containers
        *("output", "gradInput", "gradWeight", "gradBias", "_type", "outputSize", "size"),
        # convolutions, cudnn's descriptors
        *("finput", "fgradInput", "_input", "_gradOutput", "columns", "ones", "zeroScalar"),
        *("iSize", "input_offset", "output_offset", "weight_offset", "bias_offset"),
        # Linear, BatchNormalization, Dropout, pooling, PReLU, SpatialCrossMapLRN, Reshape
        *("addBuffer", "save_mean", "save_std", "scaleT", "noise", "indices", "gradWeightBuf"),
        *("gradWeightBuf2", "scale", "batchsize", "normalized", "buffer2", "centered", "std"),
        # views, sums, extremes and norms; pointwise layers
        *("_output", "_indices", "_ones", "_bias", "_expand", "_repeat", "_weight", "_buffer"),
        *("maxIdx", "minIdx", "mask", "maskByteTensor", "maxVals", "minVals", "gradMaxVals"),
        *("norm", "normp", "buffer", "temp", "mininput", "loss", "randomSamples"),
        # Bottle, MixtureTable, PixelShuffle, weight normalisation, local normalisation
        *("inShape", "outShape", "_gaterView", "_expert", "_expertView", "size2", "_shuffleOut"),
        *("_norm", "_scale", "gradG", "gradV", "localsums", "adjustedsums", "localstds"),
        *("adjustedstds", "thresholdedstds", "coef", "_coef", "kernel"),
    }
)


_METHODS = ("updateOutput", "forward")  # an object may override its class's
# The constructor of nn.Copy gives it such a method, which is the one that its rule restates.
_OVERRIDES_ITSELF = "nn.Copy"


Tree = Handle | list["Tree"]  # what a module takes and gives: a tensor, or a table of them


Rule = Callable[["Run", Module, Tree], Tree]
layer: Rules[Rule] = Rules()


class Run:
    """One evaluation of a network, written down as nodes instead of computed."""

    def __init__(self, net: Lowering, ledger: Ledger) -> None:
        self.net = net
        self.ledger = ledger
        self.pooled: dict[int, tuple[Module, Value]] = {}  # max pooling modules, what they were fed
        self.calls: list[Call] = []
        self.clones: dict[int, list[TorchObject]] = {}  # that a module object made of others
        self._memories: dict[tuple[int, str], Memory] = {}  # that a module object allocated
        self._outputs: dict[int, Tree] = {}  # of each module object, while it stays the same
        self._depth = 0
        self._calls = 0
        self._work = 0

    def spend(self, module: Module, count: int) -> None:
        """Note that following a module takes `count` steps more."""
        self._work += count
        if self._work > MAX_WORK:
            raise module.unsupported(f"takes more than {MAX_WORK:,} steps to follow")

    def forward(self, module: Module, x: Tree) -> Tree:
        """Apply the rule of a module's class to its input."""
        if self._depth >= MAX_DEPTH:
            raise module.unsupported(f"modules nested more than {MAX_DEPTH} deep")
        self._calls += 1
        if self._calls > MAX_CALLS:  # shared containers can be reached on exponentially many paths
            raise module.unsupported(f"modules run more than {MAX_CALLS:,} times")
        self._depth += 1
        try:
            output = layer[module.source.class_name](self, module, x)
        finally:
            self._depth -= 1
        values = [one.memory.known(one.steps) for one in self.leaves(module, output)]
        self.spend(module, len(values))
        names = tuple(value and value.name for value in values)
        self.calls.append(Call(module.path, module.source.class_name, names))
        return output

    def tensor(self, module: Module, x: Tree) -> Handle:
        """Return an input that has to be one tensor."""
        if not isinstance(x, Handle):
            raise module.unsupported(f"its input is a table of {len(x)}, not a tensor")
        return x

    def image(self, module: Module, x: Tree) -> Handle:
        """Return an input that has to be an image, or a batch of images."""
        given = self.tensor(module, x)
        if len(given.shape) not in (3, 4):
            raise module.unsupported(f"takes images, its input has {len(given.shape)} dimensions")
        return given

    def entries(self, module: Module, x: Tree) -> list[Tree]:
        """Return the entries of an input that has to be a table."""
        if isinstance(x, Handle) or not x:
            raise module.unsupported("its input is not a table of tensors")
        return list(x)

    def table(self, module: Module, x: Tree) -> list[Handle]:
        """Return an input that has to be a table of tensors."""
        return [self.tensor(module, item) for item in self.entries(module, x)]

    def read(self, handle: Handle) -> Value:
        """Return what a tensor holds now."""
        return handle.memory.read(handle.steps)

    def new(self, value: Value) -> Handle:
        """Return a tensor in memory of its own, which no module's next call overwrites."""
        return Handle(Memory(self.net, value), value.shape)

    def fresh(self, module: Module, value: Value) -> Handle:
        """Return a module's output in memory of its own, which its next call overwrites.

        Raises:
            UnsupportedLayer: The output is a view of other memory, where Torch7 would write.
        """
        known = self._outputs.get(id(module.source))
        memory = self._memories.get((id(module.source), "output"))
        if isinstance(known, Handle) and known.memory is not memory:
            raise module.unsupported("writes into what it passed on when it ran before")
        return self._output(module, self.kept(module, "output", value))

    def kept(self, module: Module, name: str, value: Value) -> Handle:
        """Return a tensor that a module keeps and fills anew in every call."""
        memory = self._memories.get((id(module.source), name))
        if memory is not None and memory.shape == value.shape:
            memory.fill(value)
        else:  # resized: what still looks at the old memory cannot be followed
            if memory is not None:
                memory.lose()
            memory = self._memories[id(module.source), name] = Memory(self.net, value)
        return Handle(memory, value.shape)

    def write(self, module: Module, handle: Handle, value: Value) -> Handle:
        """Return a module's output after it replaced what `handle` holds, for all who hold it."""
        if handle.repeats:
            raise module.unsupported("writes in place into a tensor that repeats its numbers")
        handle.memory.write(handle.steps, value)
        return self._output(module, handle)

    def view(self, module: Module, handle: Handle, value: Value | None = None) -> Handle:
        """Return a module's output: another handle on memory, of which `value` is the reading."""
        if value is not None:
            handle.memory.know(handle.steps, value)
        return self._output(module, handle)

    def table_of(self, module: Module, items: Iterable[Tree]) -> Tree:
        """Return a module's output table, which its next call fills anew, entry by entry."""
        given = self._outputs.get(id(module.source))
        if not isinstance(given, list):
            given = self._outputs[id(module.source)] = []
        count = 0
        for count, item in enumerate(items, 1):
            given[count - 1 : count] = [item]
        del given[count:]
        return given

    def leaves(self, module: Module, tree: Tree) -> list[Handle]:
        """Return the tensors of a table, depth first; tables that hold themselves are refused."""
        found: list[Handle] = []
        waiting, seen = [tree], 0
        while waiting:
            branch = waiting.pop()
            seen += 1
            if seen > MAX_ENTRIES:
                raise module.unsupported(f"gives a table of more than {MAX_ENTRIES:,} entries")
            if isinstance(branch, Handle):
                found.append(branch)
            else:
                waiting.extend(reversed(branch))
        return found

    def _output(self, module: Module, handle: Handle) -> Handle:
        given = self._outputs.get(id(module.source))
        if not isinstance(given, Handle):
            given = self._outputs[id(module.source)] = Handle(handle.memory, handle.shape)
        return given.set(handle)


def lower(
    root: TorchObject,
    shapes: Sequence[Shape],
    net: Lowering,
    numbers: Mapping[int, Array] | None = None,
) -> Lowered:
    """Return the network that a module computes for inputs of the given shapes.

    `numbers`, by tensor id, stand in for those of the file.

    Raises:
        UnsupportedLayer: Classes without a rule, all of them; or a setting without an exact form.
        FormatError: A field is missing or of the wrong kind, or shapes do not fit.
        WeightMismatch: A tensor of the file was used by no layer, or has the wrong shape.
    """
    run = Run(net, Ledger(net.source, numbers))
    top = Module(root, "", run.ledger)
    check_classes(root, net)
    names = numbered("input", len(shapes))
    given = [net.input(name, shape) for name, shape in zip(names, shapes, strict=True)]
    inputs: list[Tree] = [run.new(value) for value in given]
    outputs = run.forward(top, inputs if len(inputs) > 1 else inputs[0])
    ends = [run.read(handle) for handle in run.leaves(top, outputs)]
    if not ends:
        raise top.unsupported("gives an empty table")
    network = net.network(ends)
    _check_claims(top)
    return Lowered(network, tuple(end.shape for end in ends), tuple(run.calls))


def check_classes(root: TorchObject, net: Lowering) -> None:
    """Raise UnsupportedLayer for all modules whose class has no rule, wherever they are."""
    unknown = []
    for module in modules(Module(root, "", Ledger(net.source))):
        name, fields = module.source.class_name, module.source.fields
        if name not in layer:
            unknown.append((module.path, name))
        elif name != _OVERRIDES_ITSELF and any(
            isinstance(fields.get(method), Function) for method in _METHODS
        ):
            unknown.append((module.path, f"{name} with a Lua function of its own"))
    if unknown:
        raise UnsupportedLayer(net.source, unknown)


def _check_claims(top: Module) -> None:
    """Every tensor of the file is used by the network, or is known to be no part of it."""
    unused = [
        f"{module.path}.{field}"
        for module in modules(top)
        for field, value in module.source.fields.items()
        if isinstance(value, Tensor)
        and value.size
        and field not in STATE_FIELDS
        and id(value) not in top.ledger.claimed
    ]
    if unused:
        raise WeightMismatch(str(top.ledger.path), unexpected=unused)
