"""axe-core, which knows by rules what keeps people from using a page with eyes or hands of another
kind, run in the page that a browser shows."""

import importlib.util
from pathlib import Path

import pytest
from browser import Browser

RULES = """axe.run(document, {resultTypes: ["violations"]}).then(found =>
  found.violations.flatMap(rule => rule.nodes.map(node =>
    `${rule.id}: ${rule.help}: ${node.html.slice(0, 300)}: ${node.failureSummary}`)))"""


def violations(browser: Browser) -> list[str]:
    """What of the open page breaks axe's default rules, on light and on dark ground.

    The script comes through the DevTools protocol, which no page's policy binds.
    """
    found = importlib.util.find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("no axe-core to check the page with (pip install axe-core-python)")
    browser.run(Path(found.origin).with_name("axe.min.js").read_text() + "\nundefined")
    broken = []
    for scheme in ("light", "dark"):
        browser.paint(scheme)
        broken += [f"{scheme}: {text}" for text in browser.run(RULES)]
    browser.paint("light")
    return broken
