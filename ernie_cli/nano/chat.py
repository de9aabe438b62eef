"""How a conversation becomes text: ERNIE 4.5's chat form, and the raw form.

Knows no tokenizer. The same form twice: as the Jinja template that ships with the model, and as plain Python for training.
"""

from collections.abc import Mapping, Sequence

CLS = "<|begin_of_sentence|>"
SEP = "<|end_of_sentence|>"

# The family's form: cls, the system text, `User:` and `Assistant:` turns, a finished turn closed by sep.
CHAT_TEMPLATE = """\
{%- if add_generation_prompt is not defined -%}{%- set add_generation_prompt = true -%}{%- endif -%}
{%- if cls_token is not defined -%}{%- set cls_token = "<|begin_of_sentence|>" -%}{%- endif -%}
{%- if sep_token is not defined -%}{%- set sep_token = "<|end_of_sentence|>" -%}{%- endif -%}
{{- cls_token -}}
{%- for message in messages -%}
    {%- if message["role"] == "system" -%}
        {{- message["content"] + "\\n" -}}
    {%- elif message["role"] == "user" -%}
        {{- "User: " + message["content"] + "\\n" -}}
    {%- elif message["role"] == "assistant" -%}
        {{- "Assistant: " + message["content"] + sep_token -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "Assistant: " -}}
{%- endif -%}
"""

_TURN = {"system": "{}\n", "user": "User: {}\n", "assistant": "Assistant: {}" + SEP}


def render(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """The chat as text: what `CHAT_TEMPLATE` renders, without Jinja."""
    turns = (_TURN[message["role"]].replace("{}", message["content"]) for message in messages)
    return CLS + "".join(turns) + ("Assistant: " if add_generation_prompt else "")


def prompt_text(example: Mapping[str, str]) -> str:
    """What the model reads for one held-out line: its prompt as the only user turn, or bare where `form` is raw."""
    if example["form"] == "raw":
        return example["prompt"]
    return render([{"role": "user", "content": example["prompt"]}])


def answer_text(example: Mapping[str, str]) -> str:
    """What the model should write after `prompt_text`: in raw English a space stands between question and answer."""
    return " " * (example["form"] == "raw" and example["lang"] == "en") + example["answer"]
