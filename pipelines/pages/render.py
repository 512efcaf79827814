"""The templates of the pages, filled in: whatever is put into them is text, never markup."""

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=PackageLoader("pipelines.pages"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
)  # fmt: skip


def integrity(text: str) -> str:
    """What a Content-Security-Policy calls a style or a script of this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_TEMPLATES.filters["integrity"] = integrity


def render(template: str, **values: Any) -> str:
    """A template with its values.

    Args:
        template: name of a file in templates/.
        values: all that the template names; text is escaped.

    Returns:
        Text that UTF-8 can hold: a byte of a file's name that is no UTF-8 is shown as `\\udc..`.
    """
    text = _TEMPLATES.get_template(template).render(values)
    return text.encode("utf-8", "backslashreplace").decode()
