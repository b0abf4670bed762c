"""Tests of models/presets.py."""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from models.errors import SpecError
from models.presets import PRESETS, RELEASES, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_its_name(name: str) -> None:
    """Each name on the list gives its convention."""
    assert preset(name) is PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_complete(name: str) -> None:
    """A preset names its source, and its crop fits into what its resize leaves."""
    spec = PRESETS[name]
    assert re.search(r"\.(lua|py)\b", spec.source)
    assert max(spec.crop) <= spec.resize
    assert all(spec.std)


def test_an_unknown_preset_is_refused_with_the_list() -> None:
    """Who misspells a preset reads which there are."""
    with pytest.raises(SpecError, match="--input torch-512: no such preset; there are torch-299 "):
        preset("torch-512")


def test_every_release_leads_to_a_preset() -> None:
    """A known file's digest is a SHA-256, and names a convention that exists."""
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in RELEASES)
    assert set(RELEASES.values()) <= set(PRESETS)


def test_the_crop_of_torch_299_begins_where_lua_begins_it() -> None:
    """328 - 299 is odd; the original takes the upper half, and one pixel decides classes."""
    assert PRESETS["torch-299"].crop_origin == "ceil"


@pytest.mark.parametrize("share", [0.875, 0.8975])
def test_the_resize_of_timm_follows_from_its_crop_share(share: float) -> None:
    """Each states which share of the resized image the crop is; the resize is rounded down."""
    spec = PRESETS[f"timm-299-{share}"]
    assert spec.resize == math.floor(spec.crop[0] / share)


def test_a_convention_may_come_from_a_file(tmp_path: Path) -> None:
    """Whatever the presets are, other networks exist: a .json file says how images enter."""
    path = tmp_path / "cifar.json"
    path.write_text(json.dumps({**asdict(PRESETS["torch-224"]), "resize": 32, "crop": [32, 32]}))
    assert preset(str(path)) == replace(PRESETS["torch-224"], resize=32, crop=(32, 32))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"resize": 32}'])
def test_a_file_without_a_convention_is_refused(tmp_path: Path, text: str) -> None:
    """The message names the file and the fields that belong into it."""
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(
        SpecError, match=r"odd\.json: no input convention .* expected resize, resize_"
    ):
        preset(str(path))
