from longreach.reports.ledger_page import ledger_page
from longreach.testing.scripted import PerfectReader
from longreach.workflows.run import reading
from longreach.workflows.spans import Document

FACT = "The <key> lies below the stair."


def ledger(workflow):
    filler = "Nothing happened on that day & nobody came.\n\n"
    documents = [Document(name="a <b>.txt", text=filler * 60), Document(name="two.txt", text=f"{filler * 30}{FACT}")]
    run = reading(PerfectReader([FACT], "<below>", window=200), documents, "Where is the <key>?", workflow=workflow, answer_tokens=16)
    return run.ledger, run.answer()


def test_a_page_says_what_was_read_and_what_was_not():
    found, answer = ledger("rag:passages=1")
    page = ledger_page(found.to_dict(), answer, title="What was read", command="longreach read 'a <b>.txt'")
    assert page.count('<svg class="strip"') == 2
    assert page.count('<rect class="support"') == 1
    assert "What was never read" in page
    assert "a &lt;b&gt;.txt: 2,700 characters" in page
    assert "The &lt;key&gt; lies below the stair." in page
    assert "<key>" not in page
    assert "<below>" not in page
    assert "All 1 calls" in page
    assert f"What was read: {found.coverage:.0%} of the text" in page


def test_a_run_that_was_stopped_says_why():
    found, _ = ledger("map_reduce")
    found.stopped = "the server is <busy>"
    page = ledger_page(found.to_dict(), "", title="x", command="y")
    assert "It did not end: the server is &lt;busy&gt;" in page
    assert "What was never read" not in page


def test_nothing_is_fetched_from_elsewhere():
    found, answer = ledger("chain")
    page = ledger_page(found.to_dict(), answer, title="x", command="y")
    assert "http" not in page
    assert "<script" not in page
