"""Chat templates of families of models, after their documented behavior, with slow references.

A reference writes the same text with plain Python, in pieces: what is context, and what the
assistant says in each turn. It knows nothing of templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

Pieces = list[tuple[str, int | None]]  # text, and the message whose assistant says it


@dataclass(frozen=True)
class Family:
    """One template.

    Attributes:
        template: Jinja.
        pieces: (messages, tools) -> the text in pieces.
        eos: what ends a turn.
        special: further tokens.
        n_calls: most calls in a turn.
        has_system: it takes a system turn.
        has_tools: it shows tools and their calls.
    """

    template: str
    pieces: Callable[[list, list | None], Pieces]
    eos: str
    special: tuple[str, ...]
    n_calls: int = 2
    has_system: bool = True
    has_tools: bool = True


def dump(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def args(call):
    value = call["function"]["arguments"]
    return json.loads(value) if isinstance(value, str) else value


def chatml(system_block, write_call, show_thought=None, tool_role="user"):
    """Return the reference of a family that writes <|im_start|>role."""

    def pieces(messages, tools):
        out = [(system_block(messages, tools), None)]
        for i, m in enumerate(messages):
            if m["role"] == "system":
                continue
            if m["role"] == "user":
                out.append((f"<|im_start|>user\n{m['content']}<|im_end|>\n", None))
            elif m["role"] == "tool":
                is_first = messages[i - 1]["role"] != "tool"
                is_last = i + 1 == len(messages) or messages[i + 1]["role"] != "tool"
                text = f"\n<tool_response>\n{m['content']}\n</tool_response>"
                out.append(((f"<|im_start|>{tool_role}" * is_first) + text + "<|im_end|>\n" * is_last, None))
            else:
                words = (show_thought(messages, i) if show_thought else "") + (m["content"] or "")
                for call in m.get("tool_calls") or ():
                    words += ("\n" if m["content"] or call is not m["tool_calls"][0] else "") + write_call(call)
                out += [("<|im_start|>assistant\n", None), (words + "<|im_end|>", i), ("\n", None)]
        return out

    return pieces


def own_system(messages):
    return messages[0]["content"] if messages[0]["role"] == "system" else None


def qwen25_system(messages, tools):
    text = own_system(messages) or "You are Qwen."
    if tools:
        text += "\n\n# Tools\n<tools>" + "".join(f"\n{dump(tool)}" for tool in tools) + "\n</tools>"
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def qwen3_system(messages, tools):
    text = own_system(messages)
    if tools:
        text = (f"{text}\n\n" if text else "") + "# Tools" + "".join(f"\n{dump(tool)}" for tool in tools)
    return f"<|im_start|>system\n{text}<|im_end|>\n" if text else ""


def json_call(call):
    return f'<tool_call>\n{{"name": "{call["function"]["name"]}", "arguments": {dump(args(call))}}}\n</tool_call>'


def item_call(call):
    items = "".join(
        f"<parameter={key}>\n{value if isinstance(value, str) else dump(value)}\n</parameter>\n"
        for key, value in args(call).items()
    )
    return f"<tool_call>\n<function={call['function']['name']}>\n{items}</function>\n</tool_call>"


def qwen3_thought(messages, i):
    return "<think>\n\n</think>\n\n" if i + 1 == len(messages) else ""


TOOL_TURN = (
    "{%- elif m.role == 'tool' %}"
    "{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}"
)
CHATML_END = "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"

QWEN25 = (
    "{{- '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- else %}{{- 'You are Qwen.' }}{%- endif %}"
    "{%- if tools %}{{- '\n\n# Tools\n<tools>' }}{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}"
    "{{- '\n</tools>' }}{%- endif %}{{- '<|im_end|>\n' }}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant' }}"
    "{%- if m.content %}{{- '\n' + m.content }}{%- endif %}"
    "{%- for call in m.tool_calls %}{%- if call.function is defined %}{%- set call = call.function %}{%- endif %}"
    '{{- \'\n<tool_call>\n{"name": "\' + call.name + \'", "arguments": \' }}{{- call.arguments | tojson }}'
    "{{- '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}" + TOOL_TURN + "{%- endif %}" + CHATML_END
)
# an empty thought in the last turn alone; arguments one by one, as Qwen3-Coder writes them
QWEN3 = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}{{- '# Tools' }}"
    "{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\n' }}"
    "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- for m in messages %}{%- if m.content is string %}{%- set content = m.content %}"
    "{%- else %}{%- set content = '' %}{%- endif %}"
    "{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
    "{%- if loop.last %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- content }}"
    "{%- for call in m.tool_calls or [] %}{%- if not loop.first or content %}{{- '\n' }}{%- endif %}"
    "{%- if call.function %}{%- set call = call.function %}{%- endif %}"
    "{{- '<tool_call>\n<function=' + call.name + '>\n' }}"
    "{%- for key, value in call.arguments | items %}{{- '<parameter=' + key + '>\n' }}"
    "{{- value if value is string else value | tojson }}{{- '\n</parameter>\n' }}{%- endfor %}"
    "{{- '</function>\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}" + TOOL_TURN + "{%- endif %}" + CHATML_END
)
# says with generation blocks what is learned, one for the words and one for each call
HERMES = (
    "{%- if messages[0].role == 'system' or tools %}{{- '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}"
    "{%- for tool in tools or [] %}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
    "{%- generation %}{{- m.content }}{%- endgeneration %}"
    "{%- for call in m.tool_calls or [] %}{%- if not loop.first or m.content %}"
    "{%- generation %}{{- '\n' }}{%- endgeneration %}{%- endif %}"
    '{%- generation %}{{- \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endgeneration %}{%- endfor %}"
    "{%- generation %}{{- '<|im_end|>' }}{%- endgeneration %}{{- '\n' }}" + TOOL_TURN + "{%- endif %}" + CHATML_END
)
LLAMA = (
    "{{- '<|begin_of_text|>' }}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{%- if tools is not none %}{{- 'Environment: ipython\n' }}"
    "{%- endif %}{{- 'Today Date: ' + strftime_now('%d %b %Y') + '\n\n' + system + '<|eot_id|>' }}"
    "{%- if tools is not none %}{%- set first = messages[0].content | trim %}{%- set messages = messages[1:] %}"
    "{{- '<|start_header_id|>user<|end_header_id|>\n\n' }}"
    "{%- for t in tools %}{{- t | tojson(indent=4) + '\n\n' }}{%- endfor %}{{- first + '<|eot_id|>' }}{%- endif %}"
    "{%- for m in messages %}"
    "{%- if not (m.role == 'tool' or 'tool_calls' in m) %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    "{%- elif 'tool_calls' in m %}"
    "{%- if m.tool_calls | length != 1 %}{{- raise_exception('only single tool-calls at once') }}{%- endif %}"
    "{%- set call = m.tool_calls[0].function %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{{- '{\"name\": \"' + call.name + '\", \"parameters\": ' }}{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}"
    "{%- else %}{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}{{- m.content | tojson }}{{- '<|eot_id|>' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


def llama_pieces(messages, tools):
    def turn(role, text):
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"

    text = ("Environment: ipython\n" if tools else "") + "Today Date: 26 Jul 2024\n\n" + (own_system(messages) or "")
    out = [("<|begin_of_text|>" + turn("system", text), None)]
    has_first = False
    for i, m in enumerate(messages):
        if m["role"] == "user":
            listed = "" if has_first or not tools else "".join(json.dumps(t, indent=4) + "\n\n" for t in tools)
            out.append((turn("user", listed + m["content"]), None))
            has_first = True
        elif m["role"] == "tool":
            out.append((turn("ipython", dump(m["content"])), None))
        elif m["role"] == "assistant":
            words = (m["content"] or "").strip()
            if m.get("tool_calls"):
                (call,) = m["tool_calls"]
                words = f'{{"name": "{call["function"]["name"]}", "parameters": {dump(args(call))}}}'
            out += [("<|start_header_id|>assistant<|end_header_id|>\n\n", None), (words + "<|eot_id|>", i)]
    return out


MISTRAL = (
    "{{- '<s>' }}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set messages = messages[1:] %}{%- endif %}"
    "{%- set questions = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' %}"
    "{%- if tools is not none and m == questions[-1] %}{{- '[AVAILABLE_TOOLS] ' }}{{- tools | tojson }}"
    "{{- '[/AVAILABLE_TOOLS]' }}{%- endif %}"
    "{%- if loop.last and system is defined %}{{- '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + m.content + '[/INST]' }}{%- endif %}"
    "{%- elif m.tool_calls is defined and m.tool_calls is not none %}{{- '[TOOL_CALLS] [' }}"
    "{%- for call in m.tool_calls %}{%- set out = call.function | tojson %}{{- out[:-1] }}"
    "{%- if call.id is not defined or call.id | length != 9 %}"
    "{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}"
    "{{- ', \"id\": \"' + call.id + '\"}' }}{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']</s>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- elif m.role == 'assistant' %}{{- ' ' + m.content | trim + '</s>' }}"
    "{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS] {\"content\": ' + m.content | string }}"
    "{%- if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}"
    "{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}"
    "{{- ', \"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}{%- endif %}{%- endfor %}"
)


def nine(name):
    import hashlib

    return name if len(name) == 9 and name.isalnum() else hashlib.sha256(name.encode()).hexdigest()[:9]


def mistral_pieces(messages, tools):
    (*_, last) = (m for m in messages if m["role"] == "user")
    out = [("<s>", None)]
    for i, m in enumerate(messages):
        if m["role"] == "user":
            listed = f"[AVAILABLE_TOOLS] {dump(tools)}[/AVAILABLE_TOOLS]" if tools and m == last else ""
            out.append((f"{listed}[INST] {m['content']}[/INST]", None))
        elif m["role"] == "tool":
            text = (
                f'[TOOL_RESULTS] {{"content": {m["content"]}, "call_id": "{nine(m["tool_call_id"])}"}}[/TOOL_RESULTS]'
            )
            out.append((text, None))
        elif m["role"] == "assistant":
            words = f" {(m['content'] or '').strip()}"
            if m.get("tool_calls"):
                calls = [
                    f'{dump({**c["function"], "arguments": args(c)})[:-1]}, "id": "{nine(c["id"])}"}}'
                    for c in m["tool_calls"]
                ]
                words = f"[TOOL_CALLS] [{', '.join(calls)}]"
            out.append((words + "</s>", i))
    return out


# arguments are text, and a turn that only calls has no content
DEEPSEEK = (
    "{{- '<|begin|>' }}{%- for m in messages %}{%- if m.role == 'system' %}{{- m.content }}"
    "{%- elif m.role == 'user' %}{{- '<|User|>' + m.content + '<|Assistant|>' }}"
    "{%- elif m.role == 'assistant' and m.content is none %}"
    "{%- for call in m.tool_calls %}{{- '<|call|>' + call.function.name + '\n```json\n' + call.function.arguments }}"
    "{{- '\n```' }}{%- endfor %}{{- '<|end|>' }}"
    "{%- elif m.role == 'assistant' %}{{- m.content + '<|end|>' }}"
    "{%- elif m.role == 'tool' %}{{- '<|output|>' + m.content + '<|Assistant|>' }}{%- endif %}{%- endfor %}"
)


def deepseek_pieces(messages, tools):
    out = [("<|begin|>", None)]
    for i, m in enumerate(messages):
        if m["role"] == "system":
            out.append((m["content"], None))
        elif m["role"] == "user":
            out.append((f"<|User|>{m['content']}<|Assistant|>", None))
        elif m["role"] == "tool":
            out.append((f"<|output|>{m['content']}<|Assistant|>", None))
        else:
            calls = "".join(
                f"<|call|>{c['function']['name']}\n```json\n{dump(args(c))}\n```" for c in m.get("tool_calls") or ()
            )
            out.append(((calls or m["content"]) + "<|end|>", i))
    return out


GEMMA = (
    "{{- '<bos>' }}{%- if messages[0].role == 'system' %}{{- raise_exception('no system role') }}{%- endif %}"
    "{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}"
    "{%- set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{- '<start_of_turn>' + role + '\n' }}{{- m.content | trim }}{{- '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"
)


def gemma_pieces(messages, tools):
    out = [("<bos>", None)]
    for i, m in enumerate(messages):
        if m["role"] == "user":
            out.append((f"<start_of_turn>user\n{m['content']}<end_of_turn>\n", None))
        else:
            out += [("<start_of_turn>model\n", None), (f"{m['content'].strip()}<end_of_turn>", i), ("\n", None)]
    return out


PHI = (
    "{%- for m in messages %}{{- '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"
)


def phi_pieces(messages, tools):
    out = []
    for i, m in enumerate(messages):
        is_own = m["role"] == "assistant"
        out += [(f"<|{m['role']}|>\n", None), (f"{m['content']}<|end|>", i if is_own else None), ("\n", None)]
    return out


def hermes_system(messages, tools):
    text = (own_system(messages) or "") + "".join(dump(tool) for tool in tools or ())
    return f"<|im_start|>system\n{text}<|im_end|>\n" if text else ""


IM = ("<|im_start|>", "<|im_end|>")
FAMILIES = {
    "qwen2.5": Family(QWEN25, chatml(qwen25_system, json_call), "<|im_end|>", IM),
    "qwen3": Family(QWEN3, chatml(qwen3_system, item_call, qwen3_thought), "<|im_end|>", IM),
    "hermes": Family(HERMES, chatml(hermes_system, json_call), "<|im_end|>", IM),
    "llama3.1": Family(
        LLAMA,
        llama_pieces,
        "<|eot_id|>",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        n_calls=1,
    ),
    "mistral": Family(
        MISTRAL,
        mistral_pieces,
        "</s>",
        ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
        has_system=False,
    ),
    "deepseek": Family(
        DEEPSEEK, deepseek_pieces, "<|end|>", ("<|begin|>", "<|User|>", "<|Assistant|>", "<|end|>", "<|call|>")
    ),
    "gemma": Family(
        GEMMA,
        gemma_pieces,
        "<end_of_turn>",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        has_system=False,
        has_tools=False,
    ),
    "phi": Family(PHI, phi_pieces, "<|end|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), has_tools=False),
}
