"""Steps of an attack as a CUDA graph: recorded once, then launched by a single call."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from sztrain.errors import InputError

State = TypeVar("State")


def require_cuda(device: torch.device) -> None:
    """Refuse to record a CUDA graph of what happens elsewhere.

    Raises:
        InputError: ``device`` is no CUDA device.

    Example:
        >>> require_cuda(torch.device("cuda"))
    """
    if device.type != "cuda":
        raise InputError(
            f"expected inputs on a CUDA device with cuda_graph=true, got them on {device.type}: "
            "use cuda_graph=false"
        )


class Recorded(Generic[State]):
    """A function that is launched as a CUDA graph from its fourth call on.

    A small net leaves a GPU waiting for Python to launch its kernels; a graph launches them all.
    The function has to work in place, without looking at a value on the host. See `CUDA Graphs
    <https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs>`_.

    Args:
        function: called with the state that it changes, and one tensor that is new in every call.
            Another state means another recording.

    Raises:
        InputError: the function cannot be recorded.
    """

    NUM_EAGER = 3
    """Calls before a recording: libraries set themselves up in their first ones."""

    _beside: torch.cuda.Stream

    def __init__(self, function: Callable[[State, Tensor], None]) -> None:
        self._function = function
        self._state: State | None = None
        self._argument = torch.empty(0)
        self._num_calls = 0
        self._graph = torch.cuda.CUDAGraph()

    def __call__(self, state: State, argument: Tensor) -> None:
        """Call the function, or launch what was recorded of it."""
        with torch.cuda.device(argument.device):
            if state is not self._state:
                self._state, self._argument, self._num_calls = state, argument.clone(), 0
                self._graph = torch.cuda.CUDAGraph()
                # Of the state's device: torch's own stream for recordings is that of the first.
                self._beside = torch.cuda.Stream(argument.device)  # type: ignore[no-untyped-call]
            self._argument.copy_(argument)
            if self._num_calls < self.NUM_EAGER:
                self._call_beside(state)
            elif self._num_calls == self.NUM_EAGER:
                self._record(state)
            if self._num_calls >= self.NUM_EAGER:
                self._graph.replay()
        self._num_calls += 1

    def _call_beside(self, state: State) -> None:
        """Call the function on the stream on which it will be recorded."""
        here = torch.cuda.current_stream()
        self._beside.wait_stream(here)
        with torch.cuda.stream(self._beside):
            self._function(state, self._argument)
        here.wait_stream(self._beside)

    def _record(self, state: State) -> None:
        """Record the function, and run nothing."""
        # Other threads may go on meanwhile: a data loader pins memory in one of its own.
        recording = torch.cuda.graph(
            self._graph, stream=self._beside, capture_error_mode="thread_local"
        )
        try:
            with recording:
                self._function(state, self._argument)
        except torch.OutOfMemoryError:
            raise  # a smaller batch may fit
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"cannot record the net as a CUDA graph ({reason}): use cuda_graph=false"
            ) from error
