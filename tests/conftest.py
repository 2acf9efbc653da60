"""All tests compute on one torch thread: bits depend on the number of threads (docs/design.md, determinism)."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
