"""The Hugging Face hub asked for a model, with what went wrong in one clause."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from lit_core.errors import reason_of
from lit_core.fetch.packages import OFFLINE


@contextmanager
def asking_hub() -> Iterator[None]:
    """Ask the hub without its reports of each try; where its host has no address, read only its cache, at once.

    Without that, a machine without a network would be kept waiting for half a minute of tries.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    verbosity, offline = logging.get_verbosity(), constants.HF_HUB_OFFLINE
    logging.set_verbosity_error()
    constants.HF_HUB_OFFLINE = offline or not _has_address()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        constants.HF_HUB_OFFLINE = offline


def hub_reason(error: BaseException) -> str:
    """Return why the hub did not give a model, in a clause.

    Args:
        error: What transformers or the hub's library raised.
    """
    from huggingface_hub import errors

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(link, errors.GatedRepoError) for link in chain):
        return (
            "its owners give it to those who agree to their terms: do so on its page, and log in with `hf auth login`"
        )
    if any(isinstance(link, errors.RepositoryNotFoundError) for link in chain):
        return "the Hugging Face hub has no model of that name, or not for you"
    if not any(isinstance(link, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)) for link in chain):
        return reason_of(error)
    forbids = next((name for name in OFFLINE if os.environ.get(name)), None)
    unreachable = f"{forbids} is set" if forbids else f"{_endpoint()} cannot be reached"
    return f"it is not in the cache of the hub, and {unreachable}"


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _has_address() -> bool:
    address = urlsplit(_endpoint())
    if getproxies() or address.hostname is None:  # a proxy finds addresses by itself
        return True
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError:
        return False
    return True
