import pytest

from chomp.checkpoint.compatibility import (
    ConfigChange,
    arithmetic,
    changes,
    check_arithmetic,
    check_compatible,
    keep_old_defaults,
)
from chomp.config import config_from_mapping
from chomp.errors import ResumeError

OLD = {
    "model": {"model_dim": 64, "dropout": 0.0},
    "data": {"files": ["texts/*.txt"], "max_retries": 3, "tokenizer": {"kind": "byte"}},
    "train": {"steps": 10, "batch_size": 2, "log_every": 5, "eval_every": 5},
    "optim": {"lr": 1e-3, "muon": {"momentum": 0.9}},
    "logging": {"level": "INFO"},
}


def with_value(key: str, value: object) -> dict:
    section, _, name = key.partition(".")
    if "." in name:
        group, _, name = name.partition(".")
        return {**OLD, section: {**OLD[section], group: {**OLD[section][group], name: value}}}
    return {**OLD, section: {**OLD[section], name: value}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.model_dim", 128),
        ("data.files", ["other/*.txt"]),
        ("data.tokenizer.kind", "hf"),
        ("train.batch_size", 4),
        ("train.eval_every", 0),  # which documents are held out
        ("optim.lr", 2e-3),
        ("optim.muon.momentum", 0.95),
    ],
)
def test_what_makes_another_run_is_refused_with_old_and_new_value(key: str, value: object):
    with pytest.raises(ResumeError) as caught:
        check_compatible(OLD, with_value(key, value), [])
    [change] = changes(OLD, with_value(key, value))
    assert change.key == key
    assert f"{key}: was {change.old!r}, now {value!r}" in str(caught.value)
    assert f"--allow-change {key}" in str(caught.value)
    assert check_compatible(OLD, with_value(key, value), [key]) == [change]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", 20),
        ("train.log_every", 1),
        ("train.eval_every", 7),
        ("data.max_retries", 9),
        ("data.hf_revision", "main"),
        ("logging.level", "DEBUG"),
    ],
)
def test_other_changes_are_reported_only(key: str, value: object):
    [change] = check_compatible(OLD, with_value(key, value), [])
    assert change == ConfigChange(key, changes(OLD, with_value(key, value))[0].old, value)


@pytest.mark.parametrize(
    ("saved", "given", "kept"),
    [
        ({}, {}, None),  # of a version that had no such key
        ({"shuffle_buffer_bytes": 5}, {}, 5),
        ({"shuffle_buffer_bytes": None}, {}, None),
        ({"shuffle_buffer_bytes": 5}, {"shuffle_buffer_bytes": 7}, 7),
        ({}, {"shuffle_buffer_bytes": 2**28}, 2**28),
    ],
)
def test_a_run_keeps_its_window_where_the_user_gives_none(saved: dict, given: dict, kept: int):
    config = config_from_mapping({"data": given})
    before = {"data": {"max_eval_samples": None} | saved}
    assert keep_old_defaults(config, before).data.shuffle_buffer_bytes == kept


@pytest.mark.parametrize(
    ("saved", "given", "kept"),
    [
        ("sequential", {}, "sequential"),
        ("sequential", {"packing_mode": "bin"}, "bin"),
        ("bin", {}, "bin"),
        ("bin", {"packing_mode": "sequential"}, "sequential"),
    ],
)
def test_a_run_keeps_its_packing_where_the_user_gives_none(saved: str, given: dict, kept: str):
    config = config_from_mapping({"data": given})
    before = {"data": {"max_eval_samples": None, "packing_mode": saved}}
    assert keep_old_defaults(config, before).data.packing_mode == kept


def test_a_run_keeps_its_schedule_and_weight_decay_where_the_user_gives_none():
    data = {"max_eval_samples": None}
    for saved in ({}, {"schedule": "cosine", "weight_decay": 0.01}):  # the first had no such key
        kept = keep_old_defaults(config_from_mapping({}), {"data": data, "optim": saved}).optim
        assert (kept.schedule, kept.weight_decay) == ("cosine", 0.01)
    given = config_from_mapping({"optim": {"schedule": "linear"}})
    kept = keep_old_defaults(given, {"data": data, "optim": saved}).optim
    assert (kept.schedule, kept.weight_decay) == ("linear", 0.01)
    now = {"schedule": "linear", "weight_decay": 0.1}
    kept = keep_old_defaults(config_from_mapping({}), {"data": data, "optim": now}).optim
    assert (kept.schedule, kept.weight_decay) == ("linear", 0.1)


def test_the_revision_of_a_source_is_no_change_of_its_content():
    old, new = (
        {**OLD, "data": {"sources": [{"name": "a.b", "hf_revision": revision, "weight": weight}]}}
        for revision, weight in (("v1", 1), ("v2", 2))
    )
    with pytest.raises(ResumeError) as caught:
        check_compatible(old, new, [])
    assert "hf_revision" not in str(caught.value)
    assert "data.sources.a.b.weight: was 1, now 2" in str(caught.value)


def test_nothing_has_changed():
    assert check_compatible(OLD, OLD, []) == []


def test_another_spelling_of_a_path_is_no_change():
    assert check_compatible(OLD, with_value("data.files", ["./texts//*.txt"]), []) == []


def test_all_refused_values_are_listed_at_once():
    new = {**with_value("model.model_dim", 1), "optim": {"lr": 5, "muon": {"momentum": 0.9}}}
    with pytest.raises(ResumeError) as caught:
        check_compatible(OLD, new, [])
    assert "model.model_dim" in str(caught.value)
    assert "optim.lr" in str(caught.value)


def test_a_section_is_allowed_whole_but_a_name_is_no_prefix():
    new = with_value("optim.muon.momentum", 0.5)
    assert check_compatible(OLD, new, ["optim"])
    assert check_compatible(OLD, new, ["optim.muon"])
    with pytest.raises(ResumeError):
        check_compatible(OLD, new, ["optim.mu"])


def test_a_value_that_is_gone_is_a_change_and_a_new_one_was_its_default():
    gone, other = {**OLD, "model": {"model_dim": 64}}, with_value("model.dropout", 0.5)
    assert changes(other, gone) == [ConfigChange("model.dropout", 0.5, None)]
    assert changes(gone, other) == [ConfigChange("model.dropout", 0.0, 0.5)]
    assert changes(gone, OLD) == []


def test_steps_that_round_otherwise_are_refused_in_one_line():
    """Versions before the number kept whether rates were inputs of the step."""
    versions = {"chomp": "0.1.0", "commit of chomp": "abc"}
    for kept, platform in (
        ({"arithmetic": 3}, "gpu"),
        ({"arithmetic": 4}, "cpu"),
        ({"rates": "inputs"}, "tpu"),
    ):
        check_arithmetic({"versions": versions, **kept}, platform, [])
    for kept, platform, was in (
        ({"rates": "inputs"}, "cpu", 2),
        ({"rates": "inputs"}, "gpu", 2),
        ({"rates": None}, "gpu", 1),
        ({}, "cpu", 1),
        ({"arithmetic": 3}, "cpu", 3),
    ):
        meta = {"versions": versions, **kept}
        with pytest.raises(ResumeError) as caught:
            check_arithmetic(meta, platform, ["optim"])
        line = str(caught.value)
        assert line.startswith(f"arithmetic: was {was}, now {arithmetic(platform)}: "), line
        assert "(chomp 0.1.0, commit abc)" in line
        assert "\n" not in line
        check_arithmetic(meta, platform, ["arithmetic"])
