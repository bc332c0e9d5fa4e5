"""Moves of Sparse-RS: members that leave, positions that join with new colours."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Move:
    """One move of every sample, of up to E positions.

    Attributes:
        leaving: members that go back to the clean image, int64 ``(N, E)``.
        joining: positions that become members, int64 ``(N, E)``.
        colours: what they change to, shape ``(N, channels, E)``.
        counts: which of them move; where the budget is small not all E do, bool ``(N, E)``.
    """

    leaving: Tensor
    joining: Tensor
    colours: Tensor
    counts: Tensor

    @classmethod
    def draw(
        cls,
        images: Tensor,
        members: Tensor,
        sizes: Tensor,
        most: int,
        generator: torch.Generator,
    ) -> Self:
        """Draw members, as many other positions, and colours for these, all of them uniformly.

        Where there are only members, those that leave join again.

        Args:
            images: shape ``(N, channels, P)``, corners of the colour cube at the members.
            members: 1 for members, else 0: float32 ``(N, 1, P)``.
            sizes: how many positions to exchange, int64 ``(N,)``; one alone takes another colour
                than it has.
            most: E, the largest of the sizes.
            generator: on the device of the samples.
        """
        keys = torch.empty_like(members).uniform_(generator=generator)
        # Differences to 1 are exact, so that among members alone both orders are the same.
        leaving = (keys - 1 + members).squeeze(1).topk(most, dim=1).indices
        joining = (keys - members).squeeze(1).topk(most, dim=1).indices
        present = images.gather(2, _in_channels(joining, images))
        colours = torch.empty_like(present).bernoulli_(generator=generator)
        corners = ((present == 0) | (present == 1)).all(dim=1, keepdim=True)
        alone = corners & (sizes == 1).view(-1, 1, 1)
        return cls(
            leaving=leaving,
            joining=joining,
            colours=torch.where(alone, other_corners(present, generator), colours),
            counts=torch.arange(most, device=sizes.device) < sizes.unsqueeze(1),
        )

    def of(self, samples: Tensor) -> Self:
        """The moves of some samples, bool ``(N,)``; the others stay where they are."""
        return replace(self, counts=self.counts & samples.unsqueeze(1))

    def apply(self, images: Tensor, inputs: Tensor) -> None:
        """Change ``images`` in place: from ``inputs`` where members leave."""
        leaving = _in_channels(self.leaving, images)
        self._put(images, leaving, inputs.gather(2, leaving))
        self._put(images, _in_channels(self.joining, images), self.colours)

    def exchange(self, members: Tensor) -> None:
        """Change ``members`` in place."""
        for positions, value in ((self.leaving, 0), (self.joining, 1)):
            index = positions.unsqueeze(1)
            self._put(members, index, torch.full_like(index, value, dtype=members.dtype))

    def _put(self, images: Tensor, index: Tensor, values: Tensor) -> None:
        # What does not move is written as it is: its place may be that of something that moves.
        counts = self.counts.unsqueeze(1)
        images.scatter_(2, index, torch.where(counts, values, images.gather(2, index)))


def _in_channels(positions: Tensor, images: Tensor) -> Tensor:
    """Positions ``(N, E)`` in every channel of the images."""
    return positions.unsqueeze(1).expand(-1, images.shape[1], -1)


def move_sizes(budgets: Tensor, num_positions: int, shares: list[float]) -> Tensor:
    r"""How many members a move exchanges: :math:`\max(\lfloor \alpha k \rfloor, 1)`, if it can.

    Args:
        budgets: k of every sample, int64 ``(N,)``.
        num_positions: of a sample.
        shares: values of α.

    Returns:
        int64 ``(N, shares)``, never more than there are members, or positions that are none. Where
        all positions are members, so many are recoloured.

    Example:
        >>> move_sizes(torch.tensor([24, 99]), num_positions=100, shares=[0.8, 0.2]).tolist()
        [[19, 4], [1, 1]]
    """
    counts = budgets.cpu().unsqueeze(1)
    # On the CPU, since not every device has float64.
    exact = counts * torch.tensor(shares, dtype=torch.float64, device="cpu")
    room = torch.where(counts < num_positions, num_positions - counts, counts).minimum(counts)
    sizes = exact.floor().long().clamp(min=1).minimum(room)
    return sizes.to(budgets.device)


def other_corners(colours: Tensor, generator: torch.Generator) -> Tensor:
    """Another corner of the colour cube than the one given, each of them equally likely.

    Args:
        colours: shape ``(N, channels, E)``; anything but a corner gives anything.
        generator: on the device of the colours.

    Example:
        >>> other_corners(torch.tensor([[[0.0, 1.0]]]), torch.Generator())
        tensor([[[1., 0.]]])
    """
    num_samples, num_channels, num_colours = colours.shape
    shape, device = (num_samples, 1, num_colours), colours.device
    # Bits of a number that is not 0: the channels to flip.
    numbers = torch.randint(1, 2**num_channels, shape, generator=generator, device=device)
    channels = torch.arange(num_channels, device=device).unsqueeze(1)
    flips = (numbers >> channels) & 1
    return (colours - flips).abs()
