import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sztrain.data.augment import CropFlip, _mix, derive_seed, hash_counters, seeded_rng


def test_mix_gives_the_published_first_output_of_splitmix64():
    assert int(_mix(np.zeros(1, dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epoch": 1}, {"draw": 1}])
def test_hash_depends_on_every_counter(changed):
    arguments = {"seed": 0, "epoch": 0, "indices": torch.arange(1000), "draw": 0}
    first = hash_counters(**arguments)
    assert len(np.unique(np.append(first, hash_counters(**arguments | changed)))) == 2000


def test_bits_of_neighbouring_counters_are_balanced_and_independent():
    bits = hash_counters(0, 0, torch.arange(4096))
    ones = [int(((bits >> np.uint64(i)) & np.uint64(1)).sum()) for i in range(64)]
    # 2048 expected, standard deviation 32.
    assert all(abs(count - 2048) < 5 * 32 for count in ones)


def test_neighbouring_seeds_share_no_epoch():
    seeds = [derive_seed(seed, epoch) for seed in range(20) for epoch in range(20)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(-3, 0) != derive_seed(3, 0)


def crops(image, padding, flip):
    """Every result there can be, by (top, left, mirrored)."""
    _, height, width = image.shape
    padded = F.pad(image, [padding] * 4)
    found = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + height, left : left + width]
            found[top, left, False] = crop
            if flip:
                found[top, left, True] = crop.flip(-1)
    return found


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_result_is_a_crop_or_a_mirrored_crop(flip, dtype):
    image = (torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 255).to(dtype)
    possible = crops(image, 2, flip)
    results = CropFlip(padding=2, flip=flip)(
        image.expand(800, -1, -1, -1), seed=0, epoch=0, indices=torch.arange(800)
    )
    assert results.dtype == dtype
    counts = dict.fromkeys(possible, 0)
    for result in results:
        matches = [key for key, crop in possible.items() if torch.equal(crop, result)]
        assert len(matches) == 1
        counts[matches[0]] += 1
    # All places occur, about equally often: 16 or 32 expected of each.
    assert min(counts.values()) > 0
    expected = 800 / len(counts)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < len(counts) + 5 * (2 * len(counts)) ** 0.5


def test_augmentation_of_a_sample_does_not_depend_on_its_batch():
    images = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    indices, augment = torch.arange(30), CropFlip()
    whole = augment(images, seed=5, epoch=2, indices=indices)
    some = torch.tensor([7, 0, 21])
    assert torch.equal(whole[some], augment(images[some], seed=5, epoch=2, indices=some))
    for other in ({"seed": 6, "epoch": 2}, {"seed": 5, "epoch": 3}):
        assert not torch.equal(whole, augment(images, **other, indices=indices))


def test_seeded_rng_is_seeded_and_leaves_no_trace(rng_untouched):
    expected = torch.rand(3, generator=torch.Generator().manual_seed(11))
    with seeded_rng(11):
        assert torch.equal(torch.rand(3), expected)
