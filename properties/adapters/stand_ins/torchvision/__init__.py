"""A stand-in for torchvision: it imports, and it does nothing.

Some peers import torchvision at module level, for data sets and image models that no property touches, and its wheel
does not import beside every build of torch. An adapter puts this folder on the path only where the real one does not
import.
"""

from . import datasets, models, transforms

__version__ = "0.0.0+stand.in"

__all__ = ["datasets", "models", "transforms"]
