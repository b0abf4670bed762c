"""What `relume inspect` prints is short, whole and harmless."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import tree
from converters.summary import summary
from converters.tree import WIDTH, printed
from tests.oracles import golden
from tests.t7_writer import Module, Shared, View, write


def lines(tmp_path: Path, value: Any, depth: int = 2) -> list[str]:
    return printed(summary(write(tmp_path / "made.t7", value)), depth).splitlines()


def linear(size: int = 3, **fields: Any) -> Module:
    return Module("nn.Linear", weight=np.ones((2, size), "f4"), **fields)


def sequential(*modules: Module) -> Module:
    return Module("nn.Sequential", modules=list(modules))


def row(found: list[str], path: str) -> list[str]:
    (line,) = [one for one in found if one.split()[:1] == [path]]
    return line.split()


def test_a_module_is_a_line(tmp_path: Path) -> None:
    """Class, parameters with their shapes and type, how many, their bytes, and what is left out."""
    norm = Module("nn.BatchNormalization", running_mean=np.ones(4, "f4"))
    net = sequential(linear(bias=np.ones(2, "f4"), output=np.ones(5, "f4")), norm)
    found = lines(tmp_path, net)
    assert row(found, "0") == [
        *("0", "nn.Linear", "weight", "2x3,", "bias", "2", "float32", "8", "32", "20")
    ]
    assert row(found, "1") == ["1", "nn.BatchNormalization", "16"]


def test_depth_limits_the_tree(tmp_path: Path) -> None:
    """What is below the last level is counted; without levels the account stands alone."""
    net = sequential(sequential(sequential(linear(), Module("nn.Tanh"))))
    found = lines(tmp_path, net, 1)
    assert row(found, "0")[:4] == ["0", "nn.Sequential", "3", "modules"]
    assert not [one for one in found if one.split()[:1] == ["0.0"]]
    assert "path" not in "".join(lines(tmp_path, net, 0))
    assert row(lines(tmp_path, {"a": {"b": {}}}, 1), "a") == ["a", "table", "1", "value"]


def test_siblings_alike_are_folded(tmp_path: Path) -> None:
    """Of three or more of the same classes and shapes in a row, the first stands for all."""
    found = lines(tmp_path, sequential(*(linear() for _ in range(5)), linear(4), linear(4)))
    assert row(found, "1")[1:] == [
        *("to", "4", "4", "more", "of", "the", "same", "classes", "and", "shapes", "24", "96")
    ]
    assert row(found, "5")[1] == row(found, "6")[1] == "nn.Linear"


def test_numbers_in_a_row_are_one_line(tmp_path: Path) -> None:
    """A list of numbers is shown by its beginning, other values one by one up to a bound."""
    found = lines(tmp_path, {"list": [float(n) for n in range(1_000)]})
    assert row(found, "list[1]")[1:5] == ["to", "list[1000]", "1,000", "numbers"]
    many = lines(tmp_path, {f"key{n}": f"value {n}" for n in range(100)})
    assert row(many, "...")[1:] == ["and", "60", "more"]


def test_values_are_written_as_they_are(tmp_path: Path) -> None:
    """Numbers, strings, booleans, nil and infinity can be told apart."""
    values = {"n": 3.0, "s": "3", "b": True, "inf": float("inf"), "long": "z" * 100}
    found = lines(tmp_path, values)
    assert [row(found, key)[1:3] for key in ("n", "s", "b", "inf")] == [
        ["number", "3"],
        ["string", '"3"'],
        ["boolean", "true"],
        ["number", "inf"],
    ]
    assert row(found, "long")[2:] == [f'"{"z" * 60}"', "and", "more"]
    assert row(lines(tmp_path, None), "(the") == ["(the", "file)", "nil", "nil"]


def test_other_kinds_have_lines(tmp_path: Path) -> None:
    """Functions, storages, references and cycles are named."""
    shared = Shared(np.ones(3, "f4"))
    found = lines(tmp_path, {"t": View(shared, (2,), (1,)), "storage": shared, "again": shared})
    assert row(found, "t")[1:4] == ["torch.FloatTensor", "2", "float32"]
    assert row(found, "storage")[1:4] == ["torch.FloatStorage", "3", "numbers"]
    assert row(found, "again")[1:] == ["is", "storage"]
    said = "shared t and storage, again lie in one storage of 12 bytes"
    assert said in " ".join(" ".join(found).split())
    functions = printed(summary(golden("torch7/serialization/functions.t7")), 1).splitlines()
    assert row(functions, "plain")[1:] == [
        "function",
        *("41", "bytes", "of", "code,", "never", "run"),
    ]
    cyclic = printed(summary(golden("torch7/serialization/cyclic.t7")), 1).splitlines()
    assert row(cyclic, "self")[1:] == ["is", "(the", "file),", "which", "holds", "it"]


def test_the_account_names_what_is_shared_and_damaged(tmp_path: Path) -> None:
    """Ties of a network are told with their paths, at most five of a kind."""
    weight = np.ones(3, "f4")
    tied = [Module("nn.Linear", weight=weight) for _ in range(8)]
    text = " ".join(" ".join(lines(tmp_path, sequential(*tied))).split())
    assert (
        "shared tensor 0.weight is also 1.weight, 2.weight, 3.weight, 4.weight, 5.weight "
        "and 2 more" in text
    )
    damaged = printed(summary(golden("torch7/malformed/tensor_storage_nil.t7")), 1)
    assert "  damaged     (the file) reaches element 6 of a storage of 0\n" in damaged
    deep = printed(summary(golden("torch7/malformed/deep_tables.t7.xz")), 1)
    assert "  not listed  99,899 more values, too deep inside or too many\n" in deep


def test_fields_without_a_line_are_counted() -> None:
    """The graph that nngraph keeps beside its modules is told, and left to --json."""
    found = printed(summary(golden("torch7/layers/nngraph_two_in_two_out.t7")), 1).splitlines()
    assert row(found, "(the")[:6] == ["(the", "file)", "nn.gModule", "6", "more", "fields"]


def test_a_piped_table_is_plain(tmp_path: Path) -> None:
    """No colours, no line over 100 characters, and a long path is whole."""
    deep: Any = {"leaf": 1.0}
    names = [f"branch_{n}_of_a_tree_of_many_branches" for n in range(9)]
    for name in reversed(names):
        deep = {name: deep}
    found = lines(tmp_path, deep, 100)
    assert "\x1b" not in "".join(found)
    assert max(map(len, found)) <= WIDTH
    (head,) = [one for one in found if one.startswith("path")]
    column = "".join(one[: head.index("what")].strip() for one in found)
    assert ".".join([*names, "leaf"]) in column


def test_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters of a hostile file are shown, never sent; rich's markup is text."""
    hostile = {"\x1b[2J": "\x1b]0;x\x07", "[bold]": "[red]text[/red]", "\x9b31m": "\u202eabc"}
    text = "\n".join(lines(tmp_path, [hostile, Module("[red]x")]))
    assert all(one.isprintable() for one in text.splitlines())
    assert "[red]text[/red]" in text
    assert "\\u202eabc" in text


def test_more_lines_than_anybody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is cut, and says how much is missing."""
    monkeypatch.setattr(tree, "MAX_ROWS", 10)
    found = lines(tmp_path, sequential(*(linear(n + 1) for n in range(20))))
    assert found[-1] == "... and 11 more; --json lists them all"


def test_numbers_are_whole_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of numbers is as wide as its longest; texts fold instead, or the line is longer."""
    monkeypatch.setattr(tree, "WIDTH", 60)
    found = summary(golden("torch7/checkpoints/checkpoint_float/model_2.t7"))
    lines = tree.printed(found, 3)
    for entry in found["contents"]:
        if entry["kind"] == "module" and entry["depth"] == 1:
            assert f" {entry['bytes']:,}" in lines or not entry["bytes"]
    assert "303,080" in lines or f"{found['parameter_bytes'] + found['statistic_bytes']:,}" in lines
