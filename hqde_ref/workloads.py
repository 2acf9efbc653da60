"""What an ensemble trains on: real data with a small model, chosen by name.

Source: the digits are the UCI handwritten digits (Alpaydin and Kaynak 1998), shipped inside scikit-learn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import message

__all__ = ["WORKLOADS", "Workload", "load_workload"]


@message
class Workload:
    """Data and a model.

    Attributes:
        inputs, targets: training rows, (n, features) float32 and (n,) int64.
        test_inputs, test_targets: held-out rows.
        make_model: a fresh model, drawn from torch's current random state.
        rate: of plain stochastic gradient descent.
    """

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    make_model: Callable[[], nn.Module]
    rate: float

    def initial_model(self, seed: int) -> nn.Module:
        """The model that a seed gives; torch's random state is as before afterwards (clause 0.12)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make_model()


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def _read_digits() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The file itself, 64 pixels and the digit a row: importing scikit-learn takes every process seconds."""
    found = importlib.util.find_spec("sklearn")  # an extra: only this workload needs it
    if found is None or found.origin is None:
        raise ConfigurationError(
            setting="workload",
            wanted="one whose data is installed",
            got="digits-mlp",
            do="pip install 'hqde-ref[demo]' brings scikit-learn, which ships the digits",
        )
    return np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")


def _digits_mlp() -> Workload:
    digits = _read_digits()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    inputs = torch.from_numpy(digits[:, :-1]).to(torch.float32)[order] / 16.0
    targets = torch.from_numpy(digits[:, -1]).to(torch.int64)[order]
    held_out = 360
    return Workload(
        inputs=inputs[held_out:],
        targets=targets[held_out:],
        test_inputs=inputs[:held_out],
        test_targets=targets[:held_out],
        make_model=_mlp,
        rate=0.5,
    )


WORKLOADS: Mapping[str, Callable[[], Workload]] = {"digits-mlp": _digits_mlp}


@cache
def load_workload(name: str) -> Workload:
    """The workload of that name; loaded once a process.

    Raises:
        ConfigurationError: for a name that is not in ``WORKLOADS``, or data that is not installed.
    """
    if name not in WORKLOADS:
        raise ConfigurationError(
            setting="workload", wanted=f"one of {', '.join(WORKLOADS)}", got=name, do="choose one of these"
        )
    return WORKLOADS[name]()
