"""Attacks of other libraries, behind the same contract; the extra ``peers`` and more.

Each library is imported when one of its attacks is called, never before. Where it is missing, the
call ends in one line that says how to install it.
"""

from sztrain.attacks.peers.adapter import PeerAttack, check_library
from sztrain.attacks.peers.via_adv_lib import FMN, PDPGD, VFGA, AdvLibSigmaZero
from sztrain.attacks.peers.via_foolbox import BB, EAD, BBadv
from sztrain.attacks.peers.via_torchattacks import SparseFool

__all__ = [
    "BB",
    "EAD",
    "FMN",
    "PDPGD",
    "VFGA",
    "AdvLibSigmaZero",
    "BBadv",
    "PeerAttack",
    "SparseFool",
    "check_library",
]
