"""The templates one can ask for by name, as jinja with `{% generation %}` around what the assistant writes.

Each is written for the environment of `apply_chat_template` and reads two variables that `source` sets in front:
`bos` (empty when the tokenizer puts no token before text) and `stop` (what ends an assistant turn and is trained).
Templates whose turns end in a marker keep it for the other roles; when the tokenizer does not know that marker as one
token, `stop` is the marker and the end-of-text token, because a model must be able to stop with one token.
"""

from dataclasses import dataclass
from typing import Final

_CHATML = (
    "{{ bos }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + stop }}{% endgeneration %}"
    "{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] | trim + ' ' + stop }}{% endgeneration %}"
    "{% else %}{{ bos + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}"
    "{% endif %}{% endfor %}"
)
_LLAMA_3 = (
    "{{ bos }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim + stop }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] | trim + stop }}{% endgeneration %}"
    "{% else %}{{ '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}{% endif %}"
    "{% endfor %}"
)
_GEMMA = (
    "{{ bos }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'assistant' %}{{ '<start_of_turn>model\\n' }}"
    "{% generation %}{{ message['content'] | trim + stop }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ '<start_of_turn>user\\n' + (system if loop.first else '') + message['content'] | trim"
    " + '<end_of_turn>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
_PHI = (
    "{{ bos }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + stop }}{% endgeneration %}"
    "{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_ALPACA = (
    "{{ bos }}{% if messages[0]['role'] == 'system' %}{% set opening = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% if turns[0]['context'] %}"
    "{% set opening = 'Below is an instruction that describes a task, paired with an input that provides further"
    " context. Write a response that appropriately completes the request.' %}{% else %}"
    "{% set opening = 'Below is an instruction that describes a task. Write a response that appropriately completes"
    " the request.' %}{% endif %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + stop }}{% endgeneration %}"
    "{% else %}{{ opening + '\\n\\n' if loop.first else '\\n\\n' }}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% if message['context'] %}{{ '### Input:\\n' + message['context'] + '\\n\\n' }}{% endif %}"
    "{{ '### Response: ' }}{% endif %}{% endfor %}"
)
_GUANACO = (
    "{{ bos }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '### Assistant:' }}"
    "{% generation %}{{ ' ' + message['content'] + stop }}{% endgeneration %}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + ' ' }}"
    "{% else %}{{ '### Human: ' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:' }}{% endif %}"
)
_PLAIN = (
    "{{ bos }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + stop }}{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    body: str
    markers: tuple[str, ...]
    """Strings the template writes between turns: in data they are a sign of text that is already formatted."""
    stop: str = ""
    """Marker that ends a turn. Empty: the tokenizer's end-of-text token does."""
    alternates: bool = False
    """Whether turns must go user, assistant, user, ... after an optional system turn."""
    context: bool = False
    """Whether the user's further context has a place of its own."""


NAMED: Final[dict[str, NamedTemplate]] = {
    "chatml": NamedTemplate(_CHATML, ("<|im_start|>", "<|im_end|>"), stop="<|im_end|>"),
    "llama-2": NamedTemplate(_LLAMA_2, ("[INST]", "[/INST]", "<<SYS>>"), alternates=True),
    "llama-3": NamedTemplate(_LLAMA_3, ("<|start_header_id|>", "<|eot_id|>"), stop="<|eot_id|>"),
    "mistral": NamedTemplate(_MISTRAL, ("[INST]", "[/INST]"), alternates=True),
    "gemma": NamedTemplate(_GEMMA, ("<start_of_turn>", "<end_of_turn>"), stop="<end_of_turn>", alternates=True),
    "phi": NamedTemplate(_PHI, ("<|user|>", "<|assistant|>", "<|end|>"), stop="<|end|>"),
    "alpaca": NamedTemplate(_ALPACA, ("### Instruction:", "### Response:"), alternates=True, context=True),
    "guanaco": NamedTemplate(_GUANACO, ("### Human:", "### Assistant:")),
    "plain": NamedTemplate(_PLAIN, ()),
}


def source(name: str, *, opens: bool, known_tokens: set[str]) -> str:
    """The jinja text of the named template for one tokenizer.

    `opens`: the tokenizer puts its bos token before any text. `known_tokens`: strings that are one token each.
    """
    template = NAMED[name]
    stop = "eos_token"
    if template.stop:
        stop = repr(template.stop) if template.stop in known_tokens else f"{template.stop!r} + eos_token"
    bos = "bos_token" if opens else "''"
    return f"{{% set bos = {bos} %}}{{% set stop = {stop} %}}" + template.body
