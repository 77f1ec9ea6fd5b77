import os
import signal
import time
from collections import deque

import pytest
from jinja2 import TemplateError

from thresher.errors import InputError
from thresher.models.untrusted import client, templates
from thresher.models.untrusted.client import LimitError, Worker, ask
from thresher.models.untrusted.templates import render_untrusted

CHAT = [{"role": "user", "content": "größe \ud800 \u2028"}, {"role": "assistant", "content": "b"}]
SHOW = "{%- for message in messages %}{{ message.role ~ ': ' ~ message.content ~ '\n' }}{%- endfor %}"
BLOCKS = (
    "{%- for message in messages %}{% if message.role == 'assistant' %}{% generation %}{{ message.content }}"
    "{% endgeneration %}{% else %}{{ message.content | tojson }}{% endif %}{% endfor %}"
)


def options(template, conversation=None, **more):
    return {
        "conversations": [CHAT if conversation is None else conversation],
        "tools": None,
        "chat_template": template,
        **more,
    }


@pytest.mark.parametrize(
    "more", [{}, {"return_assistant_tokens_mask": True}, {"add_generation_prompt": True}, {"bos_token": "<s>"}]
)
@pytest.mark.parametrize("template", [SHOW, BLOCKS, "{{ bos_token }}{{ messages[0].content.strip() }}"])
def test_the_other_process_shows_what_transformers_shows(template, more):
    from transformers.utils.chat_template_utils import render_jinja_template

    if "return_assistant_tokens_mask" in more and template is not BLOCKS:
        pytest.skip("transformers warns of a template without blocks")
    texts, blocks = render_jinja_template(**options(template, **more))
    text, spans = render_untrusted(options(template, **more))
    assert text == texts[0]
    assert [tuple(span) for span in spans] == [tuple(span) for span in (blocks[0] if blocks else [])]


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{{ raise_exception('no system turns') }}", TemplateError, "^no system turns$"),
        ("{% for %}", TemplateError, "Expected"),
        ("{{ messages[0].nothing.more }}", TemplateError, "has no attribute"),
        ("{{ 'a' + messages[0].nothing }}", TemplateError, "has no attribute"),
        ("{{ 'a' + none }}", TypeError, "can only concatenate"),
        ("{{ 1 / 0 }}", TemplateError, "ZeroDivisionError: division by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", TemplateError, "RecursionError"),
        ("{{ ''.__class__.__mro__ }}", TemplateError, "unsafe"),
    ],
)
def test_what_a_template_raises_is_raised_here(template, error, message):
    with pytest.raises(error, match=message):
        render_untrusted(options(template))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 'x' * 10 ** 10 }}", "took more than 512 MB of memory"),
        ("{{ 'x' * 3000000 }}", "produced a text much longer"),
        ("{{ 9 ** (9 ** 9) }}", "took more than 0.5 s"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "took more than 0.5 s"),
    ],
)
def test_a_template_that_takes_more_than_its_share_is_refused_and_the_next_one_is_shown(template, message, monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(InputError, match=f"its chat template must show a conversation within 0.5 s.*{message}"):
        render_untrusted(options(template))
    assert time.monotonic() - started < 60
    assert render_untrusted(options("{{ messages[1].content }}"))[0] == "b"


def test_a_template_that_is_slow_each_time_is_refused(monkeypatch):
    monkeypatch.setattr(templates, "FREE_SECONDS", 0.2)
    monkeypatch.setattr(templates, "MEAN_SECONDS", 0.001)
    slow = options("{% for a in range(50) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}a")
    with pytest.raises(InputError, match=r"must show a conversation in 0.001 s on average, and \d+ took"):
        deque(render_untrusted(slow) for _ in range(100))


def test_a_process_that_ends_is_started_anew():
    assert render_untrusted(options("a"))[0] == "a"
    os.kill(Worker.shared()._process.pid, signal.SIGKILL)
    with pytest.raises(LimitError, match="ended its process with code -9"):
        ask("render", seconds=1, megabytes=100, options=options("a"), max_characters=10)
    assert render_untrusted(options("b"))[0] == "b"


def test_a_forked_process_asks_one_of_its_own():
    assert render_untrusted(options("a"))[0] == "a"
    before = Worker.shared()._process.pid
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int(render_untrusted(options("c"))[0] != "c" or Worker.shared()._process.pid == before)
            Worker.stop()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert render_untrusted(options("d"))[0] == "d"
    assert Worker.shared()._process.pid == before


def test_modules_of_the_folder_that_the_user_is_in_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "jinja2.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    client.Worker.stop()
    assert render_untrusted(options("a"))[0] == "a"
