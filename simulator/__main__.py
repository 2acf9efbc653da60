"""``python -m simulator`` is ``hqde-sim``."""

from simulator.cli import main

main()
