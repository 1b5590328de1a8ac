"""A mixture's shares, stages, keys and changes; its exactness is tested with lanes, too."""

import itertools
import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from chomp.config import DataConfig, config_from_mapping
from chomp.data import Data, place_after_changes
from chomp.data.batching import BatchSpec, count_row_targets, make_batch
from chomp.data.packing import PackedRow, Segment, TokenizedDocument
from chomp.data.row_stats import count_targets
from chomp.errors import ConfigError, DataError

BOTH = pytest.mark.parametrize("packing_mode", ["sequential", "bin"])
WEIGHTS = {"a": 0.7, "b": 0.2, "c": 0.1}


@pytest.fixture
def sources(write_lines, paragraphs) -> Callable[..., dict]:
    """Return the keys of a mixture of three files of very different sizes."""
    texts = {"a": paragraphs[:150], "b": paragraphs[150:160], "c": paragraphs[160:260]}
    paths = {
        name: write_lines(f"{name}.jsonl", *({"text": t} for t in of)) for name, of in texts.items()
    }

    def make(names: str = "abc", weights: dict[str, float] = WEIGHTS, **keys) -> dict:
        entries = [{"name": n, "files": [str(paths[n])], "weight": weights[n]} for n in names]
        return {"sources": entries, "shuffle_buffer_size": 40, **keys}

    return make


def shares(data: Data, batches: int) -> list[float]:
    counts: Counter[int] = Counter()
    for drawn in itertools.islice(data.train, batches):
        for number, source in enumerate(drawn.stats.by_source):
            counts[number] += source.targets
    return [counts[number] / counts.total() for number in range(3)]


@BOTH
@pytest.mark.parametrize("lanes", [1, 4])
def test_shares_of_the_targets_are_the_weights(opened, sources, packing_mode, lanes):
    data = opened((1, 4, 64), of_lanes=lanes, packing_mode=packing_mode, **sources())
    assert shares(data, 200) == pytest.approx(list(WEIGHTS.values()), abs=0.005)


def test_at_any_batch_no_source_is_more_than_rows_behind(opened, sources):
    data = opened((1, 4, 64), **sources())
    counts = np.zeros(3)
    for drawn in itertools.islice(data.train, 60):
        counts += [s.targets for s in drawn.stats.by_source] + [0] * (
            3 - len(drawn.stats.by_source)
        )
        behind = np.array(list(WEIGHTS.values())) * counts.sum() - counts
        assert np.abs(behind).max() < 2 * 64


def test_lanes_of_a_batch_are_not_all_at_the_same_source(opened, sources):
    data = opened((1, 4, 64), of_lanes=4, **sources(weights={"a": 1, "b": 1, "c": 2}))
    assert all(
        len([s for s in d.stats.by_source if s.targets]) > 1
        for d in itertools.islice(data.train, 20)
    )


@BOTH
def test_a_stage_begins_at_its_step(opened, sources, packing_mode):
    stages = [
        {"from_step": 11, "weights": {"a": 0, "b": 0, "c": 1}},
        {"from_step": 21, "weights": {"a": 0.5, "b": 0.5, "c": 0}},
    ]
    data = opened((2, 2, 64), packing_mode=packing_mode, **sources(stages=stages))
    drawn = [[s.targets for s in d.stats.by_source] for d in itertools.islice(data.train, 60)]
    assert all(targets[:2] != [0, 0] for targets in drawn[:10])
    assert all(targets[:2] == [0, 0] for targets in drawn[10:20])
    last = np.array([[*targets, 0, 0][:3] for targets in drawn[20:]]).sum(0)
    assert last[2] == 0
    assert last[0] / last.sum() == pytest.approx(0.5, abs=0.02)


@BOTH
def test_a_state_goes_on_exactly_also_across_a_stage(opened, sources, packing_mode, assert_same):
    stages = [{"from_step": 9, "weights": {"a": 1, "b": 3, "c": 0}}]
    keys = sources(stages=stages, packing_mode=packing_mode)
    whole = opened((2, 2, 64), **keys)
    expected = []
    for at in range(16):
        state = json.loads(json.dumps(whole.get_state()))
        other = opened((2, 2, 64), **keys)
        other.set_state(state)
        expected.append(next(whole.train))
        assert_same([next(other.train)], expected[-1:])
        if at == 4:
            fifth = state
    other = opened((2, 2, 64), **keys)
    other.set_state(fifth)
    assert_same(list(itertools.islice(other.train, 12)), expected[4:])


def test_documents_of_all_sources_have_their_places(opened, sources, paragraphs):
    data = opened((2, 2, 64), **sources())
    seen = set()
    for drawn in itertools.islice(data.train, 60):
        for key in drawn.stats.keys:
            name, row = data.place(key)
            seen.add((name.rpartition("/")[2], row))
    assert {name for name, _ in seen} == {"a.jsonl", "b.jsonl", "c.jsonl"}
    assert {row for name, row in seen if name == "b.jsonl"} == set(range(10))


@BOTH
def test_without_repeat_every_token_of_every_source_comes_once(opened, sources, packing_mode):
    keys = sources(packing_mode=packing_mode, repeat=False)
    mixed = list(opened((2, 2, 64), **keys).train)
    counts = Counter(key for drawn in mixed for key in drawn.stats.keys)
    assert len(counts) == 260
    alone = 0
    for name in "abc":
        one = {**sources(name), "packing_mode": packing_mode, "repeat": False}
        alone += sum(d.stats.tokens for d in opened((2, 2, 64), **one).train)
    assert sum(drawn.stats.tokens for drawn in mixed) == alone


def test_a_row_counts_the_targets_of_its_labels():
    rng = np.random.default_rng(0)
    for mask, eos in itertools.product((True, False), repeat=2):
        layout = BatchSpec(1, 1, 24, 0, 2, mask_boundaries=mask, train_on_eos=eos)
        for _ in range(50):
            sizes = rng.multinomial(rng.integers(1, 25), [0.2] * 5)
            row: PackedRow = []
            for size in sizes:
                tokens = rng.integers(1, 4, size)
                row.append(Segment(tokens, TokenizedDocument(tokens, 0), starts=True))
            labels = make_batch([row], layout).labels
            assert count_row_targets(row, layout) == count_targets(np.asarray(labels))


def test_a_source_without_targets_does_not_keep_the_others_from_theirs(
    opened, write_lines, paragraphs
):
    barren = write_lines("barren.jsonl", *({"text": "x"} for _ in range(50)))
    good = write_lines("good.jsonl", *({"text": t} for t in paragraphs[:50]))
    entries = [{"files": [str(barren)]}, {"files": [str(good)]}]
    data = opened((2, 2, 64), sources=entries, isolate_documents=True)
    assert sum(drawn.stats.targets for drawn in itertools.islice(data.train, 20)) > 1000


def opened_after(opened, before: dict, after: dict, changed: set[str], allowed: tuple[str, ...]):
    """Draw ten batches, go on with other keys; return both data and the message."""
    old = opened((2, 2, 64), **before)
    assert len(list(itertools.islice(old.train, 10))) == 10
    new = opened((2, 2, 64), **after)
    state, note = place_after_changes(
        old.get_state(), new.get_state(), changed, allowed, bins=False
    )
    new.set_state(json.loads(json.dumps(state)))
    return old, new, note


def test_other_weights_go_on_where_each_source_was(opened, sources):
    after = sources(weights={"a": 0.1, "b": 0, "c": 0.9})
    changed = {"data.sources.a.weight", "data.sources.b.weight", "data.sources.c.weight"}
    old, new, note = opened_after(opened, sources(), after, changed, ("data.sources",))
    assert note == ""
    states = [data.get_state()["train"]["lanes"][0] for data in (old, new)]
    assert states[0] == states[1]
    assert shares(new, 100) == pytest.approx([0.1, 0, 0.9], abs=0.01)


def test_a_new_source_begins_and_the_others_go_on(opened, sources):
    changed = {"data.sources.c.files", "data.sources.c.weight", "data.content.source c digest"}
    before, after = sources("ab"), sources("abc")
    old, new, note = opened_after(opened, before, after, changed, ("data.sources", "data.content"))
    assert note == "c: a new source: it is read from its beginning"
    states = new.get_state()["train"]["lanes"][0]["sources"]
    assert states["a"] == old.get_state()["train"]["lanes"][0]["sources"]["a"]
    assert shares(new, 100) == pytest.approx([0.7, 0.2, 0.1], abs=0.01)


def test_one_source_of_several_may_begin_anew(opened, sources):
    changed = {"data.sources.b.files", "data.content.source b digest"}
    old, new, note = opened_after(
        opened, sources(), sources(), changed, ("data.sources", "data.content")
    )
    assert note == "b: other data than at the checkpoint: it is read from its beginning"
    states = [data.get_state()["train"]["lanes"][0]["sources"] for data in (old, new)]
    assert states[0]["a"] == states[1]["a"] and states[0]["b"] != states[1]["b"]


def test_a_mixture_instead_of_one_source_begins(opened, sources):
    one = {"backend": "files", "files": sources("a")["sources"][0]["files"]}
    _, _, note = opened_after(opened, one, sources(), {"data.sources.a.files"}, ("data",))
    assert note == "several sources instead of one: they are read from their beginnings"
    _, _, note = opened_after(opened, sources(), one, {"data.backend"}, ("data",))
    assert note == "one source instead of several: it is read from its beginning"


def test_evaluation_documents_are_of_each_source_and_never_trained_on(opened, sources):
    data = opened((2, 2, 64), evaluate=True, max_eval_samples=3, **sources())
    assert list(data.evaluation.sources) == ["a", "b", "c"]
    assert [each.documents for each in data.evaluation.sources.values()] == [3, 3, 3]
    assert data.evaluation.documents == 9
    first = dict(zip("abc", (0, 1, 2), strict=True))
    held = {
        (first[n] << 32) + d.key
        for n, each in data.evaluation.sources.items()
        for d in each._encoded
    }
    seen = {key for drawn in itertools.islice(data.train, 150) for key in drawn.stats.keys}
    assert seen.isdisjoint(held) and len(seen) > 150


def test_evaluation_sets_are_scored_apart_and_their_files_not_trained_on(
    opened, sources, write_lines
):
    entries = sources()["sources"]
    more = [{"name": "again", "files": entries[1]["files"], "max_samples": 4}]
    with pytest.raises(DataError, match=r"data\.files: .*b\.jsonl"):
        opened((2, 2, 64), sources=entries, eval_sets=more, evaluate=True)
    other = write_lines("other.jsonl", *({"text": f"held out {n}"} for n in range(6)))
    more = [{"name": "other", "files": [str(other)], "max_samples": 4}]
    data = opened((2, 2, 64), sources=entries, eval_sets=more, evaluate=True, max_eval_samples=3)
    assert list(data.evaluation.named) == ["a", "b", "c", "other"]
    assert data.evaluation.others["other"].documents == 4
    assert data.evaluation.documents == 9
    assert any(key.startswith("evaluation set other ") for key in data.fingerprint)
    alone = opened(local_text=["a text", "another one"], eval_sets=more, evaluate=True)
    assert list(alone.evaluation.named) == ["other"]


def test_files_of_one_sources_evaluation_are_in_no_source(opened, write_lines, tmp_path):
    for name in "xyz":
        write_lines(f"{name}.jsonl", *({"text": f"text {n} of {name}"} for n in range(5)))
    whole = {"name": "whole", "files": [str(tmp_path / "*.jsonl")]}
    part = {
        "name": "x",
        "files": [str(tmp_path / "x.jsonl")],
        "eval_files": [str(tmp_path / "z.jsonl")],
    }
    data = opened(sources=[whole, part], max_eval_samples=1)
    assert [shard.name[-7:] for shard in data.corpus.shards] == ["x.jsonl", "y.jsonl", "x.jsonl"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"sources": [{"weight": 1}]}, "data.sources.0: must have one of files, hf_dataset"),
        ({"sources": [{"files": ["a"], "builtin": "python-stdlib"}]}, "(got files and builtin)"),
        ({"sources": [{"files": ["a"]}, {"files": ["b/a.txt"]}]}, "called 'a'"),
        ({"sources": [{"files": ["a"], "weight": 0}]}, "must not all have weight 0"),
        ({"sources": [{"files": ["a"], "weigth": 2}]}, "did you mean 'weight'?"),
        ({"sources": [{"files": ["a"], "name": "a/b"}]}, "must be letters, digits"),
        ({"sources": [{"backend": "files"}]}, "a source that your own module registers"),
        ({"stages": [{"from_step": 5, "weights": {"a": 1}}]}, "data.stages: need data.sources"),
        ({"eval_sets": [{"name": "a"}]}, "data.eval_sets.0: must have one of files, hf_dataset"),
        (
            {"sources": [{"files": ["a"]}], "stages": [{"from_step": 5, "weights": {"b": 1}}]},
            "missing: a",
        ),
        (
            {
                "sources": [{"files": ["a"]}],
                "stages": [{"from_step": n, "weights": {"a": 1}} for n in (5, 5)],
            },
            "must be greater than the stage's before, which is 5",
        ),
    ],
)
def test_a_wrong_mixture_is_refused(data, problem):
    with pytest.raises(ConfigError) as refused:
        config_from_mapping({"data": data})
    assert problem in str(refused.value)


def test_names_are_made_of_what_is_read():
    entries = [
        {"files": ["texts/web/*.jsonl.gz"]},
        {"files": ["notes.v1.txt"]},
        {"hf_dataset": "org/big-set"},
        {"tokens_dir": "tokens/code"},
        {"builtin": "python-stdlib"},
    ]
    config = config_from_mapping({"data": {"sources": entries}}).data
    assert list(config.by_source()) == ["web", "notes", "big-set", "code", "python-stdlib"]
    backends = [alone.backend for alone in config.by_source().values()]
    assert backends == ["files", "files", "hf", "tokens", "builtin"]
    assert isinstance(config, DataConfig)


def test_a_source_that_has_ended_is_known_after_a_resume_at_a_stage(opened, sources):
    # b, of 10 documents, ends in the first stage; lane 1 begins the second as if behind lane 0.
    stages = [{"from_step": 9, "weights": {"a": 0.3, "b": 0.4, "c": 0.3}}]
    keys = sources(weights={"a": 0.1, "b": 0.8, "c": 0.1}, stages=stages, repeat=False)
    whole = opened((2, 3, 64), of_lanes=3, **keys)
    assert len(list(itertools.islice(whole.train, 8))) == 8
    state = json.loads(json.dumps(whole.get_state()))
    assert all("b" in lane["ended"] for lane in state["train"]["lanes"])
    other = opened((2, 3, 64), of_lanes=3, **keys)
    other.set_state(state)
    hashes = [
        [drawn.stats.hash for drawn in itertools.islice(data.train, 12)] for data in (whole, other)
    ]
    assert hashes[0] == hashes[1]


def test_lanes_take_turns_at_a_rare_source(opened, sources):
    """Rounded alike in all lanes, a share would be off by a row of each."""
    weights = {"a": 0.62, "b": 0.33, "c": 0.05}
    data = opened((1, 8, 64), of_lanes=4, **sources(weights=weights))
    counts, most = np.zeros(3), 0.0
    for drawn in itertools.islice(data.train, 60):
        counts += ([s.targets for s in drawn.stats.by_source] + [0, 0])[:3]
        most = max(most, abs(0.05 * counts.sum() - counts[2]))
    assert most < 1.8 * 64


def test_what_a_source_holds_out_may_be_trained_on_in_another(opened, sources):
    keys = sources("ab")
    keys["sources"][1]["files"] *= 2
    keys["sources"][1]["files"][0] = keys["sources"][0]["files"][0]
    for evaluate in (True, False):
        notes = opened((2, 2, 64), evaluate=evaluate, max_eval_samples=3, **keys).notes
        assert [note.partition(":")[0] for note in notes] == ["data.sources"] * evaluate
        assert not evaluate or "a and b both read" in notes[0]


@pytest.mark.parametrize("kind", ["eval_sets", "eval_files"])
def test_a_file_of_a_dataset_is_trained_on_or_evaluated_on(opened, sources, tmp_path, kind):
    keys = sources("ab", max_eval_samples=3)
    (tmp_path / "set").mkdir()
    shard = tmp_path / "set" / "train.jsonl"
    shard.write_bytes((tmp_path / "b.jsonl").read_bytes())
    keys["sources"].append({"name": "hub", "hf_dataset": str(tmp_path / "set")})
    (tmp_path / "link").symlink_to(tmp_path / "set")
    same = [str(tmp_path / "link" / "train.jsonl")]
    if kind == "eval_sets":
        keys["eval_sets"] = [{"name": "set", "files": same}]
    else:
        keys["sources"][0]["eval_files"] = same
    with pytest.raises(DataError, match="is evaluated on, is trained on too, in the source hub"):
        opened((2, 2, 64), evaluate=True, **keys)
