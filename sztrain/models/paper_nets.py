"""The 18 nets of the paper, as data: M1-M2 for MNIST, C1-C10 for CIFAR-10, I1-I6 for ImageNet.

A name stands for the net that the tables of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_
were made with, and that is what its authors' code loads. Its Table IV and Section III-A say
otherwise of some nets; the ``remark`` of a card has the particulars:

=====  ==========================================================================================
C4     Table IV has two threat models, Linf and L2; the code loads L2, as Table VI bears out.
C5     Not in Table IV. The code names no work: which of its two own files is C5 follows from C10's.
C6     Table IV: Gowal2020Uncovering, L2; the code: Gowal2021Improving_70_16_ddpm_100m, Linf.
C8     Section III-A says L2; Table IV, the code and RobustBench say Linf.
I1     Table IV: Standard_R18 with RobustBench's figures for a ResNet-50; the code: torchvision's
       ResNet-18.
I3     RobustBench judges it on images of 288 pixels a side, the authors on 224.
I4     Table IV has the figures of Salman2020Do_R50; the code loads Salman2020Do_R18.
I5     Table IV: Linf; the code and RobustBench: corruptions.
I6     Section III-A cites another work; Table IV and the code agree.
=====  ==========================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sztrain.types import Unit


@dataclass(frozen=True, kw_only=True)
class NetCard:
    """What is known about a published net.

    Attributes:
        name: what :func:`~sztrain.models.load_net` takes.
        data: config group name of its data set.
        file: its weights: below the weights folder, or in the package for a shipped net; of an
            ensemble the first of its files.
        url: where the file is published; empty where RobustBench knows, and for a shipped net.
        sha256: checksum of the file, or as many of its first digits as are published; ``None``
            where none is.
        spec: how :func:`~sztrain.models.build_net` builds it; empty for a shipped net, whose file
            says so itself.
        description: what it is and where it was published.
        remark: where the paper and its authors' code disagree about it, and what is odd.
        unit: what its training counted; ``features`` where that says nothing.
        method: how it was trained.

    Example:
        >>> NetCard(name="x", data="digits", file="x.safetensors", description="an example").sha256
    """

    name: str
    data: str
    file: str
    description: str
    url: str = ""
    sha256: str | None = None
    spec: Mapping[str, object] = field(default_factory=dict)
    remark: str = ""
    unit: Unit = "features"
    method: str = ""


def _authors(
    name: str,
    data: str,
    repository: str,
    file: str,
    spec: Mapping[str, object],
    description: str,
    method: str,
    sha256: str | None = None,
    remark: str = "",
) -> NetCard:
    return NetCard(
        name=name,
        data=data,
        file=file,
        url=f"https://github.com/{repository}/raw/HEAD/models/{data}/{file}",
        sha256=sha256,
        spec=MappingProxyType(dict(spec)),
        description=f"{description}, arXiv:2402.01879, Sect. III-A; github.com/{repository}",
        remark=remark,
        method=method,
    )


def _robustbench(
    name: str,
    data: str,
    reference: str,
    threat_model: str,
    architecture: str,
    method: str,
    remark: str = "",
    file: str = "",
) -> NetCard:
    spec = {
        "_target_": "sztrain.models.robustbench_net",
        "name": reference,
        "dataset": data,
        "threat_model": threat_model,
    }
    return NetCard(
        name=name,
        data=data,
        file=f"{data}/{threat_model}/{file or reference + '.pt'}",
        spec=MappingProxyType(spec),
        description=f"{architecture}, RobustBench's {reference} ({data}, {threat_model})",
        remark=remark,
        method=method,
    )


_FIRST, _LATER = "Cinofix/sigma-zero-adversarial-attack", "sigma0-advx/sigma-zero"
_SMALL_CNN = {"_target_": "sztrain.models.small_cnn", "num_classes": 10, "in_channels": 1}
_PREACT = {
    "_target_": "sztrain.models.preact_resnet18",
    "num_classes": 10,
    "activation": "softplus",
    "last_activation": "relu",
}
_RESNET18 = {
    "_target_": "sztrain.models.resnet18",
    "num_classes": 1000,
    "stem": "imagenet",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}

_MNIST = (
    _authors(
        "M1", "mnist", _FIRST, "mnist_smallcnn_robust_ddn.pth", _SMALL_CNN, "CNN-DDN", "ddn",
        sha256="9569512d635778cccfa07bf1f31b921af43789bc3cc84e109bc822febd933126",
    ),
    _authors(
        "M2", "mnist", _FIRST, "mnist_smallcnn_robust_trades.pth", _SMALL_CNN, "CNN-Trades",
        "trades", sha256="5b99888064f692047d5592b38df2dde126aa1b991a26c6aad683ce709634bea0",
    ),
)  # fmt: skip

_CIFAR10 = (
    _robustbench(
        "C1", "cifar10", "Standard", "Linf", "WideResNet-28-10", "standard",
        remark="Table IV has no threat model, as it is not robust; RobustBench files it under Linf",
    ),
    _robustbench("C2", "cifar10", "Carmon2019Unlabeled", "Linf", "WideResNet-28-10", "rst"),
    _robustbench("C3", "cifar10", "Augustin2020Adversarial", "L2", "ResNet-50", "ratio"),
    _robustbench(
        "C4", "cifar10", "Engstrom2019Robustness", "L2", "ResNet-50", "at",
        remark="Table IV has Linf and L2 (clean accuracy 87.03 and 90.83 %); Sect. III-A and the "
        "authors' code have L2, which Table VI bears out",
    ),
    _authors(
        "C5", "cifar10", _LATER, "pretr_L1.pth", _PREACT,
        "PreActResNet-18 of Croce and Hein, robust to L1", "at",
        remark="not in Table IV; the authors' code names no work: the file is C5's because the "
        "other one is C10's; blocks with softplus, but ReLU after the last BatchNorm",
    ),
    _robustbench(
        "C6", "cifar10", "Gowal2021Improving_70_16_ddpm_100m", "Linf", "WideResNet-70-16", "trades",
        remark="Table IV: Gowal2020Uncovering, L2, clean accuracy 90.90 %; the authors' code loads "
        "this net (88.74 %), which Table VI bears out",
    ),
    _robustbench(
        "C7", "cifar10", "Chen2020Adversarial", "Linf", "ResNet-50 (ensemble of 3)", "at",
        file="Chen2020Adversarial.pt_m0.pt",
    ),
    _robustbench(
        "C8", "cifar10", "Xu2023Exploring_WRN-28-10", "Linf", "WideResNet-28-10", "dyart",
        remark="Sect. III-A calls it robust to L2; Table IV, the authors' code and RobustBench "
        "have Linf",
    ),
    _robustbench("C9", "cifar10", "Addepalli2022Efficient_RN18", "Linf", "ResNet-18", "dajat"),
    _authors(
        "C10", "cifar10", _LATER, "cifar10_prn18_fastegl1.ckpt", _PREACT,
        "PreActResNet-18 of Jiang et al., Fast-EG-l1, robust to L1", "fast_eg_l1",
        remark="not in Table IV; known by the name of its file; blocks with softplus, but ReLU "
        "after the last BatchNorm",
    ),
)  # fmt: skip

_IMAGENET = (
    NetCard(
        name="I1",
        data="imagenet",
        file="resnet18-f37072fd.pth",
        url="https://download.pytorch.org/models/resnet18-f37072fd.pth",
        sha256="f37072fd",
        spec=MappingProxyType(_RESNET18),
        description="ResNet-18, torchvision's ResNet18_Weights.IMAGENET1K_V1",
        remark="Table IV: Standard_R18, which RobustBench does not have, with its figures for "
        "Standard_R50 (clean accuracy 76.52 %); the authors' code loads torchvision's ResNet-18 "
        "(69.76 %)",
        method="standard",
    ),
    _robustbench("I2", "imagenet", "Engstrom2019Robustness", "Linf", "ResNet-50", "at"),
    _robustbench(
        "I3", "imagenet", "Wong2020Fast", "Linf", "ResNet-50", "fast_at",
        remark="RobustBench judges it on images of 288x288, the authors' code attacks 224x224",
    ),
    _robustbench(
        "I4", "imagenet", "Salman2020Do_R18", "Linf", "ResNet-18", "at",
        remark="Table IV has the figures of Salman2020Do_R50 (clean accuracy 64.02 %, this net's "
        "is 52.92 %); Tables III and VII bear out the ResNet-18",
    ),
    _robustbench(
        "I5", "imagenet", "Hendrycks2020Many", "corruptions", "ResNet-50", "augmentation",
        remark="Table IV and Sect. III-A: Linf; RobustBench has it for corruptions only, and the "
        "52.90 % of Table IV are its accuracy under these",
    ),
    _robustbench(
        "I6", "imagenet", "Debenedetti2022Light_XCiT-S12", "Linf", "XCiT-S12", "at",
        remark="Sect. III-A cites the work of I4; Table IV and the authors' code agree",
    ),
)  # fmt: skip

PAPER_CARDS: tuple[NetCard, ...] = _MNIST + _CIFAR10 + _IMAGENET
"""The nets of the paper, in its order."""
