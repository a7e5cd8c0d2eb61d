"""What is said of a model that the Hugging Face hub does not give: at once, in one whole sentence."""

import re
import socket
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

from huggingface_hub import constants, errors

from lit_core.errors import UserError, reason_of
from lit_core.fetch.hub_access import asking_hub, hub_reason
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.doctor.source import small_model
from lit_moe.interop.folder import ModelFolder

READERS = [HuggingFaceLM.from_pretrained, small_model, Tokenizer.load, ModelFolder]


@pytest.fixture
def unreachable(monkeypatch):
    """A machine without a network, that counts how often a host was asked for."""
    asked = []

    def fails(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return asked


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__qualname__)
def test_without_a_network_a_name_is_refused_at_once_in_a_whole_sentence(read, unreachable, capfd, caplog):
    with pytest.raises(UserError) as caught:
        read("nobody/nothing")
    said = str(caught.value)
    assert "nobody/nothing" in said and f"{constants.ENDPOINT} cannot be reached" in said
    assert said.endswith(".") and said.count("(") == said.count(")")
    assert len(unreachable) == 1  # no further tries, which would take half a minute
    noise = "".join(capfd.readouterr()) + caplog.text
    assert "Retry" not in noise and "thrown while" not in noise
    assert constants.HF_HUB_OFFLINE is False


def test_a_proxy_finds_addresses_by_itself(unreachable, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    with asking_hub():
        assert constants.HF_HUB_OFFLINE is False
    assert not unreachable


@pytest.mark.parametrize(
    ("kind", "said"),
    [(errors.RepositoryNotFoundError, "no model of that name"), (errors.GatedRepoError, "agree to their terms")],
)
def test_a_name_that_the_hub_does_not_know_or_not_give_is_told_apart(kind, said):
    response = SimpleNamespace(headers={}, request=None, status_code=404, text="")
    cause = kind("404 Client Error", response=response)
    error = OSError("long " * 100)
    error.__cause__ = cause
    assert said in hub_reason(error)


@pytest.mark.parametrize("length", range(20, 200, 7))
def test_a_reason_is_not_cut_within_a_word_or_an_address(length):
    text = "It is not there. See 'https://example.org/a/long/address-that-goes-on' and what else is said, at length."
    reason = reason_of(ValueError(text), length)
    assert len(reason) <= length + 2 and not reason.endswith(".")
    assert set(re.findall(r"\S+", reason.removesuffix(" …"))) <= {*text.split(), "there", "length"}
    assert reason_of(ValueError()) == "ValueError"
