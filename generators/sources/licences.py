"""What the licence of an image allows, as far as its name and address tell."""

import re
from typing import NamedTuple

# Which conditions a licence has that concern pairs; attribution and share-alike travel with the
# card. What is not listed here, word for word, is not known.
_CC = r"by(?P<nc>-nc)?(?P<nd>-nd)?(-sa)?"
_PORTED = r"[a-z]{2}|igo|scotland"
_ADDRESSES = re.compile(
    r"(https?://)?(www\.)?(?:"
    rf"creativecommons\.org/licenses/{_CC}/\d\.\d(/({_PORTED}))?"
    r"|creativecommons\.org/publicdomain/(zero|mark)/1\.0"
    r"|rightsstatements\.org/vocab/nkc/1\.0"
    r"|flickr\.com/commons/usage"  # this and the next one stand in COCO's files
    r"|usa\.gov/copyright\.shtml"
    r")(/(deed|legalcode)(\.[a-z-]+)?)?/?"
)
# SPDX's, also written with blanks and without a version.
_IDENTIFIERS = re.compile(
    rf"cc-{_CC}(-\d\.\d((?!-n[cd])-({_PORTED}|international|generic|unported))?)?"
    r"|cc0(-1\.0)?|cc-pdm-1\.0|cc-pddc|pddl-1\.0|odc-by-1\.0|unlicense"
    r"|0bsd|bsd-[123]-clause|mit(-0)?|isc|zlib|apache-2\.0"
)
_NAMES = re.compile(
    r"(creative commons )?attribution(?P<nc>-noncommercial)?(?P<nd>-noderiv(ative)?s)?"
    r"(-sharealike)?( \d\.\d( international| generic| unported)?)?( licen[sc]e)?"
    r"|(creative commons )?(cc0|zero)( v?1\.0)?( universal)?|public domain( mark)?( 1\.0)?"
    r"|no known copyright restrictions|united states government work"
)
# Where one of these is said, the rest is not believed.
_RESTRICTED = re.compile(
    r"\bn[cd]\b|non.?commercial|no.?deriv|reserved|research|only|creativecommons"
)


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

    Known are Creative Commons' licences, by their addresses, names and SPDX identifiers, some other
    SPDX identifiers, and the eight that COCO's files name. A name and an address must agree.

    Args:
        use: "any" asks for nothing; "shareable" for a known licence that allows derived works;
            "commercial" for one that allows commercial use as well.
    """
    if use == "any":
        return True
    told = _told(licence)
    barred = ("nd",) if use == "shareable" else ("nd", "nc")
    return bool(told) and not any(one[key] for one in told for key in barred)


def is_known(licence: Licence) -> bool:
    """Whether it is told what a licence allows."""
    return bool(_told(licence))


def _told(licence: Licence) -> list[dict[str, str | None]]:
    """The conditions that the name and the address tell, of those that are known."""
    told = []
    for text in (licence.name, licence.url):
        plain = " ".join(re.sub(r"[?#].*", "", text.casefold()).split())
        plain = re.sub(r"https?://spdx\.org/licenses/(.*)\.html", r"\1", plain)
        found = (
            _ADDRESSES.fullmatch(plain)
            or _NAMES.fullmatch(plain)
            or _IDENTIFIERS.fullmatch(re.sub(r"[ _]", "-", plain))
        )
        if found:
            told.append({key: found.groupdict().get(key) for key in ("nc", "nd")})
        elif _RESTRICTED.search(plain):
            return []
    return told
