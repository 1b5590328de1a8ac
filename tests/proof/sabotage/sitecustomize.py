"""Break chomp on purpose, in the processes of a proof: CHOMP_SABOTAGE says how.

Python imports a module of this name at its start, from a folder in PYTHONPATH.
"""

import os

how = os.environ.get("CHOMP_SABOTAGE")

if how:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from chomp.checkpoint.checkpointer import Checkpointer
    from chomp.trainer import output_files, trainer

    run, restore_state = trainer.TrainLoop.run, Checkpointer.restore_state

    def skip_batch(self, state, progress):
        if progress.step:
            self.control.next_batch()
        return run(self, state, progress)

    def flip_bit(self, step, like):
        state = restore_state(self, step, like)
        weight = state.params.lm_head.weight
        bits = jax.lax.bitcast_convert_type(weight, jnp.uint32).at[7, 3].add(1)
        flipped = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return eqx.tree_at(lambda s: s.params.lm_head.weight, state, flipped)

    def forget_optimizer(self, step, like):
        state = restore_state(self, step, like)
        fresh = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else 0 * leaf, state.opt_state)
        return eqx.tree_at(lambda s: s.opt_state, state, fresh)

    if how == "skip batch":
        trainer.TrainLoop.run = skip_batch
    elif how == "keep rows":
        output_files.keep_rows_up_to = lambda step, path: None
    else:
        Checkpointer.restore_state = {
            "flip bit": flip_bit,
            "forget optimizer": forget_optimizer,
        }[how]
