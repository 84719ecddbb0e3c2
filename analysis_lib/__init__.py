"""A thin helper package behind an executable book.

Do better audio representations look more like the brain? Data flow in one direction::

    sounds -> model -> features -> encoding, rsa -> results -> figures -> chapter -> book
    tasks -----------------┴-----> probes -----------┘
"""

import os

# Threads that wait for each other by spinning starve one another as soon as another program runs:
# small networks were measured to be 80 times slower beside one busy process. A short spin before
# they sleep keeps the full speed of a quiet machine. Read once, when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
