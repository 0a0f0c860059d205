"""Runs programs that import torch and transformers, each in a process that has imported them already, and nothing of longreach.

Importing both takes longer than all that a check of an export does. Lines of stdin say what to run, as JSON: the program's file and its
arguments, and the file that takes its errors; its exit status is the answer.
"""

import json
import os
import runpy
import sys
import traceback

import torch  # noqa: F401
from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401 - what loads models is imported when it is asked for

for line in sys.stdin:
    program, errors = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
        sys.argv = program
        status = 0
        try:
            runpy.run_path(program[0], run_name="__main__")
        except BaseException:  # noqa: BLE001 - whatever ends the program
            traceback.print_exc()
            status = 1
        os._exit(status)  # at once: taking down all that was imported takes a second
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
