"""An optimizer's state is written and read back exactly, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import ArtifactError
from models.optimizer import FORMAT, SCHEMA, Optimizer, load_optimizer, save_optimizer

BUFFERS = {
    "weight": np.arange(6, dtype="f4").reshape(2, 3),
    "bias": np.array([-1, np.pi], "f4"),
}
STATE = Optimizer(0.1, 0.9, 0.0, 1e-4, True, 12, None, BUFFERS)


def module() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Every setting and every bit of every buffer."""
    for epoch in (None, 3):
        save_optimizer(tmp_path / "state.pt", STATE._replace(epoch=epoch))
        found = load_optimizer(tmp_path / "state.pt")
        assert found._replace(buffers={}) == STATE._replace(epoch=epoch, buffers={})
        assert list(found.buffers) == list(BUFFERS)
        for name, array in found.buffers.items():
            np.testing.assert_array_equal(array, BUFFERS[name])


def test_torch_takes_the_state() -> None:
    """The dictionary is one that torch.optim.SGD loads, with settings and buffers."""
    network = module()
    optimizer = torch.optim.SGD(network.parameters(), lr=5)
    optimizer.load_state_dict(STATE.state_dict(network))
    group = optimizer.param_groups[0]
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
    assert [group[name] for name in names] == [0.1, 0.9, 0.0, 1e-4, True]
    for name, parameter in network.named_parameters():
        buffer = optimizer.state[parameter]["momentum_buffer"].numpy()
        np.testing.assert_array_equal(buffer, BUFFERS[name])


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        ({"weight": BUFFERS["weight"]}, "the optimizer is of other parameters: bias"),
        ({**BUFFERS, "more": BUFFERS["bias"]}, "the optimizer is of other parameters: more"),
        ({**BUFFERS, "bias": np.ones(3, "f4")}, "the optimizer is of other parameters: their sha"),
    ],
)
def test_another_module_is_refused(buffers: dict[str, Any], message: str) -> None:
    """Names and shapes have to be those of the module."""
    with pytest.raises(ArtifactError, match=message):
        STATE._replace(buffers=buffers).state_dict(module())


def content(**changed: Any) -> dict[str, Any]:
    fields = STATE._asdict()
    fields["buffers"] = {name: torch.from_numpy(array) for name, array in BUFFERS.items()}
    return {"format": FORMAT, "schema": SCHEMA, **fields, **changed}


SPARSE = torch.eye(2).to_sparse()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([1, 2], "a PyTorch file, but no optimizer's state of relume"),
        ({"format": "relume"}, "a PyTorch file, but no optimizer's state of relume"),
        (content(schema=2), "schema 2, this relume reads 1"),
        (content(buffers=None), "damaged: buffers is not a dictionary of float32 tensors"),
        (content(buffers={"weight": 3}), "damaged: buffers is not a dictionary of float32"),
        (content(buffers={"weight": torch.ones(2).double()}), "damaged: buffers is not a dict"),
        (content(buffers={"weight": SPARSE}), "damaged: buffers is not a dictionary of float32"),
        (content(momentum="much", updates=None), "damaged: no momentum, updates"),
        (content(epoch=2.5), "damaged: no epoch"),
        (content(nesterov=1), "damaged: no nesterov"),
        ({"format": FORMAT, "schema": SCHEMA}, "damaged: buffers is not"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path: Path, saved: Any, message: str) -> None:
    """Another file of PyTorch, another schema, or fields of another kind."""
    torch.save(saved, tmp_path / "state.pt")
    with pytest.raises(ArtifactError, match=message):
        load_optimizer(tmp_path / "state.pt")


def test_a_parameter_is_as_good_as_a_tensor(tmp_path: Path) -> None:
    """Buffers that somebody saved as parameters are read."""
    buffers = {"weight": torch.nn.Parameter(torch.ones(2))}
    torch.save(content(buffers=buffers), tmp_path / "state.pt")
    np.testing.assert_array_equal(load_optimizer(tmp_path / "state.pt").buffers["weight"], [1, 1])


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    """A file that is cut short, or one changed bit of a buffer."""
    path = tmp_path / "state.pt"
    save_optimizer(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"not a \.pt of relume, or damaged"):
        load_optimizer(path)
    at = whole.index(BUFFERS["bias"].tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ArtifactError, match=r"damaged: the checksum of .* differs"):
        load_optimizer(path)
