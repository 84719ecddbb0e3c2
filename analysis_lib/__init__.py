"""A thin helper package behind an executable book.

Do better audio representations look more like the brain? Data flow in one direction::

    sounds -> model -> features -> encoding, rsa -> results -> figures -> chapter -> book
    tasks -----------------┴-----> probes -----------┘
"""

__version__ = "0.1.0"
