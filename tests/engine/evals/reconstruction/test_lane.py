"""Networks that advance together: the loss of each, its state, and what does not depend on the others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.evals.reconstruction.lane import Lane, NetworkState, Protocol, bytes_of_network
from engine.runtime import Runtime
from tests.engine.evals.reconstruction.networks import SMALL, backbone
from tests.engine.models.plain import pictures

CPU = Runtime("cpu", "fp32", 1)
SIDE = 20
PIXELS = pictures(3, SIDE).numpy()


def lane(networks: slice = slice(None), updates: int = 5, lr: float = 1e-3) -> Lane:
    return Lane(backbone(), CPU, Protocol(updates, lr, SMALL), PIXELS[networks], list(range(3))[networks])


def advanced(one: Lane) -> Lane:
    while one.running:
        one.update()
        one.check()
    return one


def test_a_batch_equals_each_network_alone() -> None:
    images, losses, curve = advanced(lane()).result()
    for network in range(3):
        alone = advanced(lane(slice(network, network + 1))).result()
        np.testing.assert_allclose(curve[:, network], alone[2][:, 0], rtol=1e-4)
        np.testing.assert_allclose(images[network], alone[0][0], atol=2e-3)
        assert losses[network] == pytest.approx(alone[1][0], rel=1e-3)
    assert np.ptp(curve[0]) > 0


def test_the_first_loss_is_the_mean_squared_error_of_feature_maps() -> None:
    one = lane()
    one.update()
    first = one.check()
    fresh, net = lane(), backbone().double()
    image = fresh.loss()[1].detach().double()
    x = torch.from_numpy(PIXELS / 255).permute(0, 3, 1, 2)
    expected = (net(image) - net(x)).square().mean((1, 2, 3))
    np.testing.assert_allclose(first, expected.numpy(), rtol=1e-5)


def test_losses_fall_to_a_fifth_in_a_second() -> None:
    curve = advanced(lane(updates=60, lr=1e-2)).result()[2]
    assert (curve[-10:].mean(0) < 0.2 * curve[0]).all()


def test_a_restored_network_goes_on_bit_for_bit() -> None:
    whole = advanced(lane()).result()
    begun = lane()
    for _ in range(3):
        begun.update()
    states = begun.states()
    assert [state.step for state in states] == [3] * 3 and states[0].losses.shape == (3,)
    rest = lane()
    rest.restore(states)
    for ours, theirs in zip(advanced(rest).result(), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_states_before_the_first_update_and_of_other_networks() -> None:
    fresh = lane()
    fresh.restore(lane().states())
    np.testing.assert_array_equal(advanced(fresh).result()[2], advanced(lane()).result()[2])
    states = lane().states()
    later = replace(states[1], step=1, losses=np.zeros(1, np.float32))
    for wrong in ([*states[:1], later, *states[2:]], states[:2]):
        with pytest.raises(ValueError, match="other networks"):
            lane().restore(wrong)


def poisoned(state: NetworkState) -> NetworkState:
    return replace(state, parameters=np.full_like(state.parameters, np.nan))


def test_a_loss_that_is_not_finite_stops_its_network_alone() -> None:
    begun = lane()
    begun.update()
    begun.update()
    states = begun.states()
    broken = lane()
    broken.restore([states[0], poisoned(states[1]), states[2]])
    advanced(broken)
    assert broken.stopped == {1: 2} and broken.step == 5
    whole, found = advanced(lane()).result()[2], broken.result()[2]
    np.testing.assert_allclose(found[:, [0, 2]], whole[:, [0, 2]], rtol=1e-4)
    alone = lane(slice(1, 2))
    alone.restore([poisoned(states[1])])
    assert advanced(alone).step == 3 and not alone.running, "it ends at once"


def test_memory_grows_with_the_image_and_counts_parameters_four_times() -> None:
    parameters = sum(state.parameters.nbytes for state in lane().states()) // 3
    assert bytes_of_network(lane()) > 4 * parameters
    larger = Lane(backbone(), CPU, Protocol(1, 1e-3, SMALL), pictures(1, 4 * SIDE).numpy(), [0])
    assert bytes_of_network(larger) > 4 * bytes_of_network(lane())


@pytest.mark.gpu(needs="autograd")
def test_cuda_equals_the_cpu() -> None:
    from engine.runtime import fix_flags

    here, runtime = advanced(lane()).result(), Runtime("cuda:0", "fp32", 1)
    fix_flags(runtime)
    there = Lane(backbone().cuda(), runtime, Protocol(5, 1e-3, SMALL), PIXELS, [0, 1, 2])
    found = advanced(there).result()
    np.testing.assert_allclose(found[2], here[2], rtol=1e-2)
    mixed = Lane(
        backbone().cuda(), replace(runtime, precision="bf16"), Protocol(5, 1e-3, SMALL), PIXELS, [0, 1, 2]
    )
    np.testing.assert_allclose(advanced(mixed).result()[2][0], here[2][0], rtol=0.05)
