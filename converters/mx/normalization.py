"""Rules of normalisation: by moving statistics, by the sample's own, by neighbouring maps."""

import numpy as np

from converters.lowering import Value
from converters.mx.network import Operator, Outputs, Run, operator
from models.graph import Array


@operator(
    "BatchNorm",
    "BatchNorm_v1",
    "CuDNNBatchNorm",
    "_contrib_SyncBatchNorm",
    inputs=("data", "gamma", "beta", "moving_mean", "moving_var"),
)
def batch_norm(run: Run, op: Operator) -> Outputs:
    """Batch normalisation by its moving statistics, over dimension `axis`.

    With `fix_gamma`, which is the default, the scale is 1, whatever the file holds as gamma;
    MXNet's momentum is what stays of the old value (src/operator/nn/batch_norm-inl.h, .cc).
    BatchNorm_v1 takes rows of numbers or images, and has no `axis`.
    """
    given, settings = op.value(), op.settings
    first = op.op == "BatchNorm_v1"
    axis = 1 if first else settings.integer("axis", 1)
    settings.neutral("use_global_stats", "output_mean_var", "cudnn_off", "key", "ndev")
    settings.neutral("min_calib_range", "max_calib_range")
    rank = len(given.shape)
    if not -rank <= axis < rank or not 2 <= rank <= 4 or (first and rank == 3):
        raise op.unsupported(f"axis {axis} of {rank} dimensions")
    axis %= rank
    tensors = op.tensors(
        weight="gamma", bias="beta", running_mean="moving_mean", running_var="moving_var"
    )
    if settings.flag("fix_gamma", default=True) and "weight" in tensors:
        tensors["weight"] = np.ones(tensors["weight"].shape, np.float32)
    value = moved(run, op, given, axis, 1)
    value = run.net.add(
        op.name,
        "BatchNorm2d" if rank == 4 else "BatchNorm1d",
        value,
        tensors=tensors,
        num_features=given.shape[axis],
        eps=settings.number("eps", 1e-3),
        momentum=round(1 - settings.number("momentum", 0.9), 12),  # 0.1, not 0.09999999999999998
        affine=True,
    )
    return moved(run, op, value, 1, axis)


def moved(run: Run, op: Operator, given: Value, start: int, end: int) -> Value:
    """Return a tensor with one dimension moved to another place."""
    if start == end:
        return given
    order = [axis for axis in range(len(given.shape)) if axis != start]
    order.insert(end, start)
    return run.net.add(f"{op.name}_permute", "Permute", given, dims=order)


@operator("InstanceNorm", inputs=("data", "gamma", "beta"))
def instance_norm(run: Run, op: Operator) -> Outputs:
    """Each map of each sample by its own mean and variance (src/operator/instance_norm-inl.h).

    That is a normalisation of as many groups as there are maps.
    """
    given = op.value()
    op.check_rank(given, "maps", 3)
    tensors = op.tensors(weight="gamma", bias="beta")
    return _grouped(run, op, tensors, given.shape[1], op.settings.number("eps", 1e-3))


@operator("GroupNorm", inputs=("data", "gamma", "beta"))
def group_norm(run: Run, op: Operator) -> Outputs:
    """Groups of maps by their own mean and variance (src/operator/nn/group_norm.cc, -inl.h).

    gamma and beta have a number for each group, not for each map as torch.nn's, and as in 2.0.
    """
    given, settings = op.value(), op.settings
    op.check_rank(given, "maps", 3)
    settings.neutral("output_mean_var")
    groups = settings.integer("num_groups", 1)
    if groups < 1 or given.shape[1] % groups:
        raise settings.error("num_groups", str(groups), f"equal groups of {given.shape[1]} maps")
    tensors = op.tensors(weight="gamma", bias="beta")
    for name, array in tensors.items():
        if array.shape != (groups,):
            raise op.unsupported(f"{name} of shape {array.shape} where {groups} groups have one")
        tensors[name] = array.repeat(given.shape[1] // groups)
    return _grouped(run, op, tensors, groups, settings.number("eps", 1e-5))


def _grouped(run: Run, op: Operator, tensors: dict[str, Array], groups: int, eps: float) -> Value:
    given = op.value()
    return run.net.add(
        op.name,
        "GroupNorm",
        given,
        tensors=tensors,
        num_groups=groups,
        num_channels=given.shape[1],
        eps=eps,
        affine=True,
    )


@operator("LayerNorm", inputs=("data", "gamma", "beta"))
def layer_norm(run: Run, op: Operator) -> Outputs:
    """One dimension by its own mean and variance (src/operator/nn/layer_norm-inl.h)."""
    given, settings = op.value(), op.settings
    settings.neutral("output_mean_var")
    rank = len(given.shape)
    axis = settings.integer("axis", -1)
    if not -rank <= axis < rank:
        raise settings.error("axis", str(axis), f"one of {rank} dimensions")
    value = moved(run, op, given, axis % rank, rank - 1)
    value = run.net.add(
        op.name,
        "LayerNorm",
        value,
        tensors=op.tensors(weight="gamma", bias="beta"),
        normalized_shape=(given.shape[axis],),
        eps=settings.number("eps", 1e-5),
        elementwise_affine=True,
    )
    return moved(run, op, value, rank - 1, axis % rank)


@operator("LRN")
def local_response_norm(run: Run, op: Operator) -> Outputs:
    """Local response normalisation; `alpha` is divided by the window's size, as torch.nn does.

    `knorm` is 2 unless the file says otherwise (src/operator/nn/lrn-inl.h). A window that sees all
    maps from every one of them is not made wider, as only its size as a divisor would tell.
    """
    given, settings = op.value(), op.settings
    op.check_rank(given, "images", 4, 4)
    size = settings.integer("nsize")
    if size < 1 or size % 2 == 0:
        raise op.unsupported(f"a window of {size} maps has no centre: MXNet refuses it, too")
    seen = min(size, 2 * given.shape[1] - 1)
    return run.net.add(
        op.name,
        "LocalResponseNorm",
        given,
        size=seen,
        alpha=settings.number("alpha", 1e-4) * (seen / size),
        beta=settings.number("beta", 0.75),
        k=settings.number("knorm", 2.0),
    )


@operator("L2Normalization")
def l2_normalization(run: Run, op: Operator) -> Outputs:
    """Numbers by the root of the sum of their squares plus `eps`.

    The sum is over a sample (`instance`), over its maps (`channel`) or over each map (`spatial`)
    (src/operator/l2_normalization-inl.h).
    """
    given, settings = op.value(), op.settings
    rank, eps = len(given.shape), settings.number("eps", 1e-10)
    mode = settings.one_of("mode", ("instance", "channel", "spatial"), "instance")
    if rank < (2 if mode == "instance" else 3):
        raise op.unsupported(f"mode {mode} of {rank} dimensions")
    over = {"instance": range(1, rank), "channel": (1,), "spatial": range(2, rank)}[mode]
    total = run.net.add(f"{op.name}_square", "Mul", given, given)
    for axis in over:
        total = run.net.add(f"{op.name}_sum", "Sum", total, dim=axis, keepdim=True)
    total = run.net.add(f"{op.name}_eps", "Shift", total, offset=eps)
    norm = run.net.add(f"{op.name}_root", "Power", total, exponent=0.5)
    return run.net.add(op.name, "Div", given, norm)
