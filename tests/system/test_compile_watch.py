import time
from pathlib import Path

import jax
import jax.numpy as jnp

from chomp.system.compile_watch import CompileWatch


def test_what_is_compiled_is_noticed_and_what_is_loaded_told_apart(compile_cache: Path):
    def unheard_of(x: jax.Array) -> jax.Array:
        return jnp.linalg.svd(jnp.sin(x) @ x.T)[1]

    watch = CompileWatch()
    begin = time.time()
    jax.jit(unheard_of)(jnp.ones((7, 9)))
    assert 0 < watch.seconds <= time.time() - begin
    assert watch.has_compiled("unheard_of")
    watch.clear()
    assert watch.seconds == 0 and not watch.has_compiled("unheard_of")
    jax.clear_caches()
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        for _ in range(2):
            watch.clear()
            jax.clear_caches()
            jax.jit(unheard_of)(jnp.ones((7, 9)))
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
    assert watch.seconds > 0 and not watch.has_compiled("unheard_of")
