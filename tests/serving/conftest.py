import openai
import pytest

from tests.conversation.talks import talker
from tests.serving.served import server

# Offers tools as Hermes' template does.
TEMPLATE = (
    "{% if tools %}<bos>tools: {{ tools | tojson }}<eos>{% endif %}"
    "{% for message in messages %}<bos>{{ message['role'] }}: {{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor %}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def loaded():
    return talker(template=TEMPLATE, max_position_embeddings=512)


@pytest.fixture(scope="module")
def running(loaded):
    """A server with one method: (url, service, what serves it)."""
    with server(loaded, ["linear:factor=2"]) as found:
        yield found


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running[0]}/v1", api_key="none", max_retries=0) as found:
        yield found
