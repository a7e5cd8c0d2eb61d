"""Fills the templates of pages, and writes texts of others so that they can be read and do nothing."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from lit_core.screen import on_screen

if TYPE_CHECKING:
    from markupsafe import Markup

#: Characters in front of which a text is looked at; all others are shown as they are.
_UNUSUAL = re.compile(r"[^\t\n -~\u00a1-\u00ac\u00ae-\u02ff]")
#: Of the hidden kinds: joiners that words of many scripts and emoji need, and Arabic and Syriac signs before numbers.
_KEPT = frozenset("\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
_HIDDEN = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"))


def render(package: str, template: str, **values: Any) -> str:
    """Return a page; every value that is not a `Markup` is written on one line, and escaped.

    Args:
        package: Package beside whose modules the template lies.
        template: File name of the template, which extends ``frame.html``.
        values: What the template shows.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("lit_core.pages", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else on_screen(value),
    )
    return environment.get_template(template).render(values)


def text_as_found(text: str) -> Markup:
    """Return a part of a text of others, to be read as it was found, its line breaks too.

    Markup is escaped. Characters that cannot be seen, or that turn the text around them, are shown by their numbers,
    but for the joiners that some scripts and emoji need.

    Args:
        text: The text.

    Example:
        >>> print(text_as_found("<b>é\u200b\u202e"))
        &lt;b&gt;é<i class="hidden">U+200B</i><i class="hidden">U+202E</i>
    """
    from markupsafe import Markup, escape

    return Markup(_UNUSUAL.sub(_visible, str(escape(text))))


def _visible(found: re.Match[str]) -> str:
    character = found[0]
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    return f'<i class="hidden">U+{ord(character):04X}</i>'
