"""Whether W&B knows who is asking."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

# W&B's own server, whose name newer versions have changed: they take a key for either.
_CLOUD = {"api.wandb.ai", "api.forge.coreweave.com"}


def has_wandb_key() -> bool:
    """Whether there is a key for W&B's server, without which a terminal would be asked for one.

    Looks where W&B looks: ``WANDB_API_KEY``, ``WANDB_IDENTITY_TOKEN_FILE``, and the netrc file,
    for the server of ``WANDB_BASE_URL``, of W&B's settings files, or its own. Not asked by
    ``wandb.login``, which writes settings and keeps its answer for the whole process.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    host = urlparse(server).hostname or ""
    hosts = _CLOUD if host in _CLOUD else {host}
    places = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    return any(_holds_key(Path(place).expanduser(), hosts) for place in places)


def _holds_key(path: Path, hosts: set[str]) -> bool:
    try:
        return not hosts.isdisjoint(netrc.netrc(path).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
