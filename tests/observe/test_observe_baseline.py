"""What is far from usual, in numbers: quiet on noise of every kind, and not deaf."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from ratatouille.observe.baseline import confirmed, moved, pace, strange, usual
from ratatouille.project.records import Limits

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "false_alarms.py"
TIME, ROWS = Limits(0.10, 0.25), Limits(0.50, 0.0)


@pytest.fixture(scope="module")
def rates() -> ModuleType:
    spec = importlib.util.spec_from_file_location("false_alarms", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_far_is_beyond_the_threshold_the_noise_the_floor_and_what_was() -> None:
    calm = usual([10.0, 10.1, 9.9, 10.0, 10.2, 9.8])
    assert [calm.level(now, TIME, 0.5) for now in (10.4, 11.2, 13.0)] == ["", "warn", "fail"]
    assert calm.level(11.2, TIME, 5.0) == ""
    noisy = usual([10.0, 14.0, 8.0, 12.0, 7.0, 13.0])
    assert [noisy.level(now, TIME, 0.5) for now in (15.0, 40.0)] == ["", "fail"]
    with_an_outlier = usual([10.0] * 10 + [20.0, 20.0])
    assert with_an_outlier.level(20.0, TIME, 0.5) == "", "it happens now and then"
    assert usual([10.0] * 11 + [90.0]).level(20.0, TIME, 0.5) == "fail", "one accident is forgiven"
    assert [confirmed(x) for x in ([], ["warn", ""], ["", "fail"], ["warn", "fail"], ["fail", "fail"])] == [
        "", "", "suspect", "warn", "fail",
    ]  # fmt: skip


def test_seconds_are_those_for_so_many_rows() -> None:
    learnt = pace([100, 200, 300, 400, 800, 1000], [3.0, 5.0, 7.0, 9.0, 17.0, 21.0])
    assert learnt.expected(2000) == pytest.approx(41.0)
    same = pace([1000] * 6, [10.0] * 6)
    assert (same.expected(1000), same.expected(3000), same.expected(100)) == (10.0, 30.0, 10.0)


def test_rows_are_strange_when_no_step_before_had_about_so_many() -> None:
    growing = [1000.0 * 1.3**n for n in range(8)]
    assert strange(1000 * 1.3**8, growing, ROWS) == ""
    assert strange(growing[-1] * 5, growing, ROWS) == "warn"
    assert strange(0.0, growing, ROWS) == "warn"
    weekly = [1000.0, 1010.0, 990.0, 200.0, 210.0, 1000.0, 1005.0, 995.0]
    assert (strange(205.0, weekly, ROWS), strange(20.0, weekly, ROWS)) == ("", "warn")


def test_a_share_moves_by_points() -> None:
    assert moved(0.07, [0.01, 0.02, 0.01], Limits(0.05, 0.10)) == "warn"
    assert moved(0.04, [0.01, 0.02, 0.01], Limits(0.05, 0.10)) == ""
    assert moved(0.50, [0.1, 0.5, 0.1], Limits(0.05, 0.10)) == ""


def test_noise_is_not_cried_about_and_a_slow_step_is_seen(rates: ModuleType) -> None:
    at = (6, 80, 7)
    for name, most in (("usual, 8 %", 1.0), ("noisy, 20 %", 1.0), ("a neighbour, 1 run in 10", 9.0)):
        assert rates.false_rate("seconds", rates.NOISES[name], rates.same, *at)[1] <= most, name
    for volume in rates.VOLUMES.values():
        assert rates.false_rate("rows", rates.NOISES["usual, 8 %"], volume, *at)[1] <= 5.0
    usual_noise = rates.NOISES["usual, 8 %"]
    assert rates.detection("seconds", {"seconds": 1.6}, usual_noise, rates.growing, *at) == (1.0, 2)
    assert rates.detection("rows", {"rows": 0.0}, usual_noise, rates.same, *at) == (1.0, 1)
