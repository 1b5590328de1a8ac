"""The average's kernels against the recurrence in float64, and compiled for GPUs."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ema_reference import dense, gradients_of, random_runs, reference, some_coefficients
from hypothesis import given, settings
from hypothesis import strategies as st
from megalodon_jax.layers.complex_ema import ComplexEMA

from chomp.models.megalodon.layers import coefficients
from chomp.ops import Coefficients
from chomp.ops.kernels import ema, token_loop


def interpreted(x, c, skip=None, starts=None):
    """Channels before time, as the reference has them."""
    return ema.ema_kernel(x.swapaxes(1, 2), c, skip, starts, True).swapaxes(1, 2)


average = jax.jit(interpreted)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    """Turns of the loop that compile in a quarter of the time."""
    monkeypatch.setattr(token_loop, "TURN", 2)


def starts_of(runs: np.ndarray | None) -> np.ndarray | None:
    return None if runs is None else np.diff(runs, axis=1, prepend=-1) != 0


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    time=st.sampled_from([1, 8, 91]),  # each shape is compiled once, so they are few
    documents=st.integers(1, 60),
)
def test_output_is_that_of_the_recurrence(seed, time, documents):
    rng = np.random.default_rng(seed)
    c = some_coefficients(rng)
    skip = rng.normal(size=3).astype(np.float32)
    x = rng.normal(size=(2, 3, time)).astype(np.float32)
    for runs in (None, random_runs(rng, 2, time, documents)):
        ours = average(x, c, skip, starts_of(runs))
        expected = reference(x, c, runs) + skip[:, None] * x
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)


def kernel(c, x, skip, starts):
    return interpreted(x, c, skip, starts)


average_and_gradients = gradients_of(kernel)
exact_and_gradients = gradients_of(lambda c, x, skip, runs: dense(x, c, runs) + skip[:, None] * x)


def check_gradients(
    seed: int, order: int, dim: int, time: int, documents: int | None, ours=average_and_gradients
) -> None:
    """Output and derivatives with respect to the input, all coefficients and the skip."""
    rng = np.random.default_rng(seed)
    c, skip = some_coefficients(rng, dim, order), rng.normal(size=dim).astype(np.float32)
    x = rng.normal(size=(2, dim, time)).astype(np.float32)
    towards = rng.normal(size=x.shape)
    runs = None if documents is None else random_runs(rng, 2, time, documents)

    found = ours(towards, (c, x, skip), starts_of(runs))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (c, x, skip))
        exact = exact_and_gradients(towards, wide, runs)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("documents", [None, 1, 5, 70])
def test_gradients_of_input_and_all_coefficients(documents):
    check_gradients(3, 4, 3, 75, documents)


def test_turns_as_long_as_on_a_device(monkeypatch):
    monkeypatch.undo()
    assert token_loop.TURN > 2
    check_gradients(1, 4, 3, 3 * token_loop.TURN + 1, 5, gradients_of(kernel))


@pytest.mark.parametrize(("order", "dim"), [(1, 33), (3, 16), (5, 9), (16, 6)])
def test_gradients_of_any_order_and_width(order, dim):
    """Channels that fill a program's lanes, and channels that don't."""
    check_gradients(order, order, dim, 19, 3)


@pytest.mark.parametrize("order", [2, 8, 32])
def test_output_of_any_order(order):
    rng = np.random.default_rng(order)
    c, runs = some_coefficients(rng, 3, order), random_runs(rng, 1, 19, 3)
    x = rng.normal(size=(1, 3, 19)).astype(np.float32)
    ours = average(x, c, None, starts_of(runs))
    np.testing.assert_allclose(ours, reference(x, c, runs), rtol=2e-5, atol=2e-5)


def test_as_many_orders_in_a_lane_as_there_can_be(monkeypatch):
    """As on a device that many rows keep busy."""
    monkeypatch.setattr(ema, "_parts", lambda x, order, multiply_adds: 1)
    check_gradients(8, 8, 5, 11, 2, gradients_of(kernel))


@pytest.mark.parametrize("rows", [1, 8, 64, 512])
@pytest.mark.parametrize("order", [1, 2, 3, 5, 8, 16, 32, 64, 100])
@pytest.mark.parametrize(("multiply_adds", "most"), [(5, 16), (10, 8)])
def test_a_lane_s_orders_fit_in_registers(order, rows, multiply_adds, most):
    parts = ema._parts(jax.ShapeDtypeStruct((rows, 1, 640), "bfloat16"), order, multiply_adds)
    assert parts in (1, 2, 4, 8, 32) and (order <= most * parts)


def test_more_orders_than_lanes_have_room_for():
    assert ema._parts(jnp.zeros((1, 3, 2)), 200, 5) == 32
    check_gradients(9, 100, 2, 3, None)


def test_every_token_its_own_document_keeps_nothing():
    rng = np.random.default_rng(0)
    c, time = some_coefficients(rng), 90
    x = rng.normal(size=(1, 3, time)).astype(np.float32)
    weight = (np.asarray(c.gamma_real) * np.asarray(c.p)).sum(-1)
    starts = np.ones((1, time), bool)
    ours, pull = jax.vjp(lambda x: average(x, c, None, starts), x)
    np.testing.assert_allclose(ours, x * weight[:, None], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull(x)[0], x * weight[:, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("zero", ["magnitude", "phase"])
def test_decay_and_phase_of_exactly_zero(zero):
    rng = np.random.default_rng(2)
    c = some_coefficients(rng)
    c = c._replace(**{zero: jnp.zeros_like(c.p)})
    x = rng.normal(size=(1, 3, 31)).astype(np.float32)
    np.testing.assert_allclose(average(x, c), reference(x, c, None), rtol=1e-5, atol=1e-5)
    ours = jax.jit(jax.grad(lambda c: interpreted(x, c).sum()))(c)
    with jax.enable_x64(True):
        wide = Coefficients(*(jnp.asarray(np.asarray(a, np.float64)) for a in c))
        exact = jax.jit(jax.grad(lambda c, x: dense(x, c, None).sum()))(wide, x.astype(np.float64))
    for a, b in zip(ours, exact, strict=True):
        # The library's derivative of 0^0 is undefined.
        at = np.isfinite(b)
        np.testing.assert_allclose(a[at], b[at], rtol=1e-4, atol=1e-5 * np.abs(b[at]).max())
        assert np.isfinite(a).all()


@pytest.mark.parametrize(("shift", "offset", "time"), [(0.0, 0.0, 700), (-5.0, 3.0, 8192)])
def test_error_is_no_larger_than_the_library_s(shift, offset, time):
    """Also for |q| within 1e-4 of 1 over a long row with a large mean."""
    layer = eqx.filter_jit(ComplexEMA)(8, 16, key=jax.random.PRNGKey(0))
    layer = eqx.tree_at(
        lambda e: (e.alpha, e.delta), layer, (layer.alpha + shift, layer.delta + shift)
    )
    x = jax.random.normal(jax.random.PRNGKey(1), (1, 8, time)) + offset
    c, skip = coefficients(layer), layer.omega.astype(jnp.float32)
    weighted = np.asarray(skip, np.float64)[:, None] * np.asarray(x, np.float64)
    expected = reference(np.asarray(x), c, None) + weighted
    theirs = np.abs(np.asarray(eqx.filter_jit(layer)(x)[0]) - expected).max()
    ours = np.abs(np.asarray(average(x, c, skip)) - expected).max()
    assert ours <= 2 * theirs


def test_nothing_of_another_document_is_seen():
    """Neither its values nor its NaN: not in the output, not in the input's gradient."""
    rng = np.random.default_rng(4)
    c, time, bad = some_coefficients(rng), 44, slice(13, 30)
    starts = starts_of(np.repeat([0, 1, 2], [13, 17, 14])[None])
    x = rng.normal(size=(1, 3, time)).astype(np.float32)

    def both(values):
        result, pull = jax.vjp(lambda x: average(x, c, np.ones(3, np.float32), starts), values)
        return [np.asarray(result), np.asarray(pull(values)[0])]

    plain = both(x)
    for value in (np.nan, np.inf, 1e30):
        other = x.copy()
        other[..., bad] = value
        for one, two in zip(plain, both(other), strict=True):
            assert (one[..., :13] == two[..., :13]).all() and (one[..., 30:] == two[..., 30:]).all()
            assert not (one[..., bad] == two[..., bad]).any()


def test_bfloat16_is_only_the_format_of_the_arrays():
    rng = np.random.default_rng(6)
    c, skip = some_coefficients(rng), rng.normal(size=3).astype(np.float32)
    x = jnp.asarray(rng.normal(size=(2, 3, 21)), jnp.bfloat16)
    starts = starts_of(random_runs(rng, 2, 21, 4))

    def both(x):
        result, pull = jax.vjp(lambda *args: average(*args, starts), x, c, skip)
        return result, pull(x)

    narrow, wide = both(x), both(x.astype(jnp.float32))
    assert narrow[0].dtype == narrow[1][0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow[0], wide[0].astype(jnp.bfloat16))
    np.testing.assert_array_equal(narrow[1][0], wide[1][0].astype(jnp.bfloat16))
    for a, b in zip(jax.tree.leaves(narrow[1][1:]), jax.tree.leaves(wide[1][1:]), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-6)  # sums of two programs


def test_under_vmap_scan_and_checkpoint():
    rng = np.random.default_rng(5)
    c = some_coefficients(rng)
    x = jnp.asarray(rng.normal(size=(3, 2, 3, 20)), jnp.float32)
    starts = jnp.asarray(np.stack([starts_of(random_runs(rng, 2, 20, 4)) for _ in range(3)]))

    def loss(x, starts):
        return jnp.square(interpreted(x, c, None, starts)).sum()

    step = jax.jit(jax.grad(loss))
    plain = [step(a, b) for a, b in zip(x, starts, strict=True)]
    mapped = jax.jit(jax.vmap(jax.grad(loss)))(x, starts)
    _, scanned = jax.lax.scan(
        lambda _, item: (None, jax.grad(jax.checkpoint(loss))(*item)), None, (x, starts)
    )
    np.testing.assert_allclose(mapped, np.stack(plain), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scanned, np.stack(plain), rtol=1e-5, atol=1e-5)


COMPILER = ("jax-cuda13-pjrt", "nvidia-cuda-nvcc", "nvidia-nvvm")


def assembler() -> Path | None:
    """NVIDIA's, of the wheels that XLA's compiler for GPUs needs."""
    try:
        files = [file for name in COMPILER for file in importlib.metadata.files(name) or ()]
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()) for file in files if file.name == "ptxas"), None)


@pytest.mark.gpu_program
@pytest.mark.skipif(assembler() is None, reason=f"needs the wheels {', '.join(COMPILER)}")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a100", marks=pytest.mark.slow),
        "h100",
        pytest.param("rtx5090", marks=pytest.mark.slow),
    ],
)
def test_compiles_for_a_gpu_without_spilling_registers(name, tmp_path):
    """Also with 8 orders in a lane, which takes most registers."""
    program = Path(__file__).with_name("compile_ema.py")
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, str(program), name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    registers = {}
    for ptx in tmp_path.glob("*.ptx"):
        text = ptx.read_text("utf-8")
        if ".entry ema" not in text:
            continue
        assert "fma.rn.f32" in text and ".f64" not in text
        kernel = text.partition(".entry ")[2].partition("(")[0]
        architecture = text.partition(".target ")[2].partition("\n")[0].partition(",")[0]
        report = subprocess.run(
            [assembler(), "-v", f"-arch={architecture}", "-o", os.devnull, ptx],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        assert "0 bytes spill stores, 0 bytes spill loads" in report
        registers.setdefault(kernel, []).append(report.partition("Used ")[2].partition(" ")[0])
    assert sorted(registers) == ["ema", "ema_coefficients", "ema_reversed"]
    assert all(int(count) <= 200 for counts in registers.values() for count in counts), registers
