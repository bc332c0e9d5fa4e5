"""Whether W&B knows who is asking."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse


def has_wandb_key() -> bool:
    """Whether there is a key for W&B's server, without which a terminal would be asked for one.

    Looks where W&B looks: ``WANDB_API_KEY``, ``WANDB_IDENTITY_TOKEN_FILE``, and the netrc file.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
