"""The messages that users read, and the tree in which callers catch them."""

import inspect
import pickle
import re

import pytest

from models import errors
from models.errors import FormatError, LegacyModelError, UnsupportedLayer, WeightMismatch
from service.pipeline import Overloaded
from service.problems import Refusal
from service.settings import SettingError

CLASSES = {
    name: found
    for name, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__
}
ELSEWHERE = {"Overloaded": Overloaded, "Refusal": Refusal, "SettingError": SettingError}


def drawn_parents() -> dict[str, str]:
    """Return what the module's drawing says: each class and the one above it."""
    path: list[str] = []
    parents = {}
    drawing = inspect.cleandoc(errors.__doc__ or "").partition("\n")[2]
    for branch, name in re.findall(r"^([│├└─ ]*)([A-Z]\w+)", drawing, re.MULTILINE):
        depth = len(branch) // 3
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


@pytest.mark.parametrize("name", sorted(CLASSES | ELSEWHERE))
def test_every_class_stands_in_the_drawn_tree(name: str) -> None:
    """The tree at the top of the module names every class, under the class it derives from."""
    (base,) = (CLASSES | ELSEWHERE)[name].__bases__
    assert drawn_parents()[name] == base.__name__


def test_the_drawn_tree_has_no_class_that_is_not_there() -> None:
    """Whatever the tree names can be caught."""
    assert drawn_parents().keys() == CLASSES.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("name", sorted(CLASSES | ELSEWHERE))
def test_one_except_catches_them_all(name: str) -> None:
    """Entry points need to know one class only."""
    assert issubclass((CLASSES | ELSEWHERE)[name], LegacyModelError)


@pytest.mark.parametrize(
    "error",
    [
        FormatError("irv2.t7", 7, found="nothing", expected="8 bytes"),
        WeightMismatch("irv2.pt", missing=["conv.weight"]),
        Refusal("overloaded", "33 images wait"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_to_other_processes(error: LegacyModelError) -> None:
    """Class and message arrive, whatever the class was made of."""
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived)) == (type(error), str(error))


@pytest.mark.parametrize(
    ("at", "place"), [(0, "byte 0"), (1234567, "byte 1,234,567"), ("layer 3.0.1", "layer 3.0.1")]
)
def test_format_error_says_where(at: int | str, place: str) -> None:
    """A broken format is reported with its file, byte or layer, what was found, what belongs."""
    error = FormatError("irv2.t7", at, found="2 bytes left", expected="8 for a length")
    assert str(error) == f"irv2.t7: {place}: found 2 bytes left, expected 8 for a length"


@pytest.mark.parametrize(
    ("layers", "start"),
    [
        ([("3.1", "nn.LSTM")], "1 layer cannot be converted exactly: 3.1: nn.LSTM. "),
        (
            [("", "nn.LSTM"), ("1", "nn.GRU")],
            "2 layers cannot be converted exactly: the network itself: nn.LSTM; 1: nn.GRU. ",
        ),
    ],
    ids=["one", "many"],
)
def test_unsupported_layers_are_listed_together(layers: list[tuple[str, str]], start: str) -> None:
    """One error names all layers, and says what to do about them."""
    error = UnsupportedLayer("net.t7", layers)
    advice = "A rule for a layer is one function, see CONTRIBUTING.md; --only safetensors "
    assert str(error) == f"net.t7: {start}{advice}--verify none writes the tensors alone"
    assert error.layers == tuple(layers)


def test_layers_of_one_class_are_named_once() -> None:
    """Many layers of one class make one entry, of which the first paths are shown."""
    error = UnsupportedLayer("net.t7", [(str(n), "nn.LSTM") for n in range(10)])
    assert "10 layers cannot be" in str(error)
    assert "exactly: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more: nn.LSTM. A rule" in str(error)


def test_a_setting_without_an_exact_form_is_no_missing_rule() -> None:
    """Who meets a layer that has a rule is not told to write one."""
    error = UnsupportedLayer("net.t7", [("3", "nn.SoftMax: takes 1 to 4 dimensions")])
    assert str(error).endswith("exactly: 3: nn.SoftMax: takes 1 to 4 dimensions")


@pytest.mark.parametrize(
    ("lists", "end"),
    [
        ({"missing": ["a.weight"]}, "missing: a.weight"),
        ({"unexpected": ["b", "c"]}, "unexpected: b, c"),
        (
            {"missing": ["a"], "unexpected": ["b"], "misshapen": ["c is (2,), expected (3,)"]},
            "missing: a; unexpected: b; misshapen: c is (2,), expected (3,)",
        ),
    ],
    ids=["missing", "unexpected", "all three"],
)
def test_weight_mismatch_lists_every_tensor(lists: dict[str, list[str]], end: str) -> None:
    """Only the lists that have entries are printed, and all of them can be read by a program."""
    error = WeightMismatch("net.pt", **lists)
    assert str(error) == f"net.pt: tensors do not match: {end}"
    for kind in ("missing", "unexpected", "misshapen"):
        assert getattr(error, kind) == tuple(lists.get(kind, ()))
