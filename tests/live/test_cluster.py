"""Faults of Ray: a node removed from a cluster of three, requests and responses lost; each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.live.rounds import WAYS

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(300)]


def _run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("way", "stage"),
    [
        pytest.param(way, stage, marks=() if (way, stage) == ("tree", "screen") else pytest.mark.live)
        for way, stage in (
            ("tree", "train"),
            ("tree", "screen"),
            ("tree", "combine"),
            ("sharded", "combine"),
            ("crowded", "screen"),
            ("crowded mean", "combine"),
        )
    ],
)
def test_a_node_removed_in_mid_round_costs_at_most_its_members_and_the_next_is_whole(way: str, stage: str) -> None:
    """What must hold is asserted there; here, that nothing was raised."""
    _run("tests.live.three_nodes", way, stage)


@pytest.mark.live
def test_a_scenario_of_several_nodes_runs_on_a_cluster_whose_address_is_given() -> None:
    _run("tests.live.by_address")


@pytest.mark.live
def test_a_host_of_a_lost_node_is_named_until_ray_notices_and_then_started_elsewhere() -> None:
    _run("tests.live.unnoticed_node")


@pytest.mark.live
@pytest.mark.parametrize("stage", ["put", "look"])
def test_acknowledged_writes_survive_the_removal_of_one_node_and_then_of_another(stage: str) -> None:
    _run("tests.live.three_nodes_store", stage)


def _losing(lost: str) -> str:
    """What makes Ray lose messages, as it wants to be told: a quarter of them, until a process has lost twelve.

    Starting six hosts uses up two of these; were it half of the messages, few or none would be left for the rounds.
    """
    percent = 13 if lost == "both" else 25
    failures = {
        "CoreWorkerService.grpc_client.PushTask": {
            "num_failures": 12,
            "req_failure_prob": percent if lost in ("requests", "both") else 0,
            "resp_failure_prob": percent if lost in ("responses", "both") else 0,
            "in_flight_failure_prob": 0,
        }
    }
    return json.dumps(failures)


@pytest.mark.parametrize(
    ("way", "lost"),
    [
        pytest.param(way, lost, marks=() if (way, lost) == ("sharded", "requests") else pytest.mark.live)
        for way in WAYS
        for lost in ("requests", "responses", "both")
    ],
)
def test_messages_that_ray_loses_change_no_result_and_nobody_counts_twice(way: str, lost: str) -> None:
    """Five rounds are 50 messages or more, so that the sixth has hardly any to lose: see ``rounds`` there."""
    _run("tests.live.lost_messages", "rounds", way, RAY_testing_rpc_failure=_losing(lost))


@pytest.mark.live
@pytest.mark.parametrize("lost", ["requests", "responses", "both"])
def test_messages_that_ray_loses_cost_no_acknowledged_write_of_the_store(lost: str) -> None:
    _run("tests.live.lost_messages", "stores", RAY_testing_rpc_failure=_losing(lost))
