"""Options that have no effect with `prepare --verify` are refused, in each package."""

import inspect

import pytest
from verbs import PACKAGES, own_verbs

from lit_core.errors import UserError

OPTIONS = [
    (package, name)
    for package in PACKAGES
    for name in inspect.signature(own_verbs()[package]["prepare"]).parameters
    if name not in ("root", "verify")
]


@pytest.mark.parametrize(("package", "name"), OPTIONS)
def test_an_option_beside_verify_is_refused(package, name, tmp_path):
    with pytest.raises(UserError, match=rf"^{name} has no effect with verify; leave out one of the two\.$"):
        own_verbs()[package]["prepare"](str(tmp_path / "none"), verify=True, **{name: "another"})
