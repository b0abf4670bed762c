"""Reports: the worst of what was measured, and an exact JSON form."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.report import Measured, Report

SHAPES = ((1, 3, 8, 8),)
NUMBERS = st.floats(0, 1e30, allow_subnormal=False)
REPORTS = st.builds(
    Report,
    st.lists(
        st.builds(
            Measured,
            st.lists(st.lists(st.integers(1, 9)).map(tuple), min_size=1).map(tuple),
            NUMBERS,
            st.none() | NUMBERS,
            NUMBERS,
            st.sampled_from([None, True, False]),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    st.none() | st.integers(1, 30),
)


@given(REPORTS)
def test_json_is_read_back_equal(report: Report) -> None:
    """`from_json` is the inverse of `to_json`, to the last bit of every number."""
    assert Report.from_json(report.to_json()) == report


@given(REPORTS)
def test_the_worst_counts(report: Report) -> None:
    """No comparison is better than what the report says of all."""
    assert all(one.noise <= report.noise for one in report.measured)
    assert all(one.max_abs <= report.max_abs for one in report.measured if one.max_abs is not None)


def test_without_onnx_the_modules_own_difference_counts() -> None:
    """What was written is the `.pt`, whose difference is the noise."""
    ours = Measured(SHAPES, 3e-7, None, 6e-7, None)
    assert Report((ours,), None).max_abs == 3e-7
    assert Report((ours, Measured(SHAPES, 3e-7, 1e-7, 6e-7, None)), 18).max_abs == 3e-7


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ((True, True), True),
        ((True, False), False),
        ((None, True), True),
        ((None, None), None),
    ],
)
def test_classes_agree_only_if_they_agree_everywhere(
    each: tuple[bool | None, ...], expected: bool | None
) -> None:
    """Comparisons without classes say nothing about them."""
    measured = tuple(Measured(SHAPES, 0.0, 0.0, 0.0, one) for one in each)
    assert Report(measured, 18).top5_equal is expected


SOUND: dict[str, Any] = json.loads(Report((Measured(SHAPES, 0.0, 0.0, 0.0, None),), 18).to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "{}",
        json.dumps({"measured": [], "ops": 18}),
        json.dumps(SOUND | {"measured": [{"inputs": []}]}),
        json.dumps(SOUND | {"measured": [SOUND["measured"][0] | {"extra": 1}]}),
        json.dumps(SOUND | {"measured": [SOUND["measured"][0] | {"inputs": 3}]}),
        *(
            json.dumps(SOUND | {"measured": [SOUND["measured"][0] | {name: "x"}]})
            for name in ("noise", "max_abs", "bound", "top5_equal")
        ),
        json.dumps(SOUND | {"measured": 3}),
        json.dumps(SOUND | {"measured": []}),
    ],
    ids=lambda text: text[:40],
)
def test_text_that_is_no_report_is_refused(text: str) -> None:
    """Whatever is wrong with the text, the error is ours and names the file."""
    with pytest.raises(ArtifactError, match=r"^net\.pt: damaged report: "):
        Report.from_json(text, "net.pt")
