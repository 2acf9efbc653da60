"""What a worker trains on and how: real data, plain gradient steps, and a start that loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys

import torch
from sklearn.datasets import load_digits

from hqde_ref.nodes.worker import train_steps
from hqde_ref.workloads import load_workload


def test_the_digits_are_those_that_scikit_learn_gives() -> None:
    digits, mine = load_digits(), load_workload("digits-mlp")
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    inputs = torch.from_numpy(digits.data).to(torch.float32)[order] / 16.0
    assert torch.equal(torch.cat([mine.test_inputs, mine.inputs]), inputs)
    assert torch.equal(torch.cat([mine.test_targets, mine.targets]), torch.from_numpy(digits.target)[order].long())


def test_gradient_steps_are_those_of_torch_bit_for_bit() -> None:
    work = load_workload("digits-mlp")
    mine, theirs = work.initial_model(3), work.initial_model(3)
    losses = train_steps(mine, work.inputs[:50], work.targets[:50], steps=20, rate=work.rate)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=work.rate)
    for loss in losses:
        optimizer.zero_grad()
        found = torch.nn.functional.cross_entropy(theirs(work.inputs[:50]), work.targets[:50])
        found.backward()
        optimizer.step()
        assert found.item() == loss
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_a_worker_starts_without_a_compiler_and_without_scikit_learn() -> None:
    script = (
        "import sys; from hqde_ref.nodes.worker import WorkerSpec\n"
        "WorkerSpec(name='w', workload='digits-mlp').build(0)\n"
        "print([name for name in ('torch._dynamo', 'sklearn', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "[]\n"
