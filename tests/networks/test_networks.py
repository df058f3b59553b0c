"""Guarantee: networks have the shape, initial weights and precision that the settings name."""

import math

import pytest
import torch
from support.builders import build, continuous_data, settings
from torch import Tensor
from torch.func import functional_call, grad, vmap

from offline_cql.networks import (
    ActionBounds,
    ActionCritics,
    ObservationStatistics,
    StackedMLP,
    TanhGaussianActor,
    cpu_mlp,
)
from offline_cql.transitions import ActionMap

LIMITS = {"log_std_min": -5.0, "log_std_max": 2.0}
PLAIN = {"orthogonal": False, "bf16": False}


def plain_mlp(network: StackedMLP, member: int, x: Tensor) -> Tensor:
    """Return the outputs of one member, evaluated layer after layer."""
    layers = list(zip(network.weights, network.biases, strict=True))
    for weight, bias in layers[:-1]:
        x = torch.relu(x @ weight[member] + bias[member])
    weight, bias = layers[-1]
    return x @ weight[member] + bias[member]


def actor(hidden: list[int], **options) -> TanhGaussianActor:
    return TanhGaussianActor(
        3, 2, hidden, **{**LIMITS, "log_std_affine": False, **PLAIN, **options}
    )


def inner_products(matrix: Tensor) -> Tensor:
    """Return inner products of the shorter side's vectors; c² on the diagonal if orthogonal."""
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return rows @ rows.T


# --- Evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [[], [5], [5, 4, 3]])
def test_stacked_perceptrons_equal_separate_ones(hidden: list[int]):
    network, x = StackedMLP(3, 4, hidden, 2, **PLAIN), torch.randn(6, 4)
    expected = torch.stack([plain_mlp(network, member, x) for member in range(3)])
    assert network(x).shape == (3, 6, 2)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("cache_bytes", [cpu_mlp.CACHE_BYTES, 1, 500])
@pytest.mark.parametrize("actions", [1, 3])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_gradients_of_the_fused_path_equal_finite_differences(
    monkeypatch, norm, cache_bytes, actions
):
    """In one block, in blocks of one state, and in blocks of several."""
    monkeypatch.setattr(cpu_mlp, "CACHE_BYTES", cache_bytes)
    double = {"dtype": torch.float64, "requires_grad": True}
    per_state, action = torch.randn(2, 7, 5, **double), torch.rand(7 * actions, 2, **double)
    weights = [torch.randn(2, *shape, **double) for shape in ((2, 5), (5, 4), (4, 1))]
    biases = [torch.randn(2, 1, width, **double) for width in (4, 1)]
    widths = (5, 4, 5, 4) if norm == "layer" else ()
    norms = [torch.randn(2, 1, width, **double) for width in widths]

    def q(per_state: Tensor, action: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases, norms = parameters[:3], parameters[3:5], parameters[5:]
        half = len(norms) // 2
        return cpu_mlp.fused_after_first(
            per_state, action, weights, biases, norms[:half], norms[half:]
        )

    assert torch.autograd.gradcheck(q, (per_state, action, *weights, *biases, *norms))


def values_and_gradients(critics: ActionCritics) -> list[Tensor]:
    """Return Q of 50 states with 4 actions each, and all of its gradients."""
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(50, 3, generator=generator).requires_grad_()
    action = torch.rand(50, 4, 2, generator=generator).requires_grad_()
    critics.zero_grad()
    q = critics(observation, action)
    q.square().mean().backward()
    return [q.detach(), observation.grad, action.grad, *(p.grad for p in critics.parameters())]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("hidden", [[16], [16, 12, 8]])
@pytest.mark.parametrize("cache_bytes", [cpu_mlp.CACHE_BYTES, 2_000])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_fused_path_equals_the_plain_one(monkeypatch, norm, cache_bytes, hidden, bf16):
    """Values and all gradients; on a CPU an agent's critics take the fused path."""
    monkeypatch.setattr(cpu_mlp, "CACHE_BYTES", cache_bytes)
    torch.manual_seed(0)
    critics = ActionCritics(2, 3, 2, hidden, orthogonal=False, bf16=bf16, norm=norm)
    with torch.no_grad():
        for parameter in (*critics.mlp.norm_scales, *critics.mlp.norm_offsets):
            parameter.add_(0.5 * torch.randn_like(parameter))
    assert critics.uses_fused_path(torch.zeros(1, 3))
    fused = values_and_gradients(critics)
    critics.fused = False
    assert not critics.uses_fused_path(torch.zeros(1, 3))
    limit = 5e-2 if bf16 else 1e-5  # bf16 has 8 bits
    for one, other in zip(fused, values_and_gradients(critics), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert (one - other).norm() <= limit * other.norm()


@pytest.mark.parametrize(
    "options", [{}, {"norm": "layer"}, {"activation": "silu"}], ids=["plain", "norm", "silu"]
)
def test_gradients_of_the_plain_path_equal_finite_differences(options: dict[str, str]):
    critics = ActionCritics(2, 3, 2, [5, 4], **PLAIN, **options).double()
    observation = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    action = torch.rand(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert not critics.uses_fused_path(observation)
    names, values = zip(*critics.named_parameters(), strict=True)

    def q(observation: Tensor, action: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(names, parameters, strict=True))
        return functional_call(critics, named, (observation, action))

    assert torch.autograd.gradcheck(q, (observation, action, *values))


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("bf16", [False, True])
def test_compiled_critics_equal_eager_ones(norm: str, bf16: bool):
    critics = ActionCritics(2, 3, 2, [8, 8], orthogonal=False, bf16=bf16, norm=norm, fused=False)
    compiled = torch.compile(critics, backend="aot_eager", fullgraph=True)
    observation, action = torch.randn(5, 3), torch.rand(5, 4, 2)
    torch.testing.assert_close(compiled(observation, action), critics(observation, action))


def test_compiled_critics_do_not_use_the_fused_path():
    critics = ActionCritics(2, 3, 2, [8, 8], **PLAIN)
    compiled = torch.compile(critics, backend="aot_eager", fullgraph=True)
    observation, action = torch.randn(5, 3), torch.rand(5, 4, 2)
    torch.testing.assert_close(compiled(observation, action), critics(observation, action))


def test_gradients_per_state_by_vmap_average_to_the_batch_gradient():
    """The mean of the gradients is the gradient of the mean."""
    critics = ActionCritics(2, 3, 2, [8], **PLAIN, fused=False)
    parameters = {name: p.detach() for name, p in critics.named_parameters()}
    observation, action = torch.randn(5, 3), torch.rand(5, 4, 2)

    def loss(parameters: dict[str, Tensor], observation: Tensor, action: Tensor) -> Tensor:
        return functional_call(critics, parameters, (observation, action)).square().mean()

    states = observation.unsqueeze(1), action.unsqueeze(1)
    per_state = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, *states)
    whole = grad(loss)(parameters, observation, action)
    for name, gradient in whole.items():
        torch.testing.assert_close(per_state[name].mean(dim=0), gradient)


def test_frozen_critics_have_a_gradient_in_the_action_only():
    critics = ActionCritics(2, 3, 2, [5, 4], **PLAIN).requires_grad_(False)
    action = torch.rand(6, 1, 2, requires_grad=True)
    critics(torch.randn(6, 3), action).sum().backward()
    assert action.grad is not None
    assert action.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critics.parameters())


# --- Norm and activation -------------------------------------------------------------------------


def identity_layer(width: int, **options: str) -> StackedMLP:
    """Return a network with an identity hidden layer and a head that sums its outputs."""
    network = StackedMLP(1, width, [width], 1, **PLAIN, **options)
    with torch.no_grad():
        network.weights[0].copy_(torch.eye(width))
        network.weights[1].fill_(1.0)
        for bias in network.biases:
            bias.zero_()
    return network


def test_layer_norm_standardizes_a_hidden_layer_before_the_activation():
    """(0, 3, 3, 6) has mean 3 and variance 4.5: √2 (−1, 0, 0, 1), of which ReLU leaves √2."""
    network = identity_layer(4, norm="layer")
    x = torch.tensor([[0.0, 3.0, 3.0, 6.0]])
    assert network(x).item() == pytest.approx(math.sqrt(2.0), rel=1e-5)
    with torch.no_grad():
        network.norm_scales[0].fill_(2.0)
        network.norm_offsets[0].fill_(1.0)
    # 2 √2 (−1, 0, 0, 1) + 1 = (−1.83, 1, 1, 3.83)
    assert network(x).item() == pytest.approx(3.0 + 2.0 * math.sqrt(2.0), rel=1e-5)


def test_layer_norm_is_invariant_to_the_scale_of_its_inputs():
    network = identity_layer(4, norm="layer")
    x = torch.tensor([[0.0, 3.0, 3.0, 6.0]])
    assert network(1000.0 * x).item() == pytest.approx(network(x).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", 2.0), ("tanh", 0.0), ("silu", 4 / (1 + math.exp(-2)) - 2), ("gelu", 2 * 0.9545)],
)
def test_activations_equal_their_definitions(activation: str, expected: float):
    """Of −2 and 2, added up; Φ(2) − Φ(−2) = 0.9545."""
    network = identity_layer(2, activation=activation)
    assert network(torch.tensor([[-2.0, 2.0]])).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("option", ["norm", "activation"])
def test_an_unknown_norm_or_activation_is_an_error(option: str):
    with pytest.raises(ValueError, match=f"{option}='batch' must be one of"):
        StackedMLP(1, 2, [3], 1, **PLAIN, **{option: "batch"})


# --- Critics and actor ---------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [[], [5], [5, 4, 3]])
def test_critics_equal_a_perceptron_of_state_and_action_together(hidden: list[int]):
    critics = ActionCritics(3, 4, 2, hidden, **PLAIN)
    observation, action = torch.randn(6, 4), torch.rand(6, 7, 2)
    q = critics(observation, action)
    assert q.shape == (3, 6, 7)
    for member in range(3):
        for j in range(7):
            together = torch.cat([observation, action[:, j]], dim=1)
            expected = plain_mlp(critics.mlp, member, together).squeeze(1)
            torch.testing.assert_close(q[member, :, j], expected)


def test_log_std_is_clamped_to_its_limits_and_the_mean_is_not():
    network = actor([4])
    with torch.no_grad():
        network.mlp.weights[-1].zero_()
        network.mlp.biases[-1].copy_(torch.tensor([[[9.0, -9.0, 9.0, -9.0]]]))
    mean, log_std = network(torch.randn(5, 3))
    assert torch.equal(mean, torch.tensor([[9.0, -9.0]]).expand(5, 2))
    assert torch.equal(log_std, torch.tensor([[2.0, -5.0]]).expand(5, 2))


def test_affine_log_std_starts_at_itself_minus_one_and_learns():
    torch.manual_seed(0)
    plain = actor([4])
    torch.manual_seed(0)
    affine, x = actor([4], log_std_affine=True), torch.randn(5, 3)
    torch.testing.assert_close(affine(x)[1], plain(x)[1] - 1.0)
    with torch.no_grad():
        affine.log_std_multiplier.fill_(0.5)
    torch.testing.assert_close(affine(x)[1], 0.5 * plain(x)[1] - 1.0)
    affine(x)[1].sum().backward()
    assert affine.log_std_multiplier.grad is not None
    assert affine.log_std_offset.grad == 10.0  # 5 states of 2 dimensions


# --- Settings ---------------------------------------------------------------------


def test_widths_and_depths_reach_every_critic_the_targets_and_the_actor():
    config = settings(
        *("network.n_critics=3", "network.critic_hidden=[7,6,5]", "network.actor_hidden=[4,9]")
    )
    agent = build(config, continuous_data(observation_dim=3).spaces)
    for critic in (agent.critic, agent.target_critic):
        assert [tuple(w.shape) for w in critic.mlp.weights] == [
            *((3, 5, 7), (3, 7, 6), (3, 6, 5), (3, 5, 1)),
        ]
    assert [tuple(w.shape) for w in agent.actor.mlp.weights] == [(1, 3, 4), (1, 4, 9), (1, 9, 4)]
    assert not torch.equal(agent.critic.mlp.weights[1][0], agent.critic.mlp.weights[1][1])


def test_targets_start_as_copies_that_do_not_learn():
    agent = build(settings(), continuous_data().spaces)
    pairs = zip(agent.critic.parameters(), agent.target_critic.parameters(), strict=True)
    for online, target in pairs:
        assert torch.equal(online, target)
        assert online is not target
        assert not target.requires_grad


@pytest.mark.parametrize("which", ["actor", "critic"])
def test_orthogonal_initialization_applies_to_the_configured_network_only(which: str):
    widths = ["network.critic_hidden=[6,6]", "network.actor_hidden=[6,6]"]
    agent = build(settings(f"network.orthogonal_{which}=true", *widths), continuous_data().spaces)
    for name in ("actor", "critic"):
        network = getattr(agent, name).mlp
        for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            gain = 0.01 if layer == 2 else math.sqrt(2)
            for member in range(len(weight)):
                products = inner_products(weight[member].detach())
                identity = torch.eye(len(products))
                orthogonal = torch.allclose(products, gain**2 * identity, atol=1e-6)
                assert orthogonal == (name == which)
                assert (bias[member] == 0).all() == (name == which)


def test_other_weights_start_uniform_within_one_over_the_root_of_fan_in():
    network = StackedMLP(2, 16, [100], 50, **PLAIN)
    for weight, bias, fan_in in zip(network.weights, network.biases, (16, 100), strict=True):
        bound = 1 / math.sqrt(fan_in)
        for values in (*weight, *bias):
            assert 0.9 * bound < values.abs().max() <= bound
            assert values.min() < -0.8 * bound
            assert values.max() > 0.8 * bound


# --- Precision -----------------------------------------------------------------------------------


def network_with_visible_units(bf16: bool) -> tuple[StackedMLP, Tensor]:
    """Return a network whose outputs are its last hidden units divided by 3, and its input."""
    torch.manual_seed(0)
    network = StackedMLP(2, 3, [8, 8], 8, orthogonal=False, bf16=bf16)
    with torch.no_grad():
        network.weights[-1].copy_(torch.eye(8) / 3)
        network.biases[-1].zero_()
    return network, torch.randn(5, 3)


def test_bf16_hidden_layers_and_a_float32_head():
    """A third of a bf16 number in float32 is exactly that; rounded to bf16 it would not be."""
    network, x = network_with_visible_units(bf16=True)
    third = network(x)
    with torch.no_grad():
        network.weights[-1].copy_(torch.eye(8))
    hidden = network(x)
    assert third.dtype == hidden.dtype == torch.float32
    assert hidden.count_nonzero() > 20
    assert torch.equal(hidden, hidden.bfloat16().float())
    assert torch.equal(third, hidden * (torch.ones(()) / 3))
    assert not torch.equal(third, third.bfloat16().float())


def test_without_bf16_nothing_is_rounded():
    network, x = network_with_visible_units(bf16=False)
    assert not torch.equal(3 * network(x), (3 * network(x)).bfloat16().float())
    rounded, _ = network_with_visible_units(bf16=True)
    torch.testing.assert_close(network(x), rounded(x), atol=0.02, rtol=0.02)
    assert not torch.equal(network(x), rounded(x))


def test_bf16_reaches_actor_and_critics_and_leaves_parameters_and_gradients_in_float32():
    agent = build(settings("hardware.precision=bf16"), continuous_data().spaces)
    assert agent.actor.mlp.bf16
    assert agent.critic.mlp.bf16
    assert agent.target_critic.mlp.bf16
    q = agent.critic(torch.randn(4, 3), torch.rand(4, 5, 2))
    mean, log_std = agent.actor(torch.randn(4, 3))
    assert {q.dtype, mean.dtype, log_std.dtype} == {torch.float32}
    (q.sum() + mean.sum()).backward()
    for parameter in (*agent.critic.parameters(), *agent.actor.parameters()):
        assert parameter.dtype == parameter.grad.dtype == torch.float32


def test_a_network_without_hidden_layers_is_linear_in_float32():
    network, x = StackedMLP(1, 3, [], 2, orthogonal=False, bf16=True), torch.randn(4, 3)
    torch.testing.assert_close(network(x)[0], plain_mlp(network, 0, x))
    critics = ActionCritics(1, 3, 2, [], orthogonal=False, bf16=True)
    action = torch.rand(4, 1, 2)
    expected = plain_mlp(critics.mlp, 0, torch.cat([x, action[:, 0]], dim=1))
    torch.testing.assert_close(critics(x, action)[0], expected)


# --- Observations and actions --------------------------------------------------------------------


def test_observations_are_standardized():
    statistics = ObservationStatistics(torch.tensor([10.0, -2.0]), torch.tensor([5.0, 0.5]))
    assert torch.equal(statistics(torch.tensor([[15.0, -3.0]])), torch.tensor([[1.0, -2.0]]))


@pytest.mark.parametrize("std", [0.0, 1e-12, 1e-7])
def test_a_constant_column_is_only_centered(std: float):
    statistics = ObservationStatistics(torch.tensor([3.0]), torch.tensor([std]))
    observation = torch.tensor([[3.0], [3.25]])
    assert torch.equal(statistics(observation), torch.tensor([[0.0], [0.25]]))


def test_statistics_and_bounds_are_saved_with_the_policy():
    agent = build(settings(), continuous_data().spaces, mean=2.0, std=4.0)
    state = agent.state_dict()
    assert torch.equal(state["statistics.mean"], torch.full((3,), 2.0))
    assert torch.equal(state["statistics.std"], torch.full((3,), 4.0))
    assert torch.equal(state["bounds.high"], torch.ones(2))


def test_actions_are_mapped_to_the_bounds():
    """Dimension 0 has bounds ±2, dimension 1 from −1 to 3."""
    bounds = ActionBounds((-2.0, -1.0), (2.0, 3.0))
    inside = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])
    outside = torch.tensor([[-2.0, -1.0], [0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    assert torch.equal(bounds(inside), outside)
    assert torch.equal(bounds.inverse(outside), inside)


def test_both_affine_maps_agree():
    """networks.ActionBounds on tensors, transitions.ActionMap on arrays: equal up to rounding."""
    low, high = (-2.0, -1.0, 0.3), (2.0, 3.0, 0.4)
    bounds, action_map = ActionBounds(low, high), ActionMap(low, high)
    inside = torch.rand(1000, 3) * 2.0 - 1.0
    outside = bounds(inside)
    torch.testing.assert_close(outside, torch.from_numpy(action_map.to_environment(inside.numpy())))
    torch.testing.assert_close(
        bounds.inverse(outside),
        torch.from_numpy(action_map.to_internal(outside.numpy())),
        atol=1e-5,
        rtol=0,
    )
