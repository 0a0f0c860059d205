from longreach.core.errors import CheckpointError, InputError, LongreachError, SpecError, UnsupportedError


def test_an_unsupported_pair_says_what_why_and_what_to_do_instead():
    error = UnsupportedError("yarn:factor=8", "gpt2", "it has no rotary embedding", "use log_n")
    assert str(error) == "yarn:factor=8 cannot be used with gpt2: it has no rotary embedding; use log_n"
    assert (error.method, error.model, error.why, error.try_instead) == ("yarn:factor=8", "gpt2", "it has no rotary embedding", "use log_n")


def test_the_command_line_can_tell_our_errors_from_bugs():
    assert all(issubclass(error, LongreachError) for error in (SpecError, UnsupportedError, CheckpointError, InputError))


def test_wrong_values_are_value_errors_too():
    assert issubclass(SpecError, ValueError)
    assert issubclass(InputError, ValueError)
