"""Nets that map images in [0, 1] to logits, their factories, and published weights by name."""

from sztrain.models.checkpoint import (
    HYPER_PARAMETERS,
    NET_FACTORIES,
    build_net,
    net_from_checkpoint,
    read_checkpoint,
)
from sztrain.models.digits_cnn import DigitsCNN, digits_cnn
from sztrain.models.net_file import save_net
from sztrain.models.normalize import Normalize, normalization, normalized
from sztrain.models.preact_resnet import PreActResNet, preact_resnet18
from sztrain.models.resnet import ResNet18, resnet18
from sztrain.models.robustbench_nets import robustbench_net
from sztrain.models.small_cnn import SmallCNN, small_cnn
from sztrain.models.state_dicts import weights_dir
from sztrain.models.timm_nets import timm_net
from sztrain.models.wide_resnet import WideResNet, wrn28
from sztrain.models.zoo import CARDS, NetCard, describe_net, load_net

__all__ = [
    "CARDS",
    "HYPER_PARAMETERS",
    "NET_FACTORIES",
    "DigitsCNN",
    "NetCard",
    "Normalize",
    "PreActResNet",
    "ResNet18",
    "SmallCNN",
    "WideResNet",
    "build_net",
    "describe_net",
    "digits_cnn",
    "load_net",
    "net_from_checkpoint",
    "normalization",
    "normalized",
    "preact_resnet18",
    "read_checkpoint",
    "resnet18",
    "robustbench_net",
    "save_net",
    "small_cnn",
    "timm_net",
    "weights_dir",
    "wrn28",
]
