"""Artifacts of a few hundred bytes whose answers can be told by looking at the image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.spec import InputSpec, Label, ModelSpec, Origin, Output

SIDE = 8
INPUT = InputSpec(
    resize=SIDE,
    resize_mode="exact",
    resample="pillow-bilinear",
    crop=(SIDE, SIDE),
    crop_origin="floor",
    order="RGB",
    scale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    source="this test",
)
LABELS = (
    Label("n00000001", "red"),
    Label("n00000002", "green"),
    Label(None, "blue"),
    Label(None, "top"),
    Label(None, "bottom"),
    Label(None, "left"),
    Label(None, "right"),
)
OPSET, IR_VERSION = 20, 10  # of early 2024: every onnxruntime that relume allows reads them


def spec(given: InputSpec | None = INPUT, output: Output = "logits") -> ModelSpec:
    """Return the description of the tiny network."""
    return ModelSpec(
        "tiny", given, LABELS, output, None, Origin("test", "tiny.t7", "0" * 64, "flag")
    )


def weight() -> np.ndarray:
    """Return pixels x classes: how red, green, blue it is, and where it is bright."""
    classes = np.zeros((len(LABELS), 3, SIDE, SIDE), np.float32)
    for channel in range(3):
        classes[channel, channel] = 1
    half = SIDE // 2
    classes[3, :, :half] = 1
    classes[4, :, half:] = 1
    classes[5, :, :, :half] = 1
    classes[6, :, :, half:] = 1
    classes[3:] -= 0.5  # where it is bright compared with the rest: an even image gives 0
    flat: np.ndarray = classes.reshape(len(LABELS), -1).T / SIDE**2
    return flat


@dataclass(frozen=True)
class Tiny:
    """What is odd about a tiny artifact; by default, nothing."""

    spec: ModelSpec | None = spec()
    batch: int | str = "N"
    outputs: int = len(LABELS)
    scale: float = 4.0
    second_input: bool = False
    operator: str = "MatMul"

    def model(self) -> onnx.ModelProto:
        """Return the ONNX model: Flatten, then one product."""
        matrix = (weight() * np.float32(self.scale))[:, : self.outputs]
        nodes = [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node(self.operator, ["flat", "weight"], ["logits"]),
        ]
        names = ["image", "other"] if self.second_input else ["image"]
        shape = [self.batch, 3, SIDE, SIDE]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, None])],
            [numpy_helper.from_array(np.ascontiguousarray(matrix), "weight")],
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        if self.spec is not None:
            helper.set_model_props(model, {"model_spec": self.spec.to_json()})
        return model

    def bytes(self) -> bytes:
        """Return the model as the bytes of its file."""
        content: bytes = self.model().SerializeToString()
        return content

    def write(self, path: Path) -> Path:
        """Write the model and return where it is."""
        path.write_bytes(self.bytes())
        return path
