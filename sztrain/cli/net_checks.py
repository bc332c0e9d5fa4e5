"""Checks that a net and the data it is judged on go together."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sztrain.attacks.checks import validate_batch, validate_logits
from sztrain.attacks.modes import eval_mode
from sztrain.cli.messages import chain
from sztrain.cli.net_data import CUT, data_of_net
from sztrain.data import ImageDataModule, Split
from sztrain.errors import InputError
from sztrain.models.state_dicts import check_finite


def check_net(
    net: nn.Module,
    data: ImageDataModule,
    source: str,
    options: str = "model.num_classes, data.num_classes",
) -> None:
    """Look at one small batch: finite weights, finite logits, one for each class.

    Args:
        net: the net.
        data: the data.
        source: where the net comes from, for the message.
        options: that say how many classes there are, alike.

    Raises:
        InputError: the net and the data do not go together.
    """
    check_finite(net, source)
    inputs, labels = next(iter(data.val_dataloader()))
    validate_batch(inputs, labels)
    inputs, labels = inputs[:2], labels[:2]
    try:
        with torch.no_grad(), eval_mode(net):
            logits = net(inputs)
    except RuntimeError as error:  # torch's word for shapes that do not fit
        raise InputError(
            f"{source} cannot take images of shape {tuple(inputs.shape[1:])}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    try:
        validate_logits(logits, torch.zeros_like(labels))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    if logits.shape[1] != data.num_classes:
        raise InputError(
            f"{source} tells {logits.shape[1]} classes apart, the data has {data.num_classes}; "
            f"choose a net and data that go together ({options})"
        )


def check_known_net(net: nn.Module, data: ImageDataModule, name: str) -> None:
    """As :func:`check_net`, of a net with a name or a file, which say on which data it works.

    Raises:
        InputError: the net and the data do not go together.
    """
    try:
        check_net(net, data, name, options="data.num_classes")
    except InputError as error:
        made_for, _ = data_of_net(name)
        if made_for == data.name:
            raise
        raise InputError(f"{error}; {name} is made for data={made_for}") from error


def check_parts(name: str, data: ImageDataModule, split: Split) -> None:
    """Refuse to judge, or choose, a net by samples that it may have been trained on.

    Args:
        name: of the net, as :func:`sztrain.models.load_net` takes it.
        data: the data to judge it on.
        split: the part of it.

    Raises:
        InputError: the net was trained on a part of the same data, cut in another way.
    """
    dataset, options = data_of_net(name)
    if dataset != data.name or (split == "test" and not data.cuts_test):
        return
    decisive = [key for key in CUT if not (split == "test" and key == "val_fraction")]
    now = {key: getattr(data, key) for key in decisive if hasattr(data, key)}
    other = {key: options[key] for key in now if key in options and options[key] != now[key]}
    if other:
        was = " ".join(f"data.{key}={value}" for key, value in other.items())
        here = ", ".join(str(now[key]) for key in other)
        raise InputError(
            f"{name} was trained with {was} (here {here}), so that samples of this {split} part "
            f"may be among those that it has learnt; give {was}, and evaluate nets that were "
            "trained on other parts apart"
        )


@contextmanager
def options_brought_by(names: Iterable[str], way_on: str) -> Iterator[None]:
    """Say of an option that a data set does not take which net has brought it along.

    Args:
        names: of the nets, as :func:`sztrain.models.load_net` takes them.
        way_on: what to do about it; ``{net}`` and ``{option}`` in it are filled in.

    Raises:
        InputError: the data was made with an option that a net has brought, and does not take it.
    """
    try:
        yield
    except InputError as error:
        told = (
            re.search(r"unexpected keyword argument '(\w+)'", str(link)) for link in chain(error)
        )
        option = next((found.group(1) for found in told if found), None)
        for name in names if option else ():
            dataset, options = data_of_net(name)
            if option in options:
                raise InputError(
                    f"{name} was trained with data.{option}={options[option]}, an option that "
                    f"data={dataset} no longer has; {way_on.format(net=name, option=option)}"
                ) from error
        raise
