"""The page of `longreach serve`, driven in a browser against a server without a model.

Longer than 400 lines: its tests share one browser, which takes longer to start than most of them to run, and each worker starts one a file.
"""

import json
import re
import shutil
from functools import cache

import pytest
from playwright.sync_api import expect, sync_playwright

from longreach.conversation.messages import load_messages, save_messages
from tests.serving.stub_server import MARKDOWN, TRAINED, WINDOW, RefusedError, Stub

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the page is tested in Chromium or Chrome, and neither is installed")
PATIENCE = 20_000  # ms: on a busy machine a page takes seconds
expect.set_options(timeout=PATIENCE)
LONG = " ".join(f"word{at:05}" for at in range(2000))  # 10 characters a word
NETWORK = re.compile("Failed to load resource: the server responded with a status of 4")  # Chromium says so of every refusal


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--renderer-process-limit=1"])
        yield browser
        browser.close()


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.go.set()
    stub.shutdown()
    stub.server_close()


@pytest.fixture
def base_url(stub):
    return stub.url


@cache
def context_of(browser, width, height, options):
    """A window's settings, for all tests that want these: pages of one context share nothing, for each test's server is an origin."""
    context = browser.new_context(viewport={"width": width, "height": height}, **dict(options))
    context.set_default_timeout(PATIENCE)
    return context


@pytest.fixture
def visit(browser, base_url):
    """Opens the page in a window of its own. Whatever a test does, nothing may fail in the console, or offend against the CSP."""
    pages, problems = [], []

    def open_page(width=1280, height=860, **options):
        page = context_of(browser, width, height, tuple(options.items())).new_page()
        pages.append(page)
        page.problems = problems
        page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(base_url)
        expect(page.locator("#serving")).not_to_be_empty()
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [problem for problem in problems if not NETWORK.match(problem)] == []


@pytest.fixture
def page(visit):
    return visit()


def ask(page, words, answers=1):
    """Ask, and wait until so many answers are whole."""
    page.fill("#draft", words)
    page.press("#draft", "Enter")
    expect(page.locator(".answer .foot:visible")).to_have_count(answers)


def attach(page, text=LONG, name="river.txt"):
    page.set_input_files("#files", {"name": name, "mimeType": "text/plain", "buffer": text.encode()})
    expect(page.locator("#chips .chip", has_text=name).locator(".size", has_text="token")).to_be_visible()


def drop(page, files):
    """Files, as {name: bytes}, from outside onto the page."""
    page.evaluate(
        """(files) => {
          const data = new DataTransfer();
          for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
          const drag = {dataTransfer: data, bubbles: true, cancelable: true};
          for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, drag));
        }""",
        [[name, list(data)] for name, data in files.items()],
    )


def read_by_workflow(page, question="What is word01250?"):
    attach(page)
    page.fill("#draft", question)
    page.press("#draft", "Enter")
    page.get_by_label("Read documents by").select_option("map_reduce")
    page.get_by_role("button", name="Read so, and answer").click()
    expect(page.locator(".ledger")).to_be_visible()


def test_an_answer_streams_as_text_with_its_receipt(page, stub):
    page.get_by_text("Settings", exact=True).click()
    for name, value in {"Temperature": "0.5", "Max tokens": "60", "Seed": "7", "System prompt": "Be brief."}.items():
        page.get_by_label(name).fill(value)
    ask(page, "Which things are there?")
    said = page.locator(".answer .said")
    assert said.locator("p").all_inner_texts() == ["Three things — naïve, 文字 and 🙂.", "That is all."]
    assert said.locator("li").all_inner_texts() == ["one a<b", "two"]
    assert said.locator("pre").inner_text() == "print('<b>')"
    assert page.locator(".facts").inner_text().split("\n")[-1] == f"24 of {WINDOW} tokens"
    assert re.sub(r"\s+", " ", page.locator(".facts").inner_text()).startswith("Profile the model as it is Read 3 Reused 3 Written 18")
    expect(page.locator(".left-out")).to_have_text("The whole conversation was read.")
    spoken = page.locator("#spoken p").all_inner_texts()
    assert spoken[0] == "Reading the prompt …"
    assert spoken[-1] == "The answer is complete."
    assert " ".join(spoken[1:-1]).split() == MARKDOWN.split()  # whole sentences, each once
    assert len(spoken) <= 9
    (asked,) = stub.asked
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which things are there?"}]
    assert {name: asked[name] for name in ("model", "stream", "temperature", "max_tokens", "seed")} == {
        "model": "stub-135m", "stream": True, "temperature": 0.5, "max_tokens": 60, "seed": 7,
    }  # fmt: skip
    assert asked["longreach"] == {"progress": True}


def test_events_may_be_split_anywhere(page):
    stream = ': hello\r\n\r\ndata: {"a": "naïve 文字 🙂"}\r\n\r\nevent: x\r\ndata: one\r\ndata:two\r\n\ndata: [DONE]\r\rdata: never ended'
    found = page.evaluate(
        """async (stream) => {
          const {Events} = await import("./page.js");
          const bytes = new TextEncoder().encode(stream);
          const all = new Set();
          for (let cut = 0; cut <= bytes.length; cut += 1) {
            const events = new Events();
            all.add(JSON.stringify([...events.push(bytes.slice(0, cut)), ...events.push(bytes.slice(cut))]));
          }
          const events = new Events();
          all.add(JSON.stringify([...bytes].flatMap((byte) => events.push(Uint8Array.of(byte)))));
          return [...all];
        }""",
        stream,
    )
    assert [json.loads(each) for each in found] == [['{"a": "naïve 文字 🙂"}', "one\ntwo", "[DONE]"]]


def test_what_the_model_writes_is_text(page):
    wild = "<img src=x onerror=\"document.title='hit'\"> <script>document.title='hit'</script>\n\n- [a](javascript:alert(1)) `<b>`"
    ask(page, f"[say]{wild}")
    assert page.locator(".answer .said").inner_text().startswith("<img src=x onerror=\"document.title='hit'\"> <script>")
    assert page.locator(".turn :is(img, script, a, b)").count() == 0
    assert page.title() == "stub-135m · longreach"


def test_an_answer_grows_and_can_be_stopped(page, stub):
    page.fill("#draft", "[slow] Count.")
    page.press("#draft", "Enter")
    expect(page.locator(".answer .said")).to_contain_text("word3.")
    expect(page.locator("#spoken")).to_contain_text("word0.")
    page.keyboard.press("Escape")
    expect(page.locator(".answer .line")).to_have_text("You stopped this answer.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    kept = page.locator(".answer .said").inner_text()
    assert " ".join(page.locator("#spoken p").all_inner_texts()[1:-1]).split() == kept.split()
    ask(page, "Go on.", answers=2)
    assert stub.asked[1]["messages"][1] == {"role": "assistant", "content": kept}


def test_the_window_follows_an_answer_to_its_end_unless_one_reads_elsewhere(visit):
    page = visit(800, 420)
    ask(page, "Which things are there?")
    again, composer = (page.locator(each).bounding_box() for each in (".again", "#composer"))
    assert again["y"] + again["height"] <= composer["y"] + 14  # the composer begins with a fading edge
    page.evaluate("() => scrollTo(0, 0)")
    page.fill("#draft", "[slow] And these?")
    page.press("#draft", "Enter")
    expect(page.locator(".answer .said").nth(1)).to_contain_text("word1.")
    page.evaluate("() => scrollTo(0, 10)")
    expect(page.locator(".answer .said").nth(1)).to_contain_text("word9.")
    assert page.evaluate("() => scrollY") == 10


def test_stopped_before_it_begins_it_gives_the_message_back(page):
    page.fill("#draft", "[hold] Wait.")
    page.press("#draft", "Enter")
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_attribute("max", "2")
    expect(page.locator(".wait")).to_contain_text("Reading the prompt: 1 of 2 tokens")
    page.fill("#draft", "What else?")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#draft")).to_have_value("[hold] Wait.\n\nWhat else?")
    expect(page.locator("#draft")).to_be_focused()
    expect(page.locator(".turn")).to_have_count(0)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (RefusedError(400, "logprobs are not supported.", "unsupported_parameter"), "logprobs are not supported."),
        (RefusedError(429, "Too many requests wait.", None), "Too many requests wait. Try again in 3 s."),
    ],
)
def test_an_error_leaves_what_was_typed(page, stub, refusal, said):
    stub.refuse = refusal
    page.fill("#draft", "A question\nof two lines")
    page.press("#draft", "Enter")
    expect(page.locator("#trouble")).to_have_text(said)
    expect(page.locator("#draft")).to_have_value("A question\nof two lines")
    page.press("#draft", "Enter")
    expect(page.locator(".answer .foot")).to_be_visible()
    expect(page.locator("#trouble")).to_be_empty()


def test_an_error_of_a_setting_leads_to_it(page, stub):
    stub.refuse = RefusedError(400, "longreach.read: there is no workflow rug.", None, "longreach.read")
    page.fill("#draft", "What?")
    page.press("#draft", "Enter")
    page.get_by_role("button", name="Open the setting").click()
    expect(page.get_by_label("Documents that do not fit")).to_be_focused()


def test_an_answer_that_breaks_off_is_kept_and_said_to(page):
    ask(page, "[break] Why?")
    expect(page.locator(".answer .said")).to_have_text("Three things — naïve,")
    expect(page.locator(".answer .line")).to_have_text("The answer is not whole: The connection ended before the answer did.")
    page.fill("#draft", "[fault] And now?")
    page.press("#draft", "Enter")
    expect(page.locator("#trouble")).to_have_text("The model ran out of memory.")
    expect(page.locator("#draft")).to_have_value("[fault] And now?")


def test_a_server_that_is_gone_is_said_to_be(page):
    expect(page.locator("#serving")).to_have_text("stub-135m")
    page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    page.fill("#draft", "Anyone?")
    page.press("#draft", "Enter")
    expect(page.locator("#trouble")).to_have_text("The server does not answer. Is it still running?")
    expect(page.locator("#draft")).to_have_value("Anyone?")
    page.problems.clear()  # a refused connection is an error of the console


def test_documents_are_dropped_checked_and_read_by_a_workflow(page, stub):
    drop(page, {"river.txt": LONG.encode(), "photo.png": b"\x89PNG\r\n", "zeros.txt": b"a\0b"})
    expect(page.locator("#chips .chip")).to_have_count(1)
    expect(page.locator("#chips .chip")).to_contain_text("river.txt2,000 tokens")
    assert sorted(page.locator("#trouble p").all_inner_texts()) == [
        "photo.png is not text in UTF-8. Documents are plain text.",
        "zeros.txt is not text: it has bytes of zero. Documents are plain text.",
    ]
    page.fill("#draft", "What is word01250?")
    page.press("#draft", "Enter")
    expect(page.locator("#trouble")).to_contain_text(f"This model's maximum context length is {WINDOW} tokens.")
    expect(page.locator("#draft")).to_have_value("What is word01250?")
    page.get_by_label("Read documents by").select_option("chain")
    page.get_by_role("button", name="Read so, and answer").click()
    expect(page.locator(".ledger")).to_contain_text("Read by chain in 2 calls: 990 tokens read, 49 written. 1 of the model")
    page.get_by_role("button", name="Again, longer").click()
    expect(page.get_by_role("group", name="Versions of this answer")).to_contain_text("2 of 2")
    assert "min_tokens" not in stub.asked[-1]
    assert stub.asked[-1]["max_tokens"] > 0
    page.get_by_role("button", name="Version before").click()
    asked = stub.asked[-1]
    assert asked["longreach"]["read"] == "chain"
    assert asked["messages"][-1]["content"] == [
        {"type": "file", "file": {"file_id": "file-0"}},
        {"type": "text", "text": "What is word01250?"},
    ]
    expect(page.locator(".user .chip")).to_contain_text("river.txt")
    expect(page.locator("#trouble")).to_be_empty()


def test_what_supports_an_answer_is_found_by_keyboard(page):
    read_by_workflow(page)
    strip = page.get_by_role("group", name="Places in river.txt")
    first = strip.get_by_role("button").first
    assert strip.locator("[tabindex='0']").count() == 1
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".span > p")).to_have_text("Characters 0 to 4,999 of 19,999: read.")
    expect(page.locator(".span blockquote")).to_contain_text("word00000 word00001")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(strip.get_by_role("button", name="supports the answer")).to_be_focused()
    expect(page.locator(".span > p")).to_have_text("Characters 10,048 to 10,148 of 19,999: supports the answer.")
    expect(page.locator(".span blockquote")).to_contain_text("word01005 word01006")
    page.keyboard.press("End")
    expect(page.locator(".span > p")).to_have_text("Characters 14,997 to 19,999 of 19,999: not read.")
    page.get_by_role("button", name="Next support, in river.txt").click()
    expect(page.locator(".span blockquote")).to_contain_text("word01005")
    expect(page.locator(".keys")).to_have_text("read 50 %not read 50 %supports the answer under 1 %")
    page.get_by_text("Calls of the model").click()
    assert page.locator(".calls tbody th").all_inner_texts() == ["1. map, cut", "2. answer"]


def test_places_do_not_overlap(page):
    def place(start, end, document=0):
        return {"document": document, "start": start, "end": end, "excerpt": f"from {start}"}

    ledger = {"read": [place(10, 60), place(0, 9, 1)], "unread": [place(60, 100)], "support": [place(35, 45), place(44, 50)]}
    found = page.evaluate("async (ledger) => (await import('./page.js')).places(ledger, 0)", ledger)
    assert [(each["start"], each["end"], each["kind"]) for each in found] == [
        (10, 35, "read"), (35, 45, "support"), (45, 50, "support"), (50, 60, "read"), (60, 100, "unread"),
    ]  # fmt: skip


def test_the_meter_counts_what_a_prompt_would_take(page):
    words, meter = page.locator("#meter-words"), page.get_by_role("meter", name="Window")
    expect(words).to_have_text(f"0 of {WINDOW} tokens.")
    expect(page.locator("#trained-words")).to_have_text(f"trained on {TRAINED}")
    assert page.locator("#trained").evaluate("(mark) => mark.style.left") == "50%"
    page.fill("#draft", "Five words are in here")
    expect(words).to_have_text(f"5 of {WINDOW} tokens: draft 5.")
    ask(page, "Five words are in here")
    expect(words).to_have_text(f"23 of {WINDOW} tokens: conversation 23.")
    attach(page, " ".join(["x"] * 250))
    expect(words).to_have_text(f"273 of {WINDOW} tokens: conversation 23, documents 250. 73 past what the model was trained on.")
    expect(meter).to_have_attribute("aria-valuenow", "273")
    attach(page, " ".join(["x"] * 250), "more.txt")
    expect(words).to_contain_text("123 too many: they have to be read by a workflow, or left out.")
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Documents that do not fit").fill("rag")
    expect(words).to_have_text(f"23 of {WINDOW} tokens: conversation 23. The documents, 500 tokens, do not fit: rag reads them.")


def test_a_conversation_that_is_too_long_is_shortened_and_says_so(page, stub):
    page.fill("#draft", " ".join(["word"] * (WINDOW + 1)))
    page.press("#draft", "Enter")
    expect(page.get_by_label("Read documents by")).to_be_hidden()
    page.get_by_role("button", name="Shorten so, and answer").click()
    said = page.locator(".left-out summary")
    expect(said).to_have_text("Not all of the conversation was read: left out turn 1, 325 tokens.")
    said.click()
    assert page.locator(".left-out li").all_inner_texts() == ["turn 1, user: 300 tokens", "turn 1, assistant: 25 tokens"]
    assert stub.asked[-1]["longreach"]["overflow"] == "whole_turns"


def test_an_answer_is_asked_for_at_another_length_and_both_are_kept(page, stub):
    ask(page, "[say]one two three four")
    page.get_by_role("button", name="Again, longer").click()
    versions = page.get_by_role("group", name="Versions of this answer")
    expect(versions).to_contain_text("2 of 2")
    assert (stub.asked[1]["min_tokens"], stub.asked[1]["max_tokens"]) == (6, 12)
    assert page.locator(".answer .said").inner_text() == "one two three fourone two three four"
    expect(page.get_by_role("button", name="Next version")).to_be_focused()
    page.get_by_role("button", name="Version before").click()
    expect(versions).to_contain_text("1 of 2")
    assert page.locator(".answer .said").inner_text() == "one two three four"
    expect(page.get_by_role("button", name="Version before")).to_be_focused()
    page.get_by_label("Tokens of the new answer").fill("3")
    page.keyboard.press("Enter")
    expect(versions).to_contain_text("3 of 3")
    assert (stub.asked[2]["min_tokens"], stub.asked[2]["max_tokens"]) == (3, 3)
    expect(page.locator(".answer .line")).to_have_text("It ends here because it reached the limit of 3 tokens.")
    ask(page, "And?", answers=2)
    assert [each["content"] for each in stub.asked[3]["messages"]] == ["[say]one two three four", "one two three", "And?"]


def test_an_answer_stays_where_another_cannot_be_had(page, stub):
    ask(page, "[say]one two")
    stub.refuse = RefusedError(400, "min_tokens is too many.", None)
    page.get_by_role("button", name="Again, shorter").click()
    expect(page.locator(".answer .line")).to_have_text("min_tokens is too many.")
    assert page.locator(".answer .said").inner_text() == "one two"
    assert page.locator(".versions").count() == 0


def test_a_conversation_is_saved_and_loaded(page, visit, tmp_path):
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be brief.")
    read_by_workflow(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    path = tmp_path / "talk.json"
    download.value.save_as(path)
    messages = load_messages(path)
    assert [(each["role"], each["content"]) for each in messages] == [
        ("system", "Be brief."), ("user", "What is word01250?"), ("assistant", MARKDOWN),
    ]  # fmt: skip
    other = visit()
    other.set_input_files("#loaded", path)
    expect(other.locator(".answer .said")).to_contain_text("That is all.")
    expect(other.locator(".user .chip")).to_contain_text("river.txt")
    expect(other.locator(".ledger")).to_contain_text("in 2 calls")
    expect(other.locator("#system")).to_have_value("Be brief.")
    other.set_input_files("#loaded", {"name": "wrong.json", "mimeType": "application/json", "buffer": b'[{"role": "user", "content": 3}]'})
    expect(other.locator("#kept-trouble")).to_have_text("wrong.json: message 1: its content is no text.")
    expect(other.locator(".turn")).to_have_count(2)


def test_what_a_file_says_of_its_answers_is_drawn_or_refused(visit, tmp_path):
    page = visit(360, 740)
    places = [{"document": 0, "start": at * 100, "end": at * 100 + 99, "excerpt": "so"} for at in range(600)]
    ledger = {
        "workflow": "map_reduce", "documents": [{"name": "book.txt", "characters": 60_000}], "exact": False, "cost": {"calls": 600},
        "read": places[::2], "unread": places[1::2], "support": [place | {"end": place["start"] + 9} for place in places[::10]],
    }  # fmt: skip
    answer = {"role": "assistant", "content": "So.", "longreach": {"ledger": ledger}}
    save_messages(tmp_path / "talk.json", [{"role": "user", "content": "Is it so?"}, answer])
    page.set_input_files("#loaded", tmp_path / "talk.json")
    expect(page.locator(".ledger")).to_contain_text("Read by map_reduce in 600 calls: 0 tokens read, 0 written. Tokens are estimates.")
    assert page.locator(".strip button.support").count() == 60
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    answer["longreach"] = {"ledger": {"documents": 3}}
    save_messages(tmp_path / "wrong.json", [{"role": "user", "content": "Is it so?"}, answer])
    page.set_input_files("#loaded", tmp_path / "wrong.json")
    expect(page.locator("#kept-trouble")).to_contain_text('wrong.json: what it says under "longreach" is not what this page saves.')
    expect(page.locator(".ledger")).to_contain_text("600 calls")


def test_a_conversation_with_tools_comes_and_goes_as_it_is(page, stub, tmp_path):
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "How late is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "12:30", "tool_call_id": "1"},
        {"role": "assistant", "content": "Half past twelve."},
    ]
    save_messages(tmp_path / "talk.json", messages)
    page.set_input_files("#loaded", tmp_path / "talk.json")
    expect(page.locator(".answer")).to_contain_text(["clock({})", "Half past twelve."])
    page.fill("#draft", "Thanks.")
    page.press("#draft", "Enter")
    expect(page.locator(".facts dd").first).to_be_visible()
    assert stub.asked[0]["messages"] == [*messages, {"role": "user", "content": "Thanks."}]


def test_what_was_put_away_can_be_had_back(page):
    ask(page, "[say]one")
    page.get_by_role("button", name="New").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="Bring it back").click()
    expect(page.locator(".answer .said")).to_have_text("one")


def test_long_pasted_text_becomes_a_document_that_can_be_removed(page, stub):
    page.locator("#draft").evaluate(
        """(draft, text) => {
          const data = new DataTransfer();
          data.setData("text/plain", text);
          draft.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
        }""",
        LONG,
    )
    expect(page.locator("#chips .chip")).to_contain_text("Pasted text 1.txt2,000 tokens")
    assert [each["text"] for each in stub.files.values()] == [LONG]
    page.get_by_role("button", name="Remove Pasted text 1.txt").click()
    expect(page.locator("#chips .chip")).to_have_count(0)
    expect(page.locator("#draft")).to_be_focused()
    expect(page.locator("#meter-words")).to_have_text(f"0 of {WINDOW} tokens.")


def test_documents_on_the_server_are_attached_again_and_deleted(page, stub):
    attach(page, "short text")
    ask(page, "[say]yes")
    page.get_by_role("button", name="Attach river.txt").click()
    expect(page.locator("#chips .chip")).to_contain_text("river.txt2 tokens")
    page.get_by_role("button", name="Delete river.txt").click()
    expect(page.locator("#chips .chip")).to_have_count(0)
    expect(page.locator("#documents-part")).to_be_hidden()
    expect(page.locator(".user .chip")).to_have_text("river.txtnot on the server")
    assert stub.files == {}
    ask(page, "[say]still", answers=2)
    assert stub.asked[1]["messages"][0]["content"] == "[say]yes"


def test_documents_of_the_library_are_attached_and_not_deleted(visit, stub):
    own = {"tokens": 2, "library": True, "method": ""}
    stub.files["library:0123"] = {"id": "library:0123", "filename": "book", "text": "a book", "longreach": own}
    page = visit()
    page.get_by_role("button", name="Attach book").click()
    expect(page.get_by_role("button", name="Delete book")).to_have_count(0)
    ask(page, "[say]yes")
    assert stub.asked[0]["messages"][0]["content"][0] == {"type": "file", "file": {"file_id": "library:0123"}}


def test_enter_sends_and_shift_enter_breaks(page, stub):
    page.locator("#draft").press_sequentially("one")
    page.keyboard.press("Shift+Enter")
    page.locator("#draft").press_sequentially("two")
    page.keyboard.press("Enter")
    expect(page.locator(".user .said")).to_have_text("one\ntwo")
    expect(page.locator("#draft")).to_have_value("")


def test_a_key_is_asked_for_and_kept_only_where_that_is_wanted(page, stub):
    stub.key = "sesame"
    page.reload()
    expect(page.locator("#model-trouble")).to_contain_text("API key in the settings.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type("sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#serving")).to_have_text("stub-135m")
    assert page.evaluate("() => [sessionStorage.length, localStorage.length]") == [0, 0]
    page.get_by_label("Keep it until this tab is closed").check()
    assert page.evaluate("() => ({...sessionStorage})") == {"longreach.key": "sesame"}
    attach(page, "short text")
    ask(page, "[say]yes")


def test_the_card_says_how_long_a_text_may_be(page, stub):
    rows = page.get_by_role("table", name="Usable length").get_by_role("row")
    assert [re.sub(r"\s+", " ", row) for row in rows.all_inner_texts()] == [
        "Ability Up to", "Literal 1k short at 4k", "Latent 1k then open", "Ordering at chance", "Aggregation 1k then open",
    ]  # fmt: skip
    stub.card = None
    page.reload()
    expect(page.locator("#model")).to_contain_text("No card measured; run longreach card stub-135m.")


CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((one) => one / 255);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!(own || node.matches("input, textarea, select")) || !node.checkVisibility()) continue;
    const grounds = [];
    for (let up = node; up; up = up.parentElement) grounds.unshift(getComputedStyle(up).backgroundColor);
    const [ink, ground] = [paint([...grounds, getComputedStyle(node).color]), paint(grounds)].map(light);
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName}.${node.className} ${node.textContent.slice(0, 20)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_fits_a_phone(visit, scheme):
    page = visit(360, 740, color_scheme=scheme, reduced_motion="reduce")
    ground = page.locator("body").evaluate("(body) => getComputedStyle(body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
    attach(page, LONG, "a document with a name that is quite long for a phone and goes on.txt")
    page.fill("#draft", "What?")
    page.press("#draft", "Enter")
    expect(page.locator("#offer")).to_be_visible()
    sights = [page.evaluate(CONTRAST)]
    widths = [page.evaluate("() => document.documentElement.scrollWidth")]
    page.get_by_role("button", name="Read so, and answer").click()
    page.get_by_role("button", name="Next support").click()
    page.get_by_role("button", name="Again, longer").click()
    expect(page.locator(".versions")).to_be_visible()
    sights.append(page.evaluate(CONTRAST))
    widths.append(page.evaluate("() => document.documentElement.scrollWidth"))
    page.get_by_role("button", name="Menu").click()
    page.get_by_text("Settings", exact=True).click()
    expect(page.get_by_label("API key")).to_be_visible()
    expect(page.locator("#draft")).to_be_hidden()
    sights.append(page.evaluate(CONTRAST))
    widths.append(page.evaluate("() => document.documentElement.scrollWidth"))
    assert sights == [[], [], []]
    assert max(widths) <= 360


def test_every_control_has_a_name_and_shows_its_focus(page):
    stage = page.context.new_cdp_session(page)
    page.get_by_text("Settings", exact=True).click()
    read_by_workflow(page)
    page.get_by_role("button", name="Again, longer").click()
    expect(page.locator(".versions")).to_be_visible()
    controls = {
        "button",
        "textbox",
        "combobox",
        "spinbutton",
        "checkbox",
        "meter",
        "progressbar",
        "group",
        "table",
        "region",
        "main",
        "complementary",
    }
    nodes = stage.send("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert len([role for role, _ in named if role in ("button", "textbox", "spinbutton", "checkbox")]) > 25
    assert [role for role, name in named if role in controls - {"main", "group"} and not name.strip()] == []
    page.locator("#draft").focus()
    seen = []
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(
            """() => {
              const node = document.activeElement;
              if (node === document.body) return null;
              const box = node.getBoundingClientRect();
              const shown = getComputedStyle(node).outlineStyle !== "none" || node.id === "draft";
              const seen = box.width > 0 && box.bottom > 0 && box.top < innerHeight;
              return [node.id || node.dataset.name || node.className || node.tagName, shown, seen];
            }"""
        ))  # fmt: skip
        if seen[-1] is None or seen[-1][0] == "draft":
            break
    assert [each for each in seen if each and not (each[1] and each[2])] == []
    assert [each[0] for each in seen if each][:4] == ["attach", "send", "new", "save"]


def test_the_whole_way_leaves_no_error_and_no_violation(visit):
    page = visit()
    page.evaluate(
        """() => {
          window.violations = [];
          addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
        }"""
    )
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Documents that do not fit").fill("rag")
    attach(page)
    ask(page, "What is word01250?")
    page.get_by_role("button", name="Next support").click()
    page.get_by_role("button", name="Again, longer").click()
    expect(page.locator(".versions")).to_be_visible()
    with page.expect_download():
        page.get_by_role("button", name="Save").click()
    assert page.evaluate("() => window.violations") == []
    assert page.problems == []
