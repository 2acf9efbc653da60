"""Stand-in for ``torchvision.models``: every name is there and does nothing."""

from .anything import __getattr__ as __getattr__
