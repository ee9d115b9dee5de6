"""config.json, read strictly: a field that changes the computation has a known value, or is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from converter.errors import FormatError, UnsupportedError
from converter.paths import refuse_json
from converter.side_files import parse_json, read_small

LARGEST = 32 << 20
LARGEST_SIZE = 1 << 31
LARGEST_NUMBER = 1e30
# A graph is built node by node: what is repeated is bounded, whatever a file says.
MOST_LAYERS = 1000
REPEATED = frozenset({"num_hidden_layers", "num_hidden_groups", "inner_group_num", "num_stages", "decoder_layers",
                      "num_decoder_layers", "num_adapter_layers"})
_REQUIRED: Any = object()
T = TypeVar("T")

# Fields that concern training, tokenizers, generation, or what a module returns beside its result.
IGNORED = frozenset({
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels", "add_bias_logits",
    "apply_spec_augment", "architectures", "bad_words_ids", "begin_suppress_tokens", "bos_token", "bos_token_id",
    "chunk_size_feed_forward", "classifier_dropout_prob", "cls_token_id", "cross_attention_hidden_size",
    "decoder_layerdrop", "decoder_start_token_id", "directionality", "diversity_penalty", "do_sample", "dtype",
    "early_stopping", "embd_pdrop", "encoder_layerdrop", "encoder_no_repeat_ngram_size", "eos_token",
    "eos_token_id", "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id",
    "forced_decoder_ids", "forced_eos_token_id", "gradient_checkpointing", "id2label", "init_std",
    "initializer_cutoff_factor", "initializer_factor", "initializer_range", "is_encoder_decoder",
    "keys_to_ignore_at_inference", "label2id", "label_smoothing", "language", "layerdrop", "length_penalty", "mask_feature_length",
    "mask_feature_min_masks", "mask_feature_prob", "mask_time_length", "mask_time_min_masks", "mask_time_prob",
    "mask_token_id", "max_length", "median_filter_width", "min_length", "model_type", "n_ctx",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences",
    "output_attentions", "output_hidden_states", "output_past", "output_scores", "pad_token", "pad_token_id",
    "prefix", "pretraining_tp", "problem_type", "pruned_heads", "remove_invalid_values", "repetition_penalty",
    "return_dict", "return_dict_in_generate", "sentence_transformers", "sep_token_id", "sinusoidal_pos_embds",
    "summary_activation", "summary_proj_to_labels", "summary_type", "summary_use_proj", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings",
    "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p",
    "unk_token_id", "use_bfloat16", "use_cache", "vocab_file",
})


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises `FormatError` for a file that is none, or is larger than any such file is."""
    try:
        return parse_json(read_small(path, LARGEST))
    except (ValueError, RecursionError) as error:
        raise refuse_json(path, error) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object. Raises as `read_json` does."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise FormatError("not a JSON object", where=str(path), expected="{…}", received=type(content).__name__)
    return content


class Config:
    """The fields of one config.json. What is read is remembered, so that the rest can be told.

    `renamed` maps the name that a family's code asks for to the one that its files use.
    """

    def __init__(self, fields: Mapping[str, Any], where: str, renamed: Mapping[str, str] | None = None,
                 asked: set[str] | None = None) -> None:
        self.fields, self.where, self.renamed = dict(fields), where, dict(renamed or {})
        self.asked: set[str] = set() if asked is None else asked
        self._inner: dict[str, Config] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """The raw value; `default` where the field is absent."""
        own = self.renamed.get(name, name)
        self.asked |= {name, own}
        return self.fields[own] if own in self.fields else self.fields.get(name, default)

    def refuse(self, name: str, expected: str, value: Any, fix: str | None = None) -> UnsupportedError:
        """The error for a field with a value that is not known."""
        own = self.renamed.get(name, name)
        return UnsupportedError(f"the field {own!r} has a value that is not known here", where=self.where, expected=expected,
                                received=repr(value)[:120], fix=fix)

    def _value(self, name: str, default: Any, expected: str) -> Any:
        value = self.get(name, default)
        if value is _REQUIRED:
            raise FormatError(f"the field {self.renamed.get(name, name)!r} is missing", where=self.where, expected=expected)
        return value

    def size(self, name: str, default: Any = _REQUIRED, least: int = 1) -> int:
        """An integer of `least` and up; at most `MOST_LAYERS` for a number of layers."""
        expected = f"an integer of {least} " + (f"to {MOST_LAYERS}" if name in REPEATED else "and up")
        value = self._value(name, default, expected)
        if type(value) is not int or not least <= value < LARGEST_SIZE or name in REPEATED and value > MOST_LAYERS:
            raise self.refuse(name, expected, value)
        return value

    def optional_size(self, name: str, default: int | None = None) -> int | None:
        """An integer of 1 and up, or None."""
        return None if self.get(name, default) is None else self.size(name, default)

    def number(self, name: str, default: Any = _REQUIRED, above: float | None = None) -> float:
        """A number that float32 holds, greater than `above` where that is given; what keeps a root from zero is not negative."""
        least = f" above {above:g}" if above is not None else ""
        value = self._value(name, default, f"a number{least}")
        if (type(value) not in (int, float) or not abs(value) < LARGEST_NUMBER or above is not None and value <= above
                or name.endswith(("eps", "epsilon")) and value < 0):
            raise self.refuse(name, f"a finite number{least}", value)
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """true or false; null counts as absent."""
        value = self._value(name, _REQUIRED if default is None else default, "true or false")
        if value is None and default is not None:
            return default
        if type(value) is not bool:
            raise self.refuse(name, "true or false", value)
        return value

    def choice(self, name: str, known: Mapping[str, T], default: Any = _REQUIRED) -> T:
        """What `known` has for a text."""
        value = self._value(name, default, ", ".join(known))
        if not isinstance(value, str) or value not in known:
            raise self.refuse(name, ", ".join(known), value)
        return known[value]

    def only(self, name: str, *allowed: Any, fix: str | None = None) -> None:
        """Refuses a field that is there with a value other than those `allowed` (and null)."""
        value = self.get(name)
        if value is not None and not any(type(value) is type(item) and value == item for item in allowed):
            raise self.refuse(name, " or ".join(json.dumps(item) for item in allowed) or "no such field", value, fix)

    def part(self, name: str) -> Config:
        """The fields of a nested object; none where it is absent."""
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.refuse(name, "an object", value)
        return self.nested(name, value or {})

    def nested(self, name: str, fields: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Config:
        """A config within this one, with what is not in it; those of its fields that nobody reads are among the unread ones of this."""
        self._inner[name] = given = Config(fields, f"{self.where}, {name}")
        return Config({**(defaults or {}), **fields}, given.where, asked=given.asked)

    def over(self, defaults: Mapping[str, Any]) -> Config:
        """These fields, with what is not among them."""
        return Config({**defaults, **self.fields}, self.where, self.renamed, self.asked)

    def labels(self, default: int = 2) -> int:
        """How many classes a classifier tells apart: the entries of `id2label`, or `num_labels`, or `default`.

        Names that nobody gave (`LABEL_0`, `LABEL_1`: what old versions of transformers write beside any `num_labels`) count for
        nothing beside `num_labels`.
        """
        names = self.get("id2label")
        if isinstance(names, dict) and names:
            count = len(names)
            unnamed = all(str(name) == f"LABEL_{key}" for key, name in names.items())
            if self.get("num_labels", count) != count and not unnamed:
                raise self.refuse("num_labels", f"{count}, as id2label has", self.get("num_labels"),
                                  fix="in config.json, leave out the one of the two that is not the number of the classifier's rows")
            return self.size("num_labels", count) if unnamed else count
        return self.size("num_labels", default)

    def unread(self) -> list[str]:
        """Fields that are there, were not read, and are not known to leave the result as it is: `name`, or `part.name`."""
        own = sorted(name for name in self.fields if name not in self.asked and name not in IGNORED
                     and "dropout" not in name and "pdrop" not in name)
        return own + [f"{part}.{name}" for part, inner in sorted(self._inner.items()) for name in inner.unread()]
