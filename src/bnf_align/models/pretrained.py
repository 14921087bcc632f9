"""A model, its tokenizer and its adapter from a folder, the hub or a GGUF file: the one way in for every room."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from peft import PeftModel
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from bnf_align.models.model import evaluated
from bnf_align.records import BadInput, did_you_mean
from bnf_align.upstream import commit_of

logger = logging.getLogger(__name__)

SAFE, PICKLED = "adapter_model.safetensors", "adapter_model.bin"


class Source(NamedTuple):
    """What a name stands for: a model, or an adapter and the model it was trained on; each with its revision."""

    base: str
    revision: str | None
    adapter: str | None = None
    adapter_revision: str | None = None


class Loaded(NamedTuple):
    """What `load` found."""

    model: Any
    """A `PreTrainedModel`, or a `PeftModel` around one."""
    tokenizer: PreTrainedTokenizerBase
    source: Source


def find(name_or_path: str, adapter: str | None = None, revision: str | None = None) -> Source:
    """Whether a name is a model's or an adapter's, without loading either; arguments as in `load`.

    Raises:
        BadInput: If an adapter does not say what it was trained on, or that is an adapter again.
    """
    config = _adapter_config(name_or_path, revision)
    if config is None:
        return Source(name_or_path, revision, adapter)
    base = config.get("base_model_name_or_path")
    if adapter is not None or not base or _adapter_config(base, config.get("revision")) is not None:
        raise BadInput(
            f"{name_or_path} is an adapter, and "
            + (f"{adapter or base} is one too" if adapter or base else "it does not name the model it was trained on")
            + ": merge it into its base model first (PeftModel.merge_and_unload), and give the merged model."
        )
    return Source(base, config.get("revision"), name_or_path, revision)


def _adapter_config(name: str, revision: str | None) -> dict[str, Any] | None:
    with reading("The model", name):
        path = None if name.endswith(".gguf") else find_adapter_config_file(name, revision=revision)
        config = None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(config, dict | None):
        raise BadInput(f"{path}: the configuration of an adapter is a JSON object, not {type(config).__name__}.")
    return config


def load(
    name_or_path: str,
    *,
    adapter: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    base: Any = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: Any = torch.float32,
    trainable: bool = False,
    **kwargs: Any,
) -> Loaded:
    """A causal language model in evaluation mode with its tokenizer.

    An adapter brings the model along that it was trained on. Its own tokenizer is taken where it was saved with one,
    and its base's where not: training, generation and analysis see the same chat template. A GGUF file is
    dequantised, and can be saved like any other model. A checkpoint that reads pictures too is loaded whole.

    Args:
        name_or_path: A folder, a hub name, or a GGUF file in either (`folder/model.gguf`, `owner/name/model.gguf`);
            a model, or an adapter.
        adapter: An adapter to put on it, a folder or a hub name.
        tokenizer: Taken instead of the model's own.
        base: The model without an adapter where it is in memory already, of the same settings.
        revision: Branch, tag or commit of `name_or_path` on the hub; for the tokenizer too.
        trust_remote_code: Run code that comes with the model or its tokenizer.
        dtype: Of the weights; "auto" is the one they are stored in.
        trainable: Whether the weights of an adapter are to be trained.
        kwargs: For `from_pretrained`: `attn_implementation`, `quantization_config`, `device_map`, ...

    Raises:
        BadInput: Whatever keeps any of the three from being loaded, and for weights that are missing: the library
            would draw them at random.
    """
    source = find(name_or_path, adapter, revision)
    if trainable and (Path(name_or_path) / "trainer_state.json").exists():
        logger.warning(
            f"{name_or_path} is a checkpoint of a run: its weights become the reference. To go on with that run "
            "instead, give the model that it started from and --resume_from_checkpoint."
        )
    if tokenizer is None:
        tokenizer = _tokenizer(source, trust_remote_code)
    model = _base(source, trust_remote_code, dtype, **kwargs) if base is None else base
    if source.adapter is not None:
        folder = Path(source.adapter)
        if (folder / PICKLED).is_file() and not (folder / SAFE).is_file():
            raise BadInput(
                f"{folder} has its weights in {PICKLED}, a pickle, and pickles run code when they are read: save them "
                f"as {SAFE} first."
            )
        with reading(f"The adapter {source.adapter} on", source.base, path=source.adapter), warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")
            model = PeftModel.from_pretrained(
                model, source.adapter, is_trainable=trainable, revision=source.adapter_revision
            )
    return Loaded(evaluated(model), tokenizer, source)


def _base(source: Source, trust_remote_code: bool, dtype: Any, **kwargs: Any) -> Any:
    """The model of `source` without its adapter."""
    place, gguf = _place(source.base)
    kind: Any = AutoModelForCausalLM
    if not gguf:
        kind = auto_class(load_config(source.base, source.revision, trust_remote_code))
    else:
        if kwargs.get("quantization_config") is not None:
            raise BadInput(f"{source.base} is read as a whole model: save it as one first, and quantise that.")
        kwargs["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with reading("The model", source.base):
        loaded: Any = kind.from_pretrained(
            place,
            revision=source.revision,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            use_safetensors=True,  # any other kind of weights is a program that loading runs
            output_loading_info=True,
            **gguf,
            **kwargs,
        )
    model, info = loaded
    refuse_missing(source.base, info["missing_keys"], type(model).__name__)
    if gguf:
        model.name_or_path = model.config.name_or_path = source.base  # not its folder: adapters name their base by it
    return model


def auto_class(config: Any) -> Any:
    """The class of transformers that loads a model whole: what reads pictures too keeps its vision tower."""
    pictures = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and config.get_text_config() is not config
    return AutoModelForImageTextToText if pictures and not config.is_encoder_decoder else AutoModelForCausalLM


def for_inference(dtype: str = "auto", device: str | None = None) -> dict[str, Any]:
    """`dtype` and `device_map` of a model that answers or scores: by default on the accelerator, where there is one.

    "auto" is bfloat16 on an accelerator and float32 on a CPU; `device` is as in `device_map` of transformers.
    """
    if device is None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = accelerator.type if accelerator else "cpu"
    own = "float32" if device == "cpu" else "bfloat16"
    return {"dtype": own if dtype == "auto" else dtype, "device_map": device}


PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""What tells `AutoProcessor` how pictures become a model's input."""


def save_processor(model: Any, folder: str | Path) -> None:
    """Put the files of a vision model's processor, where it has some, beside its weights saved in `folder`."""
    if auto_class(model.config) is AutoModelForImageTextToText and model.config.name_or_path:
        for file in PROCESSOR_FILES:
            with suppress(OSError):  # it has none of this name, or is gone
                found = cached_file(model.config.name_or_path, file, revision=commit_of(model))
                shutil.copyfile(str(found), Path(folder) / file)


def load_config(name_or_path: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The configuration of a model, without its weights; BadInput if there is none."""
    place, gguf = _place(name_or_path)
    with reading("The config of", name_or_path):
        return AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=trust_remote_code, **gguf)


def load_tokenizer(
    name_or_path: str, *, adapter: str | None = None, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer that `load` gives with a model, arguments as there; BadInput if there is none."""
    return _tokenizer(find(name_or_path, adapter, revision), trust_remote_code)


def _tokenizer(source: Source, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    name, revision, config = source.base, source.revision, None
    if source.adapter is not None:
        with suppress(OSError):  # there is none, or the hub is out of reach
            cached_file(source.adapter, "tokenizer_config.json", revision=source.adapter_revision)
            name, revision = source.adapter, source.adapter_revision
            # The library would look for the model's config beside the tokenizer, where an adapter on the hub has none.
            config = load_config(source.base, source.revision, trust_remote_code)
    place, gguf = _place(name)
    with reading("The tokenizer of", name):
        return AutoTokenizer.from_pretrained(
            place, config=config, revision=revision, trust_remote_code=trust_remote_code, **gguf
        )


def configured_tokenizer(
    source: str | PreTrainedTokenizerBase,
    chat_template_path: str | None = None,
    eos_token: str | None = None,
    **where: Any,
) -> PreTrainedTokenizerBase:
    """A tokenizer, or that of a model or adapter by name, with a padding token and what else is asked for.

    `chat_template_path` is a .jinja file, or the folder or hub name of a tokenizer with a template; `eos_token` a
    token of the vocabulary; `where` as in `load_tokenizer`.

    Raises:
        BadInput: If it is no text tokenizer, or what is asked for is not there.
    """
    if source == "":
        raise BadInput("The model was made in Python and has no path to find its tokenizer by: pass processing_class.")
    tokenizer = load_tokenizer(source, **where) if isinstance(source, str) else source
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise BadInput(
            f"processing_class is a {type(tokenizer).__name__}: vision and audio are not supported, text is."
        )
    if chat_template_path and Path(chat_template_path).is_file():
        tokenizer.chat_template = Path(chat_template_path).read_text(encoding="utf-8")
    elif chat_template_path:
        try:
            tokenizer.chat_template = load_tokenizer(chat_template_path).chat_template
        except BadInput as error:
            raise BadInput(f"--chat_template_path {chat_template_path}: {error}") from error
        if tokenizer.chat_template is None:
            raise BadInput(f"--chat_template_path {chat_template_path}: the tokenizer there has no chat template.")
    if eos_token:
        if tokenizer.convert_tokens_to_ids(eos_token) in (None, tokenizer.unk_token_id):
            raise BadInput(f"--eos_token {eos_token!r} is not a token of this tokenizer.")
        tokenizer.eos_token = eos_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _place(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` calls a GGUF file: the folder or hub name that it lies in, and its own name."""
    if not name.endswith(".gguf"):
        return name, {}
    folder, file = os.path.split(name)
    return folder or ".", {"gguf_file": file}


def refuse_missing(name: str, missing: set[str], kind: str) -> None:
    """Raise BadInput where a checkpoint lacks weights of the model that it was loaded as."""
    if missing:
        raise BadInput(
            f"{name} lacks {len(missing):,} weights of a {kind}, the first {min(missing)}: they would be drawn at "
            "random, and so would what is made with them. Is it a model of this kind, and saved whole?"
        )


@contextmanager
def reading(what: str, name: str, path: str | None = None) -> Iterator[None]:
    """Turn whatever the libraries raise over a file or a name into a message: "{what} {name} cannot be loaded".

    They raise anything: OSError for what is not there, ImportError for a package, KeyError, AttributeError, and their
    own for the rest.

    `path` is what is read, `name` unless it is said.

    Raises:
        BadInput: With the first line of the cause, and what it announces, and the mend; names like the path beside it.
    """
    try:
        yield
    except (BadInput, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        said = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
        cause = said if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {said}"
        mend = _mend(error, path or name)
        raise BadInput(f"{what} {name} cannot be loaded: {cause[:300].rstrip('.')}. {mend}") from error


def _mend(error: Exception, path: str) -> str:
    text = str(error)
    if "ignore_mismatched_sizes" in text or "size mismatch" in text:  # transformers' word for it, and torch's
        return (
            "The weights have other shapes than its config says: was it saved for another model or another kind? A "
            "causal model has a vocabulary, a reward model has one label."
        )
    if "trust_remote_code" in text:
        return "It comes with code of its own, which --trust_remote_code runs: only for models that you trust."
    if "gguf" in text and isinstance(error, ImportError):
        return "Install it: pip install gguf."
    if isinstance(error, ImportError):
        return "Install the package that it names."
    if isinstance(error, OSError):
        guess = "" if os.path.exists(path) else did_you_mean(Path(path))
        return (
            f"{guess + ' ' if guess else ''}Is it a folder with a config.json and safetensors, or a name on the hub "
            "that you may read? Weights in .bin files run code when they are read: save them as safetensors first."
        )
    return f"Is it a causal language model, whole, and of a kind that transformers {transformers.__version__} knows?"
