"""Clusters of changed pixels, found without a tensor operation."""


def clusters_by_walking(changed):
    """How many clusters one image has, shape ``(H, W)``, by walking from pixel to pixel."""
    left = {tuple(place) for place in changed.nonzero().tolist()}
    count = 0
    while left:
        waiting, count = [left.pop()], count + 1
        while waiting:
            i, j = waiting.pop()
            beside = {(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)} & left
            left -= beside
            waiting += beside
    return count
