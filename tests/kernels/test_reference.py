"""The definitions themselves, against torch's own in float64 where torch has the same thing."""

import torch
from torch.nn.functional import cross_entropy, gelu, layer_norm

from pythia_fast.kernels import reference


def test_layer_norm_is_torchs() -> None:
    x_ND = torch.randn(7, 33, dtype=torch.float64) * 5 + 2
    weight_D, bias_D = torch.randn(2, 33, dtype=torch.float64)
    got = reference.layer_norm(x_ND, weight_D, bias_D, 1e-5)
    torch.testing.assert_close(got, layer_norm(x_ND, (33,), weight_D, bias_D, 1e-5))


def test_both_gelus_are_torchs() -> None:
    x = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    torch.testing.assert_close(reference.gelu(x), gelu(x))
    torch.testing.assert_close(reference.gelu_tanh(x), gelu(x, approximate="tanh"))
    assert (reference.gelu(x) - reference.gelu_tanh(x)).abs().max() > 1e-4  # they are two things


def test_scores_are_those_of_cross_entropy() -> None:
    h_ND, w_VD = torch.randn(9, 5).double(), torch.randn(31, 5).double()
    y_N = torch.randint(31, (9,))
    scores = reference.linear_scores(h_ND, w_VD, y_N)
    logits_NV = h_ND @ w_VD.T
    torch.testing.assert_close(scores.nll, cross_entropy(logits_NV, y_N, reduction="none"))
    top = logits_NV.topk(2)
    assert torch.equal(scores.argmax, top.indices[:, 0])
    torch.testing.assert_close(scores.margin, top.values[:, 0] - top.values[:, 1])


def test_the_lowest_id_wins_a_tie() -> None:
    w_VD = torch.tensor([[0.0], [2.0], [1.0], [2.0]], dtype=torch.float64)
    scores = reference.linear_scores(torch.ones(1, 1).double(), w_VD, torch.tensor([3]))
    assert scores.argmax.item() == 1
    assert scores.margin.item() == 0
