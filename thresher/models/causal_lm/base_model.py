"""Base models: where they lie, what they are, and loading them without running their code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from pickle import PickleError
from typing import Any

from thresher.errors import InputError, NotFoundError, first_three
from thresher.models.causal_lm.embedded import EMBEDDED_NAME, FOLDER, SMOLLM2_NAME, causal_lm_folder, expand_short_name
from thresher.models.causal_lm.smollm2 import smollm2_folder
from thresher.models.encoders.minilm import find_minilm
from thresher.models.untrusted.config import check_config
from thresher.models.untrusted.fit import check_size
from thresher.models.untrusted.folder import check_files, read_json
from thresher.models.untrusted.templates import trust_template
from thresher.models.untrusted.tokenizer import check_tokenizer

# What is fetched from the Hub: safetensors, configuration and tokenizer; never pickles, never code.
# of the second, for example one for rows with tools
TEMPLATES = ("*.jinja", "additional_chat_templates/*.jinja")
PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", *TEMPLATES)
# without one, transformers makes one up
VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "tekken.json")
# weights that no model needs: buffers of older versions, heads for drafts, and parts that read
# images and sounds
HARMLESS = re.compile(
    r"rotary_emb\.|\.(attn|attention|self_attn)\.(masked_)?bias$|position_ids$|(^|\.)mtp[._]|(^|\.)(visual|vision|audio|mm_"
    r"|multi_modal|speech|image|sound)[\w]*\."
)
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
OTHER_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
CHUNK = 1 << 22  # bytes read at a time when hashing
_COME_ALONG = {EMBEDDED_NAME: causal_lm_folder, SMOLLM2_NAME: smollm2_folder}


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model on this disk.

    Attributes:
        name: folder, Hub id or name of a model that comes along; written into the adapter.
        revision: branch, tag or commit that was asked for on the Hub, or None.
        folder: where its files lie.
        fingerprint: commit on the Hub, or sha256 over weights, configuration, tokenizer and chat
            template.
        max_positions: longest input, or None where the configuration does not say.
        n_vocabulary: token ids that its weights have, or None where the configuration does not say.
    """

    name: str
    revision: str | None = None
    folder: Path
    fingerprint: str
    max_positions: int | None
    n_vocabulary: int | None = None


def find_base(name: str | Path, *, fingerprint: str | None = None) -> BaseModel:
    """Find a model by folder, or by Hub id ("org/name" or "org/name@revision"), and download it.

    Args:
        name: folder, Hub id, or the name of a model that comes along ("tiny", "smollm2" or in
            full), which is on no Hub.
        fingerprint: of its files, where it is known already; else they are hashed.

    Raises:
        NotFoundError: no such folder, and the Hub does not have it or cannot be reached.
        InputError: the folder has no readable configuration or no safetensors, files in it are
            damaged or lie elsewhere, its configuration does not fit its weights, or the embedded
            model is damaged.
    """
    name = expand_short_name(str(name))
    path = Path(name).expanduser()
    if not path.is_dir() and name in _COME_ALONG:
        path = _COME_ALONG[name]()
    is_folder = path.is_dir()
    repository, _, revision = (name, "", "") if is_folder else name.partition("@")
    folder = path if is_folder else _from_hub(repository, revision or None)
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"model '{name}': must hold config.json, found none in {folder}; choose a transformers model")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"model '{name}': weights must be safetensors, found none in {folder}; convert it or choose another"
        )
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"model '{name}': must be a base model, found an adapter; merge it into its base")
    files = check_files(folder, owner=f"model '{name}'", patterns=PATTERNS)
    content = read_json(config, owner=files.owner)
    check_config(content, files)
    return BaseModel(
        name=repository,
        revision=revision or None,
        folder=folder,
        fingerprint=fingerprint or (_sha256(folder) if is_folder else folder.name),
        max_positions=_max_positions(content, repository),
        n_vocabulary=_n_vocabulary(content),
    )


def _max_positions(config: dict[str, Any], name: str) -> int | None:
    text = _text_config(config)
    key = next((key for key in POSITIONS if text.get(key) is not None), None)
    if key is None:
        return None
    positions = text[key]
    if not isinstance(positions, int) or positions < 1:
        raise InputError(f"model '{name}': {key} of config.json must be a whole number from 1 on, got {positions!r}")
    # these count positions from the padding id on
    return positions - 2 if config.get("model_type") in {"roberta", "xlm-roberta", "camembert", "mpnet"} else positions


def _n_vocabulary(config: dict[str, Any]) -> int | None:
    size = _text_config(config).get("vocab_size")
    return size if isinstance(size, int) else None


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that speaks of the language model."""
    text = config.get("text_config")
    return text if isinstance(text, dict) and text else config


def is_in_hub_cache(name: str) -> bool:
    """Tell whether the files of a model on the Hub are in its cache on this disk."""
    from huggingface_hub import try_to_load_from_cache

    return all(
        isinstance(try_to_load_from_cache(name, file), str)
        for file in ("config.json", "model.safetensors", "tokenizer.json")
    )


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS)))
    except HFValidationError:
        raise NotFoundError(f"model '{name}': found no such folder, and it is not a Hub id (org/name)") from None
    except RepositoryNotFoundError:
        raise NotFoundError(f"model '{name}': found neither as a folder nor on the Hub (or it is private)") from None
    except LocalEntryNotFoundError:
        raise NotFoundError(
            f"model '{name}': found no such folder, it is not in the local cache, and the Hub cannot be reached; "
            f"check the name, connect, or name a local folder"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise NotFoundError(
            f"model '{name}': found no such folder, and fetching it from the Hub says '{reason}'; check the name, log "
            f"in if it is private, or name a local folder"
        ) from None


def _sha256(folder: Path) -> str:
    hashed = hashlib.sha256()
    for path in sorted({path for pattern in PATTERNS for path in folder.glob(pattern)}):
        hashed.update(f"{path.name}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                hashed.update(chunk)
    return hashed.hexdigest()


def load_tokenizer(base: BaseModel) -> Any:
    """Load the tokenizer; a padding token that is missing becomes the end-of-sequence token.

    Raises:
        InputError: there is no tokenizer that transformers can read, it takes or makes more than
            any does, or it has tokens that the model has not.
    """
    from transformers import AutoTokenizer

    owner = f"model '{base.name}'"
    if not any(path for pattern in VOCABULARIES for path in base.folder.glob(pattern)):
        raise InputError(
            f"model '{base.name}': has no tokenizer; tokenizer.json or a vocabulary must lie in {base.folder}"
        )
    if not _is_known(base):
        max_id = check_tokenizer(base.folder, owner=owner)
        if max_id is not None and base.n_vocabulary is not None and max_id >= base.n_vocabulary:
            raise InputError(
                f"{owner}: the ids of its tokens must be below the {base.n_vocabulary} that its weights have, found "
                f"{max_id}; take the tokenizer that belongs to the model"
            )
    try:
        with QuietLoading():
            tokenizer = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False)
    except loading_errors() as error:
        raise InputError(
            f"model '{base.name}': has no tokenizer that transformers can read ({first_line(error)})"
        ) from None
    if _is_known(base):
        trust_template(tokenizer.chat_template)
    pad, eos, n_ids = tokenizer.pad_token_id, tokenizer.eos_token_id, base.n_vocabulary
    if pad is None or (n_ids is not None and eos is not None and eos < n_ids <= pad):
        if tokenizer.eos_token is None:
            raise InputError(f"model '{base.name}': its tokenizer has neither a padding nor an end-of-sequence token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_known(base: BaseModel) -> bool:
    """Tell whether a model is one that comes along, whose files were hashed."""
    comes_along = base.name in _COME_ALONG and base.folder != Path(base.name).expanduser()
    return comes_along or base.folder in (FOLDER, find_minilm())


def load_causal_lm(base: BaseModel, *, task: str, **options: Any) -> Any:
    """Load a causal language model, all of whose weights are there.

    transformers draws weights that it does not find: a checkpoint of a classifier or of another
    kind would be loaded with a random head, and give a number for each row.

    Args:
        base: found by `find_base`.
        task: what it is for, in messages.
        options: for `from_pretrained`.

    Raises:
        InputError: it is no causal language model, is not whole, or needs code or a package that is
            not here.
    """
    from transformers import AutoModelForCausalLM

    _refuse_other_kinds(base, task)
    try:
        with QuietLoading():
            check_size(base.folder, AutoModelForCausalLM, owner=f"model '{base.name}'")
            model, loading = AutoModelForCausalLM.from_pretrained(
                base.folder,
                use_safetensors=True,
                trust_remote_code=False,  # a model is data: code that comes with one is never run
                output_loading_info=True,
                **options,
            )
    except InputError:
        raise
    except loading_errors() as error:
        raise InputError(f"model '{base.name}': cannot be loaded for {task} ({first_line(error)})") from None
    _refuse_unknown_weights(base, loading["unexpected_keys"])
    if loading["missing_keys"]:
        raise InputError(
            f"model '{base.name}': the weights of a causal language model must be complete, missing are "
            f"{first_three(sorted(loading['missing_keys']))}; take the whole checkpoint, or one that was made to write"
        )
    return model


def _refuse_unknown_weights(base: BaseModel, names: Iterable[str]) -> None:
    """Refuse weights that the configuration has no place for: it is that of another model.

    Raises:
        InputError: there are such, beside buffers of older versions and parts for other inputs.
    """
    unknown = sorted(name for name in names if not HARMLESS.search(name))
    if unknown:
        raise InputError(
            f"model '{base.name}': its configuration must have a place for all its weights, and has none for "
            f"{first_three(unknown)}; get another copy of the model"
        )


def _refuse_other_kinds(base: BaseModel, task: str) -> None:
    """Refuse what transformers would load as a causal language model and is none.

    A masked language model lets tokens see what follows, of an encoder-decoder half would be left
    out, and a classifier has unlearned to write.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    config = read_json(base.folder / "config.json", owner=f"model '{base.name}'")
    kind, made_for = config.get("model_type"), config.get("architectures") or [""]
    problem = None
    if config.get("is_encoder_decoder", False):
        problem = f"'{kind}' is an encoder with a decoder"
    elif kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder", False):
        problem = f"'{kind}' is an encoder"
    elif str(made_for[0]).endswith(OTHER_TASKS):
        problem = f"'{made_for[0]}' was trained for another task"
    if problem is not None:
        raise InputError(f"model '{base.name}': {task} needs a causal language model, and {problem}")


def loading_errors() -> tuple[type[Exception], ...]:
    """Return what loading raises at a damaged folder, or where code or a package is missing."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    # what code of several hundred architectures raises at a configuration that is none of theirs
    of_python = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError)
    of_libraries = (PickleError, StrictDataclassError, SafetensorError)
    return (*of_python, OSError, RuntimeError, TypeError, ValueError, *of_libraries)


class QuietLoading:
    """Silence transformers while it loads: that a new head has no weights yet is what we want."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.verbosity = logging.get_verbosity()
        self.had_bar = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.verbosity)
        if self.had_bar:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, and the next if it announces it."""
    first, *more = str(error).strip().split("\n")
    return (f"{first} {more[0].strip()}" if more and first.endswith(":") else first)[:200]
