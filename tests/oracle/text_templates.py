# SPDX-License-Identifier: Apache-2.0
"""Chat templates and template snippets that text.py renders with Jinja and core/text renders with its own interpreter."""

TEMPLATES = {
    "chatml": """{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
""",
    "llama3": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message, if any, comes first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "These functions can be called:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One tool call at a time, please") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{#- Turns must alternate, tools aside. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Turns must go user, assistant, user, assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
            {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("A tool call's id has nine characters") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are known, not " + message.role) }}
    {%- endif %}
{%- endfor %}
""",
    "qwen3": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "zephyr": """{% for message in messages %}
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
    "phi": """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{% generation %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "macros": """{% macro turn(role, text, end='<end>') %}
<{{ role|upper }}>{{ text }}{{ end }}
{% endmacro %}
{% macro type_of(schema) -%}
    {%- if schema.type == 'array' -%}{{ type_of(schema['items']) }}[]
    {%- elif schema.type == 'object' -%}
        { {%- for key, value in schema.properties|dictsort %}{{ key }}: {{ type_of(value) }}{% if not loop.last %}, {% endif %}{% endfor -%} }
    {%- else -%}{{ schema.type|default('any') }}{%- endif -%}
{%- endmacro %}
{% for tool in tools or [] %}
def {{ tool.function.name }}({{ type_of(tool.function.parameters) }})
{%- if tool.function.description %}  # {{ tool.function.description|replace('\\n', ' ') }}{% endif %}

{% endfor %}
{% for m in messages if m.content is string and m.content|trim %}
    {% if m.role == 'skip' %}{% continue %}{% endif %}
    {% if m.role == 'stop' %}{% break %}{% endif %}
{{ turn(m.role, m.content, end='<eos>\\n' if loop.last else '\\n') -}}
{% else %}
nothing
{% endfor %}
{% set footer %}
  {{ messages|map(attribute='role')|unique|join('+') }}
{% endset %}
{{ footer|trim }}{% filter upper %} {{ messages|length }} turns{% endfilter %}
""",
}

SNIPPETS = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }} {{ 1_000 }}
{{ 1.0 }} {{ 1.5e3 }} {{ 1e16 }} {{ 1e15 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 3.0 * 2 }} {{ 5 % 2.5 }}
{{ 'a' 'b' ~ 1 ~ none ~ true ~ 1.0 ~ [] }} {{ 'ab' * 3 }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1,2] == [1,2] }} {{ (1,) == [1] }} {{ {'a':1} == {'a':1} }}
{{ not true }} {{ not false and false }} {{ true or x.y }} {{ none or 'z' }} {{ '' or 0 }} {{ 1 and 2 }}
{{ 2 in [1,2] }} {{ 3 not in [1,2] }} {{ 'b' in 'abc' }} {{ 'k' in {'k': 1} }} {{ not 'b' in 'abc' }}
{{ 'yes' if 1 else 'no' }} {{ 'yes' if 0 }}| {{ 'a' if 0 else 'b' if 0 else 'c' }}
{{ [1, 'a', none, true, 1.5, {'k': 'v'}, (1,), (1, 2)] }} {{ "it's" }} {{ ["it's", 'say "x"', 'a\nb\\'] }}
{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'abc'[1:] }}{{ 'abc'[:-1] }}{{ 'abc'[::-1] }}{{ 'abcdef'[1:5:2] }}{{ 'abc'[5:] }}{{ 'abc'[-10:2] }}
{{ [1,2,3,4][::2] }} {{ [1,2,3][::-1] }} {{ [1,2,3][-2:] }} {{ [1,2,3][2:0:-1] }} {{ (1,2,3)[1:] }}
{{ 'héllo wörld'[1:4] }} {{ '日本語'|length }} {{ '日本語'[1] }} {{ 'ÀÉ'|lower }} {{ 'straße'.upper()[:4] }} {{ 'éa'|capitalize }}
{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '\u00a0x\u3000'|trim }}|{{ 'xyaxy'|trim('xy') }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ ' a b c '.split(none, 1) }} {{ 'a-b-c'.rsplit('-', 1) }} {{ ''.split(',') }} {{ ''.split() }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.replace('b', 'XX') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('', '-') }} {{ 'aaa'|replace('a', 'c', 1) }}
{{ 'hello wORLD'.title() }} {{ "they're bill's"|title }} {{ "they're".title() }} {{ 'ab'.upper() }} {{ 'AB'.lower() }} {{ 'aBC'.capitalize() }}
{{ 'abcabc'.find('c') }} {{ 'abc'.find('z') }} {{ 'aXbX'.count('X') }} {{ '-'.join(['a', 'b']) }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a\nb\r\nc\n'.splitlines() }}
{{ {'a': 1, 'b': 2}.items()|list }} {{ {'a': 1}.keys()|list }} {{ {'a': 1}.values()|list }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('z') }} {{ {'a': 1}.get('z', 9) }} {{ {'a': 1}['a'] }} {{ {'a': 1}.a }}
{{ undefined_name }}| {{ undefined_name is defined }} {{ undefined_name is none }} {{ none is none }} {{ x is undefined }} {{ [][0] is defined }} {{ {}.x is defined }}
{{ 'a' is string }} {{ 1 is number }} {{ 1.5 is float }} {{ 1 is integer }} {{ true is boolean }} {{ true is integer }} {{ true is true }} {{ 1 is true }} {{ {} is mapping }} {{ [] is iterable }} {{ [] is sequence }} {{ 5 is iterable }} {{ 'a' is iterable }}
{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 1 is not none }} {{ 2 is in [1,2] }} {{ 'ab' is lower }} {{ 1 is ne 2 }} {{ 3 is gt 2 }} {{ 3 is le 2 }}
{{ [1,2]|length }} {{ 'abc'|count }} {{ ['a','b']|join(', ') }} {{ [1,2]|join }} {{ [3,1,2]|sort }} {{ ['b','A','c']|sort }} {{ ['b','A','c']|sort(case_sensitive=true) }} {{ [1,2,3]|sort(reverse=true) }} {{ [1,2,3]|first }} {{ [1,2,3]|last }} {{ 'abc'|first }} {{ []|first }}|
{{ [1,1,2,1]|unique|list }} {{ [1,2,3]|reverse|list }} {{ 'abc'|reverse }} {{ [1,2,3]|sum }} {{ [1,2,3]|max }} {{ [3,1]|min }} {{ -3|abs }} {{ (-3)|abs }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ '42'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ '1.5'|float }}
{{ none|default('d') }} {{ zzz|default('d') }} {{ ''|default('d', true) }} {{ zzz|d('e') }} {{ 0|default(5, boolean=true) }} {{ zzz|default }}|
{{ [{'n': 1, 'r': 'a'}, {'n': 2, 'r': 'b'}]|map(attribute='n')|list }} {{ ['a','b']|map('upper')|join }} {{ [{'n': 1}, {}]|map(attribute='n', default=0)|list }} {{ [[1,2],[3]]|map('first')|list }} {{ [' a ']|map('trim')|list }}
{{ [{'r': 'a'}, {'r': 'b'}, {}]|selectattr('r', 'equalto', 'a')|list }} {{ [{'r': 'a'}, {'r': ''}]|selectattr('r')|list }} {{ [{'r': 'a'}, {'r': 'b'}]|rejectattr('r', 'eq', 'a')|list }} {{ [1,2,3,4]|select('even')|list }} {{ [1,2,3]|reject('odd')|list }} {{ [0,1]|select|list }} {{ [{'r': 'a'}, {}]|selectattr('r', 'defined')|list }} {{ ['a','b']|reject('equalto','a')|join(',') }} {{ ['a','b','c']|select('in', ['a','c'])|list }}
{{ {'b': 1, 'a': [1, 'x']}|tojson }} {{ {'b': {'z': 1, 'c': []}, 'a': {}}|tojson(indent=2) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ 'é"\n\t<&\u2028\u0001'|tojson }} {{ [1, 2.5, 1.0, true, none]|tojson }} {{ [1,{'a':2}]|tojson(separators=(',', ':')) }} {{ [1,[2]]|tojson(indent=0) }}
{{ {'b': 2, 'a': 1}|items|list }} {{ {'b': 2, 'a': 1}|dictsort }} {{ {'b': 2, 'A': 1}|dictsort|list }} {{ {'a': 1}|string }} {{ 5|string ~ 'x' }} {{ 'x'|safe }} {{ 'abc'|list }} {{ {'a': 1}|list }}
{{ 'a\nb\n\nc'|indent }}| {{ 'a\nb'|indent(2, true) }}| {{ 'a\n\nb'|indent(2, blank=true) }}| {{ 'a\n'|indent }}|
{% for i in [1,2,3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for i in range(3) %}{{ i }}{% endfor %} {% for i in range(1, 10, 3) %}{{ i }}{% endfor %} {% for i in range(3, 0, -1) %}{{ i }}{% endfor %} {{ range(3)|list }}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }},{% endfor %} {% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %} {% for c in 'abc' %}{{ c }}.{% endfor %} {% for a, b in [(1, 2), [3, 4]] %}{{ a + b }} {% endfor %}
{% for i in [] %}x{% else %}none{% endfor %} {% for i in [1,2,3,4] if i is even %}{{ loop.index }}:{{ i }} {% endfor %} {% for i in nothing %}x{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in [1,2] %}{% for j in [1,2] %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %} {% for i in [1,2,3] %}{{ loop.cycle('a', 'b') }}{% endfor %}
{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }} {% set ns = namespace(x=1) %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set t = 1, 2 %}{{ t }} {% set x %}cap{{ 1 }}{% endset %}{{ x }} {% set y | upper %}abc{% endset %}{{ y }} {% if true %}{% set z = 5 %}{% endif %}{{ z }}
{% if 0 %}a{% elif '' %}b{% elif [1] %}c{% else %}d{% endif %} {% if x is defined and x.y %}1{% else %}2{% endif %} {% if not tools %}n{% endif %}
{% macro m(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c='z') }}{{ m() }}{{ m(a=5, b=none) }} {% set g = 'global' %}{% macro n() %}{{ g }}{% endmacro %}{{ n() }}
{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * fact(n - 1)|int }}{% endif %}{% endmacro %}{{ fact(5) }}
{% raw %}{{ not a tag }} {% if %}{% endraw %} {# a comment {{ 1 }} #}x{#- y -#} z
a  {%- if true %} b {% endif -%}  c
a{{- ' b ' -}}  c {{ 'd' }}
{% filter upper|trim %}  abc {{ 'd' }} {% endfilter %}|
{{ "\x41\u00e9\t|" }} {{ 'a\'b' }} {{ "a\\b" }}
{{ {'a': [1, {'b': 'deep'}]}.a[1].b }} {{ [[1, 2], [3]][0][1] }} {{ {'a.b': 1}['a.b'] }} {{ dict(a=1, b=2) }} {{ (1, 2)[0] }} {{ [1,2].0 }}
{{ 'x'.y is defined }} {{ none.x is defined }} {{ (none)|string }} {{ 1 if true }} {{ [1, 2,] }} {{ {'a': 1,} }} {{ () }} {{ [] }} {{ {} }}
{{ 10 - 2 - 3 }} {{ 2 * 3 % 4 }} {{ 1 ~ 2 + 3 }} {{ 'a' ~ 'b' == 'ab' }} {{ 1 + 1 ~ 'x' }}
{{ not 1 == 2 }} {{ (not 1) == 2 }} {{ -1|abs }} {{ - 1 + 2 }} {{ +1 }} {{ --1 }} {{ 1 - -1 }}
{{ 'A' if 'x' in 'xyz' and not 'q' in 'xyz' else 'B' }} {{ 5 is defined and 5 is number }} {{ 'a' is string or false }} {{ ('a' is string) | string }}
{{ ['x', 'y']|join(', ') ~ '!' }} {{ 'a|b'.split('|')|last }} {{ 'abc'|upper|lower|title }} {{ 'a b'|replace(' ', '_')|upper }}
{{ messages[0].content|length > 3 }} {{ messages|length }} {{ messages[-1].role }} {{ messages[0]['missing'] }}| {{ messages[99] is defined }} {{ messages[0].role in ['user', 'system'] }}
{{ 'removeprefix'.removeprefix('remove') }} {{ 'x.py'.removesuffix('.py') }} {{ [1, 2] + [3] }} {{ 9007199254740993 }} {{ 'a' > 'B' }} {{ [] is string }} {{ 'abc'|attr('x') is defined }}
""".strip("\n").split("\n")

LINES = [
    "  {% if true %}  \n    x\n  {% endif %}\ny {% if true -%}   \n   z  {%- endif %} w\n",
    "  {%+ if true %} keeps {% endif +%}\nend\n\n",
    "{{ 'a\nb' }}\r\n{# c #}\n  {# d #}  \n x\n",
    "a\n\t{%- set x = 1 -%}\n b\n{{ x }}\n{{- x -}}\n\n c",
    "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\n  {% for i in [1,2] -%}\n  {{ i }}\n  {%- endfor %}\n",
    "{%- raw -%}  {{ x }}  {%- endraw -%}  b\n{% raw %}\n {% x %}\n{% endraw %}\nc",
    "a {% if true %}{% if true %}\n\nb{% endif %}\n{% endif %}\nc",
    "\n  \n {% set x = 2 %}\n\n{{ x }}   \n\t {% if x %}\t\n\ty {% endif %}z\n\n",
]

BROKEN = [
    "{{ 1", "{% if %}", "{% if 1 %}", "{% endif %}", "{{ 'abc }}", "{{ 1 + }}", "{{ a.b.c }}", "{{ undefined_name + 'x' }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}",
    "{{ raise_exception('no') }}", "{% for x in 5 %}{% endfor %}", "{{ [1][ }}", "{{ x | nosuchfilter }}", "{{ 1 is nosuchtest }}", "{% nosuchtag %}",
    "{{ 'a'.nosuch() }}", "{{ undefined_function() }}", "{# no end", "{% set x.y = 1 %}", "{% for %}{% endfor %}", "{{ (1 }}", "{{ 1) }}", "{{ {'a' 1} }}",
    "{% set a, b = [1] %}", "{{ range(1000000)|list }}", "{{ [1,2]|join(', ' }}", "{{ 'a' < 1 }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{{ $ }}",
]
