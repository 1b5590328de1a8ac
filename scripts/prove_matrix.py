"""Kill runs of many configurations and print a table of what came of it.

python scripts/prove_matrix.py --kills 7 --jobs 2 > docs/results/prove-resume.md

The quickstart, and a sharded Hugging Face folder with several epochs, each with both packing modes,
with documents isolated or not, with AdamW or Muon; the model is shrunk. Exit code 0 only if every
kill came in its moment and all runs are equal. --kills counts for each of the 16.
"""

import argparse
import ast
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from result_page import print_head

from chomp.config import Config, load_config
from chomp.errors import ChompError
from chomp.proof.kills import Moment
from chomp.proof.prove_resume import Proof, Settings, prove
from chomp.system.console import PrintConsole

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
STEPS = 24
SMALL = [
    "model.model_dim=64",
    "model.num_layers=1",
    "model.z_dim=32",
    "model.value_dim=64",
    "model.ffn_hidden_dim=96",
    "model.cema_ndim=4",
    "model.norm_num_groups=8",
    "model.chunk_size=64",
    "train.seq_len=128",
    "train.grad_accum=2",
    "train.batch_size=2",
    "train.generate_max_tokens=72",
    "optim.warmup_steps=10",
]
# About 4,500 tokens an epoch, 512 a step.
HF = [
    "data.backend=hf",
    "data.hf_name=null",
    "data.shuffle_buffer_size=8",
    "data.packing_buffer_docs=8",
    "data.max_eval_samples=3",
    "data.tokenizer={kind: byte, byte_offset: 3, add_eos: true}",
    "model.vocab_size=384",
]
SHARDS, ROWS = 4, 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=7, help="of each configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="configurations at a time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        configs = dict(configurations(Path(folder)))
        settings = [
            Settings(STEPS, args.kills, args.seed + number, False, None)
            for number in range(len(configs))
        ]
        proofs = list(pool.map(proof, configs, configs.values(), settings))
    return int(not show(dict(zip(configs, proofs, strict=True)), args.kills))


def configurations(folder: Path) -> Iterator[tuple[str, Config]]:
    shards = {kind: write_shards(folder / kind, kind) for kind in ("parquet", "jsonl")}
    modes = product(["sequential", "bin"], [False, True], ["adamw", "muon"])
    for packing, isolate, optimizer in modes:
        # Each kind of shard with each packing mode, isolation and optimizer.
        kind = "parquet" if (packing == "bin") ^ isolate ^ (optimizer == "muon") else "jsonl"
        for name, more in (
            ("quickstart", []),
            (f"hf {kind}", [*HF, f"data.hf_dataset={shards[kind]}"]),
        ):
            chosen = [
                f"data.packing_mode={packing}",
                f"data.isolate_documents={str(isolate).lower()}",
                f"optim.name={optimizer}",
            ]
            title = f"{name}, {packing}, {'isolated' if isolate else 'joined'}, {optimizer}"
            yield title, load_config(QUICKSTART, [*SMALL, *more, *chosen])


def write_shards(folder: Path, kind: str) -> Path:
    """Write short definitions of Python's own library as a dataset of several files."""
    folder.mkdir()
    texts = definitions()
    for number in range(SHARDS):
        rows = [{"text": text} for text in texts[number * ROWS : (number + 1) * ROWS]]
        path = folder / f"train-{number:05}-of-{SHARDS:05}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def definitions() -> list[str]:
    source = Path(ast.__file__).read_text("utf-8")
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    texts = [ast.get_source_segment(source, node) or "" for node in nodes]
    return [text for text in texts if 20 < len(text) < 250][: SHARDS * ROWS]


def proof(title: str, config: Config, settings: Settings) -> Proof | None:
    console = PrintConsole(stderr=True, prefix=f"[{title}] ")
    try:
        return prove(config, settings, console)
    except ChompError as error:
        console.message(str(error))
        return None


def show(proofs: dict[str, Proof | None], asked: int) -> bool:
    """Print the tables; return whether all is proved."""
    print_head("Proof of resume", "proof-of-resume")
    print("| configuration | kills | in their moment | steps done again | equal |")
    print("|---|---|---|---|---|")
    for title, found in proofs.items():
        kills = found.kills if found else []
        hits, replayed = sum(kill.hit for kill in kills), sum(kill.replayed for kill in kills)
        print(f"| {title} | {len(kills)} | {hits} of {asked} | {replayed} | {word(found)} |")
    done = [kill for found in proofs.values() if found for kill in found.kills]
    print("\n| killed | kills | where the run was then | steps done again |\n|---|---|---|---|")
    for moment in Moment:
        kills = [kill for kill in done if kill.kill.moment is moment and kill.hit]
        where = Counter(
            kill.view.reading.phase.value
            + (", checkpoint being written" if kill.view.writing else "")
            for kill in kills
        )
        phases = "; ".join(f"{phase}: {count}" for phase, count in where.most_common())
        print(f"| {moment} | {len(kills)} | {phases} | {sum(kill.replayed for kill in kills)} |")
    equal = [found for found in proofs.values() if found and not found.differences]
    exact = sum(len(found.kills) for found in equal)
    print(f"\n{exact} of {len(done)} kills came back exactly, in {len(proofs)} configurations")
    return all(found and found.proved for found in proofs.values())


def word(found: Proof | None) -> str:
    if found is None:
        return "a run failed"
    if found.differences:
        return "NO"
    return "yes" if found.proved else "yes, but not all moments were hit"


if __name__ == "__main__":
    sys.exit(main())
