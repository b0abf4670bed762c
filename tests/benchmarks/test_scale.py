"""The simulations of docs/scaling.md agree with what formulas say where there are formulas."""

import json
from dataclasses import fields

import numpy as np
import pytest

from benchmarks.scale import COMMANDS, GPUS, Bulk, Burst, Serve, bulk, burst, main, waits

SMALL = Bulk(images=100_000, image_s=0.05)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_random_replicas_wait_as_the_formula_of_one_says(load: float) -> None:
    """Mean wait of M/D/1, load / (2 (1 - load)), within 5 %: 160,000 requests leave 2 % of chance.

    Source: Pollaczek and Khinchine's formula, for a service time that is always the same.
    """
    mean = waits(Serve(load=load), 100, "random").mean()
    assert mean == pytest.approx(load / (2 * (1 - load)), rel=0.05)


def test_the_more_a_router_knows_the_less_is_waited() -> None:
    """One queue is the best there is, the shorter of two comes near, chance is the worst."""
    means = [waits(Serve(requests=50_000), 100, p).mean() for p in ("one queue", "two", "random")]
    assert means == sorted(means)
    assert means[1] < means[2] / 3


def test_one_replica_waits_the_same_whoever_routes() -> None:
    """With nothing to choose the policies are one."""
    answers = [waits(Serve(requests=5_000), 1, p) for p in ("one queue", "two", "random")]
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("workers", [1, 7, 100])
def test_no_job_beats_the_ideal(workers: int, shared: bool) -> None:
    """Nothing lost and nobody idle is the least that it takes."""
    done = bulk(SMALL, workers, 1_000, shared=shared)
    assert done.end_s >= done.ideal_s * (1 - 1e-9)


def test_one_worker_that_never_fails_takes_the_ideal() -> None:
    """Images times seconds, and not more."""
    calm = Bulk(images=10_000, image_s=0.1, spread=0.0, failure_h=1e9)
    assert bulk(calm, 1, 100, shared=False).end_s == pytest.approx(1_000)


def test_failures_cost_what_was_begun() -> None:
    """Parts that take as long as a worker lives cost far more than small ones."""
    failing = Bulk(images=100_000, image_s=0.1, spread=0.0, failure_h=1.0, restart_s=10.0)
    small, large = (bulk(failing, 4, part, shared=True).end_s for part in (100, 25_000))
    assert large > 1.3 * small


def test_load_that_fits_needs_nobody_else() -> None:
    """Where nothing waits and the processors are below their target all stays as it is."""
    seconds = list(burst(Burst(load=0.3, factor=1.5)))
    assert {one.pods for one in seconds} == {1000}
    assert sum(one.refused for one in seconds) == 0


def test_a_queue_alone_is_scaled_down_too_early() -> None:
    """An empty queue says nothing about the processors: with both, nothing is refused later."""
    alone, both = (
        sum(one.refused for one in burst(Burst(cpu=cpu)) if one.at > 120) for cpu in (0.0, 0.7)
    )
    assert alone > 0
    assert both == 0


@pytest.mark.parametrize("command", ["serve", "burst", "gpu"])
def test_the_same_flags_give_the_same_figures(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the documents show can be had again."""
    flags = ["--requests", "1000"] if command == "serve" else []
    said = []
    for _ in range(2):
        assert main([command, *flags, "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1]
    assert said[0]["rows"]


def test_gpus_are_slower_in_float32() -> None:
    """A row of the table that was typed the wrong way round is found."""
    assert all(full < half for full, half in GPUS.values())


def test_the_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row has the cells of the head."""
    main(["gpu"])
    _, *rows = capsys.readouterr().out.splitlines()
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 2 + 2 * len(GPUS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["serve", "--load", "0"], "argument --load: '0' is not a number from 0.01"),
        (["serve", "--load", "1"], "argument --load: '1' is more than 0.99"),
        (["serve", "--requests", "0"], "argument --requests: '0' is not a whole number from 1"),
        (["serve", "--seed", "-1"], "argument --seed: '-1' is not a whole number from 0"),
        (["bulk", "--failure-h", "0"], "argument --failure-h: '0' is not a number from 0.001"),
        (["bulk", "--failure-h", "0.01"], "a part of 10,000 images is more than a worker does"),
        (["bulk", "--image-s", "nan"], "argument --image-s: 'nan' is not a number from 1e-06"),
        (["burst", "--start-s", "0"], "argument --start-s: '0' is not a number from 1"),
        (["burst", "--target", "0"], "argument --target: '0' is not a number from 0.01"),
        (["burst", "--replicas", "0"], "argument --replicas: '0' is not a whole number from 1"),
        (["gpu", "--gmac", "0"], "argument --gmac: '0' is not a number from 1e-06"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_numbers_without_sense_are_usage(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would be divided by, or simulated for ever."""
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", [kind for kind, _ in COMMANDS.values()])
def test_defaults_are_among_what_is_taken(kind: type) -> None:
    """Each field's own reader takes its default, and says the same."""
    for one in fields(kind):
        assert one.metadata["read"](str(one.default)) == one.default


def test_the_least_and_the_most_are_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    """At the ends of what the flags take there are figures, too."""
    assert main(["serve", "--load", "0.01", "--requests", "1", "--json"]) == 0
    ends = ["--start-s", "1", "--lag-s", "0", "--target", "0.01", "--replicas", "1"]
    assert main(["burst", *ends, "--json"]) == 0
    assert main(["gpu", "--share", "1", "--feed-ms", "0", "--json"]) == 0
    assert all(json.loads(line)["rows"] for line in capsys.readouterr().out.splitlines())
