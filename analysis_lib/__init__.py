"""A thin helper package behind an executable book.

Do better audio representations look more like the brain? Data flow in one direction::

    sounds -> model -> features -> encoding, rsa -> results -> figures -> chapter -> book
    tasks -----------------┴-----> probes -----------┘
"""

import os

# Threads that wait for each other by spinning starve one another as soon as another program runs:
# small networks were measured to be 80 times slower beside one busy process. Sleeping costs
# nothing measurable. Read once, when torch starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
