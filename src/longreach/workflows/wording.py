"""How the prompts of workflows end: one line that says what is to be written, the same in all of them, so that small models learn one form.

What a workflow says before it is its own.
"""

NOTHING = "NOTHING"  # what is written where a text says nothing on the task

SO_FAR = "The answer so far:"  # stands before an answer from earlier parts of a text

ANSWER = "Answer:"  # the answer to the task
NOTES = "Notes:"  # all that a text says on the task, or NOTHING
SUMMARY = "Summary:"  # a text in fewer words
MOVE = "Move:"  # one move out of a list
CHOICE = "Yes or no:"  # a yes or a no
FORMULA = "Formula:"  # a calculation
PLAN = "Plan:"  # what is to be written, a line for each part
TEXT = "Text:"  # a part of a long text
ABBREVIATION = "Abbreviation:"  # the first letters of a sentence's words
SENTENCE = "Sentence:"  # what an abbreviation stands for


def says_nothing(text: str) -> bool:
    """Whether notes say that there is nothing to note.

    >>> says_nothing("Nothing."), says_nothing("NOTHING here on cats"), says_nothing("Nothing is known of her but a name: Ada.")
    (True, True, False)
    """
    words = text.strip().strip("*_\"'`. \n")
    return not words or words.upper() == NOTHING or words.startswith(NOTHING)


def write_about(words: int) -> str:
    """How a prompt says how long a text is to be.

    >>> write_about(1), write_about(120)
    ('Write about 1 word.', 'Write about 120 words.')
    """
    return f"Write about {words} word{'s' * (words != 1)}."
