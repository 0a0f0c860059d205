"""A few texts in InfiniteBench's format, so that everything about the task can be tried without its files."""

from longreach.evaluation.asking.records import of_values

_BOOK = """Mirela kept the ferry at Ostrov after her father died, and everybody said that she would sell it within a year. She did not. When
the bridge was finished, in the spring of the great flood, nobody needed a ferry any more, and she took the engine out of it and put it into
a mill. The mill ground nothing but mustard. Old Petru, who had laughed the loudest, came every Saturday with his jar. In the seventh year
the bridge fell in one night, with nobody on it, and Mirela took the engine out of the mill again and hung it back into the ferry, and Petru
held the lamp for her and did not laugh at all."""

_BUCH = (
    "林小舟在山下开了一家修表铺。冬天没有客人的时候,他把坏表里的齿轮拼成小鸟。第一只小鸟送给了邻居家的女孩阿禾,后来镇上每个孩子都有一只。"
)

_SCRIPT = """NORA: The train is gone.
ELI: Then we walk.
NORA: In those shoes?
$$MASK$$: I have walked further in worse ones.
NORA: You always say so, Eli."""

_CODE = """def area(width, height):
    return width * height

def mean(values):
    return sum(values) / len(valuse)

def largest(values):
    return max(values)

def greet(name):
    return "Hello, " + name"""

_NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"

SAMPLE = (
    *of_values("passkey", [
        {"context": f"{_NOISE * 3}The pass key is 71432. Remember it. 71432 is the pass key.\n{_NOISE * 3}",
         "input": "What is the pass key?", "answer": "71432"}]),
    *of_values("number_string", [
        {"context": f"{_NOISE * 2}The sequence of digits is 2200599. Remember it. 2200599 is the sequence of digits.\n{_NOISE * 4}",
         "input": "What is the sequence of digits?", "answer": ["2200599"]}]),
    *of_values("kv_retrieval", [
        {"context": 'JSON data:\n{"a1-07": "f3-22", "b4-31": "9c-50", "c8-02": "77-e1"}', "input": '\nKey: "b4-31"', "answer": "9c-50"}]),
    *of_values("longbook_choice_eng", [
        {"context": _BOOK, "input": "What did the mill grind?", "options": ["Corn", "Oats", "Mustard", "Salt"], "answer": ["Mustard"]}]),
    *of_values("longbook_qa_eng", [{"context": _BOOK, "input": "Who held the lamp?", "answer": ["Petru", "Old Petru"]}]),
    *of_values("longbook_sum_eng", [
        {"context": _BOOK, "input": "", "answer": ["Mirela makes a mill of her ferry, and when the bridge falls a ferry of the mill."]}]),
    *of_values("longbook_qa_chn", [{"context": _BUCH, "input": "第一只小鸟送给了谁?", "answer": ["阿禾"]}]),
    *of_values("longdialogue_qa_eng", [{"context": _SCRIPT, "input": "", "answer": ["ELI"]}]),
    *of_values("math_find", [
        {"context": "[48, 13, 97, 60, 21]", "input": "You should answer with only one number. The largest number of the list is: ",
         "answer": 97}]),
    *of_values("math_calc", [{"context": "8 - 3 + 20 - 4 + 61", "input": "Its value is: ", "answer": [5, 25, 21, 82]}]),
    *of_values("code_run", [
        {"context": "def func_3(x):\n    return func_8(x) + 5\n\ndef func_8(x):\n    return x - 2\n",
         "input": "Please give me the exact number of the return value of func_3(4).", "answer": 7}]),
    *of_values("code_debug", [
        {"context": _CODE, "input": "", "options": ["area", "mean", "largest", "greet"], "answer": ["mean", "B"]}]),
)  # fmt: skip
