import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.kl import best_of_n_kl, kl_estimate, kl_k1, kl_k2, kl_k3, next_kl_coef
from oracles import divergence, reductions

VOCABULARIES = st.integers(2, 6).flatmap(
    lambda v: st.tuples(*[st.lists(st.floats(-4, 4), min_size=v, max_size=v) for _ in range(2)])
)


def test_golden_numbers():
    logprobs, reference = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.2, -1.0, -0.6])
    for estimator, name, expected, digits in (
        (kl_k1, "k1", [0.2, -1.0, 0.1], 1e-6),
        (kl_k2, "k2", [0.02, 0.5, 0.005], 1e-6),
        (kl_k3, "k3", [0.0187, 0.7183, 0.0048], 5e-5),
    ):
        for found in (estimator(logprobs, reference), kl_estimate(logprobs, reference, name)):
            torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=digits)


@given(VOCABULARIES)
def test_k1_and_k3_average_to_the_exact_kl(pair):
    policy, reference = (torch.tensor(x, dtype=torch.float64).log_softmax(0) for x in pair)
    exact = divergence.kl(*(reductions.softmax(x) for x in pair))
    for estimator in (kl_k1, kl_k3):
        average = (policy.exp() * estimator(policy, reference)).sum().item()
        assert average == pytest.approx(exact, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-6, 0), st.floats(-6, 0)), min_size=1, max_size=6))
def test_estimators_equal_the_loop(tokens):
    logprobs, reference = torch.tensor(tokens, dtype=torch.float64).T
    expected = torch.tensor([divergence.estimates(*token) for token in tokens], dtype=torch.float64).T
    for estimator, name, want in zip((kl_k1, kl_k2, kl_k3), ("k1", "k2", "k3"), expected, strict=True):
        torch.testing.assert_close(estimator(logprobs, reference), want, rtol=1e-9, atol=1e-12)
        assert torch.equal(kl_estimate(logprobs, reference, name), estimator(logprobs, reference))


@given(VOCABULARIES)
def test_k1_and_k3_average_to_the_divergence_of_torch(pair):
    policy, reference = (torch.distributions.Categorical(logits=torch.tensor(x, dtype=torch.float64)) for x in pair)
    exact = torch.distributions.kl_divergence(policy, reference)
    for estimator in (kl_k1, kl_k3):
        torch.testing.assert_close((policy.probs * estimator(policy.logits, reference.logits)).sum(), exact)


@given(VOCABULARIES)
def test_k2_and_k3_are_never_negative(pair):
    policy, reference = (torch.tensor(x, dtype=torch.float32).log_softmax(0) for x in pair)
    assert (kl_k2(policy, reference) >= 0).all()
    assert (kl_k3(policy, reference) >= -1e-6).all()  # rounding of expm1
    assert kl_k3(policy, policy).tolist() == kl_k1(policy, policy).tolist() == [0.0] * len(policy)


def test_the_gradient_of_mean_k2_is_that_of_the_exact_kl():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)
    reference = torch.randn(5, dtype=torch.float64, generator=generator).log_softmax(0)
    policy = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    (sampled,) = torch.autograd.grad((policy.detach().exp() * kl_k2(policy, reference)).sum(), logits)
    torch.testing.assert_close(sampled, exact)


def test_small_differences_keep_their_digits():
    difference = torch.tensor([1e-4], dtype=torch.float32)
    torch.testing.assert_close(kl_k3(difference, torch.zeros(1)), torch.tensor([5e-9]), rtol=2e-3, atol=0)


def test_gradients():
    logprobs = -torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    reference = logprobs.detach().flip(0)
    for estimator in (kl_k1, kl_k2, kl_k3):
        assert torch.autograd.gradcheck(lambda x, f=estimator: f(x, reference), (logprobs.detach().requires_grad_(),))


def test_16_bit_logprobs_are_subtracted_in_float32():
    assert kl_k1(torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32


@given(
    st.floats(1e-3, 1.0),
    st.lists(st.floats(0, 50), min_size=10, max_size=10),
    st.integers(1, 512),
    st.floats(0.1, 20),
    st.floats(1e3, 1e5),
)
def test_adaptive_coefficient_over_ten_steps(coef, measured, num_episodes, target, horizon):
    expected = divergence.adaptive_coefs(coef, measured, num_episodes, target, horizon)
    for kl_now, want in zip(measured, expected, strict=True):
        coef = next_kl_coef(coef, kl_now, num_episodes, target=target, horizon=horizon)
        assert coef == pytest.approx(want, rel=1e-12)


def test_adaptive_coefficient_under_a_constant_kl_is_a_power():
    coef = 0.3
    for _ in range(10):
        coef = next_kl_coef(coef, 9.0, 500, target=6.0, horizon=10_000.0)
    assert coef == pytest.approx(0.3 * (1 + 0.2 * 500 / 10_000) ** 10, rel=1e-12)


def test_adaptive_coefficient_by_hand():
    step = {"target": 6.0, "horizon": 10_000.0}
    assert next_kl_coef(0.2, 6.0, 64, **step) == 0.2
    assert next_kl_coef(0.2, 6.6, 1000, **step) == pytest.approx(0.2 * 1.01)  # 10 % above, a tenth of the horizon
    assert next_kl_coef(0.2, 600.0, 1000, **step) == pytest.approx(0.2 * 1.02)  # counts as 20 %
    assert next_kl_coef(0.2, 0.0, 1000, **step) == pytest.approx(0.2 * 0.98)


@given(VOCABULARIES, st.integers(1, 4))
def test_the_best_of_n_stays_within_its_bound(pair, n):
    policy = reductions.softmax(pair[0])
    assert divergence.kl(divergence.best_of_n(policy, n), policy) <= best_of_n_kl(n) + 1e-9


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_bound_is_met_where_every_response_is_rare(n):
    policy = [1 / 60] * 60
    exact = divergence.kl(divergence.best_of_n(policy, n), policy)
    assert exact == pytest.approx(best_of_n_kl(n), abs=0.01)  # 60 responses are not infinitely many
