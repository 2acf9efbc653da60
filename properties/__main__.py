"""``python -m properties`` is ``hqde-verify``."""

from properties.entry import main

main()
