"""Secrets in addresses, kept from whatever is shown or recorded."""

from __future__ import annotations

import re

# What in an address may be a secret, beside the user and password before its host.
_SECRET_WORD = re.compile(
    r"([?&](?:[\w-]*(?:password|passwd|pwd|token|secret|signature|credential|key)[\w-]*|sig|user)=)[^&\s'\"]+",
    re.IGNORECASE,
)


def without_credentials(words: str) -> str:
    """A text with the user and password of every address in it hidden, wherever in the address they stand."""
    return _SECRET_WORD.sub(r"\1***", re.sub(r"://[^/\s]+@", "://***@", words))
