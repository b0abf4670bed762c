"""Rules of softmax, losses, and operators that only training notices."""

import math

from converters.mx.network import LABEL, Operator, Outputs, Run, operator


@operator("SoftmaxOutput", "Softmax", inputs=("data", LABEL))
def softmax_output(run: Run, op: Operator) -> Outputs:
    """Softmax and its loss in one.

    As the only output of a classifier it leaves no layer: the network ends with its logits, which
    is what can be trained on, and softmax follows from the kind of output that the artifact states.
    Elsewhere it is softmax: with `multi_output` over the second dimension, or else with
    `preserve_shape` over the last. With neither, MXNet's own code takes it over everything but the
    first dimension, and MKL-DNN over the last (src/operator/softmax_output-inl.h, .cc).
    """
    settings, given = op.settings, op.value()
    settings.neutral("grad_scale", "ignore_label", "use_ignore", "normalization", "out_grad")
    settings.neutral("smooth_alpha")
    by_place = settings.flag("multi_output", default=False)
    by_last = settings.flag("preserve_shape", default=False)
    op.check_rank(given, "samples", 2)
    if len(given.shape) == 2 and op.ends_alone():
        return given
    if not by_place and not by_last and math.prod(given.shape[1:-1]) > 1:
        raise op.unsupported(
            "over the whole sample by MXNet's own code, over its last dimension by MKL-DNN, unless "
            "multi_output or preserve_shape is on"
        )
    return run.net.add(op.name, "Softmax", given, dim=1 if by_place else len(given.shape) - 1)


@operator("SoftmaxActivation")
def softmax_activation(run: Run, op: Operator) -> Outputs:
    """Softmax over the last dimension, or with `mode` `channel` over the second.

    Source: src/operator/nn/softmax_activation-inl.h (`FlatTo2D` keeps the last dimension).
    """
    given = op.value()
    if op.settings.one_of("mode", ("instance", "channel"), "instance") == "channel":
        op.check_rank(given, "maps", 3)
        return run.net.add(op.name, "Softmax", given, dim=1)
    return run.net.add(op.name, "Softmax", given, dim=len(given.shape) - 1)


@operator("softmax", "log_softmax")
def softmax(run: Run, op: Operator) -> Outputs:
    """Softmax of the numbers by `temperature`, or its logarithm (src/operator/nn/softmax-inl.h)."""
    given, settings = op.value(), op.settings
    if settings.flag("use_length", default=False):
        raise op.unsupported("use_length: softmax over a part")
    if settings.text("dtype", "float32") != "float32":
        raise op.unsupported("another dtype than float32")
    temperature = settings.number("temperature", 1)
    rank, axis = len(given.shape), settings.integer("axis", -1)
    if not -rank <= axis < rank or temperature == 0:
        raise settings.error("axis, temperature", f"{axis}, {temperature}", f"{rank} dimensions")
    if temperature != 1:
        given = run.net.add(f"{op.name}_scale", "Scale", given, factor=1 / temperature)
    word = "Softmax" if op.op == "softmax" else "LogSoftmax"
    return run.net.add(op.name, word, given, dim=axis % rank)


@operator("LogisticRegressionOutput", inputs=("data", LABEL))
def logistic_output(run: Run, op: Operator) -> Outputs:
    """Sigmoid and its loss in one (src/operator/regression_output.cc)."""
    op.settings.neutral("grad_scale")
    return run.net.add(op.name, "Sigmoid", op.value())


@operator("MakeLoss")
@operator("LinearRegressionOutput", "MAERegressionOutput", "SVMOutput", inputs=("data", LABEL))
def loss_output(run: Run, op: Operator) -> Outputs:
    """A loss that gives out what it is fed (src/operator/regression_output.cc, svm_output.cc)."""
    op.settings.neutral("grad_scale", "margin", "regularization_coefficient", "use_linear")
    op.settings.neutral("normalization", "valid_thresh")
    return run.net.add(op.name, "Identity", op.value())


@operator("BlockGrad", "stop_gradient", "_copy", "identity")
def identity(run: Run, op: Operator) -> Outputs:
    """The same numbers; only gradients differ (src/operator/tensor/elemwise_unary_op_basic.cc)."""
    return run.net.add(op.name, "Identity", op.value())


@operator("Cast", "cast", "amp_cast")
def cast(run: Run, op: Operator) -> Outputs:
    """The same numbers, as long as they stay float32."""
    kind = op.settings.text("dtype")
    if kind != "float32":
        raise op.unsupported(f"computes in {kind}")
    return run.net.add(op.name, "Identity", op.value())


@operator("Dropout")
def dropout(run: Run, op: Operator) -> Outputs:
    """Nothing in evaluation mode (src/operator/nn/dropout-inl.h)."""
    settings = op.settings
    share = settings.number("p", 0.5)
    settings.neutral("cudnn_off")
    axes = settings.sizes("axes")
    if settings.text("mode", "training") != "training":
        raise op.unsupported("mode always: draws random numbers")
    if not 0 <= share < 1:
        raise settings.error("p", str(share), "0 or more, below 1")
    if axes and (axes != (2, 3) or len(op.value().shape) != 4):
        raise op.unsupported(f"drops along {axes}: only numbers and whole maps have a word")
    return run.net.add(op.name, "Dropout2d" if axes else "Dropout", op.value(), p=share)
