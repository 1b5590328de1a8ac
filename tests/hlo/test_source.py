"""Parts of the model, by frames as they are in compiled programs."""

from pathlib import Path

import pytest

import chomp
from chomp.hlo.executions import Execution
from chomp.hlo.module import parse
from chomp.hlo.source import Place, Sources

HERE = str(Path(chomp.__file__).parent)
LIBRARY = "/env/site-packages"
FILES = {
    "ema": (f"{HERE}/ops/complex_ema.py", "_carry.<locals>.step"),
    "block": (f"{HERE}/models/megalodon/forward.py", "hidden_states.<locals>.<lambda>"),
    "lookup": (f"{HERE}/models/megalodon/forward.py", "hidden_states"),
    "step": (f"{HERE}/trainer/step.py", "_accumulate.<locals>.add_microbatch"),
    "product": (f"{LIBRARY}/megalodon_jax/ops.py", "_matmul_3d"),
    "muon": (f"{LIBRARY}/optax/contrib/_muon.py", "_base_newton_schulz_iteration"),
    "rms": (f"{LIBRARY}/megalodon_jax/layers/norms.py", "RMSNorm.__call__"),
}


def hlo(frames: tuple[str, ...], operation: str = "add") -> str:
    """A loop over one instruction with these frames, the innermost first, and a copy of it."""
    names = list(FILES)
    files = "\n".join(f'{n} "{FILES[name][0]}"' for n, name in enumerate(names, 1))
    functions = "\n".join(f'{n} "{FILES[name][1]}"' for n, name in enumerate(names, 1))
    locations = "\n".join(
        f"{n} {{file_name_id={n} function_name_id={n} line={n}}}" for n in range(1, len(names) + 1)
    )
    outward = [names.index(name) + 1 for name in frames]
    count = len(outward)
    chain = "\n".join(
        f"{n} {{file_location_id={place} parent_frame_id={min(n + 1, count)}}}"
        for n, place in enumerate(outward, 1)
    )
    source = f'metadata={{op_name="jit(f)/{operation}" stack_frame_id=1}}'
    return f"""HloModule m

FileNames
{files}

FunctionNames
{functions}

FileLocations
{locations}

StackFrames
{chain}

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8] parameter(0)
  %y = f32[8] add(%x, %x), {source}
  %c = f32[8] copy(%y)
  ROOT %z = f32[8] copy(%x)
}}
"""


@pytest.mark.parametrize(
    ("frames", "operation", "part", "line"),
    [
        (("ema", "block", "step"), "add", "moving average", "ops/complex_ema.py:1"),
        (("block", "step", "ema"), "add", "moving average", "models/megalodon/forward.py:2"),
        (("product", "step"), "dot", "projections", "trainer/step.py:4"),
        (("product",), "dot", "projections", "megalodon_jax/ops.py:5"),
        (("muon",), "dot", "optimizer", "optax/contrib/_muon.py:6"),
        (("rms",), "add", "norm", "megalodon_jax/layers/norms.py:7"),
        (("step",), "add", "gradient accumulation", "trainer/step.py:4"),
        (("lookup", "step"), "gather", "embedding", "models/megalodon/forward.py:3"),
        (("block",), "add", "other", "models/megalodon/forward.py:2"),
    ],
)
def test_parts(frames: tuple[str, ...], operation: str, part: str, line: str) -> None:
    module = parse(hlo(frames, operation))
    sources = Sources(module, [])
    place = sources.place(Execution(module.instructions["y"], 1, 1))
    assert place.part == part and place.line.startswith(line + " ")
    # A copy of the compiler's own is of what it copies.
    assert sources.place(Execution(module.instructions["c"], 1, 1)) == place
    assert sources.place(Execution(module.instructions["z"], 1, 1)) == Place("other", "")


def test_a_loop_of_one_part_is_of_that_part() -> None:
    module = parse(hlo(("ema",)))
    inside = Execution(module.instructions["y"], 8, 8, ("outer", "loop"))
    unknown = Execution(module.instructions["z"], 8, 8, ("outer", "loop"))
    assert Sources(module, [inside, unknown]).place(unknown).part == "moving average"
