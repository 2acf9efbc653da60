"""``python -m simulator`` is ``hqde-sim``."""

from simulator.entry import main

main()
