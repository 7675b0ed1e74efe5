#!/usr/bin/env python3
"""Makes crates/model/tests/fixtures/chat.json: chat templates, and what transformers renders with them.

    python -m venv .venv && .venv/bin/pip install transformers jinja2
    .venv/bin/python scripts/make_chat_fixtures.py

The templates are written for this, each with the constructs of a published family: they are no copies.
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

OUT = Path(__file__).resolve().parent.parent / "crates/model/tests/fixtures/chat.json"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

TEMPLATES = {
    "default system message": """{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|in|>system\\nBe kind.<|out|>\\n' }}{% endif %}{{'<|in|>' + m['role'] + '\\n' + m['content'] + '<|out|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|in|>assistant\\n' }}{% endif %}""",
    "system message inside the first user message": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "headers, trimmed": """{% set ns = messages %}{% for m in ns %}{% set content = '<|head|>' + m['role'] + '<|body|>\\n\\n' + m['content'] | trim + '<|eot|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|body|>\\n\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "no system role": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}{% if (m['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}{{ '<turn>' + role + '\\n' + m['content'] | trim + '<end>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<turn>model\\n'}}{% endif %}""",
    "a chain of roles": """{% for m in messages %}
{% if m['role'] == 'system' %}
{{'<|system|>
' + m['content'] + '<|end|>
'}}
{% elif m['role'] == 'user' %}
{{'<|user|>
' + m['content'] + '<|end|>
'}}
{% elif m['role'] == 'assistant' %}
{{'<|assistant|>
' + m['content'] + '<|end|>
'}}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>
' }}
{% endif %}""",
    "tools that are not there": """{%- if tools %}
    {{- 'Tools: ' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|in|>system\\n' + messages[0].content + '<|out|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|in|>' + message.role + '\\n' + message.content + '<|out|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|in|>assistant\\n' }}
{%- endif %}
""",
    "thoughts": """{%- set ns = namespace(seen=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.seen and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.seen = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '[' + thought.strip('\\n') + ']' }}
        {%- endif %}
    {%- endif %}
    {{- '<|in|>' + message.role + '\\n' + content + '<|out|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|in|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "the prompt inside the loop": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "names in capitals": """{{ bos_token }}{% for m in messages %}{{ m['role'].upper() ~ ': ' ~ m['content'] }}{% if not loop.last %}{{ ' ' }}{% endif %}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{{ ' ASSISTANT:' if add_generation_prompt else '' }}""",
    "macros": """{%- macro turn(role, text, end='<end>') -%}
{{ '<' ~ role ~ '>' }}
{{- text }}{{ end }}
{%- endmacro -%}
{%- for m in messages -%}
{{ turn(m.role, m.content) if m.role != 'system' else turn('sys', m.content, end='|') }}
{% endfor -%}
{%- if add_generation_prompt -%}<assistant>{%- endif -%}""",
    "JSON": """{{ messages | map(attribute='content') | list | tojson }}{% for m in messages %}{{ '\\n' + ([m.role, m.content] | tojson(indent=2)) }}{% endfor %}{{ {'a': 1, 'b': [true, none, 1.5]} | tojson }}""",
    "a date of its own": """{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{{- bos_token }}{{- 'Today: ' + date_string + '\\n' }}{% for m in messages %}{{ m.role ~ '|' ~ m.content | trim ~ '\\n' }}{% endfor %}""",
    "dictionaries": """{% set names = {'assistant': 'Bot', 'user': 'Human'} %}{% for m in messages %}{{ names.get(m['role'], 'Note') + ': ' + m['content'] + '\\n' }}{% endfor %}{% for key, value in names.items() %}{{ key ~ '=' ~ value ~ ';' }}{% endfor %}{{ 'user' in names }}{{ names | length }}""",
    "filters over messages": """{{ messages | selectattr('role', 'equalto', 'user') | list | length }}|{{ messages | map(attribute='role') | join(', ') }}|{{ messages | rejectattr('role', 'equalto', 'system') | map(attribute='content') | map('upper') | list | last }}|{{ (messages | first).role }}""",
    "loop controls": """{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ loop.index ~ m.content }}{% if loop.index > 3 %}{% break %}{% endif %}{% endfor %}""",
    "methods of texts": """{% for m in messages %}{% set c = m.content %}{{ c.replace('a', 'o') }}|{{ c.upper() }}|{{ c.startswith(('The', 'You')) }}|{{ c.find('t') }}|{{ c.split(' ') | length }}|{{ c.lower().capitalize() }}|{{ c[:3] }}|{{ c[-2:] }}|{{ c | replace('e', '3') }}
{% endfor %}""",
    "spaces and lines": """{#- a remark -#}
  {%- for m in messages %}
    <{{ m.role }}>
  {%- if loop.first %}  first {% endif +%}
  {{ m.content -}}
  {% endfor %}
end
""",
    "neighbours": """{% for m in messages %}{% if loop.previtem is defined and loop.previtem.role == m.role %}again {% endif %}{{ m.role }}{% if loop.nextitem is defined %}>{{ loop.nextitem.role }}{% endif %}{{ m.name | default('nobody') }}{{ m.tool is none or m.tool is not defined }} {% endfor %}{{ (messages | last)['role'] }}""",
    "flags": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(first=false, tool=false, system='', turn=0) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system = ns.system + message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.tool = false -%}{%- set ns.turn = ns.turn + 1 -%}{{'<U>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.tool %}{{'<T>' + message['content']}}{%- else %}{% set content = message['content'] %}{{'<A>' + content + '<E>'}}{%- endif %}{%- endif %}{%- endfor -%}{{ ns.turn }}{% if add_generation_prompt and not ns.tool %}{{'<A>'}}{% endif %}""",
    "the assistant's part": """{% for m in messages %}{% if m.role == 'assistant' %}{%- generation -%}{{ m.content + eos_token }}{%- endgeneration -%}{% else %}{{ '<' + m.role + '>' + m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}""",
    "numbers": """{{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 1.0 }} {{ none }} {{ true }} {{ [1, 'a', none] }} {{ messages | length % 2 == 0 }} {{ 'x' * 3 }} {{ '%s-%d' | format('a', 3) }} {{ range(3) | list }}""",
}
CONVERSATIONS = [
    ([("user", "  The tall tower stands in ")], True),
    ([("system", "You are a bot."), ("user", "The tall tower")], True),
    ([("user", "Hello"), ("assistant", "<think>\nhm\n</think>\n\nHello there"), ("user", "The tower's “é” & <b>")], True),
    ([("system", "Sys"), ("user", "A\nb"), ("assistant", "c")], False),
]


def main():
    made = []
    for name, template in TEMPLATES.items():
        cases = []
        for turns, go_on in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in turns]
            case = {"messages": messages, "go_on": go_on}
            try:
                texts, _ = render_jinja_template(
                    [messages], chat_template=template, add_generation_prompt=go_on, **TOKENS
                )
                case["text"] = texts[0]
            except Exception as error:
                case["error"] = str(error)
            cases.append(case)
        made.append({"name": name, "template": template, "tokens": TOKENS, "cases": cases})
    OUT.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(len(made), "templates;", sum("error" in c for m in made for c in m["cases"]), "errors")
    for m in made:
        for c in m["cases"]:
            if "error" in c:
                print(m["name"], c["error"])


main()
