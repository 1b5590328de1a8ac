"""Warnings about values that are allowed but probably not meant."""

from chomp.config.data import DataConfig
from chomp.config.optim import OptimConfig
from chomp.config.registry import MODELS, SOURCES
from chomp.config.schema import Config


def config_warnings(config: Config) -> list[str]:
    """List one line for each key that does something else than it seems to, with its path."""
    return [*_model_warnings(config), *_data_warnings(config), *_unused(config)]


def is_deterministic(config: Config) -> bool:
    """Tell whether dropout is off: as `train.deterministic` says, else when all rates are 0."""
    model = config.model
    if config.train.deterministic is not None:
        return config.train.deterministic
    return not (model.dropout or model.attention_dropout or model.hidden_dropout)


def _model_warnings(config: Config) -> list[str]:
    model, train = config.model, config.train
    warnings = _ignored_by_the_backend(config)
    if model.pad_token_id == model.eos_token_id:
        warnings.append(
            f"model.pad_token_id: is the same as model.eos_token_id ({model.eos_token_id}); EOS at "
            "the end of a document is still trained on here, as padding is known by its position, "
            "but programs that mask labels by the pad id would never train the model to stop"
        )
    if model.use_checkpoint and is_deterministic(config):
        warnings.append(
            "model.use_checkpoint: has no effect in a deterministic run; set "
            "train.deterministic: false (all dropout rates may stay 0.0)"
        )
    for name in ("dropout", "attention_dropout", "hidden_dropout"):
        rate = getattr(model, name)
        if rate and train.deterministic:
            warnings.append(
                f"model.{name}: has no effect with train.deterministic: true (got {rate})"
            )
    return warnings


# What the dummy heeds: its sizes, and keys that only say how something is computed.
_OF_THE_DUMMY = {"backend", "vocab_size", "d_model", "pad_token_id", "bos_token_id", "eos_token_id"}
_HOW = {"chunk_size", "fast_ops", "kernels", "compute_dtype", "param_dtype", "softmax_dtype"}


def _ignored_by_the_backend(config: Config) -> list[str]:
    model = config.model
    if model.backend in MODELS:
        return []
    of_others, defaults = {"d_model", "options"}, type(model)()
    if model.backend == "dummy":
        of_others = set(type(model).model_fields) - _OF_THE_DUMMY - _HOW
    ignored = [
        f"model.{name}"
        for name in type(model).model_fields
        if name in of_others and getattr(model, name) != getattr(defaults, name)
    ]
    if not ignored:
        return []
    have = "has" if len(ignored) == 1 else "have"
    return [f"{', '.join(ignored)}: {have} no effect with model.backend: {model.backend}"]


def _data_warnings(config: Config) -> list[str]:
    data = config.data
    warnings = []
    if data.isolate_documents and not data.mask_boundary_loss:
        warnings.append(
            "data.mask_boundary_loss: false has no effect with data.isolate_documents: true, as "
            "nothing before a document's first token is seen"
        )
    warnings += [
        f"data.stages.{number}: from_step: {stage.from_step:,} is after the last step "
        f"(train.steps: {config.train.steps:,})"
        for number, stage in enumerate(data.stages)
        if stage.from_step > config.train.steps
    ]
    warnings += _not_of_a_mixture(data) if data.sources else _not_of_the_backend(data)
    if data.tokenizer.hf_name_or_path and data.tokenizer.kind != "hf":
        warnings.append(
            "data.tokenizer.hf_name_or_path: is not used with data.tokenizer.kind: byte; it needs "
            "hf"
        )
    return warnings


def _not_of_a_mixture(data: DataConfig) -> list[str]:
    given = [
        f"data.{name}"
        for name in ("files", "eval_files", "local_text", "tokens_dir", "options", "hf_eval_split")
        if getattr(data, name)
    ]
    are = "is" if len(given) == 1 else "are"
    return [f"{', '.join(given)}: {are} not used with data.sources"] * bool(given)


def _not_of_the_backend(data: DataConfig) -> list[str]:
    warnings = [
        f"data.{name}: is not used with data.backend: {data.backend}; it needs {backend}"
        for name, backend in (
            ("files", "files"),
            ("eval_files", "files"),
            ("document_separator", "files"),
            ("local_text", "local_text"),
            ("tokens_dir", "tokens"),
        )
        if getattr(data, name) and data.backend != backend
    ]
    if data.options and data.backend not in SOURCES:
        warnings.append(
            f"data.options: is not used with data.backend: {data.backend}; "
            "it is for a source of your own"
        )
    return warnings


def _unused(config: Config) -> list[str]:
    """Return a line for each key that others leave without effect."""
    train, optim, defaults = config.train, config.optim, OptimConfig()
    warnings = []
    if train.ema_from and train.ema is None:
        warnings.append("train.ema_from: has no effect without train.ema")
    return warnings + [
        f"optim.{name}: has no effect with optim.schedule: {optim.schedule}; it needs wsd"
        for name in ("decay_share", "decay_shape")
        if getattr(optim, name) != getattr(defaults, name) and optim.schedule != "wsd"
    ]
