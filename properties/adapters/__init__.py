"""Foreign implementations behind our messages. Each runs in a guarded child, under an interpreter of its own.

An adapter never invents behaviour: what a package cannot say is None, what it cannot be asked is ``Inexpressible``.
"""
