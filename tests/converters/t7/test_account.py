"""Bytes of a file are counted once, whoever looks at them."""

from pathlib import Path
from typing import Any

import numpy as np

from converters.t7 import reader
from converters.t7.account import Account, shared
from converters.t7.contents import Contents
from tests.oracles import golden
from tests.t7_writer import Module, Shared, Sizes, View, write


def opened(tmp_path: Path, value: Any) -> tuple[Account, list[dict[str, Any]]]:
    found = Contents(reader.read(write(tmp_path / "made.t7", value)))
    return Account(found.entries), shared(found.entries)


def test_one_storage_under_all_parameters(tmp_path: Path) -> None:
    """After getParameters every parameter lies in one storage, which is paid for once."""
    flat = Shared(np.zeros(10, "f4"))
    linear = Module("nn.Linear", weight=View(flat, (2, 3), (3, 1)), bias=View(flat, (2,), (1,), 6))
    account, found = opened(tmp_path, linear)
    assert account.elements["parameter"] == 8
    assert account.bytes["parameter"] == account.storage_bytes == 40
    (storage,) = found
    assert (storage["kind"], storage["bytes"], storage["tied"]) == ("storage", 40, True)
    assert storage["paths"] == ["weight", "bias"]


def test_a_storage_counts_for_what_is_kept(tmp_path: Path) -> None:
    """Where state lies in a parameter's storage, leaving the state out saves nothing."""
    both = Shared(np.zeros(4, "f4"))
    linear = Module("nn.Linear", gradWeight=View(both, (4,), (1,)), weight=View(both, (2,), (1,)))
    account, _ = opened(tmp_path, linear)
    assert account.bytes == {"parameter": 16}
    assert account.state == {"gradWeight": [1, 16]}


def test_what_is_tied(tmp_path: Path) -> None:
    """What a network uses twice is a tie; a tensor that is also an output is not."""
    weight = np.ones(3, "f4")
    again = Module("nn.Linear", weight=weight, output=weight)
    tower = Module("nn.ReLU")
    net = Module("nn.Sequential", modules=[Module("nn.Linear", weight=weight), again, tower, tower])
    _, found = opened(tmp_path, net)
    ties = {one["paths"][0]: (one["kind"], one["tied"], one["paths"]) for one in found}
    assert ties == {
        "0.weight": ("tensor", True, ["0.weight", "1.weight", "1.output"]),
        "2": ("module", True, ["2", "3"]),
    }
    lone = Module("nn.Linear", weight=weight, output=weight)
    _, found = opened(tmp_path, lone)
    assert [one["tied"] for one in found] == [False]


def test_a_storage_by_itself(tmp_path: Path) -> None:
    """A storage without a tensor is paid for; one with a tensor is shared with it."""
    both = Shared(np.zeros(4, "f4"))
    account, found = opened(tmp_path, [Sizes(1, 2), both, View(both, (2,), (1,))])
    assert account.bytes == {"other": 32}
    assert [one["paths"] for one in found] == [["[2]", "[3]"]]


def test_sums_go_up(tmp_path: Path) -> None:
    """A container weighs what is in it."""
    inner = Module("nn.Linear", weight=np.ones((2, 3), "f8"), output=np.ones(5, "f4"))
    net = Module("nn.Sequential", modules=[Module("nn.Sequential", modules=[inner])])
    found = Contents(reader.read(write(tmp_path / "made.t7", net)))
    account = Account(found.entries)
    assert [account.below[one] for one in found.entries[:3]] == [[6, 48, 20]] * 3


def test_text_is_weighed_as_it_lies_in_the_file() -> None:
    """A number of a text file has as many bytes as digits."""
    found = Contents(reader.read(golden("torch7/serialization/module_linear_ascii.t7")))
    account = Account(found.entries)
    assert account.elements["parameter"] == 8
    assert account.bytes["parameter"] > 8 * 8


def test_damage_is_told() -> None:
    """A tensor without its elements is named, and counts for nothing."""
    for name, said in (
        ("tensor_storage_nil", "reaches element 6 of a storage of 0"),
        ("tensor_stride_outside", "reaches element 7 of a storage of 6"),
        ("tensor_expanded_huge", "repeats 1 elements as 2,251,799,812,636,672"),
    ):
        found = Contents(reader.read(golden(f"torch7/malformed/{name}.t7")))
        account = Account(found.entries)
        assert account.damaged == {"": said}
        assert account.elements.total() == 0


def test_a_stride_that_no_memory_has_is_damage(tmp_path: Path) -> None:
    """What has no array is told, also where the stride of a size of 1 leads nowhere."""
    account, _ = opened(tmp_path, View(Shared(np.zeros(6, "f4")), (1,), (1 << 61,)))
    assert account.damaged == {"": "has strides (2305843009213693952,), beyond memory"}
    largest, _ = opened(tmp_path, View(Shared(np.zeros(6, "f4")), (1,), ((1 << 61) - 1,)))
    assert largest.damaged == {}
    assert reader.read(tmp_path / "made.t7").array().shape == (1,)
