"""Pages with a program inside: data are put into a template that needs no network."""

import hashlib
import json
from pathlib import Path

__all__ = ["filled"]


def filled(template: str, content: dict) -> str:
    """Fill a template with its data and with a name of its own on the page.

    Parameters
    ----------
    template : str
        Stem of an HTML file of this folder, with ``@name@`` and ``@data@`` in it.
    content : dict
        What JSON can hold.

    Returns
    -------
    str
    """
    # A name with "</script>" must not end the script.
    data = json.dumps(content, sort_keys=True).replace("<", "\\u003c")
    name = f"{template}-{hashlib.sha256(data.encode()).hexdigest()[:8]}"
    text = Path(__file__).with_name(f"{template}.html").read_text(encoding="utf-8")
    return text.replace("@name@", name).replace("@data@", data)
