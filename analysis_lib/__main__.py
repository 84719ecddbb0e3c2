"""``python -m analysis_lib`` is the command ``brainbook``."""

from .cli import main

main()
