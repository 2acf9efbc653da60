"""An object that can be called, indexed and asked for any attribute, and gives itself."""

from __future__ import annotations


class Anything:
    """Swallows what a module does with torchvision while it is imported."""

    def __call__(self, *_args: object, **_keywords: object) -> Anything:
        return self

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


ANYTHING = Anything()


def __getattr__(name: str) -> Anything:
    if name.startswith("__"):
        raise AttributeError(name)
    return ANYTHING
