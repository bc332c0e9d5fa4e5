"""The toy problem: what its net decides, and that one feature is enough, in closed form."""

import torch

from sztrain.evaluation.toy import CENTRE, RADIUS, START, toy_problem
from sztrain.evaluation.trace import trace_attack


def test_class_1_lies_inside_of_a_circle():
    net = toy_problem()[0]
    angle = torch.linspace(0, 6, 50)
    way = torch.stack([angle.cos(), angle.sin()], dim=1)
    for share, expected in ((0.99, 1), (1.01, 0)):
        points = torch.tensor(CENTRE) + share * RADIUS * way
        assert net(points).argmax(dim=1).tolist() == [expected] * 50


def test_the_first_feature_alone_changes_the_class_and_the_second_does_not():
    away = [abs(centre - start) for centre, start in zip(CENTRE, START, strict=True)]
    assert away[1] < RADIUS < away[0]
    net, _, _, labels = toy_problem()
    free = torch.linspace(0, 1, 101)
    first = torch.stack([free, torch.full_like(free, START[1])], dim=1)
    second = torch.stack([torch.full_like(free, START[0]), free], dim=1)
    assert (net(first).argmax(dim=1) != labels).any()
    assert not (net(second).argmax(dim=1) != labels).any()


def test_the_attack_moves_both_features_and_takes_one_back():
    net, attack, inputs, labels = toy_problem()
    trace = trace_attack(net, attack, inputs, labels, keep="all")
    assert [int(trace.l0[step]) for step in trace.improvements] == [2, 1]
    moved = trace.result.adv_inputs != inputs
    assert moved.tolist() == [[True, False]]
