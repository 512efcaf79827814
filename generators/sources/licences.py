"""What the licence of an image allows, as far as its name and address tell."""

import re
from typing import NamedTuple

# Licences without conditions that concern pairs: attribution and share-alike travel with the card.
_FREE = re.compile(
    r"public\s*domain|cc0|no known copyright|government work|creativecommons\.org/licenses/by|"
    r"\bcc[ -]by|attribution|\bbsd\b|\bmit\b|apache",
    re.I,
)
_NO_DERIVATIVES = re.compile(r"no[- ]?deriv|[/-]nd\b", re.I)
_NON_COMMERCIAL = re.compile(r"non[- ]?commercial|[/-]nc\b", re.I)


class Licence(NamedTuple):
    """An image's licence, as a dataset states it.

    Attributes:
        name: its name.
        url: where its text stands, or "".
    """

    name: str
    url: str = ""


NOT_STATED = Licence("not stated")


def allows(licence: Licence, use: str) -> bool:
    """Whether pairs made of an image may be put to a use.

    Args:
        use: "any" asks for nothing; "shareable" for a known licence that allows derived works;
            "commercial" for one that allows commercial use as well.
    """
    text = f"{licence.name} {licence.url}"
    if use == "any":
        return True
    if not _FREE.search(text) or _NO_DERIVATIVES.search(text):
        return False
    return use == "shareable" or not _NON_COMMERCIAL.search(text)
