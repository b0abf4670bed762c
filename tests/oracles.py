"""Expected values of tests: golden files, and fixtures too large to keep with them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"


def golden(relative: str) -> Path:
    """Return the golden file or folder of that name; skip the test where this machine has none.

    Committed files come first. The rest is looked for in the folder that the environment variable
    `RELUME_FIXTURES` names, or else in `shared/fixtures` beside the checkout.
    """
    fixtures = Path(os.environ.get("RELUME_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    for folder in (GOLDEN, fixtures):
        if (folder / relative).exists():
            return folder / relative
    pytest.skip(
        f"{relative} is neither in {GOLDEN} nor in {fixtures}: "
        "set RELUME_FIXTURES to the folder that has it"
    )
