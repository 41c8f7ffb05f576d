"""Where no memory limit is set, a share of the machine's memory is one; the machines here are made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actisketch.pipeline.planning.machine_memory import UsableMemory
from actisketch.pipeline.planning.memory import NetworkNeeds
from actisketch.pipeline.planning.plan import Plan, make_plan
from actisketch.pipeline.settings.loading import validate_job
from actisketch.storage import PointSpec
from actisketch.storage.errors import OverBudgetError

GIB = 2**30
SMALL = [PointSpec(name="conv", shape=(28, 28, 16))]
# 64 MiB for a sample, so 2 GiB for a batch of 32.
LARGE = [PointSpec(name=f"conv{i}", shape=(2**22,)) for i in range(4)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make this a machine of so many GiB."""

    def make(gib: float, whose: str = "of this machine") -> None:
        usable = UsableMemory(int(gib * GIB), whose)
        monkeypatch.setattr("actisketch.pipeline.planning.memory_limit.usable_memory", lambda: usable)

    return make


def plan_of(
    points: list[PointSpec],
    n_samples: int = 10_007,
    *,
    n_bytes: int = 0,
    tensor_nbytes: int = 0,
    **record: Any,
) -> Plan:
    others = {name: record.pop(name) for name in ("block_samples", "is_remote") if name in record}
    network = NetworkNeeds(points=tuple(points), model_nbytes=n_bytes, largest_tensor_nbytes=tensor_nbytes)
    return make_plan(validate_job({"record": record}), network, n_samples=n_samples, **others)


@pytest.mark.parametrize(
    ("record", "gib", "of_gib", "n_processes"),
    [
        ({}, 6, 10, 1),
        ({"workers": 1}, 6, 10, 1),
        ({"workers": 4}, 1.5, 10, 4),
        ({"scheduler": "tcp://head:8786"}, 4, None, 1),
        ({"is_remote": True}, 4, None, 1),
    ],
    ids=["here", "one worker", "workers share", "a scheduler", "the caller's cluster"],
)
def test_the_default_is_a_share_of_the_machine_that_does_the_work(
    machine: Any, record: dict[str, Any], gib: float, of_gib: int | None, n_processes: int
) -> None:
    machine(10)
    plan = plan_of(SMALL, **record)
    said = plan.to_dict()

    assert said["memory_limit"] == gib * GIB
    assert said["default_limit"] == {
        "nbytes": gib * GIB,
        "of_nbytes": None if of_gib is None else of_gib * GIB,
        "of": None if of_gib is None else "of this machine",
        "n_processes": n_processes,
    }


@pytest.mark.parametrize("record", [{}, {"workers": 4}, {"scheduler": "tcp://head:8786"}], ids=str)
def test_a_limit_that_is_set_is_the_limit_on_every_machine(machine: Any, record: dict[str, Any]) -> None:
    plans = []
    for gib in (1, 1000):
        machine(gib)
        plans.append(plan_of(LARGE, batch_size=4, memory_limit="3 GiB", **record))

    assert plans[0] == plans[1]
    assert (plans[0].memory_limit, plans[0].to_dict()["default_limit"]) == (3 * GIB, None)


@pytest.mark.parametrize("activations", [True, False])
def test_the_same_job_makes_the_same_blocks_on_machines_of_all_usual_sizes(
    machine: Any, activations: bool
) -> None:
    sizes = {}
    for gib in (2, 7, 16, 512):
        machine(gib)
        plan = plan_of(LARGE, batch_size=1, activations=activations, block_samples=None)
        sizes[gib] = plan.block_samples
        assert plan.memory.total <= plan.memory_limit
    machine(16)
    set_by_hand = plan_of(LARGE, batch_size=1, activations=activations, memory_limit=4 * GIB)

    assert sizes[7] == sizes[16] == sizes[512] == set_by_hand.block_samples
    assert sizes[2] <= sizes[7]


def test_a_network_that_needs_more_than_usual_has_blocks_for_what_the_machine_allows(machine: Any) -> None:
    machine(64)
    plan = plan_of(LARGE, batch_size=1, n_bytes=5 * GIB)
    set_by_hand = plan_of(LARGE, batch_size=1, n_bytes=5 * GIB, memory_limit=int(0.6 * 64 * GIB))

    assert plan.memory.total > 4 * GIB
    assert plan.block_samples == set_by_hand.block_samples > 1
    plan.check(cache_path=None)


def test_a_cache_keeps_its_blocks_on_a_smaller_machine(machine: Any) -> None:
    machine(64)
    made = plan_of(LARGE, batch_size=1)
    machine(3)
    resumed = plan_of(LARGE, batch_size=1, block_samples=made.block_samples)

    assert resumed.block_samples == made.block_samples


SMALLER = "use a smaller record.batch_size than 128, or"
ANOTHER = f"{SMALLER} run it on a machine with more memory"
TOLD = {
    "set it": (
        {},
        (12, "of this machine"),
        f"allows 7.2 GiB, the default, 60 % of the 12.0 GiB of this machine: {SMALLER} set record.memory_limit to 8.",
    ),
    "another machine": (
        {},
        (8, "that the control group allows"),
        f"allows 4.8 GiB, the default, 60 % of the 8.0 GiB that the control group allows: {ANOTHER}",
    ),
    "fewer workers": (
        {"workers": 4},
        (20, "of this machine"),
        f"allows 3.0 GiB, the default, 60 % of the 20.0 GiB of this machine, shared by 4 workers: {ANOTHER}, or use",
    ),
    "a cluster": (
        {"is_remote": True},
        (2, "of this machine"),
        f"allows 4.0 GiB, the default for each worker of a cluster: {SMALLER} set record.memory_limit to 8.",
    ),
    "not the default": (
        {"memory_limit": "5 GiB"},
        (2, "of this machine"),
        f"allows 5.0 GiB: {SMALLER} raise record.memory_limit to 8.",
    ),
}


@pytest.mark.parametrize(("record", "memory", "told"), TOLD.values(), ids=TOLD)
def test_a_run_that_does_not_fit_is_told_of_the_default_and_what_to_do(
    machine: Any, record: dict[str, Any], memory: tuple[int, str], told: str
) -> None:
    machine(*memory)
    # The network holds its largest tensor twice at most: 8 GiB for a batch.
    plan = plan_of(SMALL, batch_size=128, tensor_nbytes=8 * GIB // 128 // 2, **record)

    with pytest.raises(OverBudgetError) as caught:
        plan.check(cache_path=None)
    assert told in str(caught.value)
