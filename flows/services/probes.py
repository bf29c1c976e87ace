"""Questions to running services over HTTP; nothing of Prefect, MLflow or Dask is imported for them."""

from __future__ import annotations

import base64
import errno
import json
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

TIMEOUT_S = 5.0
FAILURES = (OSError, ValueError, urllib.error.URLError)


@dataclass(frozen=True)
class Http:
    """A server that answers in JSON or text; `auth` is USER:PASSWORD."""

    url: str
    auth: SecretStr | None = None
    timeout_s: float = TIMEOUT_S

    def get(self, path: str) -> str:
        """The body of a page.

        Raises:
            OSError: it cannot be had.
        """
        return self._ask(urllib.request.Request(self.url + path))  # noqa: S310

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers JSON.

        Raises:
            OSError: it cannot be had.
            ValueError: it is no JSON.
        """
        data = json.dumps(body).encode()
        return json.loads(self._ask(urllib.request.Request(self.url + path, data=data)))  # noqa: S310

    def _ask(self, request: urllib.request.Request) -> str:
        request.add_header("Content-Type", "application/json")
        if self.auth is not None:
            coded = base64.b64encode(self.auth.get_secret_value().encode()).decode()
            request.add_header("Authorization", f"Basic {coded}")
        # never through a proxy: these are this home's own servers
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=self.timeout_s) as answer:
            return str(answer.read().decode("utf-8"))


def listens(url: str, timeout_s: float = 1.0) -> bool:
    """Whether something accepts connections at the host and port of `url`."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=timeout_s):
            return True
    except OSError:
        return False


def is_free(host: str, port: int) -> bool:
    """Whether no other program listens there.

    Raises:
        OSError: nothing of this machine's can: no such name or address here, or not for this user.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True
