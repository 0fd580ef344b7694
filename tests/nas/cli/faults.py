"""What a fault of the user's looks like on the command line: exit code 2, one message, no traceback."""


def assert_fault(result, *texts):
    code, out, err = result
    assert code == 2, (out, err)
    assert "Traceback" not in out + err
    for text in texts:
        assert text in err
