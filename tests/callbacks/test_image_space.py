"""Images in [0, 1] and what a loader makes of them, there and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2.functional import normalize

from sztrain.callbacks._image_space import ImageSpace
from sztrain.errors import InputError

channels = st.lists(st.floats(0.05, 2), min_size=3, max_size=3)


@given(mean=channels, std=channels, low=st.floats(-3, 3), size=st.floats(0.5, 300))
@settings(max_examples=40, deadline=None)
def test_there_is_as_torchvision_normalises_and_back_is_the_image(mean, std, low, size):
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    space = ImageSpace(mean=mean, std=std, box=(low, low + size))
    inputs = space.from_images(images, torch.float64)
    assert torch.allclose(inputs, normalize(images * size + low, mean, std))
    assert torch.allclose(space.to_images(inputs), images, atol=1e-9)


def test_the_default_device_of_torch_changes_nothing():
    images = torch.rand(2, 3, 4, 4)
    with torch.device("meta"):
        space = ImageSpace(mean=[0.1, 0.2, 0.3], std=0.5)
        inputs = space.from_images(images, torch.float32)
    assert torch.allclose(inputs[:, 2], (images[:, 2] - 0.3) / 0.5)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 4), (2, 3, 2, 4, 4)])
def test_numbers_meet_the_channels_of_any_rank(shape):
    space = ImageSpace(mean=torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), std=[1.0, 2.0, 4.0])
    inputs = space.from_images(torch.full(shape, 0.5), torch.float32)
    assert torch.allclose(inputs[:, 2], torch.tensor(0.05))
    assert torch.allclose(inputs[:, 0], torch.tensor(0.4))


@pytest.mark.parametrize(
    ("value", "dtype", "image"),
    [
        (1.00005, torch.float32, 1.0),  # rounding
        (-0.00005, torch.float64, 0.0),
        (1.0078, torch.bfloat16, 1.0),
        (1.0002, torch.float32, None),
        (-0.01, torch.bfloat16, None),
        (float("nan"), torch.float32, None),
    ],
)
def test_what_rounding_leaves_outside_is_clipped_and_no_more(value, dtype, image):
    inputs = torch.tensor([[value, 0.5]], dtype=dtype)
    if image is None:
        with pytest.raises(InputError, match=r"expected inputs in \[0, 1\]"):
            ImageSpace().to_images(inputs)
    else:
        assert ImageSpace().to_images(inputs).tolist() == [[image, 0.5]]


def test_precision_of_either_side():
    space = ImageSpace(box=(0, 255))
    assert space.to_images(torch.tensor([[255]], dtype=torch.uint8)).dtype == torch.float32
    assert space.to_images(torch.tensor([[255]], dtype=torch.float16)).dtype == torch.float32
    assert space.to_images(torch.tensor([[255]], dtype=torch.float64)).dtype == torch.float64
    assert space.from_images(torch.ones(1, 1), torch.bfloat16).dtype == torch.bfloat16


def test_images_that_need_nothing_stay_bit_for_bit():
    images = torch.rand(2, 3, 4, 4)
    assert ImageSpace().from_images(images, torch.float32) is images
    assert torch.equal(ImageSpace().to_images(images), images)


def test_gradients_pass():
    images = torch.rand(1, 3, requires_grad=True)
    ImageSpace(std=0.5).from_images(images, torch.float32).sum().backward()
    assert images.grad.tolist() == [[2, 2, 2]]


class CopyCounter(TorchDispatchMode):
    """Counts copies to another device or type."""

    num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += func.overloadpacket._qualified_op_name == "aten::_to_copy"
        return func(*args, **kwargs or {})


def test_numbers_are_copied_to_the_device_once():
    """Not in each step of an attack, of which no CUDA graph could be made."""
    space = ImageSpace(mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    images = torch.rand(2, 3, 4, 4)
    first = space.from_images(images, torch.float32)
    with CopyCounter() as copies:
        again = space.from_images(images, torch.float32)
    assert copies.num == 0
    assert torch.equal(first, again)
    wide = space.from_images(images.double(), torch.float64)
    assert wide.dtype == torch.float64
    assert torch.allclose(wide, again.double())


def test_gradients_pass_once_a_validation_has_collected_its_images():
    space = ImageSpace(std=0.5)
    with torch.inference_mode():
        space.to_images(torch.rand(1, 3))
    images = torch.rand(1, 3, requires_grad=True)
    (space.from_images(images, torch.float32) ** 2).sum().backward()
    assert torch.allclose(images.grad, 8 * images)
