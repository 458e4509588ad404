import torch

from fairlead.algos.logprobs import token_logprobs
from fairlead.algos.sft_loss import sft_loss


def test_is_the_cross_entropy_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 9, generator=generator), torch.randint(9, (6,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(sft_loss(token_logprobs(logits, targets)), expected)


def test_any_split_over_micro_batches_and_ranks_gives_the_same_gradient():
    logits = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    (whole,) = torch.autograd.grad(sft_loss(token_logprobs(logits, targets)).sum() / 7, logits)
    for cuts in ([7], [1, 6], [2, 2, 3], [1] * 7):
        logits.grad = None
        for rows, wanted in zip(logits.split(cuts), targets.split(cuts), strict=True):
            (sft_loss(token_logprobs(rows, wanted)).sum() / 7).backward(retain_graph=True)
        torch.testing.assert_close(logits.grad, whole)


def test_gradient():
    logprobs = -torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(sft_loss, (logprobs.requires_grad_(),))
    assert sft_loss(logprobs.detach().bfloat16()).dtype == torch.float32
