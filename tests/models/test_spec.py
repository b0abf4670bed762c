"""Tests of models/spec.py."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.presets import PRESETS
from models.spec import SCHEMA, CropOrigin, InputSpec, Label, ModelSpec, Origin, Output, Resample

SPEC = ModelSpec(
    name="irv2",
    input=PRESETS["torch-299"],
    labels=(Label("n01440764", "tench, Tinca tinca"), Label(None, "1")),
    output="logits",
    architecture="inception_resnet_v2",
    origin=Origin("torch7-binary", "irv2.t7", "0" * 64, "fingerprint"),
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TRIPLES = st.tuples(NUMBERS, NUMBERS, NUMBERS)
DIVISORS = st.floats(min_value=1e-6, max_value=1e6)
SIZES = st.integers(1, 100_000)
INPUTS = st.builds(
    InputSpec,
    resize=SIZES,
    resize_mode=st.sampled_from(["shorter", "exact"]),
    resample=st.sampled_from(get_args(Resample)),
    crop=st.tuples(SIZES, SIZES),
    crop_origin=st.sampled_from(get_args(CropOrigin)),
    order=st.sampled_from(["RGB", "BGR"]),
    scale=DIVISORS,
    mean=TRIPLES,
    std=st.tuples(DIVISORS, DIVISORS, DIVISORS),
    source=st.text(),
)
SPECS = st.builds(
    ModelSpec,
    name=st.text(),
    input=st.none() | INPUTS,
    labels=st.lists(st.builds(Label, st.none() | st.text(), st.text())).map(tuple),
    output=st.sampled_from(get_args(Output)),
    architecture=st.none() | st.text(),
    origin=st.builds(
        Origin,
        format=st.text(),
        file=st.text(),
        sha256=st.text(),
        decided_by=st.sampled_from(["flag", "sha256", "fingerprint"]),
    ),
)


@given(SPECS)
def test_json_gives_back_an_equal_spec(spec: ModelSpec) -> None:
    """Whatever a spec says, `from_json(to_json())` says the same, number for number."""
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_the_artifact(name: str) -> None:
    """Each preset's numbers come back from JSON as they went in."""
    spec = replace(SPEC, input=PRESETS[name])
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_a_network_without_images_has_no_input_convention() -> None:
    """`input` of null is None, not a default."""
    assert ModelSpec.from_json(replace(SPEC, input=None).to_json()).input is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"spec"', "{}", "[" * 100_000])
def test_text_that_is_no_spec_is_refused(text: str) -> None:
    """Any other text is an error that names the file it was found in."""
    with pytest.raises(ArtifactError, match="^irv2.onnx: not a relume model spec$"):
        ModelSpec.from_json(text, where="irv2.onnx")


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, None, "1"])
def test_another_schema_is_refused(schema: object) -> None:
    """A text of a newer relume is not read as if it were of this one."""
    text = json.dumps({**json.loads(SPEC.to_json()), "schema": schema})
    with pytest.raises(ArtifactError, match="spec schema .*, this relume reads 1: use the relume"):
        ModelSpec.from_json(text)


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": 7}, "7 is not str"),
    "output": ({"output": "softmax"}, "'softmax' is none of logits, log_probabilities, "),
    "labels": ({"labels": 5}, "not iterable"),
    "label": ({"labels": [["n01440764", 7]]}, "7 is not str"),
    "label of three": ({"labels": [["n01440764", "tench", "fish"]]}, "too many values"),
    "input": ({"input": 5}, "not subscriptable"),
    "origin": ({"origin": {"format": "torch7-binary"}}, "missing 3 required"),
    "origin of numbers": ({"origin": {"format": 7}}, "7 is not str"),
    "wnid": ({"labels": [[1440764, "tench"]]}, "1440764 is not str"),
    "architecture": ({"architecture": 4}, "4 is not str"),
    "origin with more": ({"origin": {"licence": "MIT"}}, "unexpected keyword argument 'licence'"),
}
INPUT_DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "resize": ({"resize": 0}, "0 is not a positive size"),
    "fractional resize": ({"resize": 299.5}, "299.5 is not int"),
    "mode": ({"resize_mode": "longer"}, "'longer' is none of shorter, exact"),
    "resample": ({"resample": "nearest"}, "'nearest' is none of torch7-bicubic, "),
    "crop": ({"crop": [299]}, "not enough values"),
    "negative crop": ({"crop": [299, -1]}, "-1 is not a positive size"),
    "origin": ({"crop_origin": "round"}, "'round' is none of ceil, floor, half-even"),
    "order": ({"order": "GRB"}, "'GRB' is none of RGB, BGR"),
    "mean": ({"mean": [0.5, 0.5]}, "mean and std need three numbers each, no std of 0"),
    "mean of text": ({"mean": ["grey", 0, 0]}, "could not convert"),
    "std": ({"std": [1, 1, 0]}, "mean and std need three numbers each, no std of 0"),
    "infinite mean": ({"mean": [float("inf"), 0, 0]}, "inf is not a finite number"),
    "huge std": ({"std": [1, 1, 10**400]}, "too large to convert"),
    "scale": ({"scale": None}, "float.. argument must be"),
    "scale of 0": ({"scale": 0}, "a scale of 0 leaves no picture"),
    "source": ({"source": None}, "None is not str"),
    "unknown": ({"gamma": 2.2}, "unexpected keyword argument 'gamma'"),
}


def damaged(fields: dict[str, Any]) -> str:
    return json.dumps({**json.loads(SPEC.to_json()), **fields})


@pytest.mark.parametrize(("fields", "what"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_spec_is_refused(fields: dict[str, Any], what: str) -> None:
    """What does not fit its field is an error that names the file and the value."""
    with pytest.raises(ArtifactError, match=f"^irv2.onnx: damaged model spec: .*{what}"):
        ModelSpec.from_json(damaged(fields), where="irv2.onnx")


@pytest.mark.parametrize(("fields", "what"), INPUT_DAMAGE.values(), ids=INPUT_DAMAGE)
def test_a_damaged_input_convention_is_refused(fields: dict[str, Any], what: str) -> None:
    """A convention is complete and possible, or it is an error: pixels are never guessed."""
    convention = {**json.loads(SPEC.to_json())["input"], **fields}
    with pytest.raises(ArtifactError, match=f"damaged model spec: .*{what}"):
        ModelSpec.from_json(damaged({"input": convention}))


def test_a_reason_that_does_not_exist_is_refused() -> None:
    """What chose the convention is one of four, as the artifact's reader may rely on."""
    origin = {**json.loads(SPEC.to_json())["origin"], "decided_by": "guess"}
    with pytest.raises(ArtifactError, match="'guess' is none of flag, sha256, names, fingerprint"):
        ModelSpec.from_json(damaged({"origin": origin}))


@pytest.mark.parametrize("field", sorted(json.loads(SPEC.to_json()).keys() - {"schema"}))
def test_a_spec_without_a_field_is_refused(field: str) -> None:
    """No field of a spec has a default."""
    fields = json.loads(SPEC.to_json())
    del fields[field]
    with pytest.raises(ArtifactError, match=f"damaged model spec: '{field}'"):
        ModelSpec.from_json(json.dumps(fields))


@pytest.mark.parametrize("field", json.loads(SPEC.to_json())["input"])
def test_a_convention_without_a_field_is_refused(field: str) -> None:
    """No field of an input convention has a default either."""
    convention = json.loads(SPEC.to_json())["input"]
    del convention[field]
    with pytest.raises(ArtifactError, match=f"damaged model spec: .*'{field}'"):
        ModelSpec.from_json(damaged({"input": convention}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(json.loads(SPEC.to_json()))), JSON)
def test_any_value_in_any_field_is_a_spec_or_our_error(field: str, value: Any) -> None:
    """No JSON value in a field raises anything but ArtifactError."""
    with suppress(ArtifactError):
        ModelSpec.from_json(damaged({field: value}))


@given(st.sampled_from(sorted(json.loads(SPEC.to_json())["input"])), JSON)
def test_any_value_in_a_convention_is_printable_or_our_error(field: str, value: Any) -> None:
    """A convention that is read can also be printed."""
    convention = {**json.loads(SPEC.to_json())["input"], field: value}
    try:
        spec = ModelSpec.from_json(damaged({"input": convention}))
    except ArtifactError:
        return
    assert " | " in str(spec.input)


def test_an_input_convention_is_printed_on_one_line() -> None:
    """The line shows every number that decides a pixel's value."""
    assert str(PRESETS["torch-299"]) == (
        "shorter 328 torch7-bicubic | crop 299x299 ceil | RGB x 1/255 "
        "| mean 0.485 0.456 0.406 | std 0.229 0.224 0.225"
    )
    assert " | RGB x 1 | mean 127 127 127 | " in str(PRESETS["efficientnet-lite0"])
