"""Tiny tokenizers, built in code and the same in every run: 256 byte tokens and the specials of a family.

Without merges every byte is a token, so any text can be written and a length in tokens is a length in bytes.
"""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n' }}\
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}\
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}\
{%- for call in message.tool_calls or [] %}\
{{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{%- endfor %}\
{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if think is defined %}{{- think }}{%- endif %}\
{%- endif %}"""

GEMMA_TEMPLATE = """\
{{ bos_token }}{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{%- endif %}\
{%- for message in messages %}\
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}\
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' \
+ message['content'] | trim + '<end_of_turn>\\n' }}{%- endfor %}\
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{%- endif %}"""

LLAMA3_TEMPLATE = """\
{%- for message in messages %}{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' \
+ message['content'] | trim + '<|eot_id|>' %}\
{%- if loop.index0 == 0 %}{%- set content = bos_token + content %}{%- endif %}{{- content }}{%- endfor %}\
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""


def byte_tokenizer(specials: list[str], *, merges: tuple[tuple[str, str], ...] = (), **names: str | None):
    """A byte-level BPE tokenizer: ids 0-255 are bytes, then come the merges, then `specials`."""
    vocabulary = sorted(pre_tokenizers.ByteLevel.alphabet()) + [left + right for left, right in merges]
    bpe = models.BPE({token: i for i, token in enumerate(vocabulary)}, list(merges))
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    if names.get("bos_token"):
        bos = names["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=specials, **names)


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen's shape: no BOS, turns end with `<|im_end|>` and a newline, EOS is another token, tools are written."""
    tokenizer = byte_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    """Gemma 2's shape: BOS, no system role, strictly alternating, turns end with `<end_of_turn>`, EOS is `<eos>`."""
    tokenizer = byte_tokenizer(
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    tokenizer.chat_template = GEMMA_TEMPLATE
    return tokenizer


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's shape: BOS in the template and from the tokenizer, turns end with `<|eot_id|>`."""
    tokenizer = byte_tokenizer(
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
    )
    tokenizer.chat_template = LLAMA3_TEMPLATE
    return tokenizer


def plain_tokenizer() -> PreTrainedTokenizerFast:
    """A base model's: EOS and padding, no BOS, no chat template."""
    return byte_tokenizer(["<pad>", "<eos>"], eos_token="<eos>", pad_token="<pad>")
