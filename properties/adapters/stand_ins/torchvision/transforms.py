"""Stand-in for ``torchvision.transforms``: every name is there and does nothing."""

from .anything import __getattr__ as __getattr__
